"""Reads training data in the folder layouts of the field: OTB, GOT-10k, LaSOT, COCO, and zip archives of the same.

This module decides how a folder is recognised and how its annotation files are read. It must not decode pictures.

| layout | recognised by |
| --- | --- |
| OTB | sequence folders with ``img/`` and ``groundtruth_rect.txt`` |
| LaSOT | sequence folders with ``img/`` and ``groundtruth.txt``, at any depth |
| GOT-10k | sequence folders with pictures and ``groundtruth.txt`` beside them |
| COCO | ``annotations/*.json`` or ``annotations.json``; pictures in folders or in ``images.zip`` |
| zip | ``NAME/img/*.jpg`` and ``NAME/groundtruth_rect.txt`` inside; weights from a ``.json`` of the same name |

``absence.label``, ``out_of_view.txt`` and ``full_occlusion.txt`` mark frames without target where they exist.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from spiketrack_deploy.datasets.catalogue import Catalogue, Clip, Floats, FrameRef, Picture, Target
from spiketrack_deploy.errors import InputError

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
_TRUTH = ("groundtruth_rect.txt", "groundtruth.txt")
_ABSENT = ("absence.label", "out_of_view.txt", "full_occlusion.txt")
_LEAST_OUTLINE = 3


def read_folders(folders: Sequence[Path]) -> Catalogue:
    """The catalogue of one or several data folders; :class:`InputError` where nothing at all can be trained on."""
    if not folders:
        raise InputError("no training data is given; name a folder of sequences or annotated pictures with --data")
    found = Catalogue().joined(_read_folder(Path(folder)) for folder in folders)
    if not found.pictures and not found.clips:
        why = f": {found.skipped[0]}" if found.skipped else ""
        shown = ", ".join(str(f) for f in folders)
        raise InputError(f"no picture with boxes and no sequence with ground truth is in {shown}{why}")
    return found


def _read_folder(folder: Path) -> Catalogue:
    if not folder.is_dir():
        raise InputError(f"data folder {folder} does not exist or is no folder")
    pictures: list[Picture] = []
    skipped: list[str] = []
    annotation_files = [folder / "annotations.json", *sorted((folder / "annotations").glob("*.json"))]
    for file in annotation_files:
        if file.is_file():
            pictures += _coco(file, folder, skipped)
    clips = list(_folder_clips(folder, skipped))
    for archive in sorted(folder.glob("*.zip")):
        clips += _zip_clips(archive, skipped)
    return Catalogue(tuple(pictures), tuple(clips), tuple(skipped))


def _load_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"annotation file {file} cannot be read: {error}") from error


def _coco(file: Path, folder: Path, skipped: list[str]) -> list[Picture]:
    data = _load_json(file)
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
        pictures = [(locate(str(i["file_name"])), i["id"], float(i.get("weight", 1.0))) for i in data["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"annotation file {file} is not in the COCO format: {type(error).__name__} {error}") from error
    absent = sum(ref is None for ref, _, _ in pictures)
    if absent:
        skipped.append(f"{absent} of {len(pictures)} pictures of {file} are not on disk")
    return [
        Picture(ref, tuple(targets[key]), weight) for ref, key, weight in pictures if ref is not None and targets[key]
    ]


def _outline(segmentation: object) -> tuple[Floats, ...]:
    if not isinstance(segmentation, list):  # run-length masks mark crowds, which are not tracked
        return ()
    rings = [np.asarray(ring, dtype=np.float64) for ring in segmentation]
    return tuple(ring.reshape(-1, 2) for ring in rings if ring.size >= 2 * _LEAST_OUTLINE and ring.size % 2 == 0)


def _locator(file: Path, folder: Path) -> Any:
    """file name of the annotation -> FrameRef or None: in ``images.zip``, or the first of the usual folders that
    has it."""
    archive = folder / "images.zip"
    if archive.is_file():
        names = set(_names(archive))
        return lambda name: FrameRef(archive, name) if name in names else None
    subset = re.sub(r"^(instances|person_keypoints)_", "", file.stem)
    places = [folder / subset, folder / "images" / subset, folder / "images", folder]

    def on_disk(name: str) -> FrameRef | None:
        return next((FrameRef(place / name) for place in places if (place / name).is_file()), None)

    return on_disk


def _names(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"archive {archive} cannot be read: {error}") from error


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts frame 10 behind frame 9."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def _folder_clips(folder: Path, skipped: list[str]) -> Iterable[Clip]:
    seen: set[Path] = set()
    for truth in sorted(p for name in _TRUTH for p in folder.rglob(name)):
        home = truth.parent
        if home in seen:
            continue
        seen.add(home)
        inside = home / "img" if (home / "img").is_dir() else home
        names = sorted((p.name for p in inside.iterdir() if p.suffix.lower() in _PICTURES), key=natural)
        absent = [p for p in (home / name for name in _ABSENT) if p.is_file()]
        texts = [_text(p) for p in absent]
        clip = _clip(home.name, [FrameRef(inside / n) for n in names], _text(truth), texts, 1.0, skipped)
        if clip is not None:
            yield clip


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"ground truth {file} cannot be read: {error}") from error


def _zip_clips(archive: Path, skipped: list[str]) -> list[Clip]:
    frames: dict[str, list[str]] = defaultdict(list)
    truths: dict[str, str] = {}
    for name in _names(archive):
        parts = PurePosixPath(name).parts
        if parts and parts[-1] in _TRUTH:
            truths["/".join(parts[:-1])] = name
        elif len(parts) > 1 and parts[-2] == "img" and parts[-1].lower().endswith(_PICTURES):
            frames["/".join(parts[:-2])].append(name)
    if not truths:
        return []
    weights = _weights(archive.with_suffix(".json"))
    clips: list[Clip | None] = []
    with zipfile.ZipFile(archive) as opened:
        for home, truth in truths.items():
            name = home.rsplit("/", 1)[-1]
            try:
                text = opened.read(truth).decode("utf-8")
            except (UnicodeDecodeError, zipfile.BadZipFile) as error:
                raise InputError(f"ground truth {archive}:{truth} cannot be read: {error}") from error
            refs = [FrameRef(archive, n) for n in sorted(frames[home], key=natural)]
            clips.append(_clip(name, refs, text, [], weights.get(name, 1.0), skipped))
    return [clip for clip in clips if clip is not None]


def _weights(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    data = _load_json(file)
    if not isinstance(data, list):
        return {}
    items = [
        item for item in data if isinstance(item, Mapping) and isinstance(item.get("sampling_weight"), (int, float))
    ]
    # As shares of a mean of one, so that a weighted archive joins an unweighted folder on equal terms.
    return {str(item.get("name")): float(item["sampling_weight"]) * len(items) for item in items}


def _clip(
    name: str, frames: list[FrameRef], truth: str, absent: list[str], weight: float, skipped: list[str]
) -> Clip | None:
    try:
        rows = [[float(v) for v in re.split(r"[,\s]+", line.strip())] for line in truth.splitlines() if line.strip()]
    except ValueError as error:
        skipped.append(f"sequence {name}: its ground truth is no table of numbers ({error})")
        return None
    if not rows or any(len(row) != 4 for row in rows):
        skipped.append(f"sequence {name}: its ground truth must have four numbers a line")
        return None
    count = min(len(rows), len(frames))
    if len(rows) != len(frames):
        skipped.append(f"sequence {name}: {len(frames)} frames but {len(rows)} boxes; the first {count} are used")
    boxes = np.array(rows[:count], dtype=np.float64).reshape(-1, 4)
    for text in absent:
        flags = [int(float(v)) for v in re.split(r"[,\s]+", text.strip()) if v]
        boxes[[i for i, flag in enumerate(flags[:count]) if flag]] = np.nan
    boxes[~np.isfinite(boxes).all(1) | (boxes[:, 2:] <= 0).any(1)] = np.nan
    clip = Clip(name, tuple(frames[:count]), boxes, weight)
    if len(clip.usable()) < 2:
        skipped.append(f"sequence {name}: fewer than two frames show the target")
        return None
    return clip
