"""Compiles a model of Llama-3-8B's shape with random weights: how long that takes, and in how much memory.

    python -m e2e.bench.large_model [--layers 32] [--quantization q4f16_1] [--folder DIR]

First the weights are written as they would be published, a safetensors file for each layer (16 GB of bfloat16); then
`webcompile` reads that folder like any other. Prints JSON; the folder is removed in the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from webcompile.cli.versions import versions
from webcompile.engine.machine import processor_name
from webcompile.hub import demo, gguf

HIDDEN, FFN, KV, VOCAB = 4096, 14336, 1024, 128256
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
}
"""As published for Llama 3 8B; the number of layers is added."""


def main() -> int:
    """Writes the model, compiles it, prints what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--quantization", default="q4f16_1")
    parser.add_argument("--folder", type=Path, help="where there is room for 25 GB (default: the system's temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        published, artifact = Path(folder, "published"), Path(folder, "artifact")
        nbytes = write_model(published, arguments.layers)
        command = ["webcompile", str(published), "--quantization", arguments.quantization, "-o", str(artifact), "--json"]
        done = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    wanted = ("quantization", "num_parameters", "weights_nbytes", "libraries", "seconds", "peak_memory_nbytes")
    figures = {"published_nbytes": nbytes, **{name: report[name] for name in wanted}}
    print(json.dumps({**figures, "processor": processor_name(), "versions": versions()}, indent=1))
    return 0


def write_model(folder: Path, num_layers: int) -> int:
    """A Hugging Face folder with random weights; bytes of these. The tokenizer is the demo's: any will do."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": num_layers}))
    with_tokenizer = gguf.load(demo.find_file())
    with_tokenizer.weights.close()
    for name, content in with_tokenizer.tokenizer_files.items():
        (folder / name).write_bytes(content)
    # The same random numbers over and over: making others would take longer than what is measured.
    block = (0.02 * np.random.default_rng(0).standard_normal(1 << 22, np.float32)).astype(ml_dtypes.bfloat16)
    files: dict[str, str] = {}
    nbytes = 0
    for number, shapes in enumerate(_shards(num_layers)):
        file = f"model-{number:05d}.safetensors"
        tensors = {name: np.resize(block, shape) for name, shape in shapes.items()}
        save_file(tensors, folder / file)
        files |= dict.fromkeys(tensors, file)
        nbytes += sum(tensor.nbytes for tensor in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return nbytes


def _shards(num_layers: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors, file by file."""
    yield {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(num_layers):
        attention = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (KV, HIDDEN), "v_proj": (KV, HIDDEN), "o_proj": (HIDDEN, HIDDEN)}
        mlp = {"gate_proj": (FFN, HIDDEN), "up_proj": (FFN, HIDDEN), "down_proj": (HIDDEN, FFN)}
        shapes = {f"self_attn.{name}": shape for name, shape in attention.items()}
        shapes |= {f"mlp.{name}": shape for name, shape in mlp.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        of_layer: dict[str, tuple[int, ...]] = {**shapes, **dict.fromkeys(norms, (HIDDEN,))}
        yield {f"model.layers.{i}.{name}.weight": shape for name, shape in of_layer.items()}
    yield {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


if __name__ == "__main__":
    sys.exit(main())
