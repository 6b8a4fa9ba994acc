"""What every block needs to know of the variant being built."""

from __future__ import annotations

from dataclasses import dataclass

from webcompile.kernels.builder import Schedule
from webcompile.kernels.weights import GroupInt4, Plain, WeightFormat
from webcompile.quantize.scheme import Scheme


@dataclass(frozen=True)
class Context:
    """One variant: how weights are held, what dtype activations have, how kernels are scheduled."""

    scheme: Scheme
    dtype: str
    """Dtype of activations, cache and scales: "float32" or "float16"."""
    schedule: Schedule
    page_tokens: int

    @property
    def weight_format(self) -> WeightFormat:
        """The layout in which kernels find the scheme's matrices."""
        if self.scheme.group_size:
            return GroupInt4(self.dtype, self.scheme.group_size)
        return Plain(self.dtype)
