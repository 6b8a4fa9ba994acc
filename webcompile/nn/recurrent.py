"""Recurrent layers: what stands in the place of attention, and the MLP of RWKV. Kernels alone read and write states."""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor

from webcompile.kernels.convolution import Convolution, convolve
from webcompile.kernels.epilogues import Activate
from webcompile.kernels.gated_norm import GatedNorm, gated_norm
from webcompile.kernels.norm import Normalization
from webcompile.kernels.product import Parts
from webcompile.kernels.scan import Recurrence, scan
from webcompile.kernels.state import Paging
from webcompile.kernels.token_shift import token_shift
from webcompile.kernels.wkv import wkv
from webcompile.nn.context import Context
from webcompile.nn.linear import Linear, Norm, call, call_inplace, is_one_token
from webcompile.nn.recurrent_config import (
    ChannelMixConfig,
    RecurrentConfig,
    ShortConvolutionConfig,
    StateSpaceConfig,
    TimeMix4Config,
)
from webcompile.nn.step import Step


def recurrent(context: Context, config: RecurrentConfig, hidden_size: int) -> nn.Module:
    """The module of a config: its `forward` takes x, a norm that the products are to apply, its states and the step."""
    return _MODULES[type(config)](context, config, hidden_size)


def update(kernel: Any, arguments: list[Tensor], step: Step, state: Tensor, out: Tensor) -> Tensor:
    """Calls a kernel that reads and writes a state: `out`."""
    arguments = [*arguments, step.position, step.page_table, state]
    return call_inplace(kernel, arguments, len(arguments) - 1, out)[1]


class TokenShift(nn.Module):  # type: ignore[misc]
    """A norm, and mixes of each token with the one before."""

    def __init__(self, context: Context, norm: Normalization, width: int, mixes: int, stays: bool) -> None:
        self.context, self.norm, self.width, self.mixes, self.stays = context, norm, width, mixes, stays
        self.norm_params = nn.Parameter((norm.parts * width,), context.dtype)
        self.mix = nn.Parameter((mixes * width,), context.dtype)

    def forward(self, x: Tensor, state: Tensor, step: Step) -> Tensor:
        """x [s, width] → [mixes, s, width]."""
        kernel = token_shift(
            self.context.schedule,
            self.norm,
            self.width,
            self.context.dtype,
            Paging((self.width,), self.context.page_tokens),
            mixes=self.mixes,
            stays=self.stays,
            one_token=is_one_token(x),
        )
        out = Tensor.placeholder([self.mixes, x.shape[0], self.width], self.context.dtype)
        return update(kernel, [x, self.norm_params, self.mix], step, state, out)


class TimeMix4(nn.Module):  # type: ignore[misc]
    """The time mixing of RWKV-4, up to the output projection."""

    def __init__(self, context: Context, config: TimeMix4Config, hidden_size: int) -> None:
        self.context, self.config = context, config
        self.shift = TokenShift(context, config.norm, hidden_size, 3, stays=True)
        self.kvr = Linear(context, 3 * config.width, hidden_size)
        self.decay = nn.Parameter((config.width,), context.dtype)
        self.bonus = nn.Parameter((config.width,), context.dtype)
        self.o_proj = Linear(context, hidden_size, config.width)

    def forward(self, x: Tensor, norm: Norm | None, shifted: Tensor, sums: Tensor, step: Step) -> Tensor:
        """x [s, hidden] → [s, width]."""
        config, context = self.config, self.context
        kvr = self.kvr(self.shift(x, shifted, step), parts=Parts(3, count=3))
        paging = Paging(tuple(int(size) for size in sums.shape[2:]), context.page_tokens)
        kernel = wkv(context.schedule, config.width, context.dtype, paging, one_token=is_one_token(x))
        out = Tensor.placeholder([x.shape[0], config.width], context.dtype)
        return update(kernel, [kvr, self.decay, self.bonus], step, sums, out)


class ChannelMix(nn.Module):  # type: ignore[misc]
    """See ChannelMixConfig."""

    def __init__(self, context: Context, config: ChannelMixConfig, hidden_size: int) -> None:
        self.context, self.config = context, config
        self.shift = TokenShift(context, config.norm, hidden_size, 1 + config.gates, config.stays)
        self.key = Linear(context, config.width, hidden_size)
        if config.gates:
            self.receptance = Linear(context, hidden_size, hidden_size)
        self.value = Linear(context, hidden_size, config.width)

    def forward(self, x: Tensor, norm: Norm | None, shifted: Tensor, step: Step, **around: Any) -> Tensor:
        """x [s, hidden] → [s, hidden]; `around` goes to the last product."""
        dtype, mixed = self.context.dtype, self.shift(x, shifted, step)
        count = int(mixed.shape[0])
        key = self.key(mixed, epilogue=Activate(dtype, "relu2"), parts=Parts(count))
        if self.config.gates:
            around["gate"] = self.receptance(mixed, epilogue=Activate(dtype, "sigmoid"), parts=Parts(count, 1))
        return self.value(key, **around)


class ShortConvolution(nn.Module):  # type: ignore[misc]
    """A convolution with its parameters."""

    def __init__(self, context: Context, form: Convolution) -> None:
        self.context, self.form = context, form
        self.weight = nn.Parameter((form.channels * form.taps,), context.dtype)
        self.bias = nn.Parameter((form.channels,), context.dtype) if form.bias else None

    def forward(self, x: Tensor, window: Tensor, step: Step) -> Tensor:
        """x [s, columns] → [s, channels]."""
        form, context = self.form, self.context
        paging, one_token = Paging(form.state, context.page_tokens), is_one_token(x)
        kernel = convolve(context.schedule, form, int(x.shape[1]), context.dtype, paging, one_token=one_token)
        params = [self.weight] if self.bias is None else [self.weight, self.bias]
        out = Tensor.placeholder([x.shape[0], form.channels], context.dtype)
        return update(kernel, [x, *params], step, window, out)


class Scan(nn.Module):  # type: ignore[misc]
    """A recurrence of matrices."""

    def __init__(self, context: Context, recurrence: Recurrence) -> None:
        self.context, self.recurrence = context, recurrence

    def forward(self, inputs: list[Tensor], matrices: Tensor, step: Step) -> Tensor:
        """The recurrence's inputs → [s, heads rows]."""
        of, context = self.recurrence, self.context
        paging, one_token = Paging((of.heads, of.rows, of.columns), context.page_tokens), is_one_token(inputs[0])
        kernel = scan(context.schedule, of, context.dtype, paging, one_token=one_token)
        out = Tensor.placeholder([inputs[0].shape[-2], of.heads * of.rows], context.dtype)
        return update(kernel, inputs, step, matrices, out)


class GatedNormLayer(nn.Module):  # type: ignore[misc]
    """A gated norm with its parameters."""

    def __init__(self, context: Context, form: GatedNorm) -> None:
        self.context, self.form = context, form
        self.weight = nn.Parameter((form.parameters,), context.dtype)

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """x [s, width] → the same."""
        kernel = gated_norm(self.context.schedule, self.form, self.context.dtype, one_token=is_one_token(x))
        return call(kernel, [x, gate, self.weight], Tensor.placeholder([x.shape[0], self.form.width], self.context.dtype))


class StateSpaceMixer(nn.Module):  # type: ignore[misc]
    """See StateSpaceConfig."""

    def __init__(self, context: Context, config: StateSpaceConfig, hidden_size: int) -> None:
        of = config.recurrence
        self.in_proj = Linear(context, of.projected, hidden_size, config.in_bias)
        self.conv = ShortConvolution(context, config.convolution)
        self.heads = nn.Parameter((3 * of.heads,), context.dtype)
        self.scan = Scan(context, of)
        self.norm = GatedNormLayer(context, config.norm)
        self.o_proj = Linear(context, hidden_size, of.heads * of.rows, config.out_bias)

    def forward(self, x: Tensor, norm: Norm | None, window: Tensor, matrices: Tensor, step: Step) -> Tensor:
        """x [s, hidden] → [s, heads rows]."""
        projected = self.in_proj(x, norm=norm)
        y = self.scan([self.conv(projected, window, step), projected, self.heads], matrices, step)
        return self.norm(y, projected)


class GatedConvolution(nn.Module):  # type: ignore[misc]
    """See ShortConvolutionConfig."""

    def __init__(self, context: Context, config: ShortConvolutionConfig, hidden_size: int) -> None:
        self.in_proj = Linear(context, 3 * hidden_size, hidden_size, config.bias)
        self.conv = ShortConvolution(context, config.convolution)
        self.o_proj = Linear(context, hidden_size, hidden_size, config.bias)

    def forward(self, x: Tensor, norm: Norm | None, window: Tensor, step: Step) -> Tensor:
        """x [s, hidden] → the same."""
        return self.conv(self.in_proj(x, norm=norm), window, step)


_MODULES: dict[type, Any] = {
    ShortConvolutionConfig: GatedConvolution,
    StateSpaceConfig: StateSpaceMixer,
    TimeMix4Config: TimeMix4,
}
