"""Writes `tensor-cache.json` and its shards, one tensor at a time.

Everything is written aside and moved into place by `finish`, the index last: a folder with an index is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from webcompile.config import to_json
from webcompile.errors import WebcompileError
from webcompile.manifest import FileEntry
from webcompile.weights.reader import DTYPES
from webcompile.weights.tensor_cache import (
    INDEX_NAME,
    RAW,
    SHARD_FORMAT,
    ShardRecord,
    TensorRecord,
    is_narrowed,
    stored_nbytes,
)

SHARD_NBYTES = 32 << 20
_PARTIAL_NAME = "weights.partial"
_SHARD_PATTERN = "params_shard_*.bin"


class ShardWriter:
    """Writes tensors into `folder`; use it as a context manager.

        with ShardWriter(folder) as writer:
            writer.add("model.norm.weight", array)
            files = writer.finish(num_parameters)

    A shard holds up to `shard_nbytes`; a tensor that does not fit and is at least half that large gets its own shard, as in
    MLC's writer. At most one shard is in memory. Without `finish` nothing of what was written stays, and what the folder
    held before is untouched.
    Raises WebcompileError("storage_full") when the disk is full.
    """

    def __init__(self, folder: Path, *, shard_nbytes: int = SHARD_NBYTES) -> None:
        self._folder = folder
        self._partial = folder / _PARTIAL_NAME
        self._shard_nbytes = shard_nbytes
        self._shards: list[ShardRecord] = []
        self._files: list[FileEntry] = []
        self._names: set[str] = set()
        self._pending: list[tuple[TensorRecord, npt.NDArray[np.uint8]]] = []
        self._pending_nbytes = 0
        shutil.rmtree(self._partial, ignore_errors=True)  # left by a run that was killed
        self._partial.mkdir(parents=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, name: str, array: npt.NDArray[Any], storage_format: str = RAW) -> None:
        """Appends a tensor. `storage_format` "f32-to-bf16" rounds float32 to the nearest bfloat16, "raw" keeps all bits.

        Raises WebcompileError("tensor_mismatch") for a name that was added before.
        """
        if name in self._names:
            raise WebcompileError("tensor_mismatch", f"tensor {name!r} was added to the shards twice")
        self._names.add(name)
        dtype = array.dtype.name
        nbytes = stored_nbytes(array.shape, dtype, storage_format, f"tensor {name!r}")
        fits = self._pending_nbytes + nbytes <= self._shard_nbytes
        if not fits and nbytes * 2 >= self._shard_nbytes:
            record = TensorRecord(name, array.shape, dtype, storage_format, nbytes, 0)
            self._write_shard([(record, _stored_bytes(array, storage_format))])
            return
        if not fits:
            self._flush()
        record = TensorRecord(name, array.shape, dtype, storage_format, nbytes, self._pending_nbytes)
        self._pending.append((record, _stored_bytes(array, storage_format).copy()))
        self._pending_nbytes += nbytes

    def finish(self, num_parameters: int = 0) -> list[FileEntry]:
        """Puts the shards and the index in place of those in the folder; entries of all of them, the index last.

        `num_parameters` of the model before quantization gives the index its bits per parameter.
        """
        self._flush()
        index = json.dumps(self._index(num_parameters), indent=1).encode()
        self._write(INDEX_NAME, [np.frombuffer(index, np.uint8)])
        (self._folder / INDEX_NAME).unlink(missing_ok=True)  # from here to the last move the folder has no weights
        for stale in self._folder.glob(_SHARD_PATTERN):
            stale.unlink()
        for entry in self._files:
            (self._partial / entry.path).replace(self._folder / entry.path)
        shutil.rmtree(self._partial)
        return list(self._files)

    def _flush(self) -> None:
        if self._pending:
            self._write_shard(self._pending)
        self._pending = []
        self._pending_nbytes = 0

    def _write_shard(self, tensors: list[tuple[TensorRecord, npt.NDArray[np.uint8]]]) -> None:
        path = _SHARD_PATTERN.replace("*", str(len(self._shards)))
        md5 = self._write(path, [data for _, data in tensors])
        records = tuple(record for record, _ in tensors)
        self._shards.append(ShardRecord(path, SHARD_FORMAT, sum(record.nbytes for record in records), records, md5))

    def _write(self, path: str, parts: list[npt.NDArray[np.uint8]]) -> str:
        """Writes a file aside and lists it; its md5 in hexadecimal."""
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with (self._partial / path).open("wb") as file:
                for part in parts:
                    file.write(part.data)
                    sha256.update(part.data)
                    md5.update(part.data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            free = shutil.disk_usage(self._folder).free
            raise WebcompileError(
                "storage_full",
                f"{self._folder}: no room for {path}, {free} bytes are free",
                "free some space or choose another folder",
            ) from error
        self._files.append(FileEntry(path, sum(part.size for part in parts), sha256.hexdigest()))
        return md5.hexdigest()

    def _index(self, num_parameters: int) -> dict[str, Any]:
        records = [record for shard in self._shards for record in shard.records]
        nbytes = sum(stored_nbytes(record.shape, record.dtype, RAW, record.name) for record in records)
        bits = 8 * nbytes / num_parameters if num_parameters else 0.0
        metadata = {"ParamSize": len(records), "ParamBytes": nbytes, "BitsPerParam": bits}
        return {"metadata": metadata, "records": to_json(self._shards)}


def _stored_bytes(array: npt.NDArray[Any], storage_format: str) -> npt.NDArray[np.uint8]:
    dtype = DTYPES["bfloat16" if is_narrowed(array.dtype.name, storage_format) else array.dtype.name]
    return np.ascontiguousarray(array, dtype=dtype).reshape(-1).view(np.uint8)
