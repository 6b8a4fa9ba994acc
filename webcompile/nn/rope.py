"""Frequencies of rotary position embeddings, from a Hugging Face config's `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from webcompile.errors import WebcompileError


def inverse_frequencies(head_dim: int, theta: float, scaling: dict[str, Any] | None) -> tuple[float, ...]:
    """Radians per position of each of the head_dim / 2 pairs (Su et al. 2021), float32-rounded as transformers does.

    Raises WebcompileError("model_invalid") for a scaling type that is not known.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.int64).astype(np.float32) / np.float32(head_dim)
    frequencies = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
    kind = (scaling or {}).get("rope_type", (scaling or {}).get("type", "default"))
    if kind == "linear":
        frequencies = frequencies / np.float32((scaling or {})["factor"])
    elif kind == "llama3":
        frequencies = _llama3(frequencies, scaling or {})
    elif kind != "default":
        raise WebcompileError(
            "model_invalid",
            f"rope_scaling has type {kind!r}, expected one of default, linear, llama3",
            "the model cannot be built yet",
        )
    return tuple(float(f) for f in frequencies)


def _llama3(frequencies: np.ndarray, scaling: dict[str, Any]) -> np.ndarray:
    """Llama 3.1: low frequencies divided by `factor`, high ones kept, a linear blend between."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    context = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / frequencies
    smooth = (context / wavelength - low) / (high - low)
    blended = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = np.where(wavelength > context / low, frequencies / factor, blended)
    return np.where(wavelength < context / high, frequencies, scaled).astype(np.float32)
