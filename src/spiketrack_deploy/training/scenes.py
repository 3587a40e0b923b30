"""Videos of a user's own scene as training clips: with his boxes, or with the tracker's own behind a first one.

Own boxes are checked there and back: the tracker follows the first box to the end, then starts on its last box and
follows it back. Where the way back does not end on the first box, the target was lost somewhere, and boxes behind that
place would agree on something else: the video is halved until it does. What is kept of the rest is where both ways
overlap and both are confident.

This module decides what a video may be and which frames have a label. It must not know how a network is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.files import MAX_TEXT, FrameRef
from spiketrack_deploy.datasets.groundtruth import box_lines, read_boxes
from spiketrack_deploy.datasets.sequences import TRUTH_FILES, VideoSequence, open_dataset
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.untrusted import read_bytes
from spiketrack_deploy.tracking.boxes import Boxes, overlaps
from spiketrack_deploy.tracking.images import IMAGE_SUFFIXES, Image, natural
from spiketrack_deploy.tracking.loop import Network, TrackedFrame, Tracker, initial_box
from spiketrack_deploy.tracking.video import open_frames

Video = tuple[Path, Sequence[float] | None]
"""A video and the target's first box; None: its boxes lie beside its frames."""
SHORTEST = 4
"""Frames; a shorter way there and back says nothing."""
_ZIP = ".zip"


@dataclass(frozen=True, slots=True)
class Checks:
    """``agree``: least overlap of the way there and the way back; ``confident``: least confidence of either;
    ``max_frames``: of a video file, which is decoded into memory."""

    agree: float = 0.6
    confident: float = 0.3
    max_frames: int = 600


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip with a box, or NaN, a frame. ``given``: whether its boxes are the user's; ``reached``: frames up to where
    the way back still led to the first box, all of them where boxes were given."""

    clip: VideoSequence
    given: bool
    reached: int

    @property
    def kept(self) -> int:
        """Frames with a box."""
        return len(self.clip.usable())

    def parts(self, share: float) -> tuple[VideoSequence, VideoSequence | None]:
        """First part, which adapts, and last part, ``share`` of the frames; None where it would show the target less
        than twice."""
        count = len(self.clip.frames)
        cut = count - round(share * count)
        first = self.clip.first(cut)
        rest = replace(self.clip, frames=self.clip.frames[cut:], boxes=self.clip.boxes[cut:])
        return (first, rest) if len(rest.usable()) >= 2 and len(first.usable()) >= 2 else (self.clip, None)


def read_clips(videos: Sequence[Video], store: FrameStore, checks: Checks) -> list[VideoSequence]:
    """Every clip of the videos, with all of its boxes or the first alone.

    A video is a file, a folder of frames, a sequence's folder, or a folder or zip of several. :class:`InputError` names
    what does not exist, has no box, or has one outside of its picture.
    """
    if not videos:
        raise InputError("no video is given; name files or folders of the scene to adapt to")
    clips = [clip for path, box in videos for clip in _clips(path, box, store, checks)]
    for clip in clips:
        height, width = store.read(clip.frame(0)).shape[:2]
        try:
            initial_box(clip.boxes[0], width, height)
        except InputError as error:
            raise InputError(f"{clip.root} ({clip.name}): {error}") from None
    return clips


def _clips(path: Path, box: Sequence[float] | None, store: FrameStore, checks: Checks) -> list[VideoSequence]:
    if not path.exists():
        raise InputError(f"{path}: there is no such video file or folder of frames")
    if path.is_file() and path.suffix.lower() != _ZIP:
        return [_video(path, box, store, checks)]
    if box is None:
        try:
            return list(open_dataset(path).sequences)
        except InputError as error:
            raise InputError(f"{error}; or say where the target is in the first frame: {path}:x,y,w,h") from None
    if path.is_file():
        raise InputError(f"{path}: a box belongs to one video, and this is a zip; give it a folder or a file")
    root = path / "img" if (path / "img").is_dir() else path
    names = sorted(
        (p.name for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."), key=natural
    )
    return [_clip(path.resolve().name, root, names, np.array([box]))]


def _video(path: Path, box: Sequence[float] | None, store: FrameStore, checks: Checks) -> VideoSequence:
    boxes = _beside(path) if box is None else np.array([box])
    names = []
    for index, frame in enumerate(open_frames(path, checks.max_frames)):
        names.append(f"{index:06d}")
        store.keep(FrameRef(path, names[-1]), frame)
    if len(boxes) not in (1, len(names)) and not (len(boxes) > len(names) == checks.max_frames):
        raise InputError(f"{path}: has {len(names)} frames and {len(boxes)} boxes beside it; which belong together?")
    return _clip(path.stem, path, names, boxes[: len(names)])


def _beside(path: Path) -> Boxes:
    file = path.with_name(f"{path.stem}_{TRUTH_FILES[0]}")
    if not file.exists():
        raise InputError(
            f"{path}: has no box of its target; say where it is in the first frame, {path}:x,y,w,h (there is no "
            f"{file.name} beside it)"
        )
    return read_boxes(box_lines(read_bytes(file, MAX_TEXT, "correct it"), str(file)), str(file))


def _clip(name: str, root: Path, frames: Sequence[str], boxes: Boxes) -> VideoSequence:
    if len(frames) < 2:
        raise InputError(f"{root}: holds {len(frames)} frame(s); tracking needs at least two")
    return VideoSequence(name, root, "frames", tuple(frames), boxes.astype(np.float64))


def labelled(clip: VideoSequence, network: Network, store: FrameStore, checks: Checks, tell: Tell) -> Scene:
    """The clip with its own boxes, or with those that ``network`` found there and back."""
    if clip.scorable:
        return Scene(clip, True, len(clip.frames))
    tell(f"{clip.name}: has its first box only, following it there and back", 0, 0)
    boxes, reached = own_labels(network, [clip.frame(i) for i in range(len(clip.frames))], clip.boxes[0], store, checks)
    return Scene(replace(clip, boxes=boxes), False, reached)


def own_labels(
    network: Network, frames: Sequence[FrameRef], first: Boxes, store: FrameStore, checks: Checks
) -> tuple[Boxes, int]:
    """Boxes ``[N,4]`` of the frames, NaN where they are not to be trusted, and how many frames the check reached."""
    there = _followed(network, [store.read(ref) for ref in frames], first)
    boxes = np.full((len(frames), 4), np.nan)
    boxes[0] = first
    reached = len(frames)
    while reached >= SHORTEST:
        back = _followed(network, [store.read(ref) for ref in frames[:reached][::-1]], np.array(there[reached - 2].box))
        if overlaps(back[-1].box, first)[0] >= checks.agree:
            break
        reached //= 2
    else:
        return boxes, 1
    # Frame i >= 1 is step i - 1 of the way there and, but for the last, step reached - 2 - i of the way back.
    for i in range(1, reached - 1):
        a, b = there[i - 1], back[reached - 2 - i]
        if min(a.confidence, b.confidence) >= checks.confident and overlaps(a.box, b.box)[0] >= checks.agree:
            boxes[i] = a.box
    return boxes, reached


def _followed(network: Network, frames: Sequence[Image], first: Boxes) -> list[TrackedFrame]:
    tracker = Tracker(network)
    tracker.init(frames[0], first.tolist())
    return [tracker.track(frame) for frame in frames[1:]]
