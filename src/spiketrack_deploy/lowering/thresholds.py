"""Integer thresholds of a NI-LIF neuron, exact for dyadic units and for the irrational gain of attention.

This module decides at which integer a spike grows by one: ``n = round_half_even(clamp(v, 0, 4))`` of a real value
that is an integer times a unit. It must not know where the integer comes from. Exact rational arithmetic throughout;
for the gain ``2 / sqrt(d)``, which may be irrational, both sides are squared (docs/spiketrack.md, "Exactness").
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np

from spiketrack_deploy.program.types import SPIKE_MAX, UNREACHABLE, AnyArray

_HALVES = tuple(Fraction(2 * k + 1, 2) for k in range(SPIKE_MAX))


def _smallest(limit: Fraction, strict: bool) -> int:
    """Smallest integer above ``limit`` (strict) or not below it."""
    floor = limit.numerator // limit.denominator
    return floor + 1 if strict or floor != limit else floor


def dyadic_thresholds(bits: AnyArray) -> AnyArray:
    """Thresholds ``[C,4]`` for streams of unit ``2**-bits[c]``: a tie at k + 1/2 rounds to the even neighbour.

    So 0.5 and 2.5 must be exceeded and 1.5 and 3.5 only reached.
    """
    rows = {
        int(b): [_smallest(h * Fraction(2) ** int(b), k % 2 == 0) for k, h in enumerate(_HALVES)]
        for b in np.unique(bits)
    }
    return np.array([rows[int(b)] for b in bits], dtype=np.int32).reshape(len(bits), SPIKE_MAX)


def _ceil_sqrt(limit: Fraction, strict: bool) -> int:
    """Smallest integer whose square is above ``limit`` (strict) or not below it; ``limit`` >= 0."""
    root = isqrt(limit.numerator // limit.denominator)
    return next(a for a in range(max(root - 1, 0), root + 3) if (a * a > limit if strict else a * a >= limit))


def gain_thresholds(gain: float | None, head_dim: int, bits: int) -> AnyArray:
    """Thresholds ``[1,4]`` on ``A << (bits - 6)`` where ``A / 64 * gain`` is the neuron's input.

    ``gain`` None means ``2 / sqrt(head_dim)`` exactly. ``bits``: 6 plus the query's left shift. A threshold that
    exceeds 24 bits can never be reached and is stored as UNREACHABLE.
    """
    unit = Fraction(2) ** bits
    result = []
    for k, half in enumerate(_HALVES):
        strict = k % 2 == 0
        if gain is None:
            # A * 2 / sqrt(d) > half  <=>  A^2 > half^2 * d / 4, A >= 0
            result.append(_ceil_sqrt((half * unit) ** 2 * head_dim / 4, strict))
        else:
            result.append(_smallest(half * unit / Fraction(gain), strict))
    return np.array([np.minimum(result, UNREACHABLE)], dtype=np.int32)


def gain_value(gain: float | None, head_dim: int) -> float:
    """The gain as float64; None is ``d**-0.5 * 2`` in this order, whose last bit another order would change."""
    return head_dim**-0.5 * 2.0 if gain is None else gain
