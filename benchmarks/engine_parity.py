"""Every engine against the reference on tracked clips, integer by integer, with the time of a frame of each.

    python benchmarks/engine_parity.py [--frames N] [--lava-frames N] [--engines sim,onnx,lava] [--json]

Two seeded networks of 256-pixel crops (widths 16, 32, 48, 64, head 64, one and three templates) go through the real
pipeline to programs. A drawn clip is tracked with template updates; every run of a phase is repeated on every engine
and all operations' outputs and all counts are compared. Exit 0 only if no integer differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from spiketrack_deploy.engines.base import BaseEngine, Engine, ReferenceEngine  # noqa: E402
from spiketrack_deploy.engines.factory import make_engine  # noqa: E402
from spiketrack_deploy.engines.parity import ParityResult, Run, compare  # noqa: E402
from spiketrack_deploy.errors import EngineError, SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.compile import compile  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource  # noqa: E402
from spiketrack_deploy.program.types import Program  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.make_untrained import dead_leaves, make_untrained  # noqa: E402
from spiketrack_deploy.tracking.loop import Tracker  # noqa: E402
from spiketrack_deploy.tracking.program_network import ProgramNetwork  # noqa: E402

DIMS, RESOLUTION, HEAD = (16, 32, 48, 64), 256, 64
INTERVAL = 5
"""Frames between template updates; the threshold is 0, so that every one happens."""
START = (60.0, 50.0, 60.0, 45.0)


class Repeated(BaseEngine):
    """The reference engine, which is slow: one computation of a run serves all comparisons of that run."""

    name, can_replace = "reference", False

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.engine = ReferenceEngine(program)
        self._key: tuple[str, int] | None = None

    def run(self, phase, inputs, *, count=True, watch=None):
        """See Engine; ``inputs`` are told apart by identity."""
        if self._key != (phase, id(inputs)):
            self._values = []
            self._result = self.engine.run(phase, inputs, watch=lambda op, value: self._values.append((op, value)))
            self._key = (phase, id(inputs))
        for op, value in self._values if watch else ():
            watch(op, value)
        return self._result

    def close(self) -> None:
        """Forget the last run."""
        self._key = None


class Recorder(BaseEngine):
    """An engine that keeps what it was asked, for a tracker to drive."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.program)
        self.engine, self.name, self.can_replace = engine, engine.name, False
        self.runs: list[Run] = []

    def run(self, phase, inputs, *, count=True, watch=None):
        """See Engine."""
        self.runs.append((phase, dict(inputs)))
        return self.engine.run(phase, inputs, count=count, watch=watch)


def clip(frames: int) -> list[np.ndarray]:
    """A drawn picture seen through a window that moves."""
    picture = dead_leaves("engine parity", 420)
    return [np.ascontiguousarray(picture[2 * i : 2 * i + 240, 3 * i : 3 * i + 320]) for i in range(frames)]


def program_of(templates: int) -> tuple[TrackerConfig, Program]:
    """The seeded network, lowered."""
    config = TrackerConfig(
        f"n256_t{templates}", DIMS, RESOLUTION, templates, HEAD, update_interval=INTERVAL, update_threshold=0.0
    )
    return config, compile(SpikeTrackSource(make_untrained(config))).program


def tracked(config: TrackerConfig, program: Program, frames: int) -> list[Run]:
    """Every run of a phase that tracking the clip takes."""
    with make_engine("sim", program) as engine:
        recorder = Recorder(engine)
        tracker = Tracker(ProgramNetwork(program, recorder, config, count=False))
        pictures = clip(frames + 1)
        tracker.init(pictures[0], START)
        for picture in pictures[1:]:
            tracker.track(picture)
    return recorder.runs


def limit(runs: list[Run], frames: int) -> int:
    """Number of leading runs that hold ``frames`` search frames."""
    searches = [index for index, (phase, _) in enumerate(runs) if phase == "search"]
    return searches[min(frames, len(searches)) - 1] + 1


def summary(results: list[ParityResult], runs: list[Run], uncounted: list[float]) -> dict[str, object]:
    """Totals of the runs of one engine."""
    times = {phase: [r.seconds[phase][1] for r in results if phase in r.seconds] for phase in ("search", "template")}
    first = next((r.first for r in results if r.first is not None), None)
    return {
        "search_frames": sum(phase == "search" for phase, _ in runs),
        "template_updates": sum(phase == "template" for phase, _ in runs),
        "operations": sum(r.operations for r in results),
        "integers": sum(r.integers for r in results),
        "differing_integers": sum(r.differing_integers for r in results),
        "counts": sum(r.counts for r in results),
        "differing_counts": sum(r.differing_counts for r in results),
        "first_difference": None if first is None else first.sentence("reference", results[0].engines[1]),
        "frame_ms": {phase: 1e3 * median(values) for phase, values in times.items() if values},
        "uncounted_search_ms": 1e3 * median(uncounted),
    }


def measure(templates: int, frames: int, lava_frames: int, names: list[str]) -> dict[str, object]:
    """Parity of all engines on one network."""
    config, program = program_of(templates)
    runs = tracked(config, program, frames)
    reference = Repeated(program)
    engines, absent = {}, {}
    for name in names:
        try:
            engines[name] = make_engine(name, program)
        except EngineError as error:
            absent[name] = str(error)
    results: dict[str, list[ParityResult]] = {name: [] for name in engines}
    uncounted: dict[str, list[float]] = {name: [] for name in engines}
    cut = {name: limit(runs, lava_frames if name == "lava" else frames) for name in engines}
    try:
        for index, run in enumerate(runs):
            for name, engine in engines.items():
                if index < cut[name]:
                    results[name].append(compare(reference, engine, program, [run]))
                    if run[0] == "search":
                        start = perf_counter()
                        engine.run(*run, count=False)
                        uncounted[name].append(perf_counter() - start)
    finally:
        for engine in engines.values():
            engine.close()
    found = {name: summary(results[name], runs[: cut[name]], uncounted[name]) for name in engines}
    return {"config": config.name, "engines": found, "absent": absent}


def report(entry: dict) -> None:
    """A table of one network."""
    print(f"{entry['config']}: against the reference")
    for name, r in entry["engines"].items():
        differing = r["differing_integers"] + r["differing_counts"]
        times = ", ".join(f"{phase} {ms:.1f} ms" for phase, ms in r["frame_ms"].items())
        print(
            f"  {name:<6}{r['search_frames']:4} frames {r['template_updates']:3} template runs "
            f"{r['integers'] + r['counts']:13,} integers, {differing} differ; {times}, "
            f"uncounted search {r['uncounted_search_ms']:.1f} ms"
        )
        if r["first_difference"]:
            print(f"         {r['first_difference']}")
    for name, reason in entry["absent"].items():
        print(f"  {name:<6}not run: {reason}")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="frames for sim and ONNX (default 20)")
    parser.add_argument("--lava-frames", type=int, default=5, metavar="N", help="frames for Lava (default 5)")
    parser.add_argument("--engines", default="sim,onnx,lava", metavar="NAMES", help="comma-separated, default all")
    parser.add_argument("--templates", type=int, choices=(1, 3), help="only the network with so many templates")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    if given.frames < 1 or given.lava_frames < 1:
        parser.error("--frames and --lava-frames must be 1 or more")
    names = given.engines.split(",")
    try:
        networks = (given.templates,) if given.templates else (1, 3)
        found = [measure(templates, given.frames, given.lava_frames, names) for templates in networks]
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(found, sort_keys=True))
    else:
        for entry in found:
            report(entry)
    differing = sum(r["differing_integers"] + r["differing_counts"] for e in found for r in e["engines"].values())
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
