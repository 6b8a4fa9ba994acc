"""Compressed forms of the site's text and wasm files, made ahead of the request."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

from webcompile.assets import cache_folder
from webcompile.serve.site_files import COMPRESSIBLE, SiteFile

SUFFIXES = {"br": ".br", "gzip": ".gz"}
"""Content coding → suffix of the neighbour file, best first."""


def is_compressible(file: SiteFile) -> bool:
    """Whether a compressed form is worth having. Small files fit one packet either way."""
    return file.path.suffix in COMPRESSIBLE and file.path.stat().st_size >= 1024


def neighbours(path: Path) -> dict[str, Path]:
    """Compressed forms that already lie beside the file and are not older than it."""
    changed = path.stat().st_mtime
    found = {}
    for coding, suffix in SUFFIXES.items():
        beside = path.with_name(path.name + suffix)
        if beside.is_file() and beside.stat().st_mtime >= changed:
            found[coding] = beside
    return found


def compress(data: bytes, coding: str) -> bytes | None:
    """The smallest form in a content coding; None where the `brotli` package is not installed."""
    if coding == "gzip":
        return gzip.compress(data, 9, mtime=0)
    try:
        brotli: Any = importlib.import_module("brotli")
    except ImportError:
        return None
    packed: bytes = brotli.compress(data, quality=11)
    return packed


def cached_gzip(file: SiteFile) -> Path:
    """A gzip form in the user's cache folder. Brotli's best level would delay the start by seconds.

    Kept by the hash of what is there, not by the recorded one: a damaged file must not spoil the cache for a whole one.
    """
    data = file.path.read_bytes()
    path = cache_folder() / "compressed" / f"{hashlib.sha256(data).hexdigest()}.gz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.write_bytes(gzip.compress(data, 6, mtime=0))
        aside.replace(path)
    return path
