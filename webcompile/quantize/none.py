"""Schemes without quantization: the matrix itself in the compute dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from webcompile.errors import WebcompileError
from webcompile.manifest import ParamEntry


@dataclass(frozen=True)
class PlainScheme:
    """One array per matrix: `<prefix>.weight` [out, in]."""

    name: str
    compute_dtype: str
    bits: int | None = None
    group_size: int = 0
    storage_formats: tuple[str, ...] = ("raw",)

    def weight_params(self, prefix: str, shape: tuple[int, int], compute_dtype: str | None = None) -> tuple[ParamEntry, ...]:
        """See `Scheme.weight_params`."""
        return (ParamEntry(f"{prefix}.weight", shape, compute_dtype or self.compute_dtype),)

    def pack(self, weight: npt.NDArray[Any], name: str = "weight") -> tuple[npt.NDArray[Any], ...]:
        """See `Scheme.pack`: one rounding to the compute dtype."""
        with np.errstate(over="ignore"):  # the check below says more
            converted = weight.astype(self.compute_dtype)
        if not np.isfinite(converted).all():
            raise WebcompileError(
                "weights_invalid",
                f"{name}: got a value that is not finite in {self.compute_dtype}",
                "check the source of the weights; float32 schemes hold larger values",
            )
        return (converted,)

    def unpack(self, arrays: Sequence[npt.NDArray[Any]], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """See `Scheme.unpack`."""
        (weight,) = arrays
        return weight.astype(np.float32).reshape(shape)
