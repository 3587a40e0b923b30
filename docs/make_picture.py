"""The picture of the README, from a bundle: ``python docs/make_picture.py export/demo docs/demo.png``.

This script decides the layout of one picture. Its parts are those of the report.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.bundle.contents import read_alone
from spiketrack_deploy.bundle.recorded import recorded_counts, reprice
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.report.energy_sections import block_picture

FRAMES = (0, 5)
WIDTH = 480
GAP = 12


def frames(path: Path) -> NDArray[np.uint8]:
    """The chosen frames of a video, one above the other, BGR."""
    video = cv2.VideoCapture(str(path))
    pictures = []
    for index in range(max(FRAMES) + 1):
        ok, frame = video.read()
        if not ok:
            sys.exit(f"{path} has no frame {index}: export more of the clip")
        if index in FRAMES:
            pictures.append(cv2.resize(frame, (WIDTH, WIDTH * frame.shape[0] // frame.shape[1])))
    video.release()
    return np.concatenate(pictures)


def main(bundle: Path, out: Path) -> None:
    """Tracked frames beside the energy per block."""
    recorded = recorded_counts(bundle / "energy.json")
    target = Target(recorded.profile.name, recorded.profile)
    png = block_picture(reprice(recorded, read_alone(bundle), target).main, "Energy per block", form="png")
    left = frames(bundle / "tracked.mp4")
    chart = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if chart is None:
        sys.exit(f"{bundle}/energy.json gave no picture")
    width = chart.shape[1] * left.shape[0] // chart.shape[0]
    chart = cv2.resize(chart, (width, left.shape[0]), interpolation=cv2.INTER_AREA)
    gap = np.full((left.shape[0], GAP, 3), 255, np.uint8)
    cv2.imwrite(str(out), np.hstack([left, gap, chart]), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
