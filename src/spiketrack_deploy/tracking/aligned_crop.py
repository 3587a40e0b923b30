"""Cutting a crop that is aligned to whole pixels of frame and crop, with a colour around the frame.

This module decides the pixels that enter a tracker of growing memory (:mod:`reference_loop`), and how boxes go from the
frame to such a crop and back. It must not know PyTorch nor the network. Source: the crop of the published SPMTrack code
(github.com/WenRuiCai/SPMTrack, after LoRAT); docs/spmtrack.md, "Crop". Boxes here are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image

Floats = npt.NDArray[np.float64]
Pixels = tuple[int, int, int, int]
_ALMOST = 1e-4
"""An edge that reaches so little into a pixel does not take it."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where a crop of side ``side`` lies: pixels ``source`` of the frame fill pixels ``target`` of the crop.

    ``scale`` (x, y) and ``shift`` map a frame's coordinate v to ``v * scale + shift`` in the crop; ``asked`` and
    ``asked_shift`` were wanted before edges were moved to whole pixels."""

    side: int
    source: Pixels
    target: Pixels
    scale: tuple[float, float]
    shift: tuple[float, float]
    asked: float
    asked_shift: tuple[float, float]

    def into(self, box: Box) -> Box:
        """A frame's box in pixels of the crop."""
        (sx, sy), (tx, ty) = self.scale, self.shift
        return box[0] * sx + tx, box[1] * sy + ty, box[2] * sx + tx, box[3] * sy + ty

    def back(self, box: Box) -> Box:
        """A crop's box in pixels of the frame."""
        (sx, sy), (tx, ty) = self.scale, self.shift
        return (box[0] - tx) / sx, (box[1] - ty) / sy, (box[2] - tx) / sx, (box[3] - ty) / sy


def rasterise(box: Box) -> Pixels:
    """The pixels that a box touches; x2 and y2 are one behind the last."""
    x1, y1, x2, y2 = box
    return math.floor(x1), math.floor(y1), math.floor(x2 + 1 - _ALMOST), math.floor(y2 + 1 - _ALMOST)


def enlarged(box: Box, least: float) -> Box:
    """``box`` about its centre at least ``least`` wide and high."""
    w, h = max(box[2] - box[0], least), max(box[3] - box[1], least)
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def clipped(box: Box, width: float, height: float) -> Box:
    """``box`` cut at the borders of a frame; it may be empty then."""
    x1, x2 = (min(max(v, 0.0), width) for v in (box[0], box[2]))
    y1, y2 = (min(max(v, 0.0), height) for v in (box[1], box[3]))
    return x1, y1, x2, y2


def empty(box: Box | Pixels) -> bool:
    """Whether nothing lies in it."""
    return box[0] >= box[2] or box[1] >= box[3]


def align(box: Box, factor: float, side: int, width: int, height: int) -> Alignment:
    """A crop of ``factor`` sizes around ``box`` in a frame of ``width`` x ``height``.

    A crop that holds no pixel of the frame keeps the scale that was asked. InputError: the box is not finite or empty.
    """
    w, h = box[2] - box[0], box[3] - box[1]
    if not all(math.isfinite(v) for v in box) or w <= 0 or h <= 0:
        raise InputError(f"box {list(box)} is unusable: it needs finite numbers, width and height above 0")
    margin = (factor - 1) * (w + h) / 2
    s = math.sqrt(side * side / ((w + margin) * (h + margin)))
    tx, ty = (side / 2 - (low + high) / 2 * s for low, high in ((box[0], box[2]), (box[1], box[3])))
    target = rasterise(clipped((tx, ty, width * s + tx, height * s + ty), side, side))
    x1, y1, x2, y2 = rasterise((
        (target[0] - tx) / s, (target[1] - ty) / s, (target[2] - tx) / s, (target[3] - ty) / s,
    ))  # fmt: skip
    source = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if empty(target) or empty(source):
        return Alignment(side, (0, 0, 0, 0), (0, 0, 0, 0), (s, s), (tx, ty), s, (tx, ty))
    sx, sy = ((target[a + 2] - target[a]) / (source[a + 2] - source[a]) for a in (0, 1))
    shift = target[0] - source[0] * sx, target[1] - source[1] * sy
    return Alignment(side, source, target, (sx, sy), shift, s, (tx, ty))


def cut(frame: Image, at: Alignment, fill: Floats) -> Floats:
    """The crop, float64 ``[side, side, 3]`` in 0..255 and not rounded; ``fill`` (R, G, B) outside the frame."""
    return render(frame[at.source[1] : at.source[3], at.source[0] : at.source[2]], at, fill)


def render(region: Image, at: Alignment, fill: Floats) -> Floats:
    """:func:`cut` where only the pixels ``at.source`` of the frame are left."""
    crop = np.empty((at.side, at.side, 3))
    crop[:] = fill
    x1, y1, x2, y2 = at.target
    if not empty(at.target):
        crop[y1:y2, x1:x2] = _bilinear(region, y2 - y1, x2 - x1)
    return crop


def _bilinear(region: Image, height: int, width: int) -> Floats:
    """Half-pixel centres, borders repeated, no smoothing before shrinking."""
    low, high, part = _taps(region.shape[0], height)
    part = part[:, None, None]
    rows = region[low] * (1 - part) + region[high] * part
    low, high, part = _taps(region.shape[1], width)
    part = part[None, :, None]
    mixed: Floats = rows[:, low] * (1 - part) + rows[:, high] * part
    return mixed


def _taps(inputs: int, outputs: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    at = np.maximum((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0.0)
    low = np.minimum(at.astype(np.intp), inputs - 1)
    return low, np.minimum(low + 1, inputs - 1), at - low


def mean_colour(frame: Image) -> Floats:
    """Mean of every channel ``[3]``."""
    colour: Floats = frame.reshape(-1, 3).mean(0)
    return colour
