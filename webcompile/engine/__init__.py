"""The native engine. `Engine` runs an artifact's library on this machine; nothing here imports the compiler's model code."""

from webcompile.engine.answer import Answer, Delta, DeviceInfo, Timings, TokenLogprob, TokenLogprobs, Usage
from webcompile.engine.engine import Engine, Generation
from webcompile.engine.sequence import SamplingParams

__all__ = [
    "Answer",
    "Delta",
    "DeviceInfo",
    "Engine",
    "Generation",
    "SamplingParams",
    "Timings",
    "TokenLogprob",
    "TokenLogprobs",
    "Usage",
]
