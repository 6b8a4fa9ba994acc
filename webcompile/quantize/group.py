"""4-bit codes in groups of 32 neighbours along `in` that share a scale (`q4*_1`).

The layout is MLC's, so that weights published for it load here and ours load there. With 8 codes to a uint32 word and
4 words to a group:

    scale[n, g] = max |weight[n, k]| / 7         over the k of group g
    code[n, k]  = clip(round(weight[n, k] / scale[n, k // 32] + 7), 0, 14)
    word[n, j]  = OR over r of code[n, 8 j + r] << 4 r         codes beyond `in` are 0
    weight[n, k] ≈ (code[n, k] - 7) * scale[n, k // 32]

Scales are rounded to the dtype they are stored in before the codes are chosen; rounding is half to even. A group of
zeros has scale 0 and codes 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401 - makes numpy know the name "bfloat16"
import numpy as np
import numpy.typing as npt

from webcompile.errors import WebcompileError
from webcompile.manifest import ParamEntry

BITS = 4
GROUP_SIZE = 32
CODES_PER_WORD = 32 // BITS
WORDS_PER_GROUP = GROUP_SIZE // CODES_PER_WORD
ZERO_CODE = 7
"""The code of 0.0; codes reach from 0 to twice this."""

_BLOCK_ELEMENTS = 1 << 18
"""Elements packed at a time: the temporaries of a block (a few MiB) stay in the processor's cache."""


@dataclass(frozen=True)
class GroupScheme:
    """Two arrays per matrix: `<prefix>.q_weight` uint32 [out, 4*ceil(in/32)] and `<prefix>.q_scale` [out, ceil(in/32)].

    `scale_dtype` is what scales are rounded to, at most as wide as `compute_dtype`, in which they are handed out.
    """

    name: str
    compute_dtype: str
    scale_dtype: str
    scale_format: str
    bits: int | None = BITS
    group_size: int = GROUP_SIZE

    @property
    def storage_formats(self) -> tuple[str, ...]:
        """See `Scheme.storage_formats`."""
        return ("raw", self.scale_format)

    def weight_params(self, prefix: str, shape: tuple[int, int], compute_dtype: str | None = None) -> tuple[ParamEntry, ...]:
        """See `Scheme.weight_params`."""
        rows, groups = shape[0], num_groups(shape[1])
        return (
            ParamEntry(f"{prefix}.q_weight", (rows, WORDS_PER_GROUP * groups), "uint32"),
            ParamEntry(f"{prefix}.q_scale", (rows, groups), compute_dtype or self.compute_dtype),
        )

    def pack(self, weight: npt.NDArray[Any], name: str = "weight") -> tuple[npt.NDArray[Any], ...]:
        """See `Scheme.pack`. Works in blocks of rows, so that beside the result only one block is in memory."""
        rows, columns = weight.shape
        groups = num_groups(columns)
        words = np.empty((rows, groups * WORDS_PER_GROUP), np.uint32)
        scales = np.empty((rows, groups), self.compute_dtype)
        step = max(1, _BLOCK_ELEMENTS // max(1, columns))
        for start in range(0, rows, step):
            block = slice(start, start + step)
            words[block], scales[block] = _pack_block(weight[block], np.dtype(self.scale_dtype))
            if not np.isfinite(scales[block]).all():  # NaN and infinity reach the scale through max |weight|
                raise WebcompileError(
                    "weights_invalid",
                    f"{name}: got a value in rows {start}..{min(start + step, rows) - 1} that is not finite "
                    f"or whose group's scale is not finite in {self.scale_dtype}",
                    "check the source of the weights; q4f32_1 holds larger values",
                )
        return words, scales

    def unpack(self, arrays: Sequence[npt.NDArray[Any]], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """See `Scheme.unpack`."""
        words, scales = arrays
        rows, columns = shape
        shifts = np.arange(0, 32, BITS, dtype=np.uint32)
        codes = (words[:, :, np.newaxis] >> shifts) & np.uint32(2**BITS - 1)
        groups = codes.reshape(rows, -1, GROUP_SIZE).astype(np.float32) - ZERO_CODE
        groups *= scales.astype(np.float32)[:, :, np.newaxis]
        return groups.reshape(rows, -1)[:, :columns].copy()


def num_groups(columns: int) -> int:
    """Groups in a row of `columns` weights; the last may be short."""
    return -(-columns // GROUP_SIZE)


def _pack_block(
    weight: npt.NDArray[Any], scale_dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """Words uint32 [rows, 4 * groups] and scales float32 [rows, groups] of a block [rows, columns]."""
    rows, columns = weight.shape
    groups = num_groups(columns)
    padded = np.zeros((rows, groups * GROUP_SIZE), np.float32)
    padded[:, :columns] = weight
    values = padded.reshape(rows, groups, GROUP_SIZE)
    with np.errstate(invalid="ignore", over="ignore"):  # the caller reports what is not finite
        largest = np.maximum(values.max(axis=2), -values.min(axis=2))
        scales = (largest / np.float32(ZERO_CODE)).astype(scale_dtype).astype(np.float32)
        divisors = np.where(scales == 0, np.float32(np.inf), scales)  # x / inf + 7 = 7
        values /= divisors[:, :, np.newaxis]
        values += np.float32(ZERO_CODE)
        np.rint(values, out=values)
        np.clip(values, 0, 2 * ZERO_CODE, out=values)
        codes = values.astype(np.uint8).reshape(rows, -1)
    codes[:, columns:] = 0
    pairs = codes[:, 0::2] | (codes[:, 1::2] << BITS)  # little-endian bytes of the words
    return pairs.view("<u4"), scales
