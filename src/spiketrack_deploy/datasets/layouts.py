"""Training data of one or several folders: sequences, read as for an evaluation, and pictures annotated as in COCO.

This module decides how a folder of training data is searched and how a COCO annotation file is read. It must not know
how a sequence is read (:mod:`sequences`) nor decode pictures.

| found in a folder | what |
| --- | --- |
| sequence folders, at any depth | as :mod:`sequences` reads them |
| ``*.zip`` | sequences inside; their weights from a ``.json`` of the same name |
| ``annotations.json``, ``annotations/*.json`` | COCO: boxes and polygons; pictures in folders or ``images.zip`` |
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.datasets.catalogue import Catalogue, Floats, Picture, Target
from spiketrack_deploy.datasets.files import FrameRef, open_tree, read_json
from spiketrack_deploy.datasets.sequences import VideoSequence, read_sequences
from spiketrack_deploy.errors import InputError

_LEAST_OUTLINE = 3
_IMAGES = "images.zip"


def read_folders(folders: Sequence[Path], weights: Sequence[float] | None = None) -> Catalogue:
    """The catalogue of one or several data folders; :class:`InputError` where nothing at all can be trained on.

    ``weights``: share of draws of each folder against the others, for its pictures and for its clips; without them
    every weight stays as the folder states it.
    """
    if not folders:
        raise InputError("no training data is given; name a folder of sequences or annotated pictures with --data")
    parts = [_read_folder(Path(folder)) for folder in folders]
    if weights is not None:
        parts = [part.weighing(weight) for part, weight in zip(parts, weights, strict=True)]
    found = Catalogue().joined(parts)
    if not found.pictures and not found.clips:
        why = f": {found.skipped[0]}" if found.skipped else ""
        shown = ", ".join(str(f) for f in folders)
        raise InputError(f"no picture with boxes and no sequence with ground truth is in {shown}{why}")
    return found


def _read_folder(folder: Path) -> Catalogue:
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist or is no folder")
    pictures: list[Picture] = []
    clips: list[VideoSequence] = []
    skipped: list[str] = []
    for file in [folder / "annotations.json", *sorted((folder / "annotations").glob("[!.]*.json"))]:
        if file.exists():
            pictures += _coco(file, folder, skipped)
    annotated = {(p.frame.root / p.frame.name).parent for p in pictures}
    for place in [folder, *sorted(folder.glob("[!.]*.zip"))]:
        known = [path.relative_to(place).as_posix() for path in annotated if path.is_relative_to(place)]
        with open_tree(place) as tree:
            found, problems = read_sequences(tree, place, ["" if path == "." else path for path in known])
        clips += [clip for clip in found if _shows_twice(clip, skipped)]
        skipped += [problem.reason for problem in problems]
    return Catalogue(tuple(pictures), tuple(clips), tuple(skipped))


def _shows_twice(clip: VideoSequence, skipped: list[str]) -> bool:
    if len(clip.usable()) < 2:
        skipped.append(f"sequence {clip.name}: fewer than two frames show the target")
        return False
    return True


def _coco(file: Path, folder: Path, skipped: list[str]) -> list[Picture]:
    data = read_json(file)
    if (
        not isinstance(data, Mapping)
        or not isinstance(data.get("images"), list)
        or not isinstance(data.get("annotations"), list)
    ):
        skipped.append(f"{file} has no list of images and annotations")
        return []
    targets: dict[Any, list[Target]] = defaultdict(list)
    try:
        for item in data["annotations"]:
            x, y, w, h = (float(v) for v in item["bbox"])
            if w > 0 and h > 0 and np.isfinite([x, y, w, h]).all() and not item.get("iscrowd"):
                targets[item["image_id"]].append(Target((x, y, w, h), _outline(item.get("segmentation"))))
        locate = _locator(file, folder)
        found = [
            (locate(str(i["file_name"])), tuple(targets.get(i["id"], ())), _weight(i.get("weight", 1.0)))
            for i in data["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"annotation file {file} is not in the COCO format: {type(error).__name__} {error}") from error
    absent = sum(ref is None for ref, _, _ in found)
    if absent:
        skipped.append(f"{absent} of {len(found)} pictures of {file} are not on disk")
    return [Picture(ref, boxes, weight) for ref, boxes, weight in found if ref is not None and boxes]


def _weight(value: Any) -> float:
    weight = float(value)
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{value!r} is no weight")
    return weight


def _outline(segmentation: object) -> tuple[Floats, ...]:
    if not isinstance(segmentation, list):  # run-length masks mark crowds, which are not tracked
        return ()
    rings = [np.asarray(ring, dtype=np.float64) for ring in segmentation]
    whole = (r for r in rings if r.size >= 2 * _LEAST_OUTLINE and r.size % 2 == 0 and np.isfinite(r).all())
    return tuple(ring.reshape(-1, 2) for ring in whole)


def _locator(file: Path, folder: Path) -> Callable[[str], FrameRef | None]:
    """file name of the annotation -> FrameRef or None: in ``images.zip``, or the first of the usual folders that
    has it."""
    archive = folder / _IMAGES
    if archive.exists():
        with open_tree(archive) as tree:
            names = {f"{place}/{name}" if place else name for place, inner in tree.folders.items() for name in inner}
        return lambda name: FrameRef(archive, name) if name in names else None
    subset = re.sub(r"^(instances|person_keypoints)_", "", file.stem)
    places = [folder / subset, folder / "images" / subset, folder / "images", folder]

    def on_disk(name: str) -> FrameRef | None:
        if Path(name).is_absolute() or ".." in Path(name).parts:  # nothing outside the folder is read
            return None
        return next((FrameRef(place, name) for place in places if (place / name).is_file()), None)

    return on_disk
