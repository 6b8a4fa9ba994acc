"""Normalization layers."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor

from webcompile.kernels.norm import rms_norm
from webcompile.nn.context import Context
from webcompile.nn.linear import call, is_one_token


class RMSNorm(nn.Module):  # type: ignore[misc]
    """Root mean square normalization with a learned scale."""

    def __init__(self, context: Context, width: int, epsilon: float) -> None:
        self.context, self.width, self.epsilon = context, width, epsilon
        self.weight = nn.Parameter((width,), context.dtype)

    def forward(self, x: Tensor, *, last_only: bool = False) -> Tensor:
        """x [s, width] → the same, or [1, width] of the last token."""
        one_token = is_one_token(x)
        kernel = rms_norm(
            self.context.schedule,
            self.width,
            self.context.dtype,
            self.epsilon,
            one_token=one_token,
            last_only=last_only and not one_token,
        )
        rows = 1 if last_only else x.shape[0]
        return call(kernel, [x, self.weight], Tensor.placeholder([rows, self.width], self.context.dtype))
