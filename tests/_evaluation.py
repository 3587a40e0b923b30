"""Small synthetic data sets for tests of the evaluation: a square that wanders over noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from spiketrack_deploy.cli import main
from spiketrack_deploy.cli.evaluate import evaluate

WIDTH, HEIGHT, SIDE = 64, 48, 12


def boxes(frames: int, seed: int = 0) -> list[tuple[float, float, float, float]]:
    """x, y, w, h of a square that moves one to three pixels a frame and stays inside."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(5, 20, 2)
    return [(float(x + 2 * t), float(y + (t * (seed + 1)) % 3), float(SIDE), float(SIDE)) for t in range(frames)]


def picture(box: Sequence[float], seed: int) -> np.ndarray:
    """BGR uint8 ``[48, 64, 3]``: a bright square on noise."""
    frame = np.random.default_rng(seed).integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    x, y = round(box[0]), round(box[1])
    frame[y : y + SIDE, x : x + SIDE] = (40, 200, 250)
    return frame


def lines(rows: Sequence[Sequence[float]], between: str = ",") -> str:
    """Ground truth as text."""
    return "".join(between.join(f"{v:g}" for v in row) + "\n" for row in rows)


def sequence(folder: Path, layout: str = "OTB", frames: int = 6, seed: int = 0, between: str = ",") -> Path:
    """One sequence; frames are named 1.png, 2.png .. 10.png, so that only natural order is right."""
    images = folder if layout == "GOT-10k" else folder / "img"
    images.mkdir(parents=True, exist_ok=True)
    truth = boxes(frames, seed)
    for index, box in enumerate(truth, 1):
        cv2.imwrite(str(images / f"{index}.png"), picture(box, 100 * seed + index))
    name = "groundtruth_rect.txt" if layout == "OTB" else "groundtruth.txt"
    (folder / name).write_text(lines(truth, between))
    return folder


def dataset(folder: Path, names: Sequence[str] = ("a1", "a2", "a10"), layout: str = "OTB", frames: int = 6) -> Path:
    """Several sequences."""
    for seed, name in enumerate(names):
        sequence(folder / name, layout, frames, seed)
    return folder


def command(capsys, *arguments: object) -> tuple[int, str, str]:  # type: ignore[no-untyped-def]
    """``spiketrack evaluate ARGUMENTS`` through the command line's own entry: exit code, stdout, stderr."""
    code = main.run(evaluate, "spiketrack evaluate", [str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def shell(*arguments: object) -> list[str]:
    """The same as a process of its own."""
    script = "import sys; from spiketrack_deploy.cli import main, evaluate; "
    script += "sys.exit(main.run(evaluate.evaluate, 'spiketrack evaluate', sys.argv[1:]))"
    return [sys.executable, "-c", script, *(str(a) for a in arguments)]


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll until ``condition`` holds; fails with ``what`` where it never does."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)
