"""What is evaluated: a float tracker, a program on an engine, or a baseline; and how a worker builds it.

This module decides labels, what results belong to, and that a worker builds each tracker once. It must not know scores
or how work is spread. PyTorch is imported only where a tracker needs it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.evaluation.baselines import OpenCVTracker, StaticBox
from spiketrack_deploy.evaluation.tally import Tally
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, Way
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import TrackedFrame, tracker_over

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.opening import Opened

BASELINE, FLOAT, PROGRAM_KIND = "baseline", "float", "program"
FRAME = "frame"
"""The one phase of a network that is no program and costs the same in every frame."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of the table. ``kind``: baseline, float, program. ``source``: a baseline's name, a checkpoint file, a
    program folder. ``identity``: what the results belong to; a run folder never mixes two identities. ``device``: where
    a float tracker computes, cpu or cuda; ``way``: how chips run a program, which changes prices alone."""

    label: str
    kind: str
    source: str
    engine: str
    threads: int
    identity: Mapping[str, str] = field(hash=False)
    device: str = "cpu"
    way: Way = DEFAULT_WAY


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a clock measured of one tracked frame, apart from it because no second run would measure the same."""

    crop: float
    network: float
    total: float


class SequenceTracker(Protocol):
    """What a one-pass run needs."""

    tally: Tally | None

    def start(self, frame: Image, box: Box) -> float:
        """Begin a sequence; seconds it took."""

    def update(self, frame: Image) -> tuple[TrackedFrame, Seconds]:
        """Follow the target into the next frame."""

    def close(self) -> None:
        """Release processes and memory."""


def safe_label(text: str) -> str:
    """A label that can name a folder."""
    return re.sub(r"[^A-Za-z0-9._+@-]+", "-", text).strip(".-") or "tracker"


class _Timed:
    """A network that knows when its search began and how long it worked, whatever its loop asks of it."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.config = network.config
        self.entered = 0.0
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._network, name)
        if name == "loop":
            return work

        def timed(*given: Any) -> Any:
            begin = perf_counter()
            if name == "search":
                self.entered = begin
            made = work(*given)
            self.seconds += perf_counter() - begin
            return made

        return timed


class SpikeTracker:
    """The tracking loop over a network, timed. The search crop is cut before the network is entered, so the time until
    then is that of cropping; decoding, window and the crop of a template update are the rest. ``frame``: counts of
    every tracked frame, where they are known before."""

    def __init__(self, network: Any, engine: Engine | None = None, frame: Mapping[str, OpCounts] | None = None) -> None:
        self._network, self._engine, self._frame = network, engine, frame
        self._timed = _Timed(network)
        self._tracker = tracker_over(self._timed)
        self.tally: Tally | None = None

    def start(self, frame: Image, box: Box) -> float:
        """See :class:`SequenceTracker`."""
        if self._engine is not None:
            self._network.drain()
        if self._engine is not None or self._frame is not None:
            self.tally = Tally()
        begin = perf_counter()
        self._tracker.init(frame, box)
        seconds = perf_counter() - begin
        self._drain()
        return seconds

    def update(self, frame: Image) -> tuple[TrackedFrame, Seconds]:
        """See :class:`SequenceTracker`."""
        begin = perf_counter()
        self._timed.seconds = 0.0
        tracked = self._tracker.track(frame)
        total = perf_counter() - begin
        self._drain()
        if self.tally is not None:
            self.tally.frames += 1
        if self.tally is not None and self._frame is not None:
            self.tally.add_run(FRAME, self._frame)
        return tracked, Seconds(self._timed.entered - begin, self._timed.seconds, total)

    def _drain(self) -> None:
        if self.tally is not None and self._engine is not None:
            for phase, runs in self._network.drain().items():
                for counts in runs:
                    self.tally.add_run(phase, counts)

    def close(self) -> None:
        """See :class:`SequenceTracker`."""
        if self._engine is not None:
            self._engine.close()


class Baseline:
    """A tracker without network, timed as a whole."""

    tally: Tally | None = None

    def __init__(self, tracker: StaticBox | OpenCVTracker) -> None:
        self._tracker, self._frame = tracker, 0

    def start(self, frame: Image, box: Box) -> float:
        """See :class:`SequenceTracker`."""
        begin = perf_counter()
        self._tracker.start(frame, box)
        self._frame = 0
        return perf_counter() - begin

    def update(self, frame: Image) -> tuple[TrackedFrame, Seconds]:
        """See :class:`SequenceTracker`."""
        begin = perf_counter()
        box = self._tracker.update(frame)
        total = perf_counter() - begin
        self._frame += 1
        return TrackedFrame(self._frame, box), Seconds(0.0, 0.0, total)

    def close(self) -> None:
        """Nothing to release."""


def build(subject: Subject) -> SequenceTracker:
    """The tracker of a subject; errors are those of the checkpoint, the program or the engine."""
    import cv2

    cv2.setNumThreads(subject.threads)
    if subject.kind == BASELINE:
        return Baseline(StaticBox() if subject.source == "static" else OpenCVTracker(subject.source))
    return _float_tracker(subject) if subject.kind == FLOAT else _program_tracker(subject)


def open_network(subject: Subject) -> Opened | None:
    """The network of a float tracker, which several sequences may share; None for anything else."""
    if subject.kind != FLOAT:
        return None
    from spiketrack_deploy.trackers.opening import open_float, set_threads

    set_threads(subject.threads)
    return open_float(Path(subject.source), subject.engine, device=subject.device)


def _float_tracker(subject: Subject) -> SequenceTracker:
    opened = open_network(subject)
    assert opened is not None
    return SpikeTracker(opened.network, frame=opened.counts)


def _program_tracker(subject: Subject) -> SequenceTracker:
    from spiketrack_deploy.engines.factory import make_engine
    from spiketrack_deploy.program.store import load_program
    from spiketrack_deploy.trackers.settings import tracker_config
    from spiketrack_deploy.tracking.program_network import ProgramNetwork

    program = load_program(Path(subject.source))
    options = {"threads": subject.threads} if subject.engine == "sim" else {}
    engine = make_engine(subject.engine, program, **options)
    return SpikeTracker(ProgramNetwork(program, engine, tracker_config(program)), engine)


class Workshop:
    """Keeps the tracker of the last subject, because work comes subject by subject; a context manager."""

    def __init__(self) -> None:
        self._subject: Subject | None = None
        self._tracker: SequenceTracker | None = None

    def tracker(self, subject: Subject) -> SequenceTracker:
        """The tracker of ``subject``, built where the last one was another's."""
        if self._tracker is None or self._subject != subject:
            self.close()
            self._tracker, self._subject = build(subject), subject
        return self._tracker

    def close(self) -> None:
        """Release the tracker; the next call builds anew."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close()

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


_LOCAL = threading.local()


def thread_workshop() -> Workshop:
    """The workshop of this thread: the tasks of a Dask worker run in threads, and a tracker belongs to one of them."""
    if not hasattr(_LOCAL, "workshop"):
        _LOCAL.workshop = Workshop()
    workshop: Workshop = _LOCAL.workshop
    return workshop
