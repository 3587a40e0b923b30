"""One tracker on one sequence, once from front to back, and what is recorded of it.

This module decides the record and that a failure of one sequence is a value, not the end of the run. It must not know
scores, files or how work is spread.
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.datasets.files import open_tree
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.errors import EngineError, InputError, SpiketrackError
from spiketrack_deploy.evaluation.subjects import Subject, Workshop, thread_workshop
from spiketrack_deploy.evaluation.tally import Tally
from spiketrack_deploy.tracking.boxes import Boxes
from spiketrack_deploy.tracking.loop import TrackedFrame

EXIT_BUG = 1


@dataclass(frozen=True, slots=True)
class Task:
    """One tracker on one sequence; everything a worker on another machine needs, given the same file system."""

    subject: Subject
    sequence: VideoSequence


@dataclass(frozen=True, slots=True)
class Record:
    """A finished sequence. ``boxes``: x,y,w,h a frame, the first as given; ``confidence``: per tracked frame, None for
    a baseline; ``seconds``: per frame, the first is the initialisation; ``crop_s`` and ``network_s``: sums over tracked
    frames; ``tally``: counts of a program, else None."""

    sequence: str
    boxes: list[list[float]]
    confidence: list[float] | None
    seconds: list[float]
    crop_s: float
    network_s: float
    tally: Tally | None

    @property
    def array(self) -> Boxes:
        """Boxes float64 ``[frames, 4]``."""
        return np.array(self.boxes, dtype=np.float64).reshape(-1, 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; floats in full, so that a record read back is the same; null where a box is not finite."""
        boxes = [[value if math.isfinite(value) else None for value in box] for box in self.boxes]
        return {**asdict(self), "boxes": boxes, "tally": self.tally.to_dict() if self.tally else None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """InputError unless ``data`` is a whole record."""
        try:
            boxes = [[math.nan if value is None else value for value in box] for box in data["boxes"]]
            tally = None if data["tally"] is None else Tally.from_dict(data["tally"])
            record = cls(**{**data, "boxes": boxes, "tally": tally})
            if len(record.seconds) != len(record.boxes) or any(len(box) != 4 for box in record.boxes):
                raise ValueError("boxes and times differ in number")
            record.array  # noqa: B018 - numbers or an error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"is no record of a sequence ({error})") from None
        return record


@dataclass(frozen=True, slots=True)
class Failure:
    """A sequence that did not finish: one sentence, and the exit code its error stands for."""

    sequence: str
    reason: str
    exit_code: int


class Book:
    """A sequence's record while its frames go by."""

    def __init__(self, sequence: VideoSequence, seconds: float) -> None:
        self._name, self._boxes, self._seconds = sequence.name, [sequence.boxes[0].tolist()], [seconds]
        self._confidence: list[float] = []
        self._crop = self._network = 0.0

    def add(self, tracked: TrackedFrame, crop: float, network: float, total: float) -> None:
        """One tracked frame and its seconds."""
        self._boxes.append(list(tracked.box))
        self._seconds.append(total)
        self._crop += crop
        self._network += network
        if not math.isnan(tracked.confidence):
            self._confidence.append(tracked.confidence)

    def record(self, tally: Tally | None) -> Record:
        """All of it."""
        confidence = self._confidence or None
        return Record(self._name, self._boxes, confidence, self._seconds, self._crop, self._network, tally)


def track_sequence(task: Task, workshop: Workshop) -> Record:
    """One pass: start on the first frame's true box, then follow. Raises what the tracker or a frame raises."""
    sequence = task.sequence
    tracker = workshop.tracker(task.subject)
    x, y, w, h = sequence.boxes[0].tolist()
    with open_tree(sequence.root, listed=False) as tree:
        book = Book(sequence, tracker.start(tree.image(sequence.frames[0]), (x, y, w, h)))
        for name in sequence.frames[1:]:
            tracked, took = tracker.update(tree.image(name))
            book.add(tracked, took.crop, took.network, took.total)
    return book.record(tracker.tally)


def attempt(task: Task, workshop: Workshop | None = None) -> Record | Failure:
    """:func:`track_sequence`, with a :class:`Failure` where it raises; ``workshop``: by default this thread's own."""
    shop = workshop or thread_workshop()
    try:
        return track_sequence(task, shop)
    except Exception as error:  # noqa: BLE001 - one sequence, whatever breaks it, must not end a run of hours
        shop.close()
        return failed(task, error)


def failed(task: Task, error: Exception) -> Failure:
    """What is kept of a sequence that ``error`` ended."""
    if isinstance(error, SpiketrackError):
        return Failure(task.sequence.name, str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return Failure(task.sequence.name, "out of memory; use fewer --jobs", EngineError.exit_code)
    if os.environ.get("SPIKETRACK_DEBUG"):
        traceback.print_exception(error)
    return Failure(task.sequence.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", EXIT_BUG)
