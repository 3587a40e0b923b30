"""Trackers to compare with: OpenCV's KCF and CSRT, and the box that never moves.

This module decides how they are started and what happens where they lose the target. It must not know scores. OpenCV is
imported on use: its ``contrib`` build has these trackers, the plain one has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spiketrack_deploy.errors import EngineError, UsageError
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image

BASELINES = ("static", "kcf", "csrt")
_CLASSES = {"kcf": "TrackerKCF", "csrt": "TrackerCSRT"}
_HOW = (
    "put the contrib build, which holds the plain one, in its place: pip uninstall -y opencv-python-headless "
    "opencv-contrib-python-headless, then pip install opencv-contrib-python-headless"
)


def check_baseline(name: str) -> None:
    """UsageError for an unknown name, EngineError where this OpenCV lacks the tracker."""
    if name not in BASELINES:
        raise UsageError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    if name in _CLASSES:
        _opencv(name)


def baseline_version(name: str) -> str:
    """What the results of a baseline belong to: the version of OpenCV, nothing for the box that stays."""
    if name not in _CLASSES:
        return ""
    import cv2

    return f"OpenCV {cv2.__version__}"


def _opencv(name: str) -> Any:
    import cv2

    # Older builds keep the deprecated ones under legacy; those are other implementations and are not used.
    create = getattr(cv2, f"{_CLASSES[name]}_create", None)
    if create is None:
        raise EngineError(f"baseline {name}: this OpenCV ({cv2.__version__}) has no {_CLASSES[name]}; {_HOW}")
    return create


class StaticBox:
    """Keeps the first box."""

    def __init__(self) -> None:
        self._box: Box = (0.0, 0.0, 0.0, 0.0)

    def start(self, frame: Image, box: Box) -> None:
        """Remember the box."""
        self._box = box

    def update(self, frame: Image) -> Box:
        """The first box."""
        return self._box


class OpenCVTracker:
    """``kcf`` or ``csrt`` with OpenCV's defaults; the first x, y, w, h are rounded to whole pixels, as OpenCV demands.

    Where the tracker reports a loss the last box stays.
    """

    def __init__(self, name: str) -> None:
        self._create = _opencv(name)
        self._tracker: Any = None
        self._box: Box = (0.0, 0.0, 0.0, 0.0)

    def start(self, frame: Image, box: Box) -> None:
        """A new tracker on RGB ``frame`` uint8 ``[H,W,3]``; OpenCV sees BGR."""
        self._tracker, self._box = self._create(), box
        x, y, w, h = (round(v) for v in box)
        self._tracker.init(_bgr(frame), (x, y, max(w, 1), max(h, 1)))

    def update(self, frame: Image) -> Box:
        """The box of the next frame."""
        found, box = self._tracker.update(_bgr(frame))
        if found:
            x, y, w, h = (float(v) for v in box)
            self._box = (x, y, w, h)
        return self._box


def _bgr(frame: Image) -> Image:
    return np.ascontiguousarray(frame[:, :, ::-1])
