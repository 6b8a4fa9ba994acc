"""PyTorch's own weight files: what torch writes is read, and a pickle that wants more is refused and not run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from webcompile.errors import WebcompileError
from webcompile.weights.folder import WeightFolder
from webcompile.weights.torch_file import TorchFile


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_reads_what_torch_writes(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = OrderedDict(
        plain=base,
        transposed=base.t(),
        row=base[2],
        every_other=base[:, ::2],
        half=base.half(),
        brain=base.bfloat16(),
        counts=torch.arange(5),
        flags=torch.tensor([True, False]),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base + 1),
    )
    reader = TorchFile(saved(tmp_path / "w.bin", tensors))
    assert set(reader.infos) == set(tensors)
    for name, tensor in tensors.items():
        got = reader.read(name)
        assert got.shape == tuple(tensor.shape) == reader.infos[name].shape
        assert got.dtype.name == reader.infos[name].dtype
        np.testing.assert_array_equal(got.astype(np.float64), tensor.detach().double().numpy())
    assert reader.read("brain").dtype == ml_dtypes.bfloat16


def test_a_state_dict_with_metadata(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    reader = TorchFile(saved(tmp_path / "w.bin", module.state_dict()))
    np.testing.assert_array_equal(reader.read("weight"), module.weight.detach().numpy())


def test_a_folder_of_shards(tmp_path: Path) -> None:
    saved(tmp_path / "a.bin", {"x": torch.ones(2)})
    saved(tmp_path / "b.bin", {"y": torch.zeros(3)})
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "a.bin", "y": "b.bin"}}')
    reader = WeightFolder(tmp_path)
    assert reader.read("x").tolist() == [1, 1] and reader.read("y").tolist() == [0, 0, 0]


def test_safetensors_come_first(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    saved(tmp_path / "pytorch_model.bin", {"x": torch.ones(2)})
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert WeightFolder(tmp_path).read("x").tolist() == [0, 0]


class Evil:
    """Unpickled by pickle itself, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refused(path: Path, match: str) -> None:
    with pytest.raises(WebcompileError, match=match) as caught:
        TorchFile(path)
    assert caught.value.code == "weights_invalid"


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    refused(saved(tmp_path / "w.bin", {"x": Evil(tmp_path / "owned")}), "mkdir, which weights do not need")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [[1, 2], {"x": 3}, {1: torch.ones(1)}, {"x": {"y": torch.ones(1)}}])
def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    refused(saved(tmp_path / "w.bin", content), "expected")


def test_the_old_format_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "w.bin", _use_new_zipfile_serialization=False)
    refused(tmp_path / "w.bin", "PyTorch 1.6")


def rewritten(source: Path, target: Path, change: Any) -> Path:
    """The archive with what `change(name, content)` makes of each entry."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return target


def test_a_tensor_cannot_reach_out_of_its_storage(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.bin", {"x": torch.ones(64)})
    shorter = rewritten(whole, tmp_path / "short.bin", lambda name, data: data[:100] if "/data/" in name else data)
    refused(shorter, "needs 256 bytes of a storage of 100")
    without = rewritten(whole, tmp_path / "none.bin", lambda name, data: None if "/data/" in name else data)
    refused(without, "is missing")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.bin", {"x": torch.ones(64)})
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(tmp_path / "c.bin", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    refused(tmp_path / "c.bin", "compressed")


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.bin", {"x": torch.ones(8)}).read_bytes()
    for nbytes in range(1, len(whole), 37):
        (tmp_path / "cut.bin").write_bytes(whole[:nbytes])
        refused(tmp_path / "cut.bin", "expected the zip archive")


def test_garbage_pickles_are_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "w.bin", {"x": torch.ones(8)})
    random = np.random.default_rng(0)
    for number in range(200):

        def damage(name: str, data: bytes) -> bytes:
            if not name.endswith("data.pkl"):
                return data
            bytes_ = bytearray(data)
            for at in random.integers(0, len(data), 3):
                bytes_[at] = int(random.integers(256))
            return bytes(bytes_)

        path = rewritten(whole, tmp_path / f"{number}.bin", damage)
        try:
            reader = TorchFile(path)
            for name in reader.infos:
                reader.read(name)
        except WebcompileError as error:
            assert error.code == "weights_invalid"


def test_a_deep_pickle_is_refused(tmp_path: Path) -> None:
    program = io.BytesIO()
    program.write(pickle.PROTO + b"\x02" + b"(" * 100_000 + pickle.STOP)
    whole = saved(tmp_path / "w.bin", {"x": torch.ones(8)})
    deep = rewritten(whole, tmp_path / "deep.bin", lambda name, data: program.getvalue() if "data.pkl" in name else data)
    refused(deep, "not a file of weights")
