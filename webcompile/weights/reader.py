"""The interface of everything that weights can be read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "float64")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").newbyteorder("<") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")},
    "bool": np.dtype(np.bool_),
}
"""Dtype names as numpy, TVM and `TensorInfo` spell them → little-endian numpy dtypes."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read. `dtype` is a key of `DTYPES`."""

    shape: tuple[int, ...]
    dtype: str


class WeightReader(Protocol):
    """Tensors by name, read one at a time: the whole model is never in memory."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """All tensors, in the order in which they are best read."""

    def read(self, name: str) -> Array:
        """The tensor with the shape and dtype of its info; may be a read-only view of the file.

        Raises WebcompileError("tensor_mismatch") if there is no such tensor.
        """

    def close(self) -> None:
        """Lets go of the files. Arrays that were read stay valid."""
