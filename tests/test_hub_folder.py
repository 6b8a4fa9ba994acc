import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from webcompile.errors import WebcompileError
from webcompile.hub.source import resolve
from webcompile.progress import SilentProgress


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "from the config"}')
    safetensors.numpy.save_file({"w": np.ones(4, np.float32)}, folder / "model.safetensors")
    return folder


def load_error(folder: Path) -> WebcompileError:
    with pytest.raises(WebcompileError) as caught:
        resolve(str(folder), SilentProgress())
    return caught.value


def test_a_folder_gives_all_parts_of_the_model(folder: Path) -> None:
    source = resolve(str(folder), SilentProgress())
    assert source.name == "tiny-llama"
    assert source.config == {"model_type": "llama", "hidden_size": 8}
    assert source.tokenizer_files == {
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"chat_template": "from the config"}',
    }
    assert source.chat_template == "from the config"
    assert source.weights.read("w").sum() == 4


def test_a_relative_path_is_named_like_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert resolve(".", SilentProgress()).name == "tiny-llama"


def test_the_template_file_wins_and_lists_have_a_default(folder: Path) -> None:
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert resolve(str(folder), SilentProgress()).chat_template == "plain"
    (folder / "chat_template.jinja").write_text("ä from the file")
    assert resolve(str(folder), SilentProgress()).chat_template == "ä from the file"


def test_a_model_without_template(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "generation_config.json").write_text("{}")
    source = resolve(str(folder), SilentProgress())
    assert source.chat_template == ""
    assert set(source.tokenizer_files) == {"tokenizer.json", "generation_config.json"}


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    error = load_error(folder)
    assert error.code == "model_invalid" and f"{file} is missing" in error.message and error.hint


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 200_000])
def test_a_broken_file_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    error = load_error(folder)
    assert error.code == "model_invalid" and str(folder / file) in error.message


def test_a_template_of_another_type_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"chat_template": 7}')
    assert "chat_template: expected a string, got int" in load_error(folder).message


def test_a_file_of_unreasonable_size_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 40)
    assert "expected at most" in load_error(folder).message


def test_the_fingerprint_follows_every_file(folder: Path) -> None:
    prints = [resolve(str(folder), SilentProgress()).fingerprint]
    assert resolve(str(folder), SilentProgress()).fingerprint == prints[0]
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 9}')
    prints.append(resolve(str(folder), SilentProgress()).fingerprint)
    safetensors.numpy.save_file({"w": np.full(4, 2, np.float32)}, folder / "model.safetensors")
    prints.append(resolve(str(folder), SilentProgress()).fingerprint)
    (folder / "chat_template.jinja").write_text("new")
    prints.append(resolve(str(folder), SilentProgress()).fingerprint)
    assert len(set(prints)) == 4
