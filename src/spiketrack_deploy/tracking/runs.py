"""A target followed through a clip, by the float tracker or by a program on any engine, and what is kept of it.

This module decides which frames are recorded for calibration and comparison. It must not know files of a bundle, prices
or reports, nor which float tracker it is: one stands behind :class:`ObservedNetwork`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import ClipSource
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.loop import HeadMaps, Network, Settings, TrackedFrame, tracker_over
from spiketrack_deploy.tracking.program_network import IMAGE, SEARCH, TEMPLATE
from spiketrack_deploy.tracking.video import FrameSource, open_frames

AnyArray = np.ndarray[Any, np.dtype[Any]]
SAMPLES = 4
"""Frames kept for calibration, and as many others for the layer-by-layer comparison."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A recorded search frame: its crop uint8 ``[1,3,r,r]``, the templates uint8 ``[T,3,r,r]`` it was searched with and
    their memories (int32 ``[T,heads,d,dv]`` in 1/16, by ``memory.<i>``), the float tracker's spikes by NI-LIF name."""

    frame: int
    image: AnyArray
    templates: AnyArray
    memories: Mapping[str, AnyArray]
    spikes: Mapping[str, AnyArray]


@dataclass(frozen=True, slots=True)
class FloatRun:
    """The float tracker on a clip. ``templates`` uint8 ``[T,3,r,r]`` with their spikes; search frames for calibration
    and comparison: ``held_out`` equals ``calibration`` where the clip is too short for both. All spikes are int8 0..4
    in the program's axes."""

    steps: tuple[TrackedFrame, ...]
    templates: AnyArray
    template_spikes: Mapping[str, AnyArray]
    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    def recorded(self) -> dict[str, list[dict[str, AnyArray]]]:
        """Phase -> runs of image and spikes by name: what a lowering is calibrated on."""
        return {
            TEMPLATE: [{IMAGE: self.templates, **self.template_spikes}],
            SEARCH: [{IMAGE: sample.image, **sample.spikes} for sample in self.calibration],
        }


class ObservedNetwork(Network, Protocol):
    """A float tracker that says what it did."""

    def observing(self) -> AbstractContextManager[Mapping[str, AnyArray]]:
        """Spikes by NI-LIF name, int8 0..4 in the program's axes, whole when the ``with`` block has ended."""

    def states(self) -> Mapping[str, AnyArray]:
        """What the templates left for the searches: integers in the program's axes, by state name."""


def open_clip(clip: ClipSource, max_frames: int | None) -> FrameSource:
    """The clip's frames; at least two are needed, one to start on and one to search."""
    frames = open_frames(clip.path, max_frames)
    if frames.frame_count is not None and frames.frame_count < 2:
        raise InputError(f"{clip.path}: holds {frames.frame_count} frame; tracking needs at least two")
    return frames


def planar(crop: AnyArray) -> AnyArray:
    """uint8 ``[r,r,3]`` crop as the program's image ``[1,3,r,r]``."""
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None])


def follow(network: Any, frames: FrameSource, init: Box, what: str, tell: Tell | None) -> list[TrackedFrame]:
    """Track ``init`` through ``frames`` by the loop that ``network`` is made for."""
    tracker = tracker_over(network)
    tracked: list[TrackedFrame] = []
    total = (frames.frame_count or 1) - 1
    for index, frame in enumerate(frames):
        if index == 0:
            tracker.init(frame, init)
            continue
        if tell:
            tell(what, index, total)
        tracked.append(tracker.track(frame))
    if not tracked:
        raise InputError(f"{frames.path}: holds only one frame that can be decoded; tracking needs at least two")
    return tracked


def sample_frames(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Frames (1 to ``count``) for calibration and, where there are enough, others for the comparison, spread evenly."""
    if count < 2:
        return (1,), (1,)
    chosen = np.unique(np.linspace(1, count, min(2 * SAMPLES, count)).round().astype(int))
    return tuple(int(f) for f in chosen[0::2]), tuple(int(f) for f in chosen[1::2])


def follow_float(network: ObservedNetwork, frames: FrameSource, init: Box, tell: Tell | None = None) -> FloatRun:
    """Run a float tracker, recording spikes at the template pass and on the sample frames."""
    count = frames.frame_count or frames.max_frames
    # Where the length is unknown the first frames serve: a later one may not exist.
    calibration, held_out = sample_frames(count - 1) if count else (tuple(range(1, 8, 2)), tuple(range(2, 9, 2)))
    recorder = _Recorder(network, {*calibration, *held_out})
    steps = follow(recorder, frames, init, "float tracker", tell)
    kept = recorder.samples
    first = tuple(kept[f] for f in calibration if f in kept)
    second = tuple(kept[f] for f in held_out if f in kept) or first
    return FloatRun(tuple(steps), recorder.templates, recorder.template_spikes, first or second, second)


class _Recorder:
    """A network that keeps crops and spikes of chosen frames; the loop does not notice."""

    def __init__(self, network: ObservedNetwork, wanted: set[int]) -> None:
        self._network, self._wanted = network, wanted
        self._frame = 0
        self.samples: dict[int, Sample] = {}
        self._current: AnyArray = np.zeros(0, dtype=np.uint8)
        self.templates: AnyArray = self._current
        self.template_spikes: Mapping[str, AnyArray] = {}

    @property
    def config(self) -> Settings:
        return self._network.config

    def set_templates(self, crops: Sequence[AnyArray]) -> None:
        self._current = np.concatenate([planar(crop) for crop in crops])
        if self.template_spikes:
            self._network.set_templates(crops)
            return
        with self._network.observing() as spikes:
            self._network.set_templates(crops)
        self.templates, self.template_spikes = self._current, spikes

    def search(self, crop: AnyArray) -> HeadMaps:
        self._frame += 1
        if self._frame not in self._wanted:
            return self._network.search(crop)
        with self._network.observing() as spikes:
            maps = self._network.search(crop)
        self.samples[self._frame] = Sample(self._frame, planar(crop), self._current, self._network.states(), spikes)
        return maps
