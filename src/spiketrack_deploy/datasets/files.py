"""A folder or a zip as one tree of files, and a frame out of its bytes.

This module decides how files are listed and read, and that nothing hidden or outside the tree is touched. It must not
know what a sequence is. OpenCV decodes; it is imported on use.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.crop import Image

MAX_FILE = 256 << 20
"""Bytes; a larger frame or box file is a mistake or an attack (a zip can promise any size)."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: digits compare as numbers, so ``img2`` comes before ``img10``; the name itself breaks ties."""
    parts = re.split(r"(\d+)", name.lower())
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts], name


@dataclass(slots=True)
class Tree:
    """Files by folder (``""`` is the top, ``/`` between parts); a context manager, because a zip stays open."""

    root: Path
    folders: Mapping[str, frozenset[str]]
    archive: zipfile.ZipFile | None

    def read(self, name: str) -> bytes:
        """Bytes of one file; InputError names it where it cannot be read."""
        try:
            if self.archive is None:
                with (self.root / name).open("rb") as file:
                    data = file.read(MAX_FILE + 1)
            else:
                with self.archive.open(name) as member:
                    data = member.read(MAX_FILE + 1)
        except (
            OSError,
            KeyError,
            EOFError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise InputError(f"{self.root}: {name} cannot be read ({error})") from None
        if len(data) > MAX_FILE:
            raise InputError(
                f"{self.root}: {name} is larger than {MAX_FILE >> 20} MiB; that is no frame and no list of boxes"
            )
        return data

    def image(self, name: str) -> Image:
        """One frame, RGB uint8 ``[H, W, 3]``; InputError where it cannot be decoded."""
        import cv2

        data = np.frombuffer(self.read(name), dtype=np.uint8)
        try:
            bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        except cv2.error as error:
            raise InputError(f"{self.root}: image {name} cannot be decoded ({error.err})") from None
        if bgr is None:
            raise InputError(f"{self.root}: image {name} is empty or damaged")
        return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)

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
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no folder and no readable zip ({error}); give a folder of sequences or a zip of one"
        ) from None
    return Tree(path, _members(archive, path) if listed else {}, archive)


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
            raise InputError(f"{path}: holds a file with an unusable name, {info.filename[:80]!r}; make the zip again")
        folder, _, name = info.filename.rpartition("/")
        folders.setdefault(folder, set()).add(name)
    return {folder: frozenset(names) for folder, names in folders.items()}
