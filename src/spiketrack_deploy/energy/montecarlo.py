"""Two uncertainties of an energy, kept apart: that of the prices, and that of the runs.

This module decides how prices are drawn and runs (frames of a clip) resampled. It must not know how counts came about,
nor how the outcome is printed.

    prices   E = sum_p count_p * x_p,  x_p triangular on (low, nominal, high) of its price; counts held fixed
    runs     mean over resampled frames of E_frame at nominal prices; prices held fixed

One draw of a price holds for all layers (its uses are fully correlated), a price that ``follows`` another shares its
draw, and different prices are independent; so the interval is narrower than the band, whose ends add all extremes. No
source publishes a distribution: the triangle is an assumption, and the band remains the statement that needs none.
Frames of one clip resemble their neighbours, so they are resampled in runs, and sequences, where there are several, as
a whole: an interval over frames says nothing about other videos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.energy.layers import Number
from spiketrack_deploy.energy.pricing import charged
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile

SAMPLES = 4000
SEED = 20260
COVERAGE = 0.9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spread:
    """Outcome of a resampling: the central ``coverage`` of ``samples`` draws and their median, nanojoules."""

    low: float
    median: float
    high: float
    coverage: float
    samples: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """As energy.json writes it."""
        return {
            "low_nj": self.low,
            "median_nj": self.median,
            "high_nj": self.high,
            "coverage": self.coverage,
            "samples": self.samples,
            "method": self.method,
        }


def _spread(draws: Floats, coverage: float, method: str) -> Spread:
    tail = (1 - coverage) / 2
    low, median, high = (float(x) for x in np.quantile(draws, [tail, 0.5, 1 - tail]))
    return Spread(low, median, high, coverage, int(draws.size), method)


def _check(samples: int, coverage: float) -> None:
    if samples < 1:
        raise InputError(f"energy: {samples} draws are too few, must be at least 1.")
    if not 0 < coverage < 1:
        raise InputError(f"energy: a coverage of {coverage} is not between 0 and 1.")


def price_counts(counts: Mapping[str, Number], profile: Profile) -> dict[str, Number]:
    """Price -> how often it is paid where ``counts`` happen."""
    return {name: count for name, _, _, count in charged(counts, profile)}


def triangular(u: Floats, low: float, mode: float, high: float) -> Floats:
    """Inverse of the triangular distribution function at ``u`` in 0..1; a constant where ``low == high``."""
    if high <= low:
        return np.full_like(u, mode)
    split = (mode - low) / (high - low)
    rising = low + np.sqrt(u * (high - low) * (mode - low))
    falling = high - np.sqrt((1 - u) * (high - low) * (high - mode))
    return np.where(u < split, rising, falling)


def over_prices(
    counts: Mapping[str, float],
    profile: Profile,
    *,
    samples: int = SAMPLES,
    seed: int = SEED,
    coverage: float = COVERAGE,
) -> Spread:
    """Interval of ``sum_p count_p * price_p`` over the prices' bands; ``counts`` as :func:`price_counts` gives them.

    Raises InputError for a count without price, fewer than one draw, or a coverage outside 0..1.
    """
    _check(samples, coverage)
    missing = sorted(set(counts) - set(profile.prices))
    if missing:
        raise InputError(f"energy: profile {profile.name} has no price {missing[0]!r}.")
    rng = np.random.default_rng(seed)
    drawn: dict[str, Floats] = {}
    # Every price of the profile gets its draw, used or not: totals of two networks stay comparable draw by draw.
    for name in sorted(profile.prices):
        drawn[name] = rng.random(samples)
    total = np.zeros(samples)
    for name, count in counts.items():
        band = profile.prices[name].interval
        total += count * triangular(drawn[_leader(name, profile)], band.low, band.nominal, band.high)
    return _spread(total, coverage, "triangular prices, one draw for all layers, prices independent")


def _leader(name: str, profile: Profile) -> str:
    """The price whose draw ``name`` shares: itself, or the one that it follows."""
    return profile.prices[name].follows or name


def over_frames(
    sequences: Sequence[Sequence[float]], *, samples: int = SAMPLES, seed: int = SEED, coverage: float = COVERAGE
) -> Spread:
    """Interval of the mean energy per frame over resampled sequences and frames.

    ``sequences``: per sequence the nominal energy of each frame, nanojoules. Several sequences are drawn with
    replacement; within each, circular runs of about the cube root of its length are.

    Raises InputError where there is no sequence or one without frames.
    """
    _check(samples, coverage)
    if not sequences or any(not len(sequence) for sequence in sequences):
        raise InputError("energy: there is no frame to resample; run at least one.")
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(sequence, dtype=np.float64) for sequence in sequences]
    sums, lengths = np.zeros(samples), np.zeros(samples)
    chosen = rng.integers(0, len(arrays), size=(samples, len(arrays)))
    # One sequence is not a sample of sequences: then only its frames are resampled.
    for index, values in enumerate(arrays):
        picks = (chosen == index).sum(axis=1)
        for row in range(int(picks.max(initial=0))):
            active = np.flatnonzero(picks > row)
            sums[active] += _resampled_sums(values, active.size, rng)
            lengths[active] += values.size
    block = "sequences, and runs of frames within each" if len(arrays) > 1 else "runs of frames of one sequence"
    return _spread(sums / lengths, coverage, f"bootstrap over {block}, prices nominal")


def _resampled_sums(values: Floats, samples: int, rng: np.random.Generator) -> Floats:
    """Sums of circular block resamples of one sequence, ``[samples]``."""
    size = values.size
    block = max(1, round(size ** (1 / 3)))
    starts = rng.integers(0, size, size=(samples, math.ceil(size / block)))
    places = (starts[:, :, None] + np.arange(block)) % size
    sums: Floats = values[places.reshape(samples, -1)[:, :size]].sum(axis=1)
    return sums
