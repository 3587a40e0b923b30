"""Sequences of frames with true boxes, out of a folder or a zip in the layouts of OTB, GOT-10k or LaSOT.

This module decides what a sequence is, in which order its frames come, and what is wrong with one that cannot be used:
one bad sequence never hides the others. Evaluation and training read alike; docs/datasets.md has the rules for people.
It must not know trackers or scores.

    OTB      NAME/img/*.jpg + NAME/groundtruth_rect.txt (two targets: groundtruth_rect.1.txt, .2.txt -> NAME.1, NAME.2)
    GOT-10k  NAME/*.jpg + NAME/groundtruth.txt (absence.label, cover.label)
    LaSOT    CLASS/NAME/img/*.jpg + CLASS/NAME/groundtruth.txt (full_occlusion.txt, out_of_view.txt)

Boxes are used as they are written (OTB and LaSOT count pixels from 1; so do the public toolkits). Which box belongs to
which frame is never guessed: there is a line for every frame (or one alone, where a server keeps the rest), and a label
for every box. The target is there in the first frame.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.datasets.files import MAX_TEXT, FrameRef, Tree, open_tree, read_json
from spiketrack_deploy.datasets.groundtruth import Labels, box_lines, flags, hide, read_boxes
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import Boxes, Marks, visible
from spiketrack_deploy.tracking.images import IMAGE_SUFFIXES, natural

TRUTH_FILES = ("groundtruth_rect.txt", "groundtruth.txt")
ABOUT_FILES = ("sequences.json", "attributes.json")
_PUBLISHED_RANGES = {
    "David": (300, 770),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Diving": (1, 215),
}
"""OTB sequences whose published boxes cover only these frames (counted from 1)."""


@dataclass(frozen=True, slots=True, eq=False)
class VideoSequence:
    """One target in one video. ``frames``: file names under ``root`` (a folder or a zip); ``boxes``: ``[frames, 4]``
    x,y,w,h in pixels, NaN where the target is absent, or one row where the rest is kept by a server (GOT-10k test);
    ``weight``: its share of training draws, not normalised."""

    name: str
    root: Path
    layout: str
    frames: tuple[str, ...]
    boxes: Boxes
    attributes: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def scorable(self) -> bool:
        """Whether every frame has its line of ground truth."""
        return len(self.boxes) == len(self.frames)

    def first(self, frames: int | None) -> VideoSequence:
        """The same sequence, at most ``frames`` long."""
        if frames is None or frames >= len(self.frames):
            return self
        return replace(self, frames=self.frames[:frames], boxes=self.boxes[:frames])

    def frame(self, index: int) -> FrameRef:
        """Where a frame is stored."""
        return FrameRef(self.root, self.frames[index])

    def usable(self, least_side: float = 0.0) -> npt.NDArray[np.int64]:
        """Indices of frames whose target is present and at least ``least_side`` pixels large (root of its area)."""
        area = np.nan_to_num(self.boxes[:, 2] * self.boxes[:, 3], nan=-1.0)
        return np.flatnonzero(area >= max(least_side, 1.0) ** 2)


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a sequence beside its frames and boxes."""

    attributes: tuple[str, ...] = ()
    weight: float = 1.0


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
        sha = hashlib.sha256(b"[")
        for index, s in enumerate(self.sequences):
            content = [s.name, list(s.frames), [[repr(v) for v in box] for box in s.boxes.tolist()]]
            sha.update((", " if index else "").encode() + json.dumps(content).encode())
        sha.update(b"]")
        return sha.hexdigest()

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
        sequences, problems = read_sequences(tree, path)
    if not sequences:
        why = f"; {problems[0].reason}" if problems else f" (a folder with frames and {' or '.join(TRUTH_FILES)})"
        raise InputError(f"{path}: holds no usable sequence{why}")
    layouts = {s.layout for s in sequences}
    return Dataset(
        path.resolve().stem if path.is_file() else path.resolve().name,
        path,
        layouts.pop() if len(layouts) == 1 else "mixed",
        tuple(sequences),
        tuple(problems),
    )


def read_sequences(tree: Tree, path: Path, known: Collection[str] = ()) -> tuple[list[VideoSequence], list[Problem]]:
    """Every sequence of an open tree, and what looks like one and cannot be used, in natural order.

    ``known``: folders of pictures that have boxes of another kind, so that it is no fault if they have no ground truth.
    """
    found = list(_candidates(tree, path, known))
    about = _about(tree, path)
    sequences, problems = [], []
    for name, (_, folder, truth) in zip(_unique([name for name, _, _ in found]), found):
        try:
            sequences.append(_read(tree, path, name, folder, truth, about.get(name, About())))
        except InputError as error:
            problems.append(Problem(name, str(error)))
    sequences.sort(key=lambda s: natural(s.name))
    problems.sort(key=lambda p: natural(p.name))
    return sequences, problems


def _candidates(tree: Tree, path: Path, known: Collection[str]) -> Iterable[tuple[str, str, str | None]]:
    """(name, folder, ground-truth file or None) of everything that looks like a sequence, in natural order."""
    own = path.resolve().stem if path.is_file() else path.resolve().name
    for folder in sorted(tree.folders, key=natural):
        parent, _, last = folder.rpartition("/")
        loose = folder not in known and _images(tree, folder)
        if last == "img" and loose and not _truths(tree, parent):
            yield parent.rpartition("/")[2] or own, parent, None
        truths = _truths(tree, folder)
        name = last or own
        if not truths and last != "img" and loose:
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
    given = set(names)
    taken: set[str] = set()
    numbers: dict[str, Iterable[int]] = defaultdict(lambda: count(2))
    result: list[str] = []
    for name in names:
        free = name if name not in taken else next(f"{name}~{n}" for n in numbers[name] if f"{name}~{n}" not in given)
        taken.add(free)
        result.append(free)
    return result


def _read(tree: Tree, root: Path, name: str, folder: str, truth: str | None, about: About) -> VideoSequence:
    place = f"{folder}/" if folder else ""
    in_img = _images(tree, f"{place}img")
    inner, prefix = (in_img, f"{place}img/") if in_img else (_images(tree, folder), place)
    if truth is None:
        raise InputError(f"sequence {name}: has {len(inner)} frame(s) but no {' or '.join(TRUTH_FILES)}")
    if not inner:
        raise InputError(f"sequence {name}: has {truth} but no frames (no images in it, none in img/)")
    layout = "GOT-10k" if not in_img else "OTB" if truth.startswith("groundtruth_rect") else "LaSOT"
    where = f"sequence {name}: {truth}"
    lines = box_lines(tree.read(place + truth, MAX_TEXT), where)
    frames = _published_range(name, tuple(prefix + image for image in inner), len(lines))
    if len(lines) not in (1, len(frames)):
        raise InputError(
            f"{where} has {len(lines)} lines for {len(frames)} frames; which box belongs to which frame is unknown"
        )
    if len(frames) < 2:
        raise InputError(f"sequence {name}: has one frame; tracking needs at least two")
    boxes = _hidden(tree, place, name, read_boxes(lines, where))
    if not visible(boxes[:1]).all():
        raise InputError(f"{where} has no target in the first frame, so there is nothing to start from")
    boxes.setflags(write=False)
    return VideoSequence(name, root, layout, frames, boxes, about.attributes, about.weight)


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
            label = flags(tree.read(place + file, MAX_TEXT), f"sequence {name}: {file}", len(boxes))
            boxes = hide(boxes, absent(label))
    return boxes


def _about(tree: Tree, path: Path) -> dict[str, About]:
    """By sequence, from the first of these that is there: for a zip the ``.json`` of its own name beside it (where that
    is a list), then ``sequences.json`` (a list of objects with ``name``, ``attributes``, ``sampling_weight``) or
    ``attributes.json`` (an object: name -> list), inside or, for a zip, beside."""
    beside = path.with_suffix(".json")
    if path.is_file() and beside.is_file() and isinstance(data := read_json(beside), list):
        return _entries(data, str(beside))
    for name in ABOUT_FILES:
        if name in tree.folders.get("", ()):
            return _entries(tree.json(name), f"{path}/{name}")
        if path.is_file() and (beside := path.with_name(name)).is_file():
            return _entries(read_json(beside), str(beside))
    return {}


def _entries(data: Any, where: str) -> dict[str, About]:
    try:
        if isinstance(data, dict):
            return {str(name): About(_texts(found)) for name, found in data.items()}
        weighted = sum("sampling_weight" in e for e in data)
        # As shares of a mean of one, so that a weighted archive joins an unweighted folder on equal terms.
        return {
            str(e["name"]): About(_texts(e.get("attributes", [])), _weight(e.get("sampling_weight"), weighted))
            for e in data
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{where}: is no list of sequences with attributes ({type(error).__name__}: {error}); "
            "correct it, or remove it"
        ) from None


def _texts(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise TypeError(f"{str(found)[:40]!r} is no list")
    return tuple(str(text) for text in found)


def _weight(share: Any, entries: int) -> float:
    weight = 1.0 if share is None else float(share) * entries
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{share!r} is no weight")
    return weight


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
