"""The field's shard format, `tensor-cache.json` with `params_shard_*.bin`: what it says, and a reader.

Shards are tensors one after another, little endian, C order. Format "f32-to-bf16" stores float32 tensors as their upper
16 bits and leaves other dtypes as they are. Weights published for MLC read the same way as ours.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from webcompile.config import from_json
from webcompile.errors import WebcompileError
from webcompile.manifest import FileEntry
from webcompile.weights.files import check_plain_name, forget_pages, map_file, parse_json_object, read_bytes
from webcompile.weights.reader import DTYPES, Array, TensorInfo

INDEX_NAME = "tensor-cache.json"
SHARD_FORMAT = "raw-shard"
RAW, F32_TO_BF16 = "raw", "f32-to-bf16"

_REBUILD = "build the artifact again or copy it again"


@dataclass(frozen=True)
class TensorRecord:
    """One tensor, with the keys of the format. `dtype` is what it is read as, `nbytes` what it takes in the shard."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    format: str
    nbytes: int
    byteOffset: int


@dataclass(frozen=True)
class ShardRecord:
    """One shard file, with the keys of the format."""

    dataPath: str
    format: str
    nbytes: int
    records: tuple[TensorRecord, ...]
    md5sum: str = ""


class TensorCache:
    """Reads shards as a `WeightReader`; raw tensors are views of the mapped files.

    With `files`, the manifest's list, the index is checked against its sha256 at once and each shard when it is first
    read. Raises WebcompileError("artifact_invalid") when index and shards do not fit one another, and
    WebcompileError("artifact_corrupt") naming the file, the expected and the actual hash.
    """

    def __init__(self, folder: Path, files: Iterable[FileEntry] = (), index: str = INDEX_NAME) -> None:
        self.folder = folder
        self._entries = {entry.path: entry for entry in files}
        data = read_bytes(folder / index, "artifact_invalid")
        self._check_hash(index, np.frombuffer(data, np.uint8))
        self.shards = _parse_index(data, str(folder / index))
        self._located: dict[str, tuple[ShardRecord, TensorRecord]] = {}
        for shard in self.shards:
            self._check_shard(shard)
        self.infos: Mapping[str, TensorInfo] = {
            name: TensorInfo(record.shape, record.dtype) for name, (_, record) in self._located.items()
        }
        self._maps: dict[str, npt.NDArray[np.uint8]] = {}
        self._is_closed = False

    def read(self, name: str) -> Array:
        """See `WeightReader.read`; bfloat16 storage is widened to float32."""
        if name not in self._located or self._is_closed:
            raise WebcompileError("tensor_mismatch", f"{self.folder}: no tensor {name!r}")
        shard, record = self._located[name]
        mapped = self._map(shard)
        forget_pages(mapped)
        stored = mapped[record.byteOffset : record.byteOffset + record.nbytes]
        if is_narrowed(record.dtype, record.format):
            widened = stored.view("<u2").astype(np.uint32)
            widened <<= 16
            return widened.view(np.float32).reshape(record.shape)
        return stored.view(DTYPES[record.dtype]).reshape(record.shape)

    def close(self) -> None:
        """See `WeightReader.close`."""
        self._maps.clear()
        self._is_closed = True

    def _map(self, shard: ShardRecord) -> npt.NDArray[np.uint8]:
        if shard.dataPath not in self._maps:
            data = map_file(self.folder / shard.dataPath, "artifact_invalid")
            self._check_hash(shard.dataPath, data)
            self._maps[shard.dataPath] = data
        return self._maps[shard.dataPath]

    def _check_hash(self, path: str, data: npt.NDArray[np.uint8]) -> None:
        if not self._entries:
            return
        if path not in self._entries:
            raise WebcompileError("artifact_invalid", f"{self.folder}: the manifest does not list {path}", _REBUILD)
        expected, got = self._entries[path].sha256, hashlib.sha256(data.data).hexdigest()
        if got != expected:
            raise WebcompileError(
                "artifact_corrupt", f"{self.folder / path}: expected sha256 {expected}, got {got}", _REBUILD
            )

    def _check_shard(self, shard: ShardRecord) -> None:
        path = self.folder / check_plain_name(shard.dataPath, f"{self.folder}: dataPath", "artifact_invalid")
        if not path.is_file():
            raise _invalid(path, "the file is missing")
        if path.stat().st_size != shard.nbytes:
            raise _invalid(path, f"expected {shard.nbytes} bytes, got {path.stat().st_size}")
        for record in shard.records:
            if record.name in self._located:
                raise _invalid(path, f"tensor {record.name!r} is there twice")
            self._located[record.name] = (shard, record)
            expected = stored_nbytes(record.shape, record.dtype, record.format, f"{path}: tensor {record.name!r}")
            if record.nbytes != expected:
                raise _invalid(path, f"tensor {record.name!r} takes {expected} bytes, got nbytes {record.nbytes}")
            if not 0 <= record.byteOffset <= shard.nbytes - record.nbytes:
                raise _invalid(
                    path, f"tensor {record.name!r} at byte {record.byteOffset} leaves the shard of {shard.nbytes} bytes"
                )


def stored_nbytes(shape: tuple[int, ...], dtype: str, storage_format: str, where: str) -> int:
    """Bytes of a tensor in a shard. Raises WebcompileError("artifact_invalid") for combinations the format lacks."""
    if dtype not in DTYPES or any(size < 0 for size in shape):
        raise WebcompileError(
            "artifact_invalid", f"{where}: got {dtype} {list(shape)}, expected a dtype of {', '.join(DTYPES)}"
        )
    if storage_format not in (RAW, F32_TO_BF16):
        raise WebcompileError(
            "artifact_invalid", f"{where}: got format {storage_format!r}, expected {RAW!r} or {F32_TO_BF16!r}"
        )
    return math.prod(shape) * (2 if is_narrowed(dtype, storage_format) else DTYPES[dtype].itemsize)


def is_narrowed(dtype: str, storage_format: str) -> bool:
    """Whether a tensor is stored as bfloat16; TVM's writer says "f32-to-bf16" of tensors of any dtype."""
    return dtype == "float32" and storage_format == F32_TO_BF16


def _parse_index(data: bytes, where: str) -> tuple[ShardRecord, ...]:
    shards = parse_json_object(data, where, "artifact_invalid").get("records")
    return from_json(
        tuple[ShardRecord, ...], _with_known_keys(shards, ShardRecord), where=f"{where}: records", code="artifact_invalid"
    )


def _with_known_keys(items: Any, cls: type) -> Any:
    """Parsed JSON without the keys that `cls` lacks: other writers add some of their own."""
    names = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return items  # from_json says what is wrong
    known = [{key: value for key, value in item.items() if key in names} for item in items]
    if cls is ShardRecord:
        known = [{**item, "records": _with_known_keys(item.get("records"), TensorRecord)} for item in known]
    return known


def _invalid(path: Path, what: str) -> WebcompileError:
    return WebcompileError("artifact_invalid", f"{path}: {what}", _REBUILD)
