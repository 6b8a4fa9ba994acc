"""Compiled libraries, each loaded once however many engines use it, and freed with the last of them.

A library finds its kernels through variables of its own, of which a process has one set: two modules over one file would
share them, and be left with nothing when the first is freed. Filling them in is no business for two threads at once.
"""

from __future__ import annotations

import threading
import weakref
from pathlib import Path

import tvm  # noqa: F401  its runtime comes first
import tvm_ffi


class LoadedLibrary:
    """TVM's module of a library. Whoever calls into it holds the lock; on a GPU such calls only enqueue."""

    def __init__(self, path: Path) -> None:
        # TVM would otherwise keep it, and with it the device's compiled kernels, for as long as the process lives.
        self.module = tvm_ffi.load_module(path, keep_module_alive=False)
        self.lock = threading.Lock()


_loaded: weakref.WeakValueDictionary[tuple[int, int], LoadedLibrary] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load_library(path: Path) -> LoadedLibrary:
    """The library in the file. Raises what TVM raises."""
    status = path.stat()
    key = (status.st_dev, status.st_ino)  # what the system's loader goes by
    with _loading:
        library = _loaded.get(key)
        if library is None:
            library = _loaded[key] = LoadedLibrary(path)
        return library
