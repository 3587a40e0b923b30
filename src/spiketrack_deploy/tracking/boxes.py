"""Boxes: what one is, when it shows a target, how much two overlap, keeping one inside a frame.

This module decides box arithmetic for the loop, the comparison of trackers, scores and training alike. It must not know
frames, files or networks; NumPy alone. (Tensors that are differentiated have their own overlap in training/losses.py.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Box = tuple[float, float, float, float]
"""x, y of the top left corner, width, height, in pixels of the frame."""
Boxes = npt.NDArray[np.float64]
"""``[N,4]``: x, y, width, height a row; NaN where there is no target."""
Marks = npt.NDArray[np.bool_]

OVERLAP_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0, 1, 21)
"""Where a success curve is taken: 0, .05 .. 1 (OTB toolkit, Wu et al. 2013)."""
CLIP_MARGIN = 10
"""Pixels that a clipped box keeps inside the frame, and its least width and height."""


def finite(boxes: Boxes) -> Marks:
    """Rows of ``[N,4]`` that are four finite numbers, ``[N]``."""
    every: Marks = np.logical_and.reduce(np.isfinite(boxes), axis=1)
    return every


def visible(boxes: Boxes) -> Marks:
    """Rows of ``[N,4]`` that hold a target, ``[N]``: finite, with width and height above 0."""
    return finite(boxes) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)


def overlaps(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Intersection over union ``[N]`` of ``[N,4]`` boxes each; 0 where a box has no area or is not finite."""
    a, b = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in (first, second))
    usable = finite(a) & finite(b)
    a, b = np.where(usable[:, None], a, 0.0), np.where(usable[:, None], b, 0.0)
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=1)
    union = np.prod(np.maximum(a[:, 2:], 0.0), axis=1) + np.prod(np.maximum(b[:, 2:], 0.0), axis=1) - common
    shares: npt.NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return np.clip(shares, 0.0, 1.0)


def success_curve(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of frames whose overlap *exceeds* each of :data:`OVERLAP_THRESHOLDS`, ``[21]``; its mean is the success
    AUC. Strict, as in the OTB and GOT-10k toolkits, so a perfect tracker has 20/21."""
    return np.asarray((shares[:, None] > OVERLAP_THRESHOLDS).mean(axis=0), dtype=np.float64)


def clip_box(box: Sequence[float], width: int, height: int, margin: int = CLIP_MARGIN) -> Box:
    """Box kept at least ``margin`` pixels inside a frame of ``width`` x ``height`` and at least that large."""
    x, y, w, h = (float(v) for v in box)
    x1, x2 = _clip_axis(x, x + w, width, margin)
    y1, y2 = _clip_axis(y, y + h, height, margin)
    return x1, y1, max(float(margin), x2 - x1), max(float(margin), y2 - y1)


def _clip_axis(low: float, high: float, extent: int, margin: int) -> tuple[float, float]:
    return min(max(0.0, low), float(extent - margin)), min(max(float(margin), high), float(extent))
