"""What there is to train on: pictures with boxes and clips with one target, whatever folder layout they came in.

This module decides what a usable picture or clip is and how pixels are kept in memory. It must not know layouts
(:mod:`layouts`) nor crops.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One stored picture: a file of a folder, or an entry of a zip archive (``entry``)."""

    file: Path
    entry: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.entry}" if self.entry else str(self.file)


@dataclass(frozen=True, slots=True)
class Target:
    """An annotated object: ``box`` is x, y, w, h in pixels; ``outline`` polygons ``[n,2]`` in pixels, empty without
    mask."""

    box: tuple[float, float, float, float]
    outline: tuple[Floats, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture and its targets; ``weight`` is its share of draws, not normalised."""

    frame: FrameRef
    targets: tuple[Target, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A sequence with one target. ``boxes`` ``[frames, 4]`` x, y, w, h in pixels, NaN where the target is absent."""

    name: str
    frames: tuple[FrameRef, ...]
    boxes: Floats
    weight: float = 1.0

    def usable(self, least_side: float = 0.0) -> npt.NDArray[np.int64]:
        """Indices of frames whose target is present and at least ``least_side`` pixels large (root of its area)."""
        area = np.nan_to_num(self.boxes[:, 2] * self.boxes[:, 3], nan=-1.0)
        return np.flatnonzero(area >= max(least_side, 1.0) ** 2)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything found under the data folders. ``skipped`` says, one sentence each, what was left out and why."""

    pictures: tuple[Picture, ...] = ()
    clips: tuple[Clip, ...] = ()
    skipped: tuple[str, ...] = ()

    def joined(self, others: Iterable[Catalogue]) -> Catalogue:
        """This catalogue and others as one."""
        parts = [self, *others]
        return Catalogue(
            tuple(p for c in parts for p in c.pictures),
            tuple(c for part in parts for c in part.clips),
            tuple(s for c in parts for s in c.skipped),
        )

    def split(self, held_out: Iterable[str]) -> tuple[Catalogue, tuple[Clip, ...]]:
        """(what is trained on, the clips of the given names); a name that does not occur is an :class:`InputError`."""
        names = set(held_out)
        missing = sorted(names - {clip.name for clip in self.clips})
        if missing:
            raise InputError(
                f"no clip called {', '.join(missing)} is in the data, so it cannot be held out for validation"
            )
        kept = tuple(clip for clip in self.clips if clip.name not in names)
        return Catalogue(self.pictures, kept, self.skipped), tuple(c for c in self.clips if c.name in names)


class FrameStore:
    """Decoded frames, kept in memory up to ``limit`` bytes; later ones are decoded again at every use."""

    def __init__(self, limit: int = 3 << 30) -> None:
        self._kept: dict[FrameRef, Image] = {}
        self._archives: dict[Path, zipfile.ZipFile] = {}
        self._room = limit

    def read(self, ref: FrameRef) -> Image:
        """RGB uint8 ``[H,W,3]``; :class:`InputError` names a picture that cannot be read."""
        found = self._kept.get(ref)
        if found is None:
            found = self._decode(ref)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[ref] = found
        return found

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives.values():
            archive.close()
        self._archives.clear()

    def _decode(self, ref: FrameRef) -> Image:
        import cv2

        try:
            data = self._bytes(ref)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"picture {ref} cannot be read: {error}") from error
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if decoded is None:
            raise InputError(f"picture {ref} is no image that can be decoded")
        return np.ascontiguousarray(decoded[:, :, ::-1], dtype=np.uint8)

    def _bytes(self, ref: FrameRef) -> bytes:
        if ref.entry is None:
            return ref.file.read_bytes()
        if ref.file not in self._archives:
            self._archives[ref.file] = zipfile.ZipFile(ref.file)
        return self._archives[ref.file].read(ref.entry)
