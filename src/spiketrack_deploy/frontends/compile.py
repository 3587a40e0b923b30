"""From a file to a program: the one way, whatever the network and whoever asks.

    read       a source by the front end that opens it             FRONT_ENDS
    observe    its float network on a calibration clip             tracking/runs.py
    recognise  real-valued network and workload                    the front end
    lower      integers                                            lowering/

This module decides the order and which front end opens a file. It must not know what is inside a source. The same
source with the same calibration gives the same integers from every caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import ClipSource
from spiketrack_deploy.lowering.calibrate import Calibration
from spiketrack_deploy.lowering.lower import LoweringResult, lower
from spiketrack_deploy.lowering.network import FloatNetwork
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.runs import FloatRun, open_clip
from spiketrack_deploy.tracking.video import FrameSource

RECIPE = {"weights": "int8 times a power of two per output channel", "decay_bits": 12, "stream_bits": 24}


class Source(Protocol):
    """What a front end has read."""

    def follow(self, frames: FrameSource, init: Box, tell: Tell | None = None) -> FloatRun:
        """What the float network does on a clip, in the program's axes."""

    def network(self, files: tuple[Path, Path] | None = None) -> tuple[FloatNetwork, Workload]:
        """The real-valued network and what it is for; with ``files`` its graph and cuts are written and read back."""


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """A name, whether it opens a file (by its name and kind alone), and how; ``read`` says what is wrong with it."""

    name: str
    opens: Callable[[Path], bool]
    read: Callable[[Path], Source]


def _read_spiketrack(path: Path) -> Source:
    from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource

    return SpikeTrackSource.read(path)


FRONT_ENDS = (FrontEnd("spiketrack", lambda path: True, _read_spiketrack),)
"""Asked in this order. The last one opens what no other does: a checkpoint has no suffix of its own."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to compile.

    ``clip``, ``max_frames``: what the float network follows for calibration; or ``calibration``: what it did elsewhere.
    Without either nothing is measured, and exponents merely avoid clipping. ``files``: where the NIR graph and its cuts
    are written and read back. ``notes``: JSON data to carry in the program. ``stage``: a context around every stage.
    """

    clip: ClipSource | None = None
    max_frames: int | None = None
    calibration: Calibration | None = None
    files: tuple[Path, Path] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    tell: Tell | None = None
    stage: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()


@dataclass(frozen=True, slots=True)
class Compiled:
    """The program, what the lowering reports of it, what it is for, and the float run where there was one."""

    program: Program
    report: LoweringResult
    workload: Workload
    run: FloatRun | None


def open_source(path: Path) -> Source:
    """What ``path`` holds, by the first front end that opens it."""
    return next(one for one in FRONT_ENDS if one.opens(path)).read(path)


def compile(source: Path | Source, options: Options | None = None) -> Compiled:
    """Source to program. InputError: the source or the clip is unusable; FitError: no unit holds its worst case."""
    options = options or Options()
    stage, run, calibration = options.stage, None, options.calibration
    with stage("checkpoint"):
        opened = open_source(source) if isinstance(source, Path) else source
    if options.clip is not None:
        with stage("float tracker"):
            run = opened.follow(open_clip(options.clip, options.max_frames), options.clip.init, options.tell)
        calibration = run.recorded()
    with stage("NIR"):
        network, workload = opened.network(options.files)
    with stage("lowering"):
        frames = None if run is None else [sample.frame for sample in run.calibration]
        meta = {"workload": workload.to_dict(), "quantisation": RECIPE, "calibration_frames": frames, **options.notes}
        report = lower(network, calibration, meta=meta)
    return Compiled(report.program, report, workload, run)
