"""A folder or a zip as one tree of files, a frame out of its bytes, and how much of anything is read.

This module decides how files are listed and read: nothing hidden, nothing outside the tree, no pipe or device, nothing
beyond a bound, and one sentence for whatever a damaged zip does. It must not know what a sequence is.
"""

from __future__ import annotations

import lzma
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import DAMAGE, check_ordinary, parse_json, read_bytes
from spiketrack_deploy.tracking.images import Image, decode_image

MAX_FRAME = 256 << 20
"""Bytes; a larger frame is a mistake or an attack (a zip can promise any size)."""
MAX_TEXT = 8 << 20
"""Bytes of boxes or labels: 400,000 frames at 20 characters a line."""
MAX_JSON = 1 << 30
"""Bytes; the largest annotation file of COCO 2017 has 448 MB."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")
_DAMAGE = (*DAMAGE, KeyError, lzma.LZMAError)
_GIVE = "give a folder of sequences or a zip of one"
_REMEDY = "correct it, or remove it"


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
        """Bytes of one file; InputError names it where it cannot be read, is no ordinary file or holds more than
        ``limit`` bytes."""
        file = self.root / name
        if self.archive is None:
            return read_bytes(file, limit, _REMEDY)
        try:
            with self.archive.open(name) as member:
                data = member.read(limit + 1)
        except _DAMAGE as error:
            raise InputError(f"{file}: cannot be read ({_reason(error)}); {_REMEDY}") from None
        if len(data) > limit:
            raise InputError(f"{file}: is larger than {limit:,} bytes, more than such a file can need; {_REMEDY}")
        return data

    def json(self, name: str) -> Any:
        """One JSON file as plain data; InputError names it where it is none."""
        try:
            text = self.read(name, MAX_JSON).decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{self.root}/{name}: is no text in UTF-8; {_REMEDY}") from None
        return parse_json(text, f"{self.root}/{name}", _REMEDY).value

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
        raise InputError(f"{path}: there is no such dataset; {_GIVE}")
    check_ordinary(path, _GIVE)
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise InputError(f"{path}: is no folder and no readable zip ({_reason(error)}); {_GIVE}") from None
    return Tree(path, _members(archive, path) if listed else {}, archive)


def read_json(file: Path) -> Any:
    """A JSON file beside the frames, see :meth:`Tree.json`."""
    with open_tree(file.parent, listed=False) as tree:
        return tree.json(file.name)


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
