"""Which real number an integer stands for, and what rounding to integers lost.

Decides scales: so fine that the weights use all their bits, so coarse that the accumulators hold every sum. Must not
know operations or names.

A neuron with input x compares v' = d v + (x << shift) with a threshold, so nothing but ratios matter: x may be counted
in any unit S, one per output channel, if thresholds, resets and leaks are counted in S / 2^shift. S is no power of two:
it is a whole fraction of the threshold, which then is an integer and loses nothing. A membrane that has to hold far
more than one input loses low bits of the input instead of bits of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.frontends.nir.network import FloatArray
from spiketrack_deploy.program.types import AnyArray

SHIFT = 6
"""Fraction bits of a membrane below its input, as in Lava's fixed-point LIF."""
BARE_SHIFT = 16
"""The same behind an input without weights, whose integers are small: a one-to-one synapse weighs it on a chip."""
LEVELS = 256
"""A threshold shall be at least so many units of its input, where the accumulators have room."""
_SLACK = 1.001
_BETWEEN = 16
_ROUND = (4, 10, 16, 20, 50, 64, 100, 1000)


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of one parameter. ``worst``, ``rms``: error over the largest ideal value of its channel (of a decay:
    plain). ``bits``: signed bits that its integers use."""

    node: str
    parameter: str
    bits: int
    worst: float
    rms: float


def bits_of(integers: AnyArray) -> int:
    """Signed bits of the largest integer."""
    return int(np.abs(integers.astype(np.int64)).max(initial=0)).bit_length() + 1


def lost(
    node: str, parameter: str, ideal: FloatArray, got: FloatArray, integers: AnyArray, plain: bool = False
) -> Loss:
    """Error of ``got`` against ``ideal`` ``[C, ...]``, over the largest of a channel unless ``plain``."""
    error = np.abs(got - ideal)
    if not plain:
        size = np.abs(ideal).reshape(len(ideal), -1).max(axis=1)
        error = error / np.where(size > 0, size, 1).reshape(-1, *[1] * (ideal.ndim - 1))
    return Loss(node, parameter, bits_of(integers), float(error.max(initial=0)), float(np.sqrt((error**2).mean())))


def least(sums: FloatArray, most: int) -> FloatArray:
    """The finest unit ``[C]`` with which ``most`` holds real sums."""
    return sums * (_SLACK / most)


def shifts(
    unit: FloatArray, largest: AnyArray, needs: Sequence[FloatArray], most: int, top: int
) -> tuple[int, AnyArray]:
    """``(left, right)``: bits by which a membrane is finer than its input, and bits ``[C]`` that an input of ``unit``
    loses before, where the membrane's range ``needs`` (real ``[C]``, the most generous first) asks for it.

    ``top``: fraction bits at most; a generous need is granted where all of them remain. ``largest``: of the input,
    integers.
    """
    found = np.zeros(len(unit), dtype=np.int64)
    for need in needs:
        room = np.minimum(unit / np.maximum(need * _SLACK, 1e-300), 1 / np.maximum(largest.astype(np.float64), 1))
        found = np.floor(np.log2(np.clip(room * most, 2.0**-60, 2.0**60))).astype(np.int64)
        if (found >= top).all():
            break
    return int(np.clip(found.min(), 0, top)), np.maximum(-found, 0)


def candidates(unit: FloatArray, theta: FloatArray | None) -> list[FloatArray]:
    """Units ``[C]`` up to twice as coarse, the finest first. With thresholds ``[C, ...]``: whole fractions of the first
    one of every channel, round ones among them, because weights often are round fractions as well. Without: a power of
    two, and what lies between."""
    if theta is None:
        even = [unit * (1 + k / _BETWEEN) for k in range(_BETWEEN)]
        return [*even, 2.0 ** np.ceil(np.log2(unit) - 1e-12)]
    first = theta.reshape(len(theta), -1)[:, 0]
    times = np.floor(np.where(first > 0, first, 1) / unit * (1 + 1e-12))
    whole = [np.floor(times * (1 - k / (2 * _BETWEEN))) for k in range(_BETWEEN)]
    whole += [times - times % m for m in _ROUND] + [2.0 ** np.floor(np.log2(np.maximum(times, 1)))]
    found = []
    for n in whole:
        usable = (first > 0) & (n >= 1) & (2 * n >= times)
        found.append(np.where(usable, first / np.maximum(n, 1), unit))
    return found


def doublings(largest: FloatArray, unit: FloatArray, top: int) -> AnyArray:
    """Left shifts ``[C]`` after which weights up to ``largest`` fit ``top`` units."""
    ratio = largest / (unit * top)
    return np.maximum(np.ceil(np.log2(np.maximum(ratio, 2.0**-60)) - 1e-9), 0).astype(np.int64)


def as_factor(ratio: FloatArray, bits: int) -> tuple[AnyArray, int]:
    """Integers ``m`` of ``bits`` signed bits and a right shift ``s`` with ``m / 2^s`` close to ``ratio``; exact and
    smallest where ``ratio`` allows it. The ratio must be below ``2^(bits-1)``."""
    largest = float(np.abs(ratio).max(initial=0))
    shift = int(np.clip(np.floor(np.log2((2 ** (bits - 1) - 1) / largest)) if largest else 0, 0, 40))
    factor = np.rint(ratio * 2.0**shift).astype(np.int64)
    while shift and not (factor & 1).any():
        factor, shift = factor >> 1, shift - 1
    return factor.astype(np.int32), shift
