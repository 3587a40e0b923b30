"""Views: where a crop lies in a frame, cutting it with any offset, scale and aspect, and boxes in its coordinates.

This module decides crop geometry for training; without jitter it is the tracker's own crop (a test compares them). It
must not know losses nor data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.datasets.catalogue import Floats
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image

Placed = tuple[float, float, float, float]
"""A box in a crop: centre x, centre y, width, height in fractions of the crop."""


@dataclass(frozen=True, slots=True)
class View:
    """A rectangle of a frame that becomes a crop: corner (x, y), width and height in frame pixels, mirrored or not.

    ``turn``: (radians, x, y): the frame is turned by so much about this point beforehand; boxes are those of the
    turned frame (:func:`turned_box`).
    """

    x: float
    y: float
    width: float
    height: float
    mirrored: bool = False
    turn: tuple[float, float, float] | None = None

    def matrix(self, out: int) -> Floats:
        """Affine ``[2,3]`` from frame pixel indices to crop pixel indices: dst = (src + 1/2 - corner) scale - 1/2."""
        sx, sy = out / self.width, out / self.height
        tx, ty = (0.5 - self.x) * sx - 0.5, (0.5 - self.y) * sy - 0.5
        if self.mirrored:
            m = np.array([[-sx, 0.0, out - 1 - tx], [0.0, sy, ty]])
        else:
            m = np.array([[sx, 0.0, tx], [0.0, sy, ty]])
        if self.turn is None:
            return m
        rotation, pivot = _rotation(self.turn[0]), np.array(self.turn[1:]) - 0.5
        return np.column_stack([m[:, :2] @ rotation, m[:, :2] @ (pivot - rotation @ pivot) + m[:, 2]])

    def place(self, box: Sequence[float]) -> Placed:
        """Box x, y, w, h in frame pixels -> centre x, centre y, w, h in fractions of the crop."""
        x, y, w, h = box
        cx = (x + 0.5 * w - self.x) / self.width
        return 1 - cx if self.mirrored else cx, (y + 0.5 * h - self.y) / self.height, w / self.width, h / self.height

    def frame_box(self, placed: Sequence[float]) -> Box:
        """Inverse of :meth:`place`."""
        cx, cy, w, h = placed
        w, h = w * self.width, h * self.height
        cx = self.x + (1 - cx if self.mirrored else cx) * self.width
        return cx - 0.5 * w, self.y + cy * self.height - 0.5 * h, w, h


def _rotation(angle: float) -> Floats:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def turned_box(box: Box, outline: Sequence[Floats], angle: float) -> Box:
    """The box of an object turned by ``angle`` (radians) about its box's centre: of its outline, or of the ellipse
    within its box where none is known (the turned corners would enclose too much)."""
    x, y, w, h = box
    centre = np.array([x + 0.5 * w, y + 0.5 * h])
    if outline:
        points = (np.concatenate(list(outline)) - centre) @ _rotation(angle).T + centre
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        return float(x1), float(y1), float(x2 - x1), float(y2 - y1)
    half = 0.5 * np.hypot(*(_rotation(angle) * np.array([w, h])).T)
    return float(centre[0] - half[0]), float(centre[1] - half[1]), float(2 * half[0]), float(2 * half[1])


def view_around(box: Sequence[float], factor: float, mirrored: bool = False) -> View:
    """The tracker's crop window (docs/spiketrack.md, "Loop"): side ``ceil(sqrt(w h) factor)``, corner rounded."""
    x, y, w, h = box
    side = max(math.ceil(math.sqrt(w * h) * factor), 1)
    return View(round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side), side, side, mirrored)


def jittered(view: View, shift: tuple[float, float], log_scale: float, log_aspect: float) -> View:
    """``view`` moved by ``shift`` pixels and scaled about its centre; ``log_aspect`` widens x and narrows y."""
    width = view.width * math.exp(log_scale + 0.5 * log_aspect)
    height = view.height * math.exp(log_scale - 0.5 * log_aspect)
    cx, cy = view.x + 0.5 * view.width + shift[0], view.y + 0.5 * view.height + shift[1]
    return View(cx - 0.5 * width, cy - 0.5 * height, width, height, view.mirrored, view.turn)


def enlarged(view: View, wide: float) -> View:
    """``view`` made ``wide`` times as wide and high about its centre; at 1 itself, to the last bit."""
    return view if wide == 1 else jittered(view, (0.0, 0.0), math.log(wide), 0.0)


def within(placed: Placed, wide: float) -> Placed:
    """A box in a crop -> the same box in the crop enlarged ``wide`` times."""
    cx, cy, w, h = placed
    return placed if wide == 1 else ((cx - 0.5) / wide + 0.5, (cy - 0.5) / wide + 0.5, w / wide, h / wide)


def view_onto(box: Sequence[float], target: Placed, mirrored: bool = False) -> View:
    """The view in which ``box`` (frame pixels) appears at ``target`` (centre and size as fractions of the crop)."""
    x, y, w, h = box
    cx, cy, tw, th = target
    width, height = w / tw, h / th
    return View(x + 0.5 * w - (1 - cx if mirrored else cx) * width, y + 0.5 * h - cy * height, width, height, mirrored)


def cut(frame: Image, view: View, out: int) -> Image:
    """Crop uint8 ``[out,out,3]``, bilinear, black outside the frame."""
    import cv2

    return np.asarray(
        cv2.warpAffine(frame, view.matrix(out), (out, out), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT),
        dtype=np.uint8,
    )


def cut_mask(outline: Sequence[Floats], view: View, out: int) -> Floats:
    """Coverage 0..1 ``[out,out]`` of polygons in frame pixels, with a soft edge of about a pixel."""
    import cv2

    m = view.matrix(out)
    sixteenths = [np.rint(((ring - 0.5) @ m[:, :2].T + m[:, 2]) * 16).astype(np.int32) for ring in outline]
    mask = np.zeros((out, out), dtype=np.uint8)
    cv2.fillPoly(mask, sixteenths, 255, lineType=cv2.LINE_8, shift=4)
    return np.asarray(cv2.blur(mask, (3, 3)), dtype=np.float64) / 255.0
