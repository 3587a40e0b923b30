"""The tracking loop of a network that sees references out of a growing memory, and carries a state from frame to frame.

This module decides which references a frame takes, the response, the box of a frame and what is remembered. It must not
know how maps are computed or which network does it: one stands behind :class:`ReferenceNetwork`. Source: the published
SPMTrack tracker (arXiv 2503.18338, github.com/WenRuiCai/SPMTrack); docs/spmtrack.md, "Loop".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.tracking import aligned_crop as crops
from spiketrack_deploy.tracking.aligned_crop import Alignment, Floats, Pixels
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.crop import check_frame
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import TrackedFrame, initial_box

LEAST = 10.0
"""Pixels: width and height that a box is enlarged to before it is searched around."""
RULES = {"halves": lambda k: (0, k // 2 // 2, k // 2 + k // 2 // 2), "thirds": lambda k: (0, k // 3, 2 * k // 3)}
"""Entries of the memory (entry j is frame j) for frame k >= 4; ``thirds`` was published for LaSOT with B alone."""
_EARLY = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}


def references_of(frame: int, rule: str) -> tuple[int, int, int]:
    """Entries that frame ``frame`` (from 1) takes."""
    return _EARLY.get(frame) or RULES[rule](frame)


@dataclass(frozen=True, slots=True)
class BoxMaps:
    """Maps of one frame, float64: ``score`` logits ``[P,P]``, ``boxes`` ``[P,P,4]`` x1, y1, x2, y2 in sides of the
    search crop; ``state``: whatever the network wants back with the next frame."""

    score: Floats
    boxes: Floats
    state: Any


class ReferenceSettings(Protocol):
    """What the loop must know of a network: sides of crops in pixels and of the map in cells, crops in target sizes,
    share of the window in the response, and the rule of the memory (:data:`RULES`)."""

    @property
    def name(self) -> str: ...
    @property
    def template(self) -> int: ...
    @property
    def template_grid(self) -> int: ...
    @property
    def search(self) -> int: ...
    @property
    def grid(self) -> int: ...
    @property
    def template_factor(self) -> float: ...
    @property
    def search_factor(self) -> float: ...
    @property
    def window_weight(self) -> float: ...
    @property
    def memory(self) -> str: ...


class ReferenceNetwork(Protocol):
    """What the loop needs of an engine. Crops are float64 ``[side, side, 3]`` RGB in 0..255."""

    @property
    def config(self) -> ReferenceSettings:
        """Settings of the loop."""

    def start(self) -> Any:
        """State at the first tracked frame."""

    def reference(self, crop: Floats, cells: Pixels) -> Any:
        """A template made ready once for all frames that take it; ``cells``: those of its grid that show the target."""

    def search(self, crop: Floats, references: Sequence[Any], state: Any) -> BoxMaps:
        """Maps of one search crop against three references."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A remembered frame: as little of it as its crop is made from, or the crop where that is smaller."""

    pixels: Any
    at: Alignment
    fill: Floats
    cells: Pixels

    def crop(self) -> Floats:
        if self.pixels.dtype == np.uint8:
            return crops.render(self.pixels, self.at, self.fill)
        return np.asarray(self.pixels)


class ReferenceTracker:
    """One target in one video: :meth:`init` on the first frame, then :meth:`track` on every following one.

    An output box that is empty behind the frame's border is reported; the next search keeps the last box and the memory
    repeats its last entry (the published code ends there with a failed assertion).
    """

    def __init__(self, network: ReferenceNetwork) -> None:
        self._network = network
        self._memory: dict[int, _Entry] = {}
        self._ready: dict[int, Any] = {}
        self._box: Box | None = None
        self._frame, self._state = 0, network.start()
        self._fill: Floats = np.zeros(3)
        self._image: Image | None = None
        self.references: tuple[int, ...] = ()
        """Entries of the memory that the last :meth:`track` took; what it searched, and where."""
        self.search_crop: Floats | None = None
        self.alignment: Alignment | None = None
        self.maps: BoxMaps | None = None

    @property
    def box(self) -> Box | None:
        """What the next frame is searched around, x1, y1, x2, y2."""
        return self._box

    @property
    def last(self) -> tuple[Floats, Alignment, Pixels]:
        """Crop of the newest entry of the memory, where it lies, and its cells that show the target."""
        entry = self._memory[max(self._memory)]
        return entry.crop(), entry.at, entry.cells

    def init(self, frame: Image, box: Sequence[float]) -> None:
        """Start at ``box`` (x, y, w, h in pixels) of ``frame``; InputError for a box that is none or lies outside."""
        check_frame(frame)
        x, y, w, h = initial_box(box, frame.shape[1], frame.shape[0])
        self._box, self._frame, self._state = (x, y, x + w, y + h), 0, self._network.start()
        self._fill = crops.mean_colour(frame)
        self._memory, self._ready = {0: self._entry(frame, self._box, self._fill)}, {}

    def track(self, frame: Image) -> TrackedFrame:
        """Search ``frame`` around the last box."""
        return self.take(self._network.search(*self.ask(frame)))

    def ask(self, frame: Image) -> tuple[Floats, list[Any], Any]:
        """What ``frame`` has to be searched with: crop, references, state. :meth:`take` goes on with its maps, so that
        several targets may be searched for in one pass."""
        if self._box is None:
            raise InputError("the tracker has no target yet; call init with a frame and a box first")
        check_frame(frame)
        self._frame += 1
        config, (height, width) = self._network.config, frame.shape[:2]
        at = crops.align(crops.enlarged(self._box, LEAST), config.search_factor, config.search, width, height)
        self.search_crop, self.alignment, self._image = crops.cut(frame, at, self._fill), at, frame
        return self.search_crop, self._references(), self._state

    def take(self, maps: BoxMaps) -> TrackedFrame:
        """The box of the frame that was asked for."""
        if self._image is None or self.alignment is None:
            raise InputError("no frame was asked for; call ask with one first")
        frame, at, config = self._image, self.alignment, self._network.config
        height, width = frame.shape[:2]
        argmax, confidence, margin, box = decode(maps, config)
        found = crops.clipped(at.back(box), width, height)
        self.maps, self._state, self._image = maps, maps.state, None
        if crops.empty(found):
            self._memory[self._frame] = self._memory[self._frame - 1]
        else:
            self._box = found
            self._memory[self._frame] = self._entry(frame, found, crops.mean_colour(frame))
        x1, y1, x2, y2 = found
        return TrackedFrame(self._frame, (x1, y1, x2 - x1, y2 - y1), confidence, argmax, margin)

    def _references(self) -> list[Any]:
        """The references of this frame, made ready once each; what no later frame can ask for is forgotten."""
        rule = self._network.config.memory
        self.references = references_of(self._frame, rule)
        for index in [i for i in self._memory if 0 < i < min(self.references[1], self._frame - 1)]:
            del self._memory[index]
        self._ready = {i: self._ready[i] if i in self._ready else self._made(i) for i in self.references}
        return [self._ready[i] for i in self.references]

    def _made(self, index: int) -> Any:
        entry = self._memory[index]
        return self._network.reference(entry.crop(), entry.cells)

    def _entry(self, frame: Image, box: Box, fill: Floats) -> _Entry:
        config = self._network.config
        at = crops.align(box, config.template_factor, config.template, frame.shape[1], frame.shape[0])
        cells = foreground(at.into(box), config.template // config.template_grid, config.template_grid)
        x1, y1, x2, y2 = at.source
        pixels: Any = np.ascontiguousarray(frame[y1:y2, x1:x2])
        if pixels.size > 8 * 3 * config.template**2:
            pixels = crops.cut(frame, at, fill)
        return _Entry(pixels, at, fill, cells)


def sigmoid(logits: Floats) -> Floats:
    """Of any logits, in float64."""
    made: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return made


def decode(maps: BoxMaps, config: ReferenceSettings) -> tuple[int, float, float, Box]:
    """Best cell (first maximum of score and window), its score without window, its lead, and its box in pixels of the
    crop. EngineError: a value of it is not finite."""
    side, p = config.grid, sigmoid(maps.score)
    window = np.outer(np.hanning(side), np.hanning(side)) if side > 1 else np.ones((1, 1))
    response = ((1 - config.window_weight) * p + config.window_weight * window).reshape(-1)
    if not np.isfinite(response).all():
        raise EngineError("the network returned a score that is not finite; its weights are unusable")
    index = int(response.argmax())
    others = np.delete(response, index)
    margin = float(response[index] - others.max()) if others.size else 0.0
    x1, y1, x2, y2 = (float(v) * config.search for v in maps.boxes.reshape(-1, 4)[index])
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise EngineError("the network returned a box that is not finite; its weights are unusable")
    return index, float(p.reshape(-1)[index]), margin, (x1, y1, x2, y2)


def foreground(box: Box, cell: int, grid: int) -> Pixels:
    """Cells of ``cell`` pixels that a box in pixels of a crop touches, cut at the grid's border.

    (The published code does not cut: for a target ten times longer than wide its indices turn negative.)"""
    x1, y1, x2, y2 = rasterised_cells(box, cell)
    return max(x1, 0), max(y1, 0), min(x2, grid), min(y2, grid)


def rasterised_cells(box: Box, cell: int) -> Pixels:
    """As :func:`foreground`, not cut."""
    x1, y1, x2, y2 = box
    return crops.rasterise((x1 / cell, y1 / cell, x2 / cell, y2 / cell))
