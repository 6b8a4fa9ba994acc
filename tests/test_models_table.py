"""The table of architectures says what the tests do, and the page what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architectures import MODELS
from webcompile.cli.main import main
from webcompile.models import architecture, model_types
from webcompile.models.common.table import TESTED

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"


def test_the_table_says_what_is_tested() -> None:
    tested: dict[str, tuple[str, int]] = {}
    for param in MODELS:
        model = param.values[0]
        layers = architecture(model.config).config.layers
        # The first entry of a model_type is its usual form.
        usual = model.reference["model_type"], max(5 + len(layer.extra_dispatches) for layer in layers)
        tested.setdefault(model.config["model_type"], usual)
    assert tested == TESTED
    assert set(model_types()) == set(TESTED)


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m webcompile models --markdown > docs/models.md`"""
    assert main(["models", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text()


def test_the_command_prints_every_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["model_type", *model_types()]
