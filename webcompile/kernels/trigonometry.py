"""Sine and cosine of angles in fixed point, the same on every target.

Angles are fractions of a turn in 32 bits: a frequency and a position multiply modulo 2^32, which is exact modulo one
turn, so positions need no range reduction. What is left is a polynomial on [-pi/4, pi/4] (the minimax coefficients of
the Cephes library), good to an ulp or two; WGSL promises only 2^-11 for its own functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from tvm import tirx

from webcompile.kernels.builder import Expr, f32, local, store


def fixed_point_turns(radians: Sequence[float]) -> np.ndarray:
    """Radians per position to turns per position, as uint32 in units of 2^-32 turns."""
    turns = np.asarray(radians, np.float64) / (2 * math.pi)
    return np.round((turns % 1.0) * 2**32).astype(np.uint64).astype(np.uint32)


def sine_cosine(phase: Expr) -> tuple[Expr, Expr]:
    """Sine and cosine of a uint32 phase in units of 2^-32 turns."""
    held = local(1, "uint32")
    store(held, 0, phase + tirx.const(1 << 29, "uint32"))
    quadrant = held[0] >> tirx.const(30, "uint32")
    # What is left after whole quarter turns, as a signed number: [-1/8, 1/8) turn.
    rest = (held[0] & tirx.const((1 << 30) - 1, "uint32")).astype("int32") - tirx.const(1 << 29, "int32")
    r, square = local(1), local(1)
    store(r, 0, f32(rest) * f32(2 * math.pi / 2**32))
    store(square, 0, r[0] * r[0])
    z = square[0]
    sine, cosine = local(1), local(1)
    store(sine, 0, r[0] + r[0] * z * (f32(-1.6666654611e-1) + z * (f32(8.3321608736e-3) - z * f32(1.9515295891e-4))))
    even = f32(4.166664568298827e-2) + z * (f32(-1.388731625493765e-3) + z * f32(2.443315711809948e-5))
    store(cosine, 0, f32(1.0) - z * f32(0.5) + z * z * even)

    def pick(in_0: Expr, in_1: Expr, in_2: Expr, in_3: Expr) -> Expr:
        low = tirx.Select(quadrant == tirx.const(0, "uint32"), in_0, in_1)
        high = tirx.Select(quadrant == tirx.const(2, "uint32"), in_2, in_3)
        return tirx.Select(quadrant < tirx.const(2, "uint32"), low, high)

    s, c = sine[0], cosine[0]
    return pick(s, c, -s, -c), pick(c, -s, -c, s)
