"""A folder or a zip as one tree of files, a frame out of its bytes, and how much of anything is read.

This module decides how files are listed and read: nothing hidden, nothing outside the tree, no pipe or device, nothing
beyond a bound, and one sentence for whatever a damaged zip does. It must not know what a sequence is.
"""

from __future__ import annotations

import json
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.images import Image, decode_image

MAX_FRAME = 256 << 20
"""Bytes; a larger frame is a mistake or an attack (a zip can promise any size)."""
MAX_TEXT = 8 << 20
"""Bytes of boxes or labels: 400,000 frames at 20 characters a line."""
MAX_JSON = 1 << 30
"""Bytes; the largest annotation file of COCO 2017 has 448 MB."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")
_DAMAGED = (
    OSError, EOFError, KeyError, ValueError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    RuntimeError,  # encrypted members; its child NotImplementedError for unknown compression
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One stored picture: the file ``name`` of a folder or a zip, ``root``."""

    root: Path
    name: str

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"


@dataclass(slots=True)
class Tree:
    """Files by folder (``""`` is the top, ``/`` between parts); a context manager, because a zip stays open."""

    root: Path
    folders: Mapping[str, frozenset[str]]
    archive: zipfile.ZipFile | None

    def read(self, name: str, limit: int = MAX_FRAME) -> bytes:
        """Bytes of one file; InputError names it where it cannot be read, is no plain file or has more than ``limit``
        bytes."""
        file = self.root / name
        if self.archive is None and file.exists() and not file.is_file():
            raise InputError(f"{file}: is no plain file but a folder, a pipe or a device")
        try:
            with file.open("rb") if self.archive is None else self.archive.open(name) as stream:
                data = stream.read(limit + 1)
        except _DAMAGED as error:
            raise InputError(f"{file}: cannot be read ({_reason(error)})") from None
        if len(data) > limit:
            raise InputError(f"{file}: is larger than {limit >> 20} MiB; that is no frame and no list of boxes")
        return data

    def image(self, name: str) -> Image:
        """One frame, RGB uint8 ``[H, W, 3]``; InputError where it cannot be decoded."""
        return decode_image(self.read(name), f"{self.root}/{name}")

    def close(self) -> None:
        """Close the zip."""
        if self.archive is not None:
            self.archive.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_tree(path: Path, listed: bool = True) -> Tree:
    """A folder or a zip file; InputError for anything else. ``listed`` false: for reading known names only."""
    if path.is_dir():
        return Tree(path, _walk(path) if listed else {}, None)
    if not path.exists():
        raise InputError(f"{path}: there is no such dataset; give a folder of sequences or a zip of one")
    if not path.is_file():
        raise InputError(f"{path}: is a pipe or a device; give a folder of sequences or a zip of one")
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise InputError(
            f"{path}: is no folder and no readable zip ({_reason(error)}); give a folder of sequences or a zip of one"
        ) from None
    return Tree(path, _members(archive, path) if listed else {}, archive)


def read_json(file: Path) -> Any:
    """A JSON file beside the frames; InputError names it where it is none, no plain file, or beyond all measure."""
    with open_tree(file.parent, listed=False) as tree:
        return parse_json(tree.read(file.name, MAX_JSON), str(file))


def parse_json(data: bytes, where: str) -> Any:
    """JSON out of bytes; InputError names ``where``."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON ({_reason(error)}); correct it, or remove it") from None


def _reason(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def _walk(path: Path) -> dict[str, frozenset[str]]:
    folders: dict[str, frozenset[str]] = {}

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror})") from None

    seen = {path.resolve()}
    for folder, inner, files in os.walk(path, onerror=refuse, followlinks=True):
        # Data sets are often linked into place; a link back to a folder above would never end.
        fresh = {name: (Path(folder) / name).resolve() for name in inner if not name.startswith(".")}
        inner[:] = [name for name, real in fresh.items() if real not in seen]
        seen.update(fresh.values())
        relative = Path(folder).relative_to(path).as_posix()
        folders["" if relative == "." else relative] = frozenset(f for f in files if not f.startswith("."))
    return folders


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, frozenset[str]]:
    folders: dict[str, set[str]] = {"": set()}
    for info in archive.infolist():
        parts = info.filename.split("/")
        if info.is_dir() or any(p.startswith((".", "__MACOSX")) for p in parts):
            continue
        if info.filename.startswith("/") or "" in parts or _UNSAFE.search(info.filename):
            archive.close()
            raise InputError(f"{path}: holds a file with an unusable name, {info.filename[:80]!r}; make the zip again")
        folder, _, name = info.filename.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    return {folder: frozenset(names) for folder, names in folders.items()}
