"""A recurrent model in the browser: its states after a step too many, at the end of an answer and at the end of a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.architectures import MODELS
from tests.engine_artifact import tokenizer_json
from tests.test_build import build
from tests.test_models import published
from webcompile.browser.engine import BrowserEngine
from webcompile.engine.engine import Engine
from webcompile.engine.sequence import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
PAGES = {"rwkv": 256, "mamba2": 1024}


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, "eos_token_id": 2}))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    save_file(published(config), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_turns_of_a_conversation_give_the_tokens_of_the_cpu(name: str, tmp_path: Path) -> None:
    [config] = [model.values[0].config for model in MODELS if model.id == name]
    source, folder = write_model(tmp_path / "model", config), tmp_path / "out"
    for target in ("cpu", "webgpu"):
        build(source, folder, target=target, quantization="q0f32")
    rng, page = np.random.default_rng(0), PAGES[name]
    first = rng.integers(3, 259, page + 20).tolist()
    with Engine(folder) as native, BrowserEngine(folder) as engine:
        answers = []
        for prompt, cached in (
            (first, 0),
            (lambda: [*first, *answers[0], 7, 8, 9], len(first) + GREEDY.max_tokens - 1),
            (lambda: [*first[:-3], 5, 6], page),
        ):
            prompt_ids = prompt() if callable(prompt) else prompt
            answer = engine.answer(prompt_ids, GREEDY)
            assert answer.token_ids == native.answer(prompt_ids, GREEDY).token_ids
            assert answer.usage.cached_prompt_tokens == cached
            answers.append(answer.token_ids)
