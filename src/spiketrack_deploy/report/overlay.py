"""Draws on frames what the tracker and the energy model say about them.

This module decides the picture. It must not know how boxes or energies come about, nor how a video file is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_MIN_WIDTH = 480
_BAR = 26
_GREEN, _WHITE, _AMBER, _BLACK = (90, 220, 90), (255, 255, 255), (255, 190, 60), (20, 20, 20)


@dataclass(frozen=True, slots=True)
class FrameLabel:
    """What is drawn on one frame: box x,y,w,h in frame pixels, a line of text, and whether an update followed."""

    box: tuple[float, float, float, float]
    text: str
    updated: bool = False


def draw(frame: Image, label: FrameLabel, warning: str | None = None) -> Image:
    """An enlarged copy of ``frame`` (uint8 ``[h,w,3]`` RGB) with its box and a text bar above; even width and height.

    Small frames are enlarged to 480 pixels of width, because text on 320 pixels cannot be read.
    """
    import cv2

    scale = max(1.0, _MIN_WIDTH / frame.shape[1])
    big = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) if scale > 1 else frame.copy()
    x, y, w, h = (v * scale for v in label.box)
    corners = (round(x), round(y)), (round(x + w), round(y + h))
    cv2.rectangle(big, *corners, _BLACK, 4, cv2.LINE_AA)
    cv2.rectangle(big, *corners, _AMBER if label.updated else _GREEN, 2, cv2.LINE_AA)
    bars = [(label.text, _WHITE)] + ([(warning, _AMBER)] if warning else [])
    canvas = np.zeros((big.shape[0] + _BAR * len(bars), big.shape[1], 3), dtype=np.uint8)
    canvas[_BAR * len(bars) :] = big
    for row, (text, colour) in enumerate(bars):
        _write(cv2, canvas, text, (8, _BAR * row + 18), colour)
    return canvas[: canvas.shape[0] // 2 * 2, : canvas.shape[1] // 2 * 2]


def _write(cv2: Any, canvas: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    text = text.encode("ascii", "replace").decode("ascii")  # OpenCV's letters are ASCII
    size = 0.5
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    size *= min(1.0, (canvas.shape[1] - 16) / max(width, 1))
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def jpeg(picture: Image) -> bytes:
    """A picture (uint8 ``[h,w,3]`` RGB) as a JPEG file's bytes."""
    import cv2

    return bytes(cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def annotate(frames: Iterable[Image], labels: Sequence[FrameLabel], warning: str | None = None) -> Iterator[Image]:
    """``draw`` for every frame that has a label, in order."""
    for frame, label in zip(frames, labels):
        yield draw(frame, label, warning)
