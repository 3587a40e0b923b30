"""What a command works on: which model, which clip, which first box.

This module decides how names and paths given by a user become inputs, and says which one is wrong. It must not read
weights or frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.inputs.resources import find_clip, find_model, model_names
from spiketrack_deploy.inputs.untrusted import first_line

MANIFEST, PROGRAM = "MANIFEST.json", "program"
"""What makes a folder a bundle: its manifest, and the folder of its integer program."""
DENSE, DENSE_ONNX, DENSE_DATA = "dense.json", "model.onnx", "model.data"
"""Of a dense tracker's bundle, which has no program: its layers, its step, and the weights of a large one."""
DEFAULT_MODEL = "spiketrack-nano"
DEFAULT_CLIP = "juice_box"
WEIGHTS = "model.safetensors"
_BOX_FILES = ("groundtruth_rect.txt", "groundtruth.txt")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A checkpoint. ``untrained``: its card says so; ``None`` where there is no card."""

    name: str
    path: Path
    untrained: bool | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or a tracker's and that of its backbone."""
        return model_files(self.path)

    @property
    def absolute(self) -> Path:
        """The same from any folder."""
        return Path("+".join(str(file.resolve()) for file in self.files))

    @property
    def remark(self) -> str | None:
        """What must stand beside every result of this model."""
        if not self.untrained:
            return None
        return "untrained weights: its boxes and its activity mean nothing"

    @property
    def weights(self) -> str:
        """What is known about its weights."""
        if self.untrained is None:
            return "it has no model card, so nothing is stated about its weights"
        return self.remark or "trained weights: its card (MODEL.md) says how and on what"


@dataclass(frozen=True, slots=True)
class ClipSource:
    """Frames to track: a video file or a folder, the target's first box, and whether it is the bundled clip."""

    path: Path
    init: tuple[float, float, float, float]
    bundled: bool


def program_folder(bundle: Path) -> Path:
    """Where the integer program of a bundle lies."""
    return bundle / PROGRAM


def is_bundle(path: Path) -> bool:
    """Whether ``path`` looks like a bundle, whole or not: a folder with a manifest or a program."""
    return path.is_dir() and ((path / MANIFEST).exists() or program_folder(path).is_dir())


def is_dense_bundle(path: Path) -> bool:
    """Whether a bundle is a dense tracker's."""
    return (path / DENSE).is_file()


def demand_spiking(bundle: Path) -> None:
    """InputError where a program of a dense tracker's bundle is asked for."""
    if is_dense_bundle(bundle):
        raise InputError(
            f"{bundle}: is a dense tracker's bundle without an integer program; track, simulate, verify, evaluate "
            "(@onnx), energy, map and inspect take it"
        )


def model_files(path: Path) -> tuple[Path, ...]:
    """``path`` itself, or the two files of ``TRACKER+BACKBONE`` where no file has that whole name."""
    parts = str(path).split("+")
    if len(parts) == 1 or path.exists():
        return (path,)
    splits = [(Path("+".join(parts[:i])), Path("+".join(parts[i:]))) for i in range(1, len(parts))]
    return next((split for split in splits if all(file.exists() for file in split)), splits[0])


def find_source(model: str | None) -> ModelSource:
    """The checkpoint that ``model`` names: a bundled model's name, a file, or ``TRACKER+BACKBONE`` for a tracker whose
    file leaves its backbone out. Without one, the default model."""
    name = DEFAULT_MODEL if model is None else model
    if name in model_names():
        path = find_model(name)
        return ModelSource(name, path, _untrained(path))
    path = Path(name)
    if is_bundle(path):
        raise InputError(f"{name}: is a bundle, a model is needed here; give the checkpoint it was made from")
    files = model_files(path)
    if len(files) > 1 and (missing := next((file for file in files if not file.is_file()), None)):
        raise InputError(f"{name}: there is no file {missing}; say TRACKER+BACKBONE with the paths of both files")
    if len(files) > 1:
        return ModelSource(files[0].stem, path, _untrained(files[0]))
    if not path.exists():
        bundled = ", ".join(model_names()) or "none"
        raise InputError(
            f"{name}: there is no such checkpoint file, and no bundled model of this name (bundled: {bundled})"
        )
    if path.is_dir():
        if not (path / WEIGHTS).is_file():
            raise InputError(f"{name}: is a folder without {WEIGHTS}; give a checkpoint file")
        return ModelSource(path.resolve().name, path / WEIGHTS, _untrained(path))
    return ModelSource(path.stem, path, _untrained(path))


def _untrained(weights: Path) -> bool | None:
    card = (weights if weights.is_dir() else weights.parent) / "MODEL.md"
    if not card.is_file():
        return None
    return "UNTRAINED" in first_line(card)


def find_frames(video: Path | None, frames: Path | None, init: Sequence[float] | None) -> ClipSource:
    """The clip and its first box: given, or the bundled clip; the box given, or from a box file beside the frames."""
    if video is not None and frames is not None:
        raise UsageError("--video and --frames were both given; choose one")
    bundled = video is None and frames is None
    path = find_clip(DEFAULT_CLIP) if bundled else video or frames
    if path is None or not path.exists():
        raise InputError(f"{path}: there is no such video file or folder of frames")
    if frames is not None and not frames.is_dir():
        raise InputError(f"{frames}: is not a folder; give a video file with --video")
    return ClipSource(path, _box(init) if init is not None else _recorded_box(path), bundled)


def _box(values: Sequence[float]) -> tuple[float, float, float, float]:
    if len(values) != 4 or not all(math.isfinite(v) for v in values):
        raise InputError(f"the initial box {list(values)} must be four finite numbers x,y,w,h in pixels")
    x, y, w, h = (float(v) for v in values)
    if w < 1 or h < 1:
        raise InputError(f"the initial box {list(values)} must be at least 1 pixel wide and high")
    return x, y, w, h


def _recorded_box(path: Path) -> tuple[float, float, float, float]:
    places = [path / name for name in _BOX_FILES] if path.is_dir() else [path.with_name(f"{path.stem}_{_BOX_FILES[0]}")]
    place = next((p for p in places if p.is_file()), None)
    if place is None:
        raise UsageError(
            f"{path}: say where the target is in the first frame with --init x,y,w,h "
            f"(there is no {places[0].name} beside it)"
        )
    line = first_line(place)
    try:
        return _box([float(part) for part in line.replace("\t", ",").split(",")])
    except (ValueError, InputError):
        raise InputError(
            f"{place}: its first line {line[:60]!r} is not a box x,y,w,h; correct it or give --init"
        ) from None
