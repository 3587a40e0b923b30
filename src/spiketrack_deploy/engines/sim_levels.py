"""When integer thresholds are a rounding, so that firing is one multiplication, one clamp and one rounding.

This module decides and proves that equivalence at compile time; it must not know tensors or kernels. NumPy only.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.program.types import INT24_MAX, INT24_MIN, SPIKE_MAX, AnyArray, IntArray


def rounding_bits(thresholds: AnyArray) -> IntArray | None:
    """Bits ``[C]`` for which ``thresholds`` are exactly round-half-even(clamp(v, 0, 4)) in integers, else ``None``.

    A unit of b bits puts half a spike at ``h = 2**(b-1)``: ties go to the even spike, so the integers that reach spike
    1..4 first are ``h+1, 3h, 5h+1, 7h``.
    """
    t = thresholds.astype(np.int64)
    if t.shape[1] != SPIKE_MAX:
        return None
    half = t[:, 1] // 3
    if (half < 1).any() or (half & (half - 1)).any():
        return None
    if not np.array_equal(t, np.stack([half + 1, 3 * half, 5 * half + 1, 7 * half], axis=1)):
        return None
    bits: IntArray = np.round(np.log2(half)).astype(np.int64) + 1
    return bits


def _proven(thresholds: IntArray, gains: AnyArray, bits: IntArray) -> bool:
    """Whether ``rint(clip(float32(v * gain)))`` counts the thresholds for every 24-bit integer.

    Both sides never fall as the integer grows, so equality just below and at each threshold and at both ends proves it.
    """
    ends = np.broadcast_to(np.array([INT24_MIN, INT24_MAX]), (len(thresholds), 2))
    points = np.clip(np.concatenate([thresholds, thresholds - 1, ends], axis=1), INT24_MIN, INT24_MAX)
    real = (points * 2.0 ** -bits[:, None]).astype(np.float32)
    level = np.rint(np.clip(real * gains.astype(np.float32)[:, None], 0, SPIKE_MAX))
    return bool(np.array_equal(level, (points[:, :, None] >= thresholds[:, None, :]).sum(axis=2)))


def level_gains(thresholds: AnyArray, bits: AnyArray) -> AnyArray | None:
    """Factors ``[C]`` that bring held values to spike levels, so that rounding is firing; ``None`` if there are none.

    Powers of two for rounding thresholds; behind a query the middle of the factors that the four thresholds allow.
    """
    t = thresholds.astype(np.int64)
    b = np.broadcast_to(np.asarray(bits, dtype=np.int64), (len(t),))
    dyadic = rounding_bits(t)
    if dyadic is not None:
        gains = 2.0 ** (b - dyadic)
    elif t.shape[1] == SPIKE_MAX and (t > 1).all():
        half = np.arange(SPIKE_MAX) + 0.5
        gains = ((half / t).max(axis=1) + (half / (t - 1)).min(axis=1)) / 2 * 2.0**b
    else:
        return None
    return gains if _proven(t, gains, b) else None
