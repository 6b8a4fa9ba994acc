"""Our reader against files of the reference library, and against files that lie."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from webcompile.errors import WebcompileError
from webcompile.weights.folder import WeightFolder
from webcompile.weights.reader import TensorInfo, WeightReader
from webcompile.weights.safetensors import SafetensorsFile

TENSORS = {
    "norm": np.arange(5, dtype=np.float32),
    "half": np.linspace(-1, 1, 6, dtype=np.float16).reshape(2, 3),
    "brain": np.arange(8).astype(ml_dtypes.bfloat16).reshape(2, 2, 2),
    "scalar": np.array(3, dtype=np.int64),
    "empty": np.zeros((0, 4), np.uint8),
}


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin], "data_offsets": [begin, end]}


def test_reads_what_the_reference_library_writes(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reader: WeightReader = WeightFolder(tmp_path)
    assert set(reader.infos) == set(TENSORS)
    for name, expected in TENSORS.items():
        tensor = reader.read(name)
        assert reader.infos[name] == TensorInfo(expected.shape, expected.dtype.name)
        assert tensor.dtype == expected.dtype
        np.testing.assert_array_equal(tensor, expected)
    kept = reader.read("norm")
    reader.close()
    np.testing.assert_array_equal(kept, TENSORS["norm"])


def test_a_tensor_that_is_not_there(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": TENSORS["norm"]}, tmp_path / "model.safetensors")
    with pytest.raises(WebcompileError, match="no tensor 'b'") as caught:
        WeightFolder(tmp_path).read("b")
    assert caught.value.code == "tensor_mismatch"


def write_sharded(folder: Path) -> None:
    safetensors.numpy.save_file({"a": np.ones(3, np.float32)}, folder / "model-00001-of-00002.safetensors")
    safetensors.numpy.save_file({"b": np.zeros(2, np.float32)}, folder / "model-00002-of-00002.safetensors")
    write_index(folder, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_reads_sharded_files(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    reader = WeightFolder(tmp_path)
    assert list(reader.infos) == ["a", "b"]
    assert reader.read("a").sum() == 3 and reader.read("b").shape == (2,)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WebcompileError, match=r"model-00002-of-00002\.safetensors: missing"):
        WeightFolder(tmp_path)


def test_a_tensor_missing_from_its_shard_is_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    write_index(tmp_path, {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"})
    with pytest.raises(WebcompileError, match="tensor 'c' is missing"):
        WeightFolder(tmp_path)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "C:x", 7])
def test_an_index_cannot_point_out_of_the_folder(tmp_path: Path, name: object) -> None:
    write_index(tmp_path, {"a": name})
    with pytest.raises(WebcompileError, match="plain name") as caught:
        WeightFolder(tmp_path)
    assert caught.value.code == "weights_invalid"


def test_every_truncation_of_a_real_file_is_noticed(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for nbytes in range(len(whole)):
        path.write_bytes(whole[:nbytes])
        with pytest.raises(WebcompileError, match=r"cut\.safetensors: .*(truncated|empty|expected)") as caught:
            SafetensorsFile(path)
        assert caught.value.code == "weights_invalid"


@pytest.mark.parametrize(
    ("header", "nbytes", "message"),
    [
        ({"a": entry(0, 4), "b": entry(2, 6)}, 6, "'b' overlaps"),
        ({"a": entry(0, 4), "b": entry(5, 6)}, 6, "'b' leaves a gap"),
        ({"a": entry(0, 4)}, 9, "expected 4 bytes of data, got 9"),
        ({"a": entry(0, 40)}, 9, "truncated: tensor 'a' ends at byte 40 of 9"),
        ({"a": {**entry(0, 4), "shape": [3]}}, 4, r"uint8 \[3\] has 3 bytes, but data_offsets \[0, 4\] hold 4"),
        ({"a": {**entry(0, 4), "shape": [2**62, 2**62]}}, 4, "has .* bytes"),
        ({"a": {**entry(0, 4), "shape": [-4]}}, 4, "expected sizes"),
        ({"a": {**entry(0, 4), "shape": [True]}}, 4, "expected sizes"),
        ({"a": {**entry(0, 4), "data_offsets": [4, 0]}}, 4, "hold -4"),
        ({"a": {**entry(0, 4), "data_offsets": [0]}}, 4, "expected sizes"),
        ({"a": entry(0, 4, "F6")}, 4, "expected a dtype of .* got 'F6'"),
        ({"a": 3}, 0, "expected a dtype"),
        ([], 0, "expected a JSON object, got list"),
        (b"{not json", 0, "expected JSON"),
        (b"[" * 200_000, 0, "expected JSON"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: object, nbytes: int, message: str) -> None:
    path = write_raw(tmp_path / "model.safetensors", header, bytes(nbytes))
    with pytest.raises(WebcompileError, match=message) as caught:
        SafetensorsFile(path)
    assert caught.value.code == "weights_invalid"


def test_a_huge_header_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(WebcompileError, match="not a safetensors file"):
        SafetensorsFile(tmp_path / "x.safetensors")
