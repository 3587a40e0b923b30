"""One export from checkpoint to bundle: the stages in order, each writing its file into the temporary folder.

    compile   checkpoint -> float tracker on the clip -> model.nir, model.cuts.json, read back -> program/   frontends/
    answers   recorded inputs, digests of every operation          answers
    run       the program on the clip: boxes, counts               engines/
    price     counts -> energy.json, layers.csv                    energy/
    compare   parity.json                                          faithful
    place     cores and chips, for the report                      chips, mapping/
    show      tracked.mp4, report.html                             report/
    seal      provenance.json, MANIFEST.json, rename               bundle

This module decides the order and the names of the files. It must not compute anything itself.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle import answers, layout, provenance
from spiketrack_deploy.bundle.chips import chip_figures
from spiketrack_deploy.bundle.faithful import compare_layers, parity
from spiketrack_deploy.energy.layers import LayerCounts, layer_counts
from spiketrack_deploy.energy.pricing import dynamic_energy
from spiketrack_deploy.energy.report import EnergyReport, assess, write_energy_json, write_layers_csv
from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import ClipSource, ModelSource
from spiketrack_deploy.inputs.whole_file import file_digest, whole, write_whole
from spiketrack_deploy.lowering.lower import LoweringResult
from spiketrack_deploy.program.describe import describe_program
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.report.data import ReportData
from spiketrack_deploy.trackers.settings import tracker_config
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.loop import TrackedFrame
from spiketrack_deploy.tracking.program_network import ProgramNetwork
from spiketrack_deploy.tracking.runs import FloatRun, follow, open_clip
from spiketrack_deploy.tracking.video import FrameSource
from spiketrack_deploy.units import Interval, si_interval

_ANSWER_FRAMES = 2


@dataclass(slots=True)
class Clock:
    """Wall-clock seconds by stage; tells what is going on when a stage begins."""

    tell: Tell | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        if self.tell:
            self.tell(name, 0, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was decided before work began."""

    source: ModelSource
    clip: ClipSource
    target: str
    profile: Profile
    profile_path: str | None
    engine: str
    threads: int | None
    max_frames: int | None
    command: str


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A program on a clip: tracked frames, counts of every search frame and of every template update."""

    steps: tuple[TrackedFrame, ...]
    frames: tuple[list[LayerCounts], ...]
    updates: tuple[list[LayerCounts], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an export found; ``manifest`` is that of the written folder."""

    data: ReportData
    energy: EnergyReport
    manifest: layout.Manifest
    seconds: Mapping[str, float]


def export_bundle(plan: Plan, folder: Path, tell: Tell | None) -> Outcome:
    """Write every file of a bundle into ``folder``. Errors are those of the stages; the caller removes the folder."""
    clock = Clock(tell)
    frames = open_clip(plan.clip, plan.max_frames)
    lowered, floats = _compile(plan, folder, clock)
    program, config = lowered.program, tracker_config(lowered.program)
    with clock.stage("known answers"):
        program_hash = save_program(program, folder / layout.PROGRAM)
        recorded = answers.record(program, floats.templates, [s.image for s in floats.held_out[:_ANSWER_FRAMES]], tell)
        answers.save(folder, program, recorded, layout.VECTORS, layout.EXPECTED)
    with make_engine(plan.engine, program, **_options(plan)) as engine:
        with clock.stage("engine against reference"):
            checked = answers.check(program, engine, recorded, "export", tell)
        with clock.stage("integer tracker"):
            run = run_program(program, engine, config, frames, plan.clip, tell)
    with clock.stage("layer parity"):
        found = parity(lowered, floats, _layers(program, floats, plan), run.steps, plan.engine, checked)
        layout.write_json(folder / layout.PARITY, found)
    with clock.stage("energy"):
        energy = assess(run.frames, run.updates, plan.profile, update_interval=config.update_interval)
        write_energy_json(energy, folder / layout.ENERGY)
        write_layers_csv(energy, folder / layout.LAYERS)
        costs = [frame_cost(layers, plan.profile) for layers in run.frames]
        write_boxes(folder / layout.BOXES, plan.clip, run.steps, costs)
    with clock.stage("ONNX"):
        _write_onnx(program, folder / layout.ONNX)
    data = _report_data(plan, frames, program, run, costs, energy, found, program_hash)
    with clock.stage("video"):
        stills = write_overlay(folder / layout.VIDEO, frames, plan.clip, run.steps, costs, plan.source.remark)
    with clock.stage("mapping"):
        chips = chip_figures(program, run.frames, plan.profile, plan.target)
    return _seal(plan, folder, replace(data, stills=stills, chips=chips), energy, clock)


def _options(plan: Plan) -> dict[str, Any]:
    return {"threads": plan.threads} if plan.engine == "sim" else {}


def _compile(plan: Plan, folder: Path, clock: Clock) -> tuple[LoweringResult, FloatRun]:
    """Through the files: the lowering sees what was written and nothing else of the tracker but its spikes."""
    from spiketrack_deploy.frontends.compile import Options, compile
    from spiketrack_deploy.trackers.spiketrack.torch_network import set_threads

    set_threads(plan.threads)
    options = Options(
        clip=plan.clip,
        max_frames=plan.max_frames,
        files=(folder / layout.NIR, folder / layout.CUTS),
        notes={"remark": plan.source.remark},
        tell=clock.tell,
        stage=clock.stage,
    )
    compiled = compile(plan.source.path, options)
    if compiled.run is None:
        raise InputError(f"{plan.source.path}: nothing was followed on the clip")
    return compiled.report, compiled.run


def _layers(program: Program, floats: FloatRun, plan: Plan) -> list[dict[str, Any]]:
    """Teacher forcing needs an engine that takes foreign values; the integers are the same on all."""
    with make_engine("sim", program, threads=plan.threads) as engine:
        return compare_layers(program, engine, floats)


def run_program(
    program: Program, engine: Engine, config: TrackerConfig, frames: FrameSource, clip: ClipSource, tell: Tell | None
) -> ProgramRun:
    """Track the clip with a program; counts of every frame are kept."""
    network = ProgramNetwork(program, engine, config)
    steps = follow(network, frames, clip.init, "integer tracker", tell)
    return ProgramRun(
        tuple(steps),
        tuple(layer_counts(program.phases["search"].ops, counts) for counts in network.counts["search"]),
        tuple(layer_counts(program.phases["template"].ops, counts) for counts in network.counts.get("template", ())),
    )


def frame_cost(layers: Sequence[LayerCounts], profile: Profile) -> Interval:
    """Dynamic energy of one search frame in nanojoules: what the sum over its layers is, up to rounding.

    A price depends on counts and, for pixels, on the kind of the operation; so the counts of a kind are summed first,
    which costs a fortieth of the time.
    """
    sums: dict[str, Counter[str]] = {}
    for layer in layers:
        sums.setdefault(layer.kind, Counter()).update(layer.counts)
    return dynamic_energy((LayerCounts(kind, kind, kind, dict(c)) for kind, c in sums.items()), profile)


def _write_onnx(program: Program, path: Path) -> None:
    from spiketrack_deploy.engines.onnx_export import export_onnx

    export_onnx(program, path)


def write_boxes(path: Path, clip: ClipSource, steps: Sequence[TrackedFrame], costs: Sequence[Interval] | None) -> None:
    """``boxes.csv``: one row a frame, pixels; frame 0 is the box that was given. Floats are written in full."""
    head = ["frame", "x", "y", "w", "h", "confidence", "cell", "updated"]
    with whole(path) as part, part.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head + (["energy_nj", "energy_low_nj", "energy_high_nj"] if costs else []))
        writer.writerow([0, *clip.init, "", "", 0, *([""] * 3 if costs else [])])
        for index, step in enumerate(steps):
            row: list[Any] = [step.frame, *step.box, step.confidence, step.argmax, int(step.updated)]
            writer.writerow(row + ([costs[index].nominal, costs[index].low, costs[index].high] if costs else []))


def write_overlay(
    path: Path,
    frames: FrameSource,
    clip: ClipSource,
    steps: Sequence[TrackedFrame],
    costs: Sequence[Interval] | None,
    warning: str | None,
) -> list[tuple[str, bytes]]:
    """``tracked.mp4``: boxes, frame number, confidence, energy of the frame; returns a few frames as (caption, JPEG).

    InputError where the file does not hold every frame (an encoder does not report a full disk).
    """
    from spiketrack_deploy.report.overlay import annotate, jpeg
    from spiketrack_deploy.tracking.video import open_frames, write_video

    labels = _labels(clip, steps, costs)
    wanted = sorted({0, len(labels) // 2, len(labels) - 1})
    stills: list[tuple[str, bytes]] = []

    def kept() -> Iterator[Any]:
        for index, picture in enumerate(annotate(frames, labels, warning)):
            if index in wanted:
                stills.append((f"frame {index}", jpeg(picture)))
            yield picture

    write_video(path, kept(), frames.fps)
    try:
        written = sum(1 for _ in open_frames(path))
    except InputError:  # so little of it was written that it is no video
        written = 0
    if written != len(labels):
        raise InputError(
            f"{path.name}: cannot be written, only {written} of {len(labels)} frames arrived; is the disk full?"
        )
    return stills


def _labels(clip: ClipSource, steps: Sequence[TrackedFrame], costs: Sequence[Interval] | None) -> list[Any]:
    from spiketrack_deploy.report.overlay import FrameLabel

    labels = [FrameLabel(clip.init, "frame 0  the box that was given")]
    for index, step in enumerate(steps):
        # OpenCV's letters are ASCII, so micro is u here.
        cost = f"  {si_interval(costs[index] * 1e-9, 'J')}" if costs else ""
        note = "  template update" if step.updated else ""
        labels.append(
            FrameLabel(step.box, f"frame {step.frame}  confidence {step.confidence:.2f}{cost}{note}", step.updated)
        )
    return labels


def _report_data(
    plan: Plan,
    frames: FrameSource,
    program: Program,
    run: ProgramRun,
    costs: Sequence[Interval],
    energy: EnergyReport,
    found: Mapping[str, Any],
    program_hash: str,
) -> ReportData:
    rows = [_frame_row(step, layers, cost) for step, layers, cost in zip(run.steps, run.frames, costs)]
    clip = {
        "name": plan.clip.path.name,
        "frames": len(run.steps) + 1,
        "width": frames.width,
        "height": frames.height,
        "init": list(plan.clip.init),
        "bundled": plan.clip.bundled,
    }
    model = {"name": plan.source.name, "remark": plan.source.remark, "weights": plan.source.weights}
    return ReportData(
        model,
        clip,
        plan.target,
        plan.engine,
        plan.command,
        describe_program(program),
        energy.to_dict(),
        found,
        rows,
        {"program": program_hash, "content": ""},
    )


def _frame_row(step: TrackedFrame, layers: Sequence[LayerCounts], cost: Interval) -> dict[str, Any]:
    updates = sum(layer["neuron_updates"] for layer in layers)
    return {
        "frame": step.frame,
        "confidence": step.confidence,
        "updated": step.updated,
        "energy_nj": cost.to_dict(),
        "events": sum(layer["events"] for layer in layers if layer.kind != "image_conv"),
        "active": sum(layer["neuron_spiking"] for layer in layers) / max(updates, 1),
    }


def _seal(plan: Plan, folder: Path, data: ReportData, energy: EnergyReport, clock: Clock) -> Outcome:
    """The content hash leaves out report and provenance, so it is known before them and stands in the report."""
    from spiketrack_deploy.report.page import build

    files = {p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()}
    data = replace(data, hashes={"program": data.hashes["program"], "content": layout.content_hash(files)})
    with clock.stage("report"):
        write_whole(folder / layout.REPORT, build(data))
    inputs = {"model": plan.source.path, "clip": plan.clip.path}
    settings = {
        "model": plan.source.name,
        "target": plan.target,
        "profile": plan.profile_path or plan.profile.name,
        "profile_sha256": plan.profile.digest,
        "init": list(plan.clip.init),
        "max_frames": plan.max_frames,
        "engine": plan.engine,
        "threads": plan.threads,
    }
    layout.write_json(folder / layout.PROVENANCE, provenance.describe(plan.command, inputs, settings, clock.seconds))
    manifest = layout.write_manifest(folder, data.hashes["program"])
    return Outcome(data, energy, manifest, clock.seconds)
