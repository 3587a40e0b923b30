"""What there is to train on: pictures with boxes and clips with one target, whatever folder layout they came in.

This module decides what a picture with targets is and how pixels are kept in memory. It must not know files of
annotations (:mod:`layouts`, :mod:`sequences`) nor crops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.datasets.files import FrameRef, Tree, open_tree
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image

Floats = npt.NDArray[np.float64]
_COMMON = 1000.0
"""Sum of the weights of a folder of weight 1: near that of a folder without weights, so that digests see them all."""


@dataclass(frozen=True, slots=True)
class Target:
    """An annotated object: ``box`` is x, y, w, h in pixels; ``outline`` polygons ``[n,2]`` in pixels, empty without
    mask."""

    box: Box
    outline: tuple[Floats, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """A still picture and its targets; ``weight`` is its share of draws, not normalised."""

    frame: FrameRef
    targets: tuple[Target, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything found under the data folders. ``skipped`` says, one sentence each, what was left out and why."""

    pictures: tuple[Picture, ...] = ()
    clips: tuple[VideoSequence, ...] = ()
    skipped: tuple[str, ...] = ()

    def joined(self, others: Iterable[Catalogue]) -> Catalogue:
        """This catalogue and others as one."""
        parts = [self, *others]
        return Catalogue(
            tuple(p for c in parts for p in c.pictures),
            tuple(c for part in parts for c in part.clips),
            tuple(s for c in parts for s in c.skipped),
        )

    def weighing(self, weight: float) -> Catalogue:
        """The same with weights whose sum, over pictures and over clips each, is ``weight`` times a common number."""
        pictures, clips = (_COMMON * weight / (sum(one.weight for one in kind) or 1.0) for kind in self._kinds())
        return replace(
            self,
            pictures=tuple(replace(p, weight=p.weight * pictures) for p in self.pictures),
            clips=tuple(replace(c, weight=c.weight * clips) for c in self.clips),
        )

    def _kinds(self) -> tuple[Sequence[Picture], Sequence[VideoSequence]]:
        return self.pictures, self.clips

    def split(self, held_out: Iterable[str]) -> tuple[Catalogue, tuple[VideoSequence, ...]]:
        """(what is trained on, the clips that are held out). ``held_out``: names of clips, or a folder or zip, for
        every clip in it; one that is neither is an :class:`InputError`."""
        names = set(held_out)
        places = {name: Path(name).resolve() for name in names}
        held = {name: [c for c in self.clips if _is(c, name, place)] for name, place in places.items()}
        missing = sorted(name for name, clips in held.items() if not clips)
        if missing:
            raise InputError(
                f"no clip called {', '.join(missing)} is in the data, so it cannot be held out for validation"
            )
        out = {id(clip) for clips in held.values() for clip in clips}
        kept = tuple(clip for clip in self.clips if id(clip) not in out)
        return Catalogue(self.pictures, kept, self.skipped), tuple(c for c in self.clips if id(c) in out)


def _is(clip: VideoSequence, name: str, place: Path) -> bool:
    return clip.name == name or clip.root.resolve().is_relative_to(place)


class FrameStore:
    """Decoded frames, kept in memory up to ``limit`` bytes; later ones are decoded again at every use."""

    def __init__(self, limit: int = 3 << 30) -> None:
        self._kept: dict[FrameRef, Image] = {}
        self._trees: dict[Path, Tree] = {}
        self._room = limit

    def read(self, ref: FrameRef) -> Image:
        """RGB uint8 ``[H,W,3]``; :class:`InputError` names a picture that cannot be read."""
        found = self._kept.get(ref)
        if found is None:
            if ref.root not in self._trees:
                self._trees[ref.root] = open_tree(ref.root, listed=False)
            found = self._trees[ref.root].image(ref.name)
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[ref] = found
        return found

    def keep(self, ref: FrameRef, frame: Image) -> None:
        """Hold a frame that no archive has, a video file's; :class:`InputError` where there is no room."""
        if frame.nbytes > self._room:
            raise InputError(
                f"{ref.root}: its frames need more memory than is kept for them; take fewer or smaller ones"
            )
        self._room -= frame.nbytes
        self._kept[ref] = frame

    def close(self) -> None:
        """Close the archives."""
        for tree in self._trees.values():
            tree.close()
        self._trees.clear()
