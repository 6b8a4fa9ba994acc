"""The generated C++ and TypeScript sides say what `contracts.py` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from webcompile import contracts

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("path", contracts.generated_files(ROOT), ids=lambda path: path.name)
def test_generated_files_are_current(path: Path) -> None:
    assert path.read_text() == contracts.generated_files(ROOT)[path], "run `python -m webcompile.contracts`"


def test_exports_and_imports_have_names_of_their_own() -> None:
    names = [function.name for function in (*contracts.RUNTIME_EXPORTS, *contracts.RUNTIME_IMPORTS)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("wc_") for name in names)
