"""The table of modules that TVM packs beside a library's host code: `__tvm_ffi__library_bin`.

All numbers are little endian. The table: u64 length of what follows, the tree of imports as two vectors of u64 (each with
its length in front), then for each module its kind as text, and its bytes unless the kind is "_lib", the host code itself.
Texts and bytes have their length as u64 in front. A "cuda" module's bytes: format as text, kernels, code as bytes. A kernel:
its name twice, argument types (4 bytes each), launch tags, extra tags (i32 each).
"""

from __future__ import annotations

import struct
from collections.abc import Callable


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self) -> int:
        (value,) = struct.unpack_from("<Q", self.data, self.at)
        self.at += 8
        return int(value)

    def skip(self, nbytes: int) -> None:
        self.at += nbytes

    def text(self) -> bytes:
        size = self.number()
        self.skip(size)
        return self.data[self.at - size : self.at]


def rewrite_modules(table: bytes, kind: str, rewrite: Callable[[bytes], bytes]) -> bytes:
    """The table with the bytes of each module of `kind` replaced."""
    reader = _Reader(table, 8)
    num_modules = reader.number() - 1
    reader.skip(8 * (num_modules + 1))
    reader.skip(8 * reader.number())
    parts = [table[8 : reader.at]]
    for _ in range(num_modules):
        found = reader.text()
        parts.append(_sized(found))
        if found != b"_lib":
            content = reader.text()
            parts.append(_sized(rewrite(content) if found == kind.encode() else content))
    return _sized(b"".join(parts))


def compile_cuda_module(module: bytes, compile_source: Callable[[str], bytes]) -> bytes:
    """A "cuda" module that TVM left as source, with machine code in its place; any other as it is."""
    reader = _Reader(module)
    if reader.text() != b"cuda":
        return module
    start = reader.at
    for _ in range(reader.number()):
        reader.text()
        reader.text()
        reader.skip(4 * reader.number())
        for _ in range(reader.number()):
            reader.text()
        reader.skip(4 * reader.number())
    kernels = module[start : reader.at]
    return _sized(b"fatbin") + kernels + _sized(compile_source(reader.text().decode()))


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data
