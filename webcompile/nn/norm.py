"""Normalization layers."""

from __future__ import annotations

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor

from webcompile.kernels.norm import rms_norm
from webcompile.nn.context import Context
from webcompile.nn.linear import Norm, call, is_one_token


class RMSNorm(nn.Module):  # type: ignore[misc]
    """Root mean square normalization with a learned scale."""

    def __init__(self, context: Context, width: int, epsilon: float) -> None:
        self.context, self.width, self.epsilon = context, width, epsilon
        self.weight = nn.Parameter((width,), context.dtype)

    def before(self, x: Tensor) -> tuple[Tensor, Norm | None]:
        """(input, norm) for a product that follows.

        In decode on a GPU the product normalizes, which saves a dispatch. In prefill it would do so once per tile of rows,
        and on a CPU, where a dispatch costs little, once per row: there a kernel does it once.
        """
        if is_one_token(x) and self.context.schedule.gpu:
            return x, Norm(self.weight, self.epsilon)
        return self(x), None

    def before_last(self, x: Tensor) -> tuple[Tensor, Norm | None]:
        """The same for the last token alone: [1, width]."""
        return self.before(x) if is_one_token(x) else (self(x, last_only=True), None)

    def forward(self, x: Tensor, *, last_only: bool = False) -> Tensor:
        """x [s, width] → the same, or [1, width] of the last token."""
        context = self.context
        kernel = rms_norm(context.schedule, self.width, context.dtype, self.epsilon, last_only=last_only)
        rows = 1 if last_only else x.shape[0]
        return call(kernel, [x, self.weight], Tensor.placeholder([rows, self.width], context.dtype))
