"""The weights of a published folder: one file, or several that an index lists; safetensors before PyTorch's own format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from webcompile.errors import WebcompileError
from webcompile.weights.files import REDOWNLOAD, check_plain_name, read_json_object
from webcompile.weights.reader import Array, TensorInfo, WeightReader
from webcompile.weights.safetensors import SafetensorsFile
from webcompile.weights.torch_file import TorchFile


class WeightFile(WeightReader, Protocol):
    """One file of a folder."""

    def forget(self) -> None:
        """See `files.forget_pages`."""


@dataclass(frozen=True)
class WeightFormat:
    """A format with the names that published folders use for it."""

    single: str
    index: str
    """JSON with `weight_map`: tensor name → file name."""
    open: Callable[[Path], WeightFile]


FORMATS = (
    WeightFormat("model.safetensors", "model.safetensors.index.json", SafetensorsFile),
    WeightFormat("pytorch_model.bin", "pytorch_model.bin.index.json", TorchFile),
)


class WeightFolder:
    """All weights of a model folder. Raises WebcompileError("weights_invalid") saying what is wrong."""

    def __init__(self, folder: Path) -> None:
        form, weight_map, names = _find(folder)
        self.files = tuple(folder / name for name in names)
        self._owners: dict[str, WeightFile] = {}
        self._last: WeightFile | None = None
        for path in self.files:
            if not path.is_file():
                raise WebcompileError("weights_invalid", f"{path}: missing, but {form.index} names it", REDOWNLOAD)
            file = form.open(path)
            for name in file.infos:
                if weight_map is None or weight_map.get(name) == path.name:
                    self._owners[name] = file
        missing = sorted(set(weight_map or ()) - set(self._owners))
        if missing:
            assert weight_map is not None
            file_name = weight_map[missing[0]]
            what = f"{folder / file_name}: tensor {missing[0]!r} is missing, but {form.index} names it"
            raise WebcompileError("weights_invalid", what, REDOWNLOAD)
        self.infos: Mapping[str, TensorInfo] = {name: file.infos[name] for name, file in self._owners.items()}

    def read(self, name: str) -> Array:
        """See `WeightReader.read`."""
        if name not in self._owners:
            raise WebcompileError("tensor_mismatch", f"{self.files[0].parent}: no tensor {name!r}")
        if self._last is not None:
            self._last.forget()
        self._last = self._owners[name]
        return self._last.read(name)

    def close(self) -> None:
        """See `WeightReader.close`."""
        for file in self._owners.values():
            file.close()


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor name → plain name of its file, from an index. Raises WebcompileError("weights_invalid")."""
    weight_map = read_json_object(index, "weights_invalid").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WebcompileError("weights_invalid", f"{index}: expected an object 'weight_map' that names files", REDOWNLOAD)
    return {
        name: check_plain_name(file, f"{index}: weight_map[{name!r}]", "weights_invalid")
        for name, file in weight_map.items()
    }


def _find(folder: Path) -> tuple[WeightFormat, dict[str, str] | None, list[str]]:
    """The folder's format, what its index says if it has one, and the names of the files."""
    for form in FORMATS:
        if (folder / form.index).is_file():
            weight_map = read_weight_map(folder / form.index)
            return form, weight_map, sorted(set(weight_map.values()))
        if (folder / form.single).is_file():
            return form, None, [form.single]
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return FORMATS[0], None, [others[0].name]
    expected = " or ".join(name for form in FORMATS for name in (form.single, form.index))
    raise WebcompileError(
        "weights_invalid", f"{folder}: expected {expected}, got {len(others)} other .safetensors files", REDOWNLOAD
    )
