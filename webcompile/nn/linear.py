"""Matrices held in the scheme's format: linear layers and embeddings."""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from webcompile.kernels.embedding import embedding
from webcompile.kernels.matmul import Epilogue, matmul
from webcompile.nn.context import Context


class Matrix(nn.Module):  # type: ignore[misc]
    """A weight [rows, columns] as one or more parameters, named as the scheme names them."""

    def __init__(self, context: Context, rows: int, columns: int) -> None:
        self.context, self.rows, self.columns = context, rows, columns
        self.names: list[str] = []
        for param in context.scheme.weight_params("", (rows, columns), context.dtype):
            name = param.name.lstrip(".")
            setattr(self, name, nn.Parameter(param.shape, param.dtype))
            self.names.append(name)

    @property
    def buffers(self) -> list[Tensor]:
        """The parameters, in the order in which kernels take them."""
        return [getattr(self, name) for name in self.names]

    def multiply(
        self,
        x: Tensor,
        *,
        epilogue: Epilogue = "none",
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        out_dtype: str | None = None,
    ) -> Tensor:
        """x [s, columns] → [s, rows] ([s, rows / 2] for swiglu): the product with what the epilogue adds."""
        context = self.context
        kernel = matmul(
            context.schedule,
            context.weight_format,
            self.rows,
            self.columns,
            context.dtype,
            one_token=is_one_token(x),
            epilogue=epilogue,
            bias=bias is not None,
            out_dtype=out_dtype,
        )
        extras = [tensor for tensor in (bias, residual) if tensor is not None]
        width = self.rows // 2 if epilogue == "swiglu" else self.rows
        out = Tensor.placeholder([x.shape[0], width], out_dtype or context.dtype)
        return call(kernel, [x, *self.buffers, *extras], out)


class Linear(Matrix):
    """y = x W^T + b."""

    def __init__(self, context: Context, rows: int, columns: int, bias: bool = False) -> None:
        super().__init__(context, rows, columns)
        self.bias = nn.Parameter((rows,), context.dtype) if bias else None

    def forward(
        self, x: Tensor, *, epilogue: Epilogue = "none", residual: Tensor | None = None, out_dtype: str | None = None
    ) -> Tensor:
        """See Matrix.multiply."""
        return self.multiply(x, epilogue=epilogue, bias=self.bias, residual=residual, out_dtype=out_dtype)


class Embedding(Matrix):
    """Rows of a matrix by token id; tied models also multiply by it."""

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids int32[s] → [s, columns]."""
        context = self.context
        kernel = embedding(
            context.schedule,
            context.weight_format,
            self.rows,
            self.columns,
            context.dtype,
            one_token=is_one_token(token_ids),
        )
        out = Tensor.placeholder([token_ids.shape[0], self.columns], context.dtype)
        return call(kernel, [token_ids, *self.buffers], out)


def is_one_token(x: Tensor) -> bool:
    """Whether the leading axis is statically one: decode, for which kernels of their own exist."""
    return isinstance(x.shape[0], int) and x.shape[0] == 1


def call(kernel: Any, arguments: list[Any], out: Tensor) -> Tensor:
    """Calls a kernel that writes `out`."""
    return op.tensor_ir_op(kernel, str(kernel.attrs["global_symbol"]), arguments, out)


def call_inplace(kernel: Any, arguments: list[Any], inplace: int, out: Tensor) -> list[Tensor]:
    """Calls a kernel that also writes argument `inplace`: [that argument afterwards, out]."""
    name = str(kernel.attrs["global_symbol"])
    return list(op.tensor_ir_inplace_op(kernel, name, arguments, [inplace, -1], [arguments[inplace], out]))
