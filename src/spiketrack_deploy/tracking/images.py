"""One picture out of bytes, and in which order names of pictures come.

This module decides what decodes and what a picture file is called. It must not know videos, data sets or crops. OpenCV
decodes; it is imported on use, because start-up must not pay for it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError

Image = npt.NDArray[np.uint8]
"""RGB, ``[H, W, 3]`` uint8."""
_SILENCE = threading.Lock()
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"])


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: digits compare as numbers, so ``img2`` comes before ``img10``; the name itself breaks ties such as
    ``1`` and ``01``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts], name


def decode_image(data: bytes, where: str) -> Image:
    """A picture file's bytes as RGB uint8 ``[H, W, 3]``; InputError says that ``where`` cannot be decoded."""
    cv2 = opencv()
    try:
        with _quiet_libraries():
            bgr = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error as error:
        raise InputError(f"image {where} cannot be decoded: {error.err}") from error
    if bgr is None:
        raise InputError(f"image {where} is empty or damaged")
    return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """What libpng and its kin print about a damaged picture goes nowhere: one sentence says it. One thread at a time,
    because a process has one place for such lines."""
    with _SILENCE:
        try:
            kept = os.dup(2)
        except OSError:  # closed: nobody listens anyway
            yield
            return
        try:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def opencv() -> Any:
    """OpenCV, told to keep FFmpeg's and its own complaints about bad input from appearing beside our one sentence."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    return cv2
