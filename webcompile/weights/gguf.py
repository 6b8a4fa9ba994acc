"""Weights of a GGUF file under the names and in the layout of Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from webcompile.errors import WebcompileError
from webcompile.weights.gguf_file import GGUFFile
from webcompile.weights.reader import Array, TensorInfo


@dataclass(frozen=True)
class NameMap:
    """How one architecture of llama.cpp names what Hugging Face names otherwise, without `.weight` and `.bias`.

    Rows of the `permuted` modules are interleaved for llama.cpp's rotary embedding; the value is the metadata key of
    their number of heads.
    """

    modules: Mapping[str, str]
    layer_modules: Mapping[str, str]
    permuted: Mapping[str, str]
    ignored: frozenset[str] = frozenset()


NAME_MAPS: dict[str, NameMap] = {
    "llama": NameMap(
        modules={"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
        layer_modules={
            "attn_norm": "input_layernorm",
            "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj",
            "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj",
        },
        permuted={"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"},
        ignored=frozenset({"rope_freqs.weight"}),  # a function of the config
    ),
}
"""`general.architecture` → names. What is not here is not supported."""

_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_NAME = re.compile(r"(\w+)\.(weight|bias)")


class GGUFWeights:
    """A GGUF file as a `WeightReader`; closes it.

    Raises WebcompileError("architecture_unsupported") for an architecture without a name map and
    WebcompileError("tensor_mismatch") for a tensor that the map does not know.
    """

    def __init__(self, file: GGUFFile) -> None:
        architecture = file.metadata.get("general.architecture")
        if architecture not in NAME_MAPS:
            raise WebcompileError(
                "architecture_unsupported",
                f"{file.path}: got GGUF architecture {str(architecture)[:40]!r}, expected one of {', '.join(NAME_MAPS)}",
                "the safetensors version of the model may be supported",
            )
        self._file = file
        self._map = NAME_MAPS[architecture]
        self._stored_names = {self._published_name(name): name for name in file.tensors if name not in self._map.ignored}
        self.infos: Mapping[str, TensorInfo] = {
            name: file.tensors[stored].info for name, stored in self._stored_names.items()
        }

    def read(self, name: str) -> Array:
        """See `WeightReader.read`."""
        if name not in self._stored_names:
            raise WebcompileError("tensor_mismatch", f"{self._file.path}: no tensor {name!r}")
        stored = self._stored_names[name]
        tensor = self._file.read(stored)
        layer = _LAYER_NAME.fullmatch(stored)
        heads_key = self._map.permuted.get(layer[2]) if layer else None
        return unpermute(tensor, self._num_heads(heads_key)) if heads_key else tensor

    def close(self) -> None:
        """See `WeightReader.close`."""
        self._file.close()

    def _published_name(self, stored: str) -> str:
        if layer := _LAYER_NAME.fullmatch(stored):
            index, module, kind = layer.groups()
            if module in self._map.layer_modules:
                return f"model.layers.{index}.{self._map.layer_modules[module]}.{kind}"
        if (plain := _NAME.fullmatch(stored)) and plain[1] in self._map.modules:
            return f"{self._map.modules[plain[1]]}.{plain[2]}"
        raise WebcompileError("tensor_mismatch", f"{self._file.path}: unexpected tensor {stored!r}")

    def _num_heads(self, key: str) -> int:
        metadata = self._file.metadata
        num_heads = metadata.get(key, metadata.get(key.removesuffix("_kv")))  # no KV head count: as many as heads
        if not isinstance(num_heads, int) or num_heads < 1:
            raise WebcompileError(
                "weights_invalid", f"{self._file.path}: {key}: expected a number, got {str(num_heads)[:40]}"
            )
        return num_heads


def unpermute(tensor: Array, num_heads: int) -> Array:
    """Rows [heads * d, ...] from llama.cpp's order within a head (0, d/2, 1, d/2+1, ...) to Hugging Face's (0, 1, ...)."""
    if tensor.shape[0] % (2 * num_heads):
        raise WebcompileError("weights_invalid", f"{tensor.shape[0]} rows cannot be split into {num_heads} even heads")
    halves = tensor.reshape(num_heads, tensor.shape[0] // num_heads // 2, 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)
