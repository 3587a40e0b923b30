"""The loop over a scripted network: decoding, box arithmetic, window, template updates, starting boxes."""

from __future__ import annotations

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
        ((200, 2, 4, 5), "does not overlap"),
        ((-10, 2, 10, 5), "does not overlap"),
        ((0, 0, 500, 5), "more than twice"),
    ],
)
def test_unusable_starting_boxes(box: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
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
    assert (maps.offset == -7.5).all()
    assert maps.score.dtype == np.float64


def test_bad_maps_are_an_engine_error() -> None:
    with pytest.raises(EngineError, match="P\\*P"):
        maps_from_logits(np.zeros(5), np.zeros(10), np.zeros(10))
    with pytest.raises(EngineError, match="not finite"):
        decode(peak(1, 1, score=float("nan")))
    with pytest.raises(EngineError, match="not finite"):
        decode(peak(1, 1, size=float("inf")))
