"""The loop over a scripted network: decoding, box arithmetic, window, template updates, starting boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.crop import hann_window, sample_target
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import HeadMaps, Tracker, decode, maps_from_logits

CONFIG = TrackerConfig("scripted", (8, 16, 16, 16), 64, 3, 8, update_interval=2, update_threshold=0.5)


class Scripted:
    """A network that always returns the same maps and remembers what it was given."""

    def __init__(self, maps: HeadMaps, config: TrackerConfig = CONFIG) -> None:
        self.config, self.maps = config, maps
        self.templates: list[list[Image]] = []

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Keep the crops."""
        self.templates.append(list(crops))

    def search(self, crop: Image) -> HeadMaps:
        """The scripted maps."""
        assert crop.shape == (64, 64, 3)
        return self.maps


def peak(row: int, column: int, score: float = 0.9, size: float = 0.25, side: int = 4) -> HeadMaps:
    """Maps with one peak, offset half a cell."""
    scores = np.full((side, side), 0.01)
    scores[row, column] = score
    return HeadMaps(scores, np.full((2, side, side), size), np.full((2, side, side), 0.5))


def frame(seed: int = 0) -> Image:
    """Random 200 x 160 frame."""
    return np.random.default_rng(seed).integers(0, 256, (160, 200, 3), dtype=np.uint8)


def test_first_maximum_wins_and_the_margin_is_zero() -> None:
    maps = peak(1, 2)
    maps.score[2, 1] = maps.score[1, 2]
    best = decode(maps)
    assert (best.argmax, best.margin, best.box) == (6, 0.0, ((2 + 0.5) / 4, (1 + 0.5) / 4, 0.25, 0.25))


def test_offset_is_x_first_and_unbounded() -> None:
    maps = peak(0, 0)
    maps.offset[:, 0, 0] = (3.0, -1.0)
    assert decode(maps).box[:2] == (0.75, -0.25)


def test_confidence_is_the_windowed_score() -> None:
    tracker = Tracker(Scripted(peak(1, 1)))
    tracker.init(frame(), (80, 60, 20, 20))
    step = tracker.track(frame())
    assert step.confidence == pytest.approx(0.9 * hann_window(4)[1, 1], abs=1e-15)
    assert (step.argmax, step.frame) == (5, 1)


def test_box_comes_from_the_unrounded_centre() -> None:
    network = Scripted(peak(1, 1, size=0.25))
    tracker = Tracker(network)
    tracker.init(frame(), (80.3, 60.7, 20, 20))
    step = tracker.track(frame())
    # Crop side 80, r = 64: f = 0.8; cell (1, 1) with offset 0.5 is at 24 of 64 px, 30 of 80 frame px.
    cx, cy = 80.3 + 10 - 40 + 30, 60.7 + 10 - 40 + 30
    assert tracker.resize_factor == 0.8
    assert step.box == pytest.approx((cx - 10, cy - 10, 20, 20), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_step_equals_its_definition(seed: int) -> None:
    """Drawn maps, boxes and frames (nothing square): the best windowed cell, its lead, its place in the frame, the
    clipped box. Each number is written down here from the definition, not from the loop's way of computing it."""
    rng = np.random.default_rng(seed)
    score, size = rng.uniform(0.01, 0.99, (4, 4)), rng.uniform(0.1, 0.9, (2, 4, 4))
    offset = rng.uniform(-2, 3, (2, 4, 4))
    x, y, w, h = rng.uniform((5, 5, 10, 10), (150, 110, 45, 45))
    tracker = Tracker(Scripted(HeadMaps(score, size, offset)))
    tracker.init(frame(), (x, y, w, h))
    step = tracker.track(frame())
    hann = [math.sin(math.pi * k / 5) ** 2 for k in range(1, 5)]
    ranked = sorted(((hann[r] * hann[c] * score[r, c], r, c) for r in range(4) for c in range(4)), reverse=True)
    best, row, column = ranked[0]
    assert (step.argmax, step.frame) == (4 * row + column, 1)
    assert step.confidence == pytest.approx(best, abs=1e-12)
    assert step.margin == pytest.approx(best - ranked[1][0], abs=1e-12)
    side = math.ceil(math.sqrt(w * h) * 4)
    assert tracker.resize_factor == 64 / side
    wide, high = size[:, row, column] * side
    left = x + w / 2 + ((column + offset[0, row, column]) / 4 - 0.5) * side - wide / 2
    top = y + h / 2 + ((row + offset[1, row, column]) / 4 - 0.5) * side - high / 2
    right, bottom = float(np.median([10, left + wide, 200])), float(np.median([10, top + high, 160]))
    left, top = float(np.median([0, left, 190])), float(np.median([0, top, 150]))
    assert step.box == pytest.approx((left, top, max(10, right - left), max(10, bottom - top)), abs=1e-9)


def test_templates_update_at_the_interval_keep_the_first_and_drop_the_second() -> None:
    network = Scripted(peak(1, 1))
    tracker = Tracker(network)
    first = tracker.init(frame(0), (80, 60, 20, 20))
    assert [len(t) for t in network.templates] == [3]
    assert all(t is first for t in network.templates[0])
    crops = []
    for k in range(1, 9):
        step = tracker.track(frame(k))
        assert step.updated == (k % 2 == 0)
        if step.updated:
            want, _ = sample_target(frame(k), step.box, 4.0, 64)  # around the new box, in the same frame
            assert np.array_equal(tracker.templates[-1], want)
            crops.append(tracker.templates[-1])
    assert len(network.templates) == 5
    for n in range(1, 5):
        older = first if n == 1 else crops[n - 2]
        assert [x is y for x, y in zip(network.templates[n], (first, older, crops[n - 1]))] == [True] * 3
    assert tracker.templates[0] is first


def test_the_threshold_is_strict() -> None:
    confidence = 0.9 * hann_window(4)[1, 1]
    for threshold, updated in ((confidence, False), (np.nextafter(confidence, 0), True)):
        tracker = Tracker(Scripted(peak(1, 1), replace(CONFIG, update_interval=1, update_threshold=float(threshold))))
        tracker.init(frame(), (80, 60, 20, 20))
        assert tracker.track(frame()).updated is updated


def test_one_template_never_updates() -> None:
    config = replace(CONFIG, templates=1, update_interval=1, update_threshold=0.0)
    network = Scripted(peak(1, 1), config)
    tracker = Tracker(network)
    tracker.init(frame(), (80, 60, 20, 20))
    assert not any(tracker.track(frame()).updated for _ in range(3))
    assert len(network.templates) == 1


def test_crop_factors_are_those_of_the_configuration() -> None:
    tracker = Tracker(Scripted(peak(1, 1), replace(CONFIG, search_factor=3.0, template_factor=2.0)))
    template = tracker.init(frame(), (80, 60, 20, 20))
    assert np.array_equal(template, sample_target(frame(), (80, 60, 20, 20), 2.0, 64)[0])
    tracker.track(frame())
    assert tracker.resize_factor == 64 / 60


def test_init_restarts_the_count() -> None:
    tracker = Tracker(Scripted(peak(1, 1)))
    for _ in range(2):
        tracker.init(frame(), (80, 60, 20, 20))
        assert tracker.track(frame()).frame == 1


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((1, 2, 3), "four numbers"),
        ("abcd", "four numbers"),
        (None, "four numbers"),
        ((1, 2, 0, 5), "above 0"),
        ((1, 2, float("nan"), 5), "finite"),
        ((float("inf"), 2, 4, 5), "finite"),
        ((1, 2, 5, 0), "above 0"),
        ((200, 2, 4, 5), "does not overlap"),
        ((2, 160, 4, 5), "does not overlap"),
        ((-10, 2, 10, 5), "does not overlap"),
        ((2, -5, 10, 5), "does not overlap"),
        ((0, 0, 400.5, 5), "more than twice"),
        ((0, 0, 5, 320.5), "more than twice"),
    ],
)
def test_unusable_starting_boxes(box: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Tracker(Scripted(peak(1, 1))).init(frame(), box)


@pytest.mark.parametrize(
    "box", [(199.5, 159.5, 4, 5), (-9.5, -4.5, 10, 5), (0, 0, 400, 5), (0, 0, 5, 320), (9, 9, 0.5, 0.5)]
)
def test_starting_boxes_at_the_edge_of_use(box: tuple[float, ...]) -> None:
    """Half a pixel inside the frame, exactly twice as large, or half a pixel large: accepted."""
    Tracker(Scripted(peak(1, 1))).init(frame(), box)


def test_tracking_needs_a_start() -> None:
    with pytest.raises(InputError, match="call init"):
        Tracker(Scripted(peak(1, 1))).track(frame())


def test_logits_become_clamped_maps_without_overflow() -> None:
    ctr = np.array([[-1e4, 0.0], [2.0, 1e4]])
    maps = maps_from_logits(ctr[None], np.full((1, 2, 2, 2), -7.5), np.zeros((2, 2, 2)))
    assert maps.score[0, 0] == 1e-4
    assert maps.score[1, 1] == 1 - 1e-4
    assert maps.score[0, 1] == 0.5
    assert maps.score[1, 0] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-15)
    mild = np.array([[-3.0, -0.25], [0.25, 3.0]])
    again = maps_from_logits(mild, np.zeros((2, 2, 2)), np.stack([mild, -mild]))
    for found, logits in ((again.score, mild), (again.size[0], mild), (again.size[1], -mild)):
        assert found == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-15)
    assert (maps.offset == -7.5).all()
    assert maps.score.dtype == np.float64


def test_bad_maps_are_an_engine_error() -> None:
    for cells, offsets, sizes in ((5, 10, 10), (4, 7, 8), (4, 8, 9)):
        with pytest.raises(EngineError, match=f"{cells}, {offsets} and {sizes} values, not P\\*P"):
            maps_from_logits(np.zeros(cells), np.zeros(offsets), np.zeros(sizes))
    with pytest.raises(EngineError, match="not finite"):
        decode(peak(1, 1, score=float("nan")))
    with pytest.raises(EngineError, match="not finite"):
        decode(peak(1, 1, size=float("inf")))
