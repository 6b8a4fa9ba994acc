"""A decoder that shows what it computes on the way, to find the layer where two targets part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tvm.relax.frontend.nn import Tensor, op

from webcompile.kernels.keep import keep_last
from webcompile.nn.config import DecoderConfig
from webcompile.nn.context import Context
from webcompile.nn.decoder import CausalLM
from webcompile.nn.linear import call, is_one_token


def num_layered_logits(config: DecoderConfig) -> int:
    """How many numbers a LayeredLM gives as logits."""
    return (config.num_layers + 1) * config.hidden_size + config.vocab_size


class LayeredLM(CausalLM):
    """The model with other logits: the hidden states of the last token after the embedding and each layer, then its own.

    Engines run it as they run any model, so what is seen is what happens there; answers make no sense.
    """

    def __init__(self, context: Context, config: DecoderConfig) -> None:
        super().__init__(context, config)
        self.config = replace(config, vocab_size=num_layered_logits(config))
        self._seen: list[Tensor] = []
        for layer in self.model.layers:
            layer.forward = self._watched(layer.forward)

    def _watched(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watch(x: Tensor, *arguments: Any) -> Tensor:
            out = forward(x, *arguments)
            self._seen += [out] if self._seen else [x, out]
            return out

        return watch

    def _run(self, *arguments: Any) -> Tensor:
        self._seen = []
        logits = super()._run(*arguments)
        total, offset = self.config.vocab_size, 0
        kept: Tensor | None = None
        for x in [*self._seen, logits]:
            width, one_token = int(x.shape[1]), is_one_token(x)
            kernel = keep_last(self.context.schedule, width, str(x.dtype), offset, total, one_token=one_token)
            if kept is None:
                kept = call(kernel, [x], Tensor.placeholder([1, total], "float32"))
            else:
                kept = op.tensor_ir_inplace_op(kernel, str(kernel.attrs["global_symbol"]), [x, kept], [1], [kept])
            offset += width
        assert kept is not None
        return kept
