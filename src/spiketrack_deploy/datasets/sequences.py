"""Sequences of frames with true boxes, out of a folder or a zip in the layouts of OTB, GOT-10k or LaSOT.

This module decides what a sequence is, in which order its frames come, and what is wrong with one that cannot be used:
one bad sequence never hides the others. It must not know trackers or scores.

    OTB      NAME/img/*.jpg + NAME/groundtruth_rect.txt (two targets: groundtruth_rect.1.txt, .2.txt -> NAME.1, NAME.2)
    GOT-10k  NAME/*.jpg + NAME/groundtruth.txt (absence.label, cover.label)
    LaSOT    CLASS/NAME/img/*.jpg + CLASS/NAME/groundtruth.txt (full_occlusion.txt, out_of_view.txt)

Boxes are used as they are written (OTB and LaSOT count pixels from 1; so do the public toolkits).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from spiketrack_deploy.datasets.files import Tree, natural, open_tree
from spiketrack_deploy.datasets.groundtruth import Boxes, Labels, Marks, flags, hide, read_boxes
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.video import IMAGE_SUFFIXES

TRUTH_FILES = ("groundtruth_rect.txt", "groundtruth.txt")
ATTRIBUTE_FILES = ("sequences.json", "attributes.json")
_PUBLISHED_RANGES = {
    "David": (300, 770),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Diving": (1, 215),
}
"""OTB sequences whose published boxes cover only these frames (counted from 1)."""


@dataclass(frozen=True, slots=True)
class VideoSequence:
    """One target in one video. ``frames``: file names under ``root`` (a folder or a zip); ``boxes``: x,y,w,h in pixels,
    NaN where the target is absent; one box for many frames where the rest is kept by a server (GOT-10k test)."""

    name: str
    root: Path
    layout: str
    frames: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    attributes: tuple[str, ...] = ()

    @property
    def truth(self) -> Boxes:
        """True boxes float64 ``[frames or 1, 4]``."""
        return np.array(self.boxes, dtype=np.float64).reshape(-1, 4)

    @property
    def scorable(self) -> bool:
        """Whether every frame has its line of ground truth."""
        return len(self.boxes) == len(self.frames)

    def first(self, frames: int | None) -> VideoSequence:
        """The same sequence, at most ``frames`` long."""
        if frames is None or frames >= len(self.frames):
            return self
        return replace(self, frames=self.frames[:frames], boxes=self.boxes[:frames])


@dataclass(frozen=True, slots=True)
class Problem:
    """A folder that looks like a sequence and cannot be used."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Dataset:
    """Usable sequences in natural order, and what was left out. ``layout``: that of all of them, or ``mixed``."""

    name: str
    path: Path
    layout: str
    sequences: tuple[VideoSequence, ...]
    problems: tuple[Problem, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over names, frame names and boxes: what a run's results belong to (pixels are not read for it)."""
        content = [[s.name, list(s.frames), [[repr(v) for v in box] for box in s.boxes]] for s in self.sequences]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def chosen(self, names: Iterable[str]) -> Dataset:
        """Only the named sequences; InputError for a name that is not there."""
        wanted = list(names)
        known = {s.name for s in self.sequences} | {p.name for p in self.problems}
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InputError(
                f"{self.path}: has no sequence {unknown[0]!r}; it has {_listed(sorted(known, key=natural))}"
            )
        kept = tuple(s for s in self.sequences if s.name in wanted)
        return replace(self, sequences=kept, problems=tuple(p for p in self.problems if p.name in wanted))


def open_dataset(path: Path) -> Dataset:
    """Every sequence under ``path``: a dataset folder, a zip of one, or a single sequence's folder.

    Folders that hold frames without boxes, boxes without frames, or boxes that cannot be used become ``problems``.
    InputError where nothing at all can be used.
    """
    with open_tree(path) as tree:
        found = list(_candidates(tree, path))
        names = _unique([name for name, _, _ in found])
        attributes = _attributes(tree, path)
        sequences, problems = [], []
        for name, (_, folder, truth) in zip(names, found):
            try:
                sequences.append(_read(tree, path, name, folder, truth, attributes))
            except InputError as error:
                problems.append(Problem(name, str(error)))
    if not sequences:
        why = f"; {problems[0].reason}" if problems else f" (a folder with frames and {' or '.join(TRUTH_FILES)})"
        raise InputError(f"{path}: holds no usable sequence{why}")
    sequences.sort(key=lambda s: natural(s.name))
    problems.sort(key=lambda p: natural(p.name))
    layouts = {s.layout for s in sequences}
    return Dataset(
        path.resolve().stem if path.is_file() else path.resolve().name,
        path,
        layouts.pop() if len(layouts) == 1 else "mixed",
        tuple(sequences),
        tuple(problems),
    )


def _candidates(tree: Tree, path: Path) -> Iterable[tuple[str, str, str | None]]:
    """(name, folder, ground-truth file or None) of everything that looks like a sequence, in natural order."""
    own = path.resolve().stem if path.is_file() else path.resolve().name
    for folder in sorted(tree.folders, key=natural):
        parent, _, last = folder.rpartition("/")
        if last == "img" and _images(tree, folder) and not _truths(tree, parent):
            yield parent.rpartition("/")[2] or own, parent, None
        truths = _truths(tree, folder)
        name = last or own
        if not truths and last != "img" and _images(tree, folder):
            yield name, folder, None
        for truth in truths:
            part = truth[len("groundtruth_rect") : -len(".txt")] if truth not in TRUTH_FILES else ""
            yield name + part, folder, truth


def _truths(tree: Tree, folder: str) -> list[str]:
    files = tree.folders.get(folder, ())
    plain = [name for name in TRUTH_FILES if name in files][:1]
    return plain or sorted(
        (f for f in files if f.startswith("groundtruth_rect.") and f.endswith(".txt") and f[17:-4].isdecimal()),
        key=natural,
    )


def _images(tree: Tree, folder: str) -> tuple[str, ...]:
    files = tree.folders.get(folder, ())
    return tuple(sorted((f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES), key=natural))


def _unique(names: list[str]) -> list[str]:
    """Names that recur (the same folder name in two places) get a number; results are filed by name."""
    result: list[str] = []
    for name in names:
        candidates = chain([name], (f"{name}~{n}" for n in count(2)))
        result.append(next(c for c in candidates if c not in result and (c == name or c not in names)))
    return result


def _read(
    tree: Tree, root: Path, name: str, folder: str, truth: str | None, attributes: Mapping[str, tuple[str, ...]]
) -> VideoSequence:
    place = f"{folder}/" if folder else ""
    in_img = _images(tree, f"{place}img")
    inner, prefix = (in_img, f"{place}img/") if in_img else (_images(tree, folder), place)
    if truth is None:
        raise InputError(f"sequence {name}: has {len(inner)} frames but no {' or '.join(TRUTH_FILES)}")
    if not inner:
        raise InputError(f"sequence {name}: has {truth} but no frames (no images in it, none in img/)")
    layout = "GOT-10k" if not in_img else "OTB" if truth.startswith("groundtruth_rect") else "LaSOT"
    frames = tuple(prefix + image for image in inner)
    boxes = read_boxes(tree.read(place + truth), f"sequence {name}: {truth}")
    frames = _published_range(name, frames, len(boxes))
    if len(boxes) not in (1, len(frames)):
        raise InputError(
            f"sequence {name}: {truth} has {len(boxes)} lines for {len(frames)} frames; "
            "which box belongs to which frame is unknown"
        )
    if len(frames) < 2:
        raise InputError(f"sequence {name}: has one frame; tracking needs at least two")
    boxes = _hidden(tree, place, name, boxes)
    if not np.isfinite(boxes[0]).all() or boxes[0, 2] <= 0 or boxes[0, 3] <= 0:
        raise InputError(
            f"sequence {name}: {truth} has no target in the first frame, so there is nothing to start from"
        )
    rows = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h in boxes)
    return VideoSequence(name, root, layout, frames, rows, attributes.get(name, ()))


def _published_range(name: str, frames: tuple[str, ...], lines: int) -> tuple[str, ...]:
    first, last = _PUBLISHED_RANGES.get(name, (1, 0))
    return (
        frames[first - 1 : last]
        if lines != len(frames) and last - first + 1 == lines and last <= len(frames)
        else frames
    )


def _hidden(tree: Tree, place: str, name: str, boxes: Boxes) -> Boxes:
    """Boxes with NaN where the data set's own labels say that the target cannot be seen."""
    rules: tuple[tuple[str, Callable[[Labels], Marks]], ...] = (
        ("absence.label", lambda v: v != 0),
        ("cover.label", lambda v: v == 0),
        ("full_occlusion.txt", lambda v: v != 0),
        ("out_of_view.txt", lambda v: v != 0),
    )
    for file, absent in rules:
        if len(boxes) > 1 and file in tree.folders.get(place.rstrip("/"), ()):
            label = flags(tree.read(place + file), f"sequence {name}: {file}")
            if len(label) != len(boxes):
                raise InputError(f"sequence {name}: {file} has {len(label)} entries for {len(boxes)} boxes")
            boxes = hide(boxes, absent(label))
    return boxes


def _attributes(tree: Tree, path: Path) -> dict[str, tuple[str, ...]]:
    """``sequences.json`` (a list with name and attributes) or ``attributes.json`` (name -> list), inside or beside."""
    for name in ATTRIBUTE_FILES:
        beside = path.parent / name
        if name in tree.folders.get("", ()):
            text, where = tree.read(name), str(path / name)
        elif path.is_file() and beside.is_file():
            text, where = beside.read_bytes(), str(beside)
        else:
            continue
        try:
            data = json.loads(text)
            entries = data.items() if isinstance(data, dict) else ((e["name"], e.get("attributes", [])) for e in data)
            return {str(sequence): tuple(str(a) for a in found) for sequence, found in entries}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{where}: is no list of sequences with attributes ({type(error).__name__}: {error}); correct it, "
                "or remove it"
            ) from None
    return {}


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
