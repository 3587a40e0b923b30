"""One export from checkpoint to bundle: the stages in order, each writing its file into the temporary folder.

    compile   checkpoint -> float tracker on the clip -> model.nir, model.cuts.json, read back -> program/   frontends/
    answers   recorded inputs, digests of every operation          answers
    run       the program on the clip: boxes, counts               engines/
    compare   parity.json                                          faithful
    place     every phase on cores and chips                       chips, mapping/
    price     counts there -> energy.json, layers.csv, boxes.csv   energy/
    Lava      lava/                                                lava_folder
    show      tracked.mp4, report.html                             report/
    seal      provenance.json, MANIFEST.json, rename               bundle

This module decides the order and the names of the files. It must not compute anything itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle import answers, layout
from spiketrack_deploy.bundle.chips import chip_figures, on_chips, result_costs, single_runs
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.bundle.faithful import compare_layers, parity
from spiketrack_deploy.bundle.lava_folder import add_tracker, compare_recorded, summed
from spiketrack_deploy.bundle.seal import seal
from spiketrack_deploy.energy.frames import ResultCost, Run
from spiketrack_deploy.energy.layers import LayerCounts, add_runs, layer_counts, main_phase, runs_per_result
from spiketrack_deploy.energy.report import EnergyReport, assess, write_energy_json, write_layers_csv
from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.sources import ClipSource, ModelSource
from spiketrack_deploy.inputs.whole_file import whole as whole_file
from spiketrack_deploy.lowering.lower import LoweringResult
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.program.describe import describe_program
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.report.data import ClipFacts, FrameFacts, ReportData
from spiketrack_deploy.trackers.settings import tracker_config
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.loop import TrackedFrame
from spiketrack_deploy.tracking.program_network import SEARCH, ProgramNetwork
from spiketrack_deploy.tracking.runs import FloatRun, follow, open_clip
from spiketrack_deploy.tracking.video import FrameSource
from spiketrack_deploy.units import si_interval

_ANSWER_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was decided before work began. ``priced``: whose prices and cores count, the target's unless
    another profile was asked for; ``stock``: what is recorded also runs in the Processes that Lava ships."""

    source: ModelSource
    clip: ClipSource
    target: Target
    priced: Target
    way: Way
    profile_path: str | None
    engine: str
    threads: int | None
    max_frames: int | None
    command: str
    stock: bool = False


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """A program on a clip: tracked frames, counts of every run by phase, and how often a frame takes each phase."""

    steps: tuple[TrackedFrame, ...]
    runs: Mapping[str, Sequence[Sequence[LayerCounts]]]
    per_frame: Mapping[str, float]

    @property
    def counts(self) -> dict[str, list[LayerCounts]]:
        """Phase -> its layers, summed over its runs."""
        return {phase: add_runs(runs, phase) for phase, runs in self.runs.items()}

    @property
    def main(self) -> Sequence[Sequence[LayerCounts]]:
        """The runs of the phase that every frame takes."""
        return self.runs[main_phase(self.per_frame)]

    def placed(self, program: Program, target: Target, whole: WholeNetwork | None) -> dict[str, list[Run]]:
        """Phase -> every run as it is charged for."""
        return single_runs(program, target, whole, self.runs)

    def costs(
        self, program: Program, target: Target, whole: WholeNetwork | None, runs: Mapping[str, Sequence[Run]]
    ) -> list[ResultCost]:
        """What the start and every tracked frame cost, each with the ``runs`` that it took."""
        return result_costs(program, target, whole, runs, [step.updated for step in self.steps])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an export found; ``manifest`` is that of the written folder; ``lava``: what lies there, or why nothing."""

    data: ReportData
    energy: EnergyReport
    manifest: layout.Manifest
    seconds: Mapping[str, float]
    lava: Mapping[str, Any] = field(default_factory=dict)


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
        if plan.stock:
            found["engines"]["stock"] = summed(compare_recorded(program, recorded, tell))
        layout.write_json(folder / layout.PARITY, found)
    with clock.stage("mapping"):
        whole = on_chips(program, run.counts, plan.priced, plan.way)
    with clock.stage("energy"):
        single = run.placed(program, plan.priced, whole)
        costs = run.costs(program, plan.priced, whole, single)
        energy = assess(
            run.counts,
            plan.priced.profile,
            run.per_frame,
            result="frame",
            placed=whole.placed if whole else None,
            apart={name: [r.dynamic(plan.priced.profile).nominal for r in found] for name, found in single.items()},
        )
        write_energy_json(energy, folder / layout.ENERGY)
        write_layers_csv(energy, folder / layout.LAYERS)
        write_boxes(folder / layout.BOXES, plan.clip, run.steps, costs)
    with clock.stage("ONNX"):
        _write_onnx(program, folder / layout.ONNX)
    with clock.stage("Lava Processes"):
        taken = add_tracker(folder, program, SEARCH, next(one.inputs for one in recorded if one.phase == SEARCH))
    data = _report_data(plan, frames, program, run, costs, energy, found, program_hash)
    with clock.stage("video"):
        stills = write_overlay(folder / layout.VIDEO, frames, plan.clip, run.steps, costs, plan.source.remark)
    with clock.stage("floorplan"):
        chips = (whole, chip_figures(whole)) if whole else None
    return replace(_seal(plan, folder, replace(data, stills=stills, chips=chips), energy, clock), lava=taken)


def _options(plan: Plan) -> dict[str, Any]:
    return {"threads": plan.threads} if plan.engine == "sim" else {}


def _compile(plan: Plan, folder: Path, clock: Clock) -> tuple[LoweringResult, FloatRun]:
    """Through the files: the lowering sees what was written and nothing else of the tracker but its spikes."""
    from spiketrack_deploy.engines.sim_threads import FLOAT_THREADS, threads
    from spiketrack_deploy.frontends.compile import Options, compile

    options = Options(
        clip=plan.clip,
        max_frames=plan.max_frames,
        files=(folder / layout.NIR, folder / layout.CUTS),
        notes={"remark": plan.source.remark},
        tell=clock.tell,
        stage=clock.stage,
    )
    with threads(plan.threads or FLOAT_THREADS):
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
    runs = {
        phase: [layer_counts(program.phases[phase].ops, counts) for counts in found]
        for phase, found in network.drain().items()
    }
    return ProgramRun(tuple(steps), runs, runs_per_result(program))


def _write_onnx(program: Program, path: Path) -> None:
    from spiketrack_deploy.engines.onnx_export import export_onnx

    export_onnx(program, path, "search")


_ENERGIES = ("energy_nj", "energy_low_nj", "energy_high_nj", "dynamic_nj", "latency_s")


def _energies(cost: ResultCost) -> list[float]:
    return [cost.total.nominal, cost.total.low, cost.total.high, cost.dynamic.nominal, cost.latency.nominal]


def write_boxes(
    path: Path, clip: ClipSource, steps: Sequence[TrackedFrame], costs: Sequence[ResultCost] | None
) -> None:
    """``boxes.csv``: one row a frame, pixels; frame 0 is the box that was given. Floats are written in full.

    ``costs``: of frame 0 and of every tracked frame, with all that it took: dynamic, static and input.
    """
    head = ["frame", "x", "y", "w", "h", "confidence", "cell", "updated"]
    with whole_file(path) as part, part.open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, *(_ENERGIES if costs else ())])
        writer.writerow([0, *clip.init, "", "", 0, *(_energies(costs[0]) if costs else [])])
        for index, step in enumerate(steps):
            row: list[Any] = [step.frame, *step.box, step.confidence, step.argmax, int(step.updated)]
            writer.writerow(row + (_energies(costs[index + 1]) if costs else []))


def write_overlay(
    path: Path,
    frames: FrameSource,
    clip: ClipSource,
    steps: Sequence[TrackedFrame],
    costs: Sequence[ResultCost] | None,
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


def _labels(clip: ClipSource, steps: Sequence[TrackedFrame], costs: Sequence[ResultCost] | None) -> list[Any]:
    from spiketrack_deploy.report.overlay import FrameLabel

    labels = [FrameLabel(clip.init, "frame 0  the box that was given")]
    for index, step in enumerate(steps):
        # OpenCV's letters are ASCII, so micro is u here.
        cost = f"  {si_interval(costs[index + 1].total * 1e-9, 'J')}" if costs else ""
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
    costs: Sequence[ResultCost],
    energy: EnergyReport,
    found: Mapping[str, Any],
    program_hash: str,
) -> ReportData:
    return ReportData(
        model=plan.source.name,
        weights=plan.source.weights,
        remark=plan.source.remark,
        clip=ClipFacts(
            plan.clip.path.name, len(run.steps) + 1, frames.width, frames.height, plan.clip.init, plan.clip.bundled
        ),
        target=plan.target.name,
        engine=plan.engine,
        command=plan.command,
        program=describe_program(program),
        energy=energy,
        parity=found,
        frames=[_frame_facts(*row) for row in zip(run.steps, run.main, costs[1:])],
        program_hash=program_hash,
    )


def _frame_facts(step: TrackedFrame, layers: Sequence[LayerCounts], cost: ResultCost) -> FrameFacts:
    updates = sum(layer["neuron_updates"] for layer in layers)
    return FrameFacts(
        frame=step.frame,
        confidence=step.confidence,
        updated=step.updated,
        energy=cost.total,
        events=sum(layer["events"] for layer in layers if layer.kind != "image_conv"),
        active=sum(layer["neuron_spiking"] for layer in layers) / max(updates, 1),
    )


def _seal(plan: Plan, folder: Path, data: ReportData, energy: EnergyReport, clock: Clock) -> Outcome:
    from spiketrack_deploy.report.page import build

    inputs = {"model": plan.source.path, "clip": plan.clip.path}
    settings = {
        "model": plan.source.name,
        "init": list(plan.clip.init),
        "max_frames": plan.max_frames,
        "engine": plan.engine,
    }
    manifest = seal(
        folder,
        lambda content: build(replace(data, content_hash=content)),
        plan,
        inputs,
        settings,
        data.program_hash,
        clock,
    )
    return Outcome(data, energy, manifest, clock.seconds)
