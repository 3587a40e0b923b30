"""How good tracked boxes are: overlaps, centre errors, curves, scores, and how sure their means are.

This module decides the arithmetic of the field's scores; overlaps and their curve are those of tracking/boxes.py. It
must not know files, trackers or sequences.

    success AUC      mean over 21 thresholds 0, .05 .. 1 of the share of frames with overlap > threshold (OTB)
    precision        share of frames with a centre error of at most 20 px (OTB)
    norm. precision  mean over 51 thresholds 0, .01 .. .5 of the share of frames whose centre error, divided by the true
                     width and height, is at most the threshold (TrackingNet, LaSOT)
    AO, SR           mean overlap, share of frames with overlap > .5 and > .75 (GOT-10k)

The success comparison is strict, as in the OTB and GOT-10k toolkits: a perfect tracker has AUC 20/21 and AO 1. One-pass
evaluation starts from the true box, so the first frame is not scored; neither are frames without the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import finite, overlaps, success_curve, visible

Floats = npt.NDArray[np.float64]

PIXEL_THRESHOLDS: Floats = np.arange(51, dtype=np.float64)
NORMALISED_THRESHOLDS: Floats = np.linspace(0, 0.5, 51)
PRECISION_PIXELS = 20
DRAWS = 10_000
SEED = 0

SCORES = ("auc", "precision", "norm_precision", "ao", "sr50", "sr75")


@dataclass(frozen=True, slots=True)
class FrameScores:
    """Scored frames of one sequence, all ``[N]``: overlap 0..1, centre error in pixels and in target sizes.

    ``broken`` counts predicted boxes that are not finite; they score overlap 0 and an infinite error.
    """

    overlap: Floats
    centre: Floats
    normalised: Floats
    broken: int


@dataclass(frozen=True, slots=True)
class Curves:
    """Shares of frames by threshold: ``success`` [21], ``precision`` [51], ``norm_precision`` [51]."""

    success: Floats
    precision: Floats
    norm_precision: Floats


def frame_scores(predicted: Floats, truth: Floats, *, score_first: bool = False) -> FrameScores:
    """Compare boxes ``[N,4]`` with the truth ``[N,4]`` (not finite or empty: target absent, frame not scored).

    ``score_first``: score the first frame too, as the OTB toolkits do. InputError where the lengths differ.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise InputError(
            f"boxes {list(predicted.shape)} cannot be scored against {list(truth.shape)}; both must be [frames, 4]"
        )
    scored = visible(truth)
    if not score_first:
        scored[:1] = False
    a, b = predicted[scored], truth[scored]
    whole = finite(a)
    offset = np.where(whole[:, None], (a[:, :2] + a[:, 2:] / 2) - (b[:, :2] + b[:, 2:] / 2), np.inf)
    return FrameScores(overlaps(a, b), np.hypot(*offset.T), np.hypot(*(offset / b[:, 2:]).T), int((~whole).sum()))


def curves(frames: FrameScores) -> Curves:
    """Curves of one sequence; InputError where no frame is scored."""
    if not frames.overlap.size:
        raise InputError("no frame can be scored: none but the first has a box")
    return Curves(
        success_curve(frames.overlap),
        (frames.centre[:, None] <= PIXEL_THRESHOLDS).mean(axis=0),
        (frames.normalised[:, None] <= NORMALISED_THRESHOLDS).mean(axis=0),
    )


def scores(frames: FrameScores) -> dict[str, float]:
    """All of :data:`SCORES` for one sequence, 0..1; InputError where no frame is scored."""
    lines = curves(frames)
    return {
        "auc": float(lines.success.mean()),
        "precision": float(lines.precision[PRECISION_PIXELS]),
        "norm_precision": float(lines.norm_precision.mean()),
        "ao": float(frames.overlap.mean()),
        "sr50": float((frames.overlap > 0.5).mean()),
        "sr75": float((frames.overlap > 0.75).mean()),
    }


def pooled(sequences: Sequence[FrameScores]) -> dict[str, float]:
    """AO, SR50 and SR75 over all frames of all sequences together, as the GOT-10k toolkit reports them."""
    whole = np.concatenate([s.overlap for s in sequences])
    return {"ao": float(whole.mean()), "sr50": float((whole > 0.5).mean()), "sr75": float((whole > 0.75).mean())}


def mean_curves(sequences: Sequence[FrameScores]) -> Curves:
    """Mean over sequences, every sequence with the same weight."""
    lines = [curves(s) for s in sequences]
    return Curves(
        np.mean([c.success for c in lines], axis=0),
        np.mean([c.precision for c in lines], axis=0),
        np.mean([c.norm_precision for c in lines], axis=0),
    )


def sign_test(differences: Sequence[float]) -> dict[str, float]:
    """How many differences are above, below and equal to 0, and the two-sided ``p`` of so uneven a split under a fair
    coin; equal ones are left out (Dixon and Mood 1946)."""
    higher, lower = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    tosses = higher + lower
    tail = sum(math.comb(tosses, k) for k in range(min(higher, lower) + 1))
    # An integer quotient: 2**tosses is beyond a float for a thousand sequences.
    return {"higher": higher, "lower": lower, "equal": len(differences) - tosses, "p": min(1.0, 2 * tail / 2**tosses)}


def bootstrap(values: Sequence[float], draws: int = DRAWS, seed: int = SEED) -> tuple[float, float]:
    """95 % interval of the mean: percentiles 2.5 and 97.5 over ``draws`` resamples of the sequences with replacement.

    Seeded, so the same values give the same interval. For paired differences pass the differences.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not sample.size:
        raise InputError("there is no sequence to average over")
    # The legacy generator: its stream is frozen, so an interval is the same on every NumPy to come.
    generator = np.random.RandomState(seed)
    rows = max(1, 4_000_000 // sample.size)  # in blocks: 10,000 draws of 10,000 sequences do not fit into memory
    blocks = (generator.randint(0, sample.size, (min(rows, draws - at), sample.size)) for at in range(0, draws, rows))
    means = np.concatenate([sample[block].mean(axis=1) for block in blocks])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
