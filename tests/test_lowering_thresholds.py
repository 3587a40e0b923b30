"""Integer thresholds against the real rule, and the gate against a softmax: an off-by-one here flips spikes
silently.
"""

from __future__ import annotations

from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.lowering.emit import GATE_INDEX_BITS, gate_table
from spiketrack_deploy.lowering.thresholds import dyadic_thresholds, gain_thresholds
from spiketrack_deploy.program.ops import gate

getcontext().prec = 60


def spike(value: Fraction) -> int:
    """round-half-even(clamp(value, 0, 4)) in exact arithmetic."""
    return round(min(max(value, Fraction(0)), Fraction(4)))


@given(st.integers(0, 20), st.integers(-(2**23), 2**23 - 1))
@settings(max_examples=400, deadline=None)
def test_dyadic_thresholds_round_half_to_even(bits: int, value: int) -> None:
    thresholds = dyadic_thresholds(np.array([bits]))[0]
    assert int((value >= thresholds).sum()) == spike(Fraction(value, 2**bits))


@pytest.mark.parametrize("bits", [1, 2, 5, 12])
def test_dyadic_thresholds_at_every_tie(bits: int) -> None:
    thresholds = dyadic_thresholds(np.array([bits]))[0]
    for half in (1, 3, 5, 7):
        for step in (-1, 0, 1):
            value = half * 2 ** (bits - 1) + step
            assert int((value >= thresholds).sum()) == spike(Fraction(value, 2**bits)), (half, step)


@pytest.mark.parametrize("head_dim", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 24, 32, 45])
def test_official_gain_thresholds_are_exact_for_every_head_size(head_dim: int) -> None:
    thresholds = gain_thresholds(None, head_dim, 6)[0]
    gain = 2 / Decimal(head_dim).sqrt()
    for k, threshold in enumerate(thresholds):
        for a in range(int(threshold) - 2, int(threshold) + 3):
            exact = a * a * 4 * 4 == (2 * k + 1) ** 2 * 64 * 64 * head_dim
            reached = (k % 2 == 1) if exact else Decimal(a) * gain / 64 > Decimal(2 * k + 1) / 2
            assert (a >= threshold) == reached, (head_dim, k, a)


@given(st.floats(0.05, 20), st.integers(6, 12), st.integers(0, 2**20))
@settings(max_examples=300, deadline=None)
def test_constant_gain_thresholds(gain: float, bits: int, value: int) -> None:
    thresholds = gain_thresholds(gain, 8, bits)[0]
    assert int((value >= thresholds).sum()) == spike(Fraction(value, 2**bits) * Fraction(gain))


def test_gate_without_division_equals_the_weighted_mean() -> None:
    rng = np.random.default_rng(3)
    bits, steps, channels = 12, 3, 200
    logits = rng.integers(-3 * 2**bits, 3 * 2**bits, (steps, 1, 1, channels))
    spikes = rng.integers(0, 5, (steps, channels, 4, 4))
    table = gate_table()
    shift = bits - GATE_INDEX_BITS
    mine = gate.gate(logits, spikes, table, shift)[0] > 0
    level = logits[:, 0, 0]
    weights = table.astype(np.int64)[np.minimum((level.max(axis=0) - level) >> shift, table.size - 1)]
    for c in range(channels):
        mean = sum(Fraction(int(weights[t, c])) * spikes[t, c].astype(object) / 4 for t in range(steps)) / Fraction(
            int(weights[:, c].sum())
        )
        assert np.array_equal(mine[c], mean > Fraction(1, 2))
    real = np.exp((level - level.max(axis=0)) / 2.0**bits)
    real_mean = (real[:, :, None, None] * spikes / 4).sum(axis=0) / real.sum(axis=0)[:, None, None]
    clear = np.abs(real_mean - 0.5) > 2.0**-GATE_INDEX_BITS
    assert clear.mean() > 0.95
    assert np.array_equal(mine[clear], real_mean[clear] > 0.5)


def test_gate_table_starts_at_one_and_ends_at_zero() -> None:
    table = gate_table()
    assert table[0] == 2**15 and table[-1] == 0 and np.all(np.diff(table.astype(int)) <= 0)
