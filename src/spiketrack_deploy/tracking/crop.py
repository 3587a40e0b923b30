"""Cutting a square crop around a box, and the window of the loop.

This module decides the pixels that enter a network (docs/spiketrack.md, "Loop"); OpenCV's bilinear resize defines
them, pixels.py what numbers they are. It must not know PyTorch nor the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.images import Image

Floats = npt.NDArray[np.float64]

MAX_CROP_SIDE = 32768
"""Pixels; a larger crop would need gigabytes before it is resized."""


@dataclass(frozen=True, slots=True)
class CropWindow:
    """Where a crop lies: corner (x1, y1) and side in frame pixels, and how much of it is zero padding on each side."""

    x1: int
    y1: int
    side: int
    left: int
    right: int
    top: int
    bottom: int


def crop_window(box: Sequence[float], factor: float, width: int, height: int) -> CropWindow:
    """The square of side ``ceil(sqrt(w h) factor)`` around the centre of ``box``, in a frame of ``width`` x ``height``.

    The corner is rounded half to even. The right and bottom padding is one pixel wider than needed (published quirk).
    """
    x, y, w, h = (float(v) for v in box)
    if not all(math.isfinite(v) for v in (x, y, w, h)) or w <= 0 or h <= 0:
        raise InputError(f"box {[x, y, w, h]} is unusable: it needs finite numbers, width and height above 0")
    extent = math.sqrt(w * h) * factor
    if not extent <= MAX_CROP_SIDE:
        raise InputError(f"box {[x, y, w, h]} is too large: its crop would be wider than {MAX_CROP_SIDE} pixels")
    side = math.ceil(extent)
    if side < 1:
        raise InputError(f"box {[x, y, w, h]} is too small: its crop has no pixel")
    x1, y1 = round(x + 0.5 * w - 0.5 * side), round(y + 0.5 * h - 0.5 * side)
    window = CropWindow(
        x1,
        y1,
        side,
        left=max(0, -x1),
        right=max(x1 + side - width + 1, 0),
        top=max(0, -y1),
        bottom=max(y1 + side - height + 1, 0),
    )
    if window.left + window.right >= side or window.top + window.bottom >= side:
        raise InputError(
            f"box {[x, y, w, h]} lies outside the frame of {width}x{height} pixels: its crop holds no image"
        )
    return window


def sample_target(frame: Image, box: Sequence[float], factor: float, out: int) -> tuple[Image, float]:
    """Crop of ``factor`` times the target's size, as RGB uint8 ``[out, out, 3]``, and the resize factor ``out / side``.

    What lies outside the frame is black. Raises :class:`InputError` for a frame that is no RGB image, a box that is not
    finite and positive, and a crop without image or wider than 32768 pixels.
    """
    import cv2

    check_frame(frame)
    height, width = frame.shape[:2]
    at = crop_window(box, factor, width, height)
    padded = np.zeros((at.side, at.side, 3), dtype=np.uint8)
    inner = frame[at.y1 + at.top : at.y1 + at.side - at.bottom, at.x1 + at.left : at.x1 + at.side - at.right]
    padded[at.top : at.side - at.bottom, at.left : at.side - at.right] = inner
    resized = cv2.resize(padded, (out, out), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, dtype=np.uint8), out / at.side


def check_frame(frame: Image) -> None:
    """Raise :class:`InputError` unless ``frame`` is a non-empty RGB uint8 image ``[H, W, 3]``."""
    if (
        not isinstance(frame, np.ndarray)
        or frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
        or not frame.size
    ):
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(f"a frame must be an RGB image, uint8 [height, width, 3]; got {got}")


def hann_window(side: int) -> Floats:
    """``w w^T`` ``[side, side]`` with ``w[k] = (1 - cos(2 pi k / (side + 1))) / 2``, k = 1..side."""
    k = np.arange(1, side + 1, dtype=np.float64)
    w = 0.5 * (1 - np.cos(2 * math.pi * k / (side + 1)))
    return np.outer(w, w)
