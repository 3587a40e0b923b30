"""The float tracker on a clip: which frames are sampled, and that what is recorded is what the tracker saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from _models import tiny_config, tiny_model

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.source import ObservedTracker, lay_out
from spiketrack_deploy.inputs.sources import ClipSource
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.loop import Tracker
from spiketrack_deploy.tracking.runs import follow_float, open_clip, sample_frames
from spiketrack_deploy.tracking.video import open_frames

BOX = (30.0, 20.0, 28.0, 19.0)


@pytest.mark.parametrize(
    ("count", "calibration", "held_out"),
    [
        (1, (1,), (1,)),
        (2, (1,), (2,)),
        (3, (1, 3), (2,)),
        (8, (1, 3, 5, 7), (2, 4, 6, 8)),
        (24, (1, 8, 14, 21), (4, 11, 17, 24)),  # 1 + 23 k / 7, rounded
    ],
)
def test_sampled_frames_alternate_and_reach_both_ends(count: int, calibration: tuple, held_out: tuple) -> None:
    assert sample_frames(count) == (calibration, held_out)


def clip(folder: Path, count: int) -> Path:
    """Drawn frames of 90 x 70 pixels."""
    rng = np.random.default_rng(0)
    for k in range(count):
        assert cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    return folder


def test_what_is_recorded_is_what_the_tracker_saw(tmp_path: Path) -> None:
    """Three templates, renewed after every second frame; the same clip followed once more, step by step."""
    config = tiny_config(3, update_interval=2, update_threshold=0.0)
    frames = open_frames(clip(tmp_path, 9))
    found = follow_float(ObservedTracker(tiny_model(config)), frames, BOX)
    assert [s.frame for s in found.calibration] == [1, 3, 5, 7] and [s.frame for s in found.held_out] == [2, 4, 6, 8]
    samples = {s.frame: s for s in (*found.calibration, *found.held_out)}

    network = TorchNetwork(tiny_model(config))
    tracker, images = Tracker(network), list(frames)
    with record_spikes(network.model) as spikes:
        crop = tracker.init(images[0], BOX)
    assert np.array_equal(found.templates, np.stack([crop.transpose(2, 0, 1)] * 3))
    assert list(found.template_spikes) == list(spikes)
    assert all(np.array_equal(found.template_spikes[name], lay_out(value)) for name, value in spikes.items())
    for k, image in enumerate(images[1:], 1):
        sixteenths = {f"memory.{i}": value.numpy()[:, 0] * 16 for i, value in network.memories.items()}
        templates = np.stack([one.transpose(2, 0, 1) for one in tracker.templates])
        with record_spikes(network.model) as spikes:
            step = tracker.track(image)
        kept, sample = found.steps[k - 1], samples[k]
        assert (kept.frame, kept.box, kept.confidence, kept.argmax, kept.updated) == (
            k, step.box, step.confidence, step.argmax, k % 2 == 0,
        )  # fmt: skip
        assert np.array_equal(sample.image, tracker.search_crop.transpose(2, 0, 1)[None])
        assert np.array_equal(sample.templates, templates)
        assert set(sample.memories) == set(sixteenths)
        for name, value in sixteenths.items():
            assert sample.memories[name].dtype == np.int32 and np.array_equal(sample.memories[name], value)
        if not step.updated:  # the recorder around an update would also hear the template phase
            assert list(sample.spikes) == list(spikes)
            assert all(np.array_equal(sample.spikes[name], lay_out(value)) for name, value in spikes.items())


def test_progress_and_clips_that_are_too_short(tmp_path: Path) -> None:
    model, told = ObservedTracker(tiny_model(tiny_config(1))), []
    frames = open_frames(clip(tmp_path, 3))
    found = follow_float(model, frames, BOX, lambda *said: told.append(said))
    assert [said[1:] for said in told] == [(1, 2), (2, 2)]
    assert [s.frame for s in found.calibration] == [1] and [s.frame for s in found.held_out] == [2]
    with pytest.raises(InputError, match="only one frame"):
        follow_float(model, open_frames(tmp_path, 1), BOX)
    source = ClipSource(tmp_path, BOX, False)
    assert open_clip(source, 2).frame_count == 2 and open_clip(source, None).frame_count == 3
    with pytest.raises(InputError, match="holds 1 frame; tracking needs at least two"):
        open_clip(source, 1)


def test_a_clip_of_unknown_length_is_sampled_from_its_beginning(tmp_path: Path) -> None:
    """A video need not state its length: frames 1 to 8 then, as far as they exist."""
    model = ObservedTracker(tiny_model(tiny_config(1)))
    frames = replace(open_frames(clip(tmp_path, 5)), frame_count=None)
    found = follow_float(model, frames, BOX)
    assert [s.frame for s in found.calibration] == [1, 3] and [s.frame for s in found.held_out] == [2, 4]
    alone = follow_float(model, replace(open_frames(tmp_path, 2), frame_count=None), BOX)
    assert [s.frame for s in alone.calibration] == [s.frame for s in alone.held_out] == [1]
