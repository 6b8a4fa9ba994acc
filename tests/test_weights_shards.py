"""Shards written and read back, what an interruption leaves, and what damage is called."""

import errno
import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from webcompile.errors import WebcompileError
from webcompile.manifest import FileEntry
from webcompile.weights.shards import ShardWriter
from webcompile.weights.tensor_cache import TensorCache


def ramp(nbytes: int, start: int = 0) -> np.ndarray:
    return (np.arange(nbytes) + start).astype(np.uint8)


def write(
    folder: Path, tensors: dict[str, np.ndarray], shard_nbytes: int = 32 << 20, storage: str = "raw"
) -> list[FileEntry]:
    with ShardWriter(folder, shard_nbytes=shard_nbytes) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor, storage)
        return writer.finish()


def layout(folder: Path) -> list[list[tuple[str, int, int]]]:
    index = json.loads((folder / "tensor-cache.json").read_text())
    return [[(r["name"], r["byteOffset"], r["nbytes"]) for r in shard["records"]] for shard in index["records"]]


def test_the_index_has_every_key_of_the_format(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.add("w", np.arange(6, dtype=np.uint32).reshape(2, 3))
        writer.add("s", np.array([1.0, -2.5], np.float32), "f32-to-bf16")
        files = writer.finish(num_parameters=16)
    data = np.arange(6, dtype="<u4").tobytes() + np.array([1.0, -2.5]).astype(ml_dtypes.bfloat16).tobytes()
    assert (tmp_path / "params_shard_0.bin").read_bytes() == data
    assert json.loads((tmp_path / "tensor-cache.json").read_text()) == {
        "metadata": {"ParamSize": 2, "ParamBytes": 32, "BitsPerParam": 16.0},
        "records": [
            {
                "dataPath": "params_shard_0.bin",
                "format": "raw-shard",
                "nbytes": 28,
                "md5sum": hashlib.md5(data).hexdigest(),
                "records": [
                    {"name": "w", "shape": [2, 3], "dtype": "uint32", "format": "raw", "nbytes": 24, "byteOffset": 0},
                    {"name": "s", "shape": [2], "dtype": "float32", "format": "f32-to-bf16", "nbytes": 4, "byteOffset": 24},
                ],
            }
        ],
    }
    assert files[0] == FileEntry("params_shard_0.bin", 28, hashlib.sha256(data).hexdigest())
    assert [file.path for file in files] == ["params_shard_0.bin", "tensor-cache.json"]


def test_tensors_come_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {dtype: random.normal(size=(3, 4)).astype(dtype) for dtype in ("float16", "float32", "int8", "uint32")}
    tensors["bfloat16"] = random.normal(size=(2, 5)).astype(ml_dtypes.bfloat16)
    tensors["scalar"] = np.array(2.5, np.float32)
    tensors["empty"] = np.zeros((0, 3), np.float16)
    tensors["transposed"] = np.arange(6, dtype=np.int32).reshape(2, 3).T
    reader = TensorCache(tmp_path, write(tmp_path, tensors))
    assert list(reader.infos) == list(tensors)
    for name, expected in tensors.items():
        tensor = reader.read(name)
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(tensor, expected)


def test_bfloat16_storage_rounds_to_nearest_and_is_widened(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    reader = TensorCache(tmp_path, write(tmp_path, {"s": values}, storage="f32-to-bf16"))
    np.testing.assert_array_equal(reader.read("s"), values.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_shard_is_closed_before_it_overflows_and_large_tensors_stand_alone(tmp_path: Path) -> None:
    tensors = {"a": ramp(40), "b": ramp(60), "c": ramp(10), "large": ramp(300), "d": ramp(20), "e": ramp(95), "f": ramp(40)}
    reader = TensorCache(tmp_path, write(tmp_path, tensors, shard_nbytes=100))
    assert layout(tmp_path) == [
        [("a", 0, 40), ("b", 40, 60)],
        [("large", 0, 300)],
        [("e", 0, 95)],
        [("c", 0, 10), ("d", 10, 20), ("f", 30, 40)],
    ]
    for name, expected in tensors.items():
        np.testing.assert_array_equal(reader.read(name), expected)


def test_a_new_set_replaces_an_old_one_wholly(tmp_path: Path) -> None:
    write(tmp_path, {"a": ramp(50), "b": ramp(60), "c": ramp(70)}, shard_nbytes=64)
    (tmp_path / "manifest.json").write_text("{}")
    write(tmp_path, {"z": ramp(9)})
    assert {path.name for path in tmp_path.iterdir()} == {"params_shard_0.bin", "tensor-cache.json", "manifest.json"}
    assert list(TensorCache(tmp_path).infos) == ["z"]


def test_an_interrupted_run_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, {"a": ramp(50)})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, shard_nbytes=10) as writer:
        writer.add("b", ramp(30))
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_after_one_that_was_killed_starts_clean(tmp_path: Path) -> None:
    killed = ShardWriter(tmp_path, shard_nbytes=10)
    killed.add("b", ramp(30))
    assert not (tmp_path / "tensor-cache.json").exists()
    write(tmp_path, {"a": ramp(5)})
    assert {path.name for path in tmp_path.iterdir()} == {"params_shard_0.bin", "tensor-cache.json"}


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with ShardWriter(tmp_path) as writer:
        writer.add("a", ramp(5))
        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(WebcompileError, match=r"no room for params_shard_0\.bin") as caught:
            writer.finish()
    assert caught.value.code == "storage_full"


def test_a_name_cannot_be_added_twice(tmp_path: Path) -> None:
    with ShardWriter(tmp_path) as writer:
        writer.add("a", ramp(5))
        with pytest.raises(WebcompileError, match="'a' was added to the shards twice"):
            writer.add("a", ramp(5))


def test_only_float32_is_narrowed(tmp_path: Path) -> None:
    reader = TensorCache(tmp_path, write(tmp_path, {"a": ramp(5)}, storage="f32-to-bf16"))
    np.testing.assert_array_equal(reader.read("a"), ramp(5))


def test_a_changed_shard_is_named_with_both_hashes(tmp_path: Path) -> None:
    files = write(tmp_path, {"a": ramp(50), "b": ramp(60)}, shard_nbytes=64)
    damaged = bytearray((tmp_path / "params_shard_1.bin").read_bytes())
    damaged[7] ^= 1
    (tmp_path / "params_shard_1.bin").write_bytes(damaged)
    reader = TensorCache(tmp_path, files)
    np.testing.assert_array_equal(reader.read("b"), ramp(60))
    got = hashlib.sha256(damaged).hexdigest()
    with pytest.raises(
        WebcompileError, match=rf"params_shard_1\.bin: expected sha256 {files[1].sha256}, got {got}"
    ) as caught:
        reader.read("a")
    assert caught.value.code == "artifact_corrupt"


def test_a_changed_index_is_noticed(tmp_path: Path) -> None:
    files = write(tmp_path, {"a": ramp(50)})
    index = tmp_path / "tensor-cache.json"
    index.write_text(index.read_text() + " ")
    with pytest.raises(WebcompileError, match=r"tensor-cache\.json: expected sha256") as caught:
        TensorCache(tmp_path, files)
    assert caught.value.code == "artifact_corrupt"


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("shard", "dataPath", "../x.bin", "plain name"),
        ("shard", "dataPath", "params_shard_9.bin", "the file is missing"),
        ("shard", "nbytes", 51, "expected 51 bytes, got 50"),
        ("tensor", "byteOffset", 1, "leaves the shard"),
        ("tensor", "byteOffset", -1, "leaves the shard"),
        ("tensor", "nbytes", 49, "takes 50 bytes, got nbytes 49"),
        ("tensor", "shape", [-50], "got uint8"),
        ("tensor", "shape", "50", "expected a list"),
        ("tensor", "dtype", "object", "got object"),
        ("tensor", "format", "zip", "format 'zip'"),
        ("tensor", "name", None, "expected str"),
        ("tensor", "name", "b", "'b' is there twice"),
    ],
)
def test_a_lying_index_is_refused(tmp_path: Path, where: str, key: str, value: object, message: str) -> None:
    write(tmp_path, {"a": ramp(50), "b": ramp(50)}, shard_nbytes=64)
    index = json.loads((tmp_path / "tensor-cache.json").read_text())
    shard = next(shard for shard in index["records"] if shard["records"][0]["name"] == "a")
    (shard if where == "shard" else shard["records"][0])[key] = value
    (tmp_path / "tensor-cache.json").write_text(json.dumps(index))
    with pytest.raises(WebcompileError, match=message) as caught:
        TensorCache(tmp_path)
    assert caught.value.code == "artifact_invalid"


def test_indexes_of_other_writers_with_more_keys_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"a": ramp(50)})
    index = json.loads((tmp_path / "tensor-cache.json").read_text())
    index["records"][0]["extra"] = index["records"][0]["records"][0]["extra"] = 1
    del index["records"][0]["md5sum"]
    (tmp_path / "tensor-cache.json").unlink()
    (tmp_path / "ndarray-cache.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(TensorCache(tmp_path, index="ndarray-cache.json").read("a"), ramp(50))


def test_tvm_reads_what_we_write_and_we_read_what_tvm_writes(tmp_path: Path) -> None:
    """The format is TVM's: `tvmjs` is the reference."""
    tvm = pytest.importorskip("tvm")
    from tvm.contrib import tvmjs

    random = np.random.default_rng(0)
    tensors = {
        "w.q_weight": random.integers(0, 2**32, (8, 8), dtype=np.uint32),
        "w.q_scale": random.normal(size=(8, 2)).astype(ml_dtypes.bfloat16).astype(np.float32),
        "h": random.normal(size=(3, 3)).astype(np.float16),
    }
    with ShardWriter(tmp_path / "ours") as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor, "f32-to-bf16" if tensor.dtype == np.float32 else "raw")
        writer.finish()
    loaded, metadata = tvmjs.load_tensor_cache(str(tmp_path / "ours"), tvm.cpu())
    assert metadata["ParamSize"] == 3
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name].numpy(), tensor)

    tvmjs.dump_tensor_cache(tensors, str(tmp_path / "theirs"), encode_format="f32-to-bf16")
    reader = TensorCache(tmp_path / "theirs")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(reader.read(name), tensor)
