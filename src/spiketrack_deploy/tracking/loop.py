"""The tracking loop: window, decoding, box arithmetic and template update, over any engine that yields maps.

This module decides the box of a frame and when templates change (docs/spiketrack.md, "Loop"). It must not know how maps
are computed or which network does it: float networks and integer engines all stand behind :class:`Network`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.tracking.boxes import Box, clip_box
from spiketrack_deploy.tracking.crop import Floats, check_frame, hann_window, sample_target
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.rule import LoopRule, Motion

CLAMP = 1e-4
"""Score and size stay within [CLAMP, 1 - CLAMP]."""


@dataclass(frozen=True, slots=True)
class HeadMaps:
    """Maps of one frame before any window, float64: score ``[P,P]``, size and offset ``[2,P,P]`` (x first).

    Size is a fraction of the search crop, offset is in cells and unbounded.
    """

    score: Floats
    size: Floats
    offset: Floats


class Settings(Protocol):
    """What the loop must know of a tracker; its configuration has these, whatever else it holds.

    ``resolution``: side of a crop in pixels. ``grid``: cells per side of a map. ``templates``: how many it takes.
    ``search_factor``, ``template_factor``: side of a crop in target sizes. ``update_interval``, ``update_threshold``:
    with every so many frames a template is replaced where the confidence is above that. ``loop``: the rule of the loop.
    """

    @property
    def name(self) -> str: ...
    @property
    def resolution(self) -> int: ...
    @property
    def grid(self) -> int: ...
    @property
    def templates(self) -> int: ...
    @property
    def search_factor(self) -> float: ...
    @property
    def template_factor(self) -> float: ...
    @property
    def update_interval(self) -> int: ...
    @property
    def update_threshold(self) -> float: ...
    @property
    def loop(self) -> LoopRule: ...


class Network(Protocol):
    """What the loop needs of an engine."""

    @property
    def config(self) -> Settings:
        """Settings of the loop."""

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Recompute every memory from T crops (uint8 ``[r,r,3]`` RGB; first, older, newest)."""

    def search(self, crop: Image) -> HeadMaps:
        """Maps of one search crop (uint8 ``[r,r,3]`` RGB) against the current memories."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The best cell of a score map: (cx, cy, w, h) in fractions of the search crop, its index, score and lead."""

    box: Box
    argmax: int
    score: float
    margin: float


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """One tracked frame of any tracker; ``frame`` counts from 1, the first one that is searched.

    ``box`` is x, y, w, h in frame pixels. A tracker of score maps also states ``confidence``, the windowed maximum
    (NaN: none stated), ``argmax``, its row-major cell, ``margin``, its lead over the runner-up (0: an exact tie, the
    first cell counted), and whether templates were ``updated`` behind the frame.
    """

    frame: int
    box: Box
    confidence: float = math.nan
    argmax: int = -1
    margin: float = 0.0
    updated: bool = False


class FrameTracker(Protocol):
    """A loop over a network: one target in one video."""

    def init(self, frame: Image, box: Sequence[float]) -> object:
        """Start at ``box`` (x, y, w, h in pixels) of the first frame."""

    def track(self, frame: Image) -> TrackedFrame:
        """Follow into the next frame."""


def tracker_over(network: Any) -> FrameTracker:
    """The loop that ``network`` says it is made for (``loop``, a class), by default :class:`Tracker`."""
    made: FrameTracker = getattr(network, "loop", Tracker)(network)
    return made


def maps_from_logits(ctr: Floats, offset: Floats, size: Floats) -> HeadMaps:
    """Maps from logits (ctr of P*P values, offset and size of 2*P*P, any leading axes): the host's share of the head.

    Sigmoid and clamp in float64 for score and size, nothing for the offset. Every engine decodes through this function.
    """
    cells = int(np.asarray(ctr).size)
    side = math.isqrt(cells)
    if side * side != cells or np.asarray(offset).size != 2 * cells or np.asarray(size).size != 2 * cells:
        sizes = f"{cells}, {np.asarray(offset).size} and {np.asarray(size).size}"
        raise EngineError(f"head logits have {sizes} values, not P*P, 2*P*P and 2*P*P")
    return HeadMaps(
        score=_bounded(ctr).reshape(side, side),
        size=_bounded(size).reshape(2, side, side),
        offset=np.array(offset, dtype=np.float64).reshape(2, side, side),
    )


def _bounded(logits: Floats) -> Floats:
    x = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(x))  # never overflows, whatever the sign
    sigmoid = np.where(x >= 0, 1 / (1 + small), small / (1 + small))
    return np.clip(sigmoid, CLAMP, 1 - CLAMP)


def decode(maps: HeadMaps, window: Floats | None = None) -> Decoded:
    """Best cell of ``score`` (times ``window`` where given): the first maximum in row-major order."""
    response = maps.score if window is None else window * maps.score
    flat = response.reshape(-1)
    if not np.isfinite(flat).all():
        raise EngineError("the network returned a score that is not finite; its weights are unusable")
    side = response.shape[1]
    index = int(flat.argmax())
    row, column = divmod(index, side)
    second = float(np.delete(flat, index).max())
    cx = (column + float(maps.offset[0, row, column])) / side
    cy = (row + float(maps.offset[1, row, column])) / side
    box = (cx, cy, float(maps.size[0, row, column]), float(maps.size[1, row, column]))
    if not all(math.isfinite(v) for v in box):
        raise EngineError("the network returned a box that is not finite; its weights are unusable")
    return Decoded(box, index, float(flat[index]), float(flat[index]) - second)


class Tracker:
    """One target in one video: :meth:`init` on the first frame, then :meth:`track` on every following one.

    Interval and threshold of the template update and the rule come from ``network.config``; ``rule`` replaces the one
    there.
    """

    def __init__(self, network: Network, rule: LoopRule | None = None) -> None:
        self._network = network
        self._rule = network.config.loop if rule is None else rule
        self._motion = Motion(self._rule)
        self._window = hann_window(network.config.grid)
        self._templates: list[Image] = []
        self._box: Box | None = None
        self._frame = 0
        self.search_crop: Image | None = None
        """What the last :meth:`track` searched, uint8 ``[r,r,3]``, and its pixels per frame pixel."""
        self.resize_factor = 1.0

    @property
    def templates(self) -> tuple[Image, ...]:
        """Template crops in step order: the first one, then older, then newest."""
        return tuple(self._templates)

    def init(self, frame: Image, box: Sequence[float]) -> Image:
        """Start at ``box`` (x, y, w, h in pixels) of ``frame``; returns the template crop.

        Raises :class:`InputError` for a box that is not four finite numbers with positive size, does not overlap the
        frame, or is more than twice as wide or high as the frame.
        """
        check_frame(frame)
        start = initial_box(box, frame.shape[1], frame.shape[0])
        config = self._network.config
        crop, _ = sample_target(frame, start, config.template_factor, config.resolution)
        self._templates = [crop] * config.templates
        self._network.set_templates(self._templates)
        self._box, self._frame, self._motion = start, 0, Motion(self._rule)
        return crop

    def track(self, frame: Image) -> TrackedFrame:
        """Search ``frame`` around the last box."""
        if self._box is None:
            raise InputError("the tracker has no target yet; call init with a frame and a box first")
        self._frame += 1
        config, last, (height, width) = self._network.config, self._box, frame.shape[:2]
        wide = self._motion.factor(config.search_factor)
        around = self._motion.search_box(last, math.sqrt(last[2] * last[3]) * wide, width, height)
        crop, factor = sample_target(frame, around, wide, config.resolution)
        maps, scale = self._network.search(crop), factor / config.resolution
        best = decode(maps, self._rule.weights(self._window, maps.size, (last[2] * scale, last[3] * scale)))
        found = self._to_frame(best.box, around, factor)
        box = clip_box(self._motion.taken(last, found, float(maps.score.flat[best.argmax])), width, height)
        self._box, self.search_crop, self.resize_factor = box, crop, factor
        updated = self._maybe_update(frame, box, best.score)
        return TrackedFrame(self._frame, box, best.score, best.argmax, best.margin, updated)

    def _to_frame(self, decoded: Box, around: Box, factor: float) -> Box:
        """Crop fractions to a frame box; starts from the unrounded centre of the searched one (published quirk)."""
        side = self._network.config.resolution
        x, y, w, h = around
        cx, cy, bw, bh = (v * side / factor for v in decoded)
        half = 0.5 * side / factor
        cx += x + 0.5 * w - half
        cy += y + 0.5 * h - half
        return cx - 0.5 * bw, cy - 0.5 * bh, bw, bh

    def _maybe_update(self, frame: Image, box: Box, confidence: float) -> bool:
        config = self._network.config
        due = config.templates > 1 and self._frame % config.update_interval == 0
        if not due or not confidence > config.update_threshold:
            return False
        crop, _ = sample_target(frame, box, config.template_factor, config.resolution)
        # The first template is never dropped: the oldest of the others makes room.
        if len(self._templates) >= config.templates:
            del self._templates[1]
        self._templates.append(crop)
        self._network.set_templates(self._templates)
        return True


def initial_box(box: Sequence[float], width: int, height: int) -> Box:
    try:
        x, y, w, h = (float(v) for v in box)
    except (TypeError, ValueError) as error:
        raise InputError(f"the initial box must be four numbers x, y, width, height; got {box!r}") from error
    if not all(math.isfinite(v) for v in (x, y, w, h)) or w <= 0 or h <= 0:
        raise InputError(f"the initial box {[x, y, w, h]} needs finite numbers with width and height above 0")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise InputError(f"the initial box {[x, y, w, h]} does not overlap the frame of {width}x{height} pixels")
    if w > 2 * width or h > 2 * height:
        raise InputError(f"the initial box {[x, y, w, h]} is more than twice the frame of {width}x{height} pixels")
    return x, y, w, h
