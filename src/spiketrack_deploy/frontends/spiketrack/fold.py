"""Two exact foldings: batch norm into a convolution, a positional embedding into thresholds.

Decides the float64 numbers that stand in the graph. Must not know nodes, files or the tracker's modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import FloatArray

BN_EPS = 1e-5
SIGMOID_DIGITS = 40

STRICT_THRESHOLDS = (0.5, float(np.nextafter(1.5, -np.inf)), 2.5, float(np.nextafter(3.5, -np.inf)))
"""Four strict thresholds whose count is round-half-to-even(clamp(v, 0, 4)) for every float64 v."""


class Weights:
    """A tracker's state dict, read as finite float64 arrays; every refusal names the key."""

    def __init__(self, state: Mapping[str, npt.ArrayLike]) -> None:
        self._state = state

    def __contains__(self, key: str) -> bool:
        return key in self._state

    def array(self, key: str, ndim: int | None = None) -> FloatArray:
        """The tensor ``key`` in float64. InputError if it is missing, not finite, or not of ``ndim`` axes."""
        if key not in self._state:
            raise InputError(f"the state dict lacks '{key}'; the configuration and the weights do not belong together")
        value = np.asarray(self._state[key], dtype=np.float64)
        if ndim is not None and value.ndim != ndim:
            raise InputError(f"'{key}' has {value.ndim} axes, {ndim} are needed")
        if not np.isfinite(value).all():
            raise InputError(f"'{key}' holds values that are not finite")
        return value

    def fold(self, conv: str, norm: str | None) -> tuple[FloatArray, FloatArray]:
        """Weight [O, I/g, ...] and bias [O] of ``conv`` followed by the batch norm ``norm`` (None: no norm).

        s = weight / sqrt(running_var + 1e-5); y = conv(x) * s + (bias - running_mean * s).
        """
        weight = self.array(f"{conv}.weight")
        own = self.array(f"{conv}.bias", 1) if f"{conv}.bias" in self else np.zeros(weight.shape[0])
        if norm is None:
            return weight, own
        gamma, beta, mean, var = (
            self.array(f"{norm}.{part}", 1) for part in ("weight", "bias", "running_mean", "running_var")
        )
        if any(vector.shape != (weight.shape[0],) for vector in (own, gamma, beta, mean, var)):
            raise InputError(f"'{norm}' and '{conv}' disagree about the number of channels ({weight.shape[0]})")
        if (var < 0).any():
            raise InputError(f"'{norm}.running_var' holds negative values")
        scale = gamma / np.sqrt(var + BN_EPS)
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)), own * scale + (beta - mean * scale)

    def decays(self, neuron: str) -> FloatArray:
        """sigmoid of the decay parameter [3] of one NI-LIF, correctly rounded."""
        return np.array([_sigmoid(float(value)) for value in self.array(f"{neuron}.decay", 1)])


def _sigmoid(value: float) -> float:
    # exp of NumPy and of C libraries differ in the last bit between versions; the file must not.
    with localcontext() as context:
        context.prec = SIGMOID_DIGITS
        return float(1 / (1 + (-Decimal(value)).exp()))


def shifted_threshold(theta: float, offset: FloatArray) -> FloatArray:
    """The largest float64 c with fl(c + offset) <= theta, elementwise.

    So ``x > c`` says exactly what ``x + offset > theta`` says when the sum is rounded to float64, for every x:
    subtracting the offset from a threshold changes no spike of a float64 tracker.
    """
    guess = theta - offset
    # c cannot be further from theta - offset than the rounding of the sum, of the difference, and of c itself.
    reach = 4 * np.maximum(np.maximum(np.spacing(abs(theta)), np.spacing(np.abs(offset))), np.spacing(np.abs(guess)))
    low, high = _ordered(guess - reach), _ordered(guess + reach)
    active = np.arange(offset.size)
    low, high, flat = low.reshape(-1), high.reshape(-1), np.ascontiguousarray(offset).reshape(-1)
    while active.size:
        middle = low[active] + (high[active] - low[active]) // 2
        below = _float(middle) + flat[active] <= theta
        low[active[below]] = middle[below]
        high[active[~below]] = middle[~below]
        active = active[high[active] - low[active] > 1]
    return _float(low).reshape(offset.shape)


def _ordered(values: FloatArray) -> npt.NDArray[np.int64]:
    """Integers in the order of the floats, neighbours for neighbours (both zeros at 0)."""
    bits = np.ascontiguousarray(values).view(np.int64)
    return np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)


def _float(ordered: npt.NDArray[np.int64]) -> FloatArray:
    return np.where(ordered < 0, np.iinfo(np.int64).min - ordered, ordered).view(np.float64)
