"""Scores against values worked out by hand, against brute force, and against what the definitions imply."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.evaluation import metrics
from spiketrack_deploy.tracking.boxes import overlaps

NAN = float("nan")


def brute_overlap(a, b) -> float:
    """Cell by cell on a grid of quarters, for boxes whose corners lie on it."""
    cells = [
        {(x, y) for x in range(round(4 * x0), round(4 * (x0 + w))) for y in range(round(4 * y0), round(4 * (y0 + h)))}
        for x0, y0, w, h in (a, b)
    ]
    union = cells[0] | cells[1]
    return len(cells[0] & cells[1]) / len(union) if union else 0.0


quarter = st.integers(0, 24).map(lambda v: v / 4)
box = st.tuples(quarter, quarter, quarter, quarter)


@given(st.lists(st.tuples(box, box), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_overlap_equals_counting_cells(pairs) -> None:
    first, second = (np.array([p[i] for p in pairs]) for i in (0, 1))
    expected = [brute_overlap(a, b) for a, b in pairs]
    np.testing.assert_allclose(overlaps(first, second), expected, atol=1e-12)


def brute_scores(predicted, truth) -> dict[str, float]:
    """The definitions, frame by frame and threshold by threshold."""
    frames = [
        (p, t) for p, t in list(zip(predicted, truth))[1:] if all(math.isfinite(v) for v in t) and t[2] > 0 < t[3]
    ]
    ious, centres, relative = [], [], []
    for p, t in frames:
        ious.append(float(overlaps(np.array([p]), np.array([t]))[0]))
        dx, dy = p[0] + p[2] / 2 - t[0] - t[2] / 2, p[1] + p[3] / 2 - t[1] - t[3] / 2
        centres.append(math.hypot(dx, dy))
        relative.append(math.hypot(dx / t[2], dy / t[3]))
    share = lambda hits: sum(hits) / len(frames)  # noqa: E731
    return {
        "auc": sum(share([i > k / 20 for i in ious]) for k in range(21)) / 21,
        "precision": share([c <= 20 for c in centres]),
        "norm_precision": sum(share([r <= k / 100 for r in relative]) for k in range(51)) / 51,
        "ao": sum(ious) / len(frames),
        "sr50": share([i > 0.5 for i in ious]),
        "sr75": share([i > 0.75 for i in ious]),
    }


@pytest.mark.parametrize("seed", range(8))
def test_scores_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.column_stack([rng.uniform(0, 80, (30, 2)), rng.uniform(5, 40, (30, 2))])
    predicted = truth + rng.normal(0, 6, (30, 4))
    truth[rng.integers(1, 30, 4)] = NAN
    truth[7, 2] = 0.0
    expected = brute_scores(predicted.tolist(), truth.tolist())
    found = metrics.scores(metrics.frame_scores(predicted, truth))
    assert set(found) == set(metrics.SCORES)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


def test_by_hand() -> None:
    """Frame 1 is given, frame 2 half overlaps (1/3) and is 5 px off, frame 3 is absent, frame 4 is perfect."""
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [NAN] * 4, [20, 20, 10, 10]])
    predicted = np.array([[90, 90, 1, 1], [5, 0, 10, 10], [0, 0, 10, 10], [20, 20, 10, 10]])
    frames = metrics.frame_scores(predicted, truth)
    np.testing.assert_allclose(frames.overlap, [1 / 3, 1])
    np.testing.assert_allclose(frames.centre, [5, 0])
    np.testing.assert_allclose(frames.normalised, [0.5, 0])
    scores = metrics.scores(frames)
    assert scores["auc"] == pytest.approx((7 + 20) / 2 / 21)  # above 0, .05 .. .30, and above 0 .. .95
    assert (scores["precision"], scores["sr50"], scores["sr75"]) == (1.0, 0.5, 0.5)
    assert scores["norm_precision"] == pytest.approx((1 + 51) / 2 / 51)
    assert scores["ao"] == pytest.approx(2 / 3)


def test_a_perfect_tracker() -> None:
    truth = np.array([[1.5, 2, 30, 7.25]] * 5)
    scores = metrics.scores(metrics.frame_scores(truth, truth))
    assert scores["ao"] == scores["precision"] == scores["norm_precision"] == scores["sr50"] == scores["sr75"] == 1.0
    # The toolkits compare strictly, so nothing exceeds the threshold 1.
    assert scores["auc"] == pytest.approx(20 / 21)


def test_first_frame_counts_only_where_asked() -> None:
    truth = np.array([[0, 0, 10, 10.0], [0, 0, 10, 10]])
    predicted = np.array([[50, 50, 10, 10.0], [0, 0, 10, 10]])
    assert metrics.scores(metrics.frame_scores(predicted, truth))["ao"] == 1.0
    assert metrics.scores(metrics.frame_scores(predicted, truth, score_first=True))["ao"] == 0.5


def test_boxes_that_are_not_finite_are_misses_and_are_counted() -> None:
    truth = np.array([[0, 0, 10, 10.0]] * 4)
    predicted = np.array([[0, 0, 10, 10.0], [NAN, 0, 10, 10], [0, 0, math.inf, 10], [0, 0, 10, 10]])
    frames = metrics.frame_scores(predicted, truth)
    assert frames.broken == 2
    assert metrics.scores(frames)["ao"] == pytest.approx(1 / 3)
    assert metrics.scores(frames)["precision"] == pytest.approx(1 / 3)


def test_unusable_boxes_are_refused() -> None:
    four = np.zeros((3, 4))
    with pytest.raises(InputError, match=r"\[3, 4\] cannot be scored against \[2, 4\]"):
        metrics.frame_scores(four, four[:2])
    with pytest.raises(InputError, match="no frame can be scored"):
        metrics.scores(metrics.frame_scores(four, np.full((3, 4), NAN)))


def test_pooled_weighs_frames_and_the_mean_weighs_sequences() -> None:
    good = metrics.frame_scores(np.array([[0, 0, 4, 4.0]] * 11), np.array([[0, 0, 4, 4.0]] * 11))
    bad = metrics.frame_scores(np.array([[0, 0, 4, 4.0]] * 3), np.array([[40, 40, 4, 4.0]] * 3))
    assert metrics.pooled([good, bad])["ao"] == pytest.approx(10 / 12)
    assert metrics.mean_curves([good, bad]).success[0] == 0.5


def test_bootstrap_is_the_plain_one_and_repeats() -> None:
    values = np.random.default_rng(3).uniform(0, 1, 16)
    draws = np.random.RandomState(0).randint(0, 16, (10_000, 16))
    expected = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    np.testing.assert_array_equal(metrics.bootstrap(values.tolist()), expected)
    assert metrics.bootstrap([0.25]) == (0.25, 0.25)
    with pytest.raises(InputError, match="no sequence"):
        metrics.bootstrap([])


def test_bootstrap_in_blocks_draws_the_same() -> None:
    values = np.random.default_rng(4).uniform(0, 1, 700)  # more than one block
    draws = np.random.RandomState(0).randint(0, 700, (10_000, 700))
    expected = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    np.testing.assert_allclose(metrics.bootstrap(values.tolist()), expected, rtol=0, atol=0)


def test_sign_test_by_hand() -> None:
    """Of a fair coin's 8 tosses 7 or more alike come up in 18 of 256; equal ones are no toss; a thousand are no
    overflow."""
    found = metrics.sign_test([0.1] * 7 + [-0.2] + [0.0] * 3)
    assert found == {"higher": 7, "lower": 1, "equal": 3, "p": 2 * (1 + 8) / 256}
    assert metrics.sign_test([0.1, -0.1])["p"] == metrics.sign_test([0.0])["p"] == metrics.sign_test([])["p"] == 1.0
    assert metrics.sign_test([1.0] * 3000)["p"] == 0.0
    assert metrics.sign_test([-1.0] * 400 + [1.0] * 600)["p"] == pytest.approx(2.7e-10, rel=0.1)
