"""Models and bundles: made, run, priced, verified.

This module decides defaults and what a verb returns. It must not print; heavy parts are imported when a verb runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spiketrack_deploy.api.asked import Place, as_path, export_target, in_stock, require_engine
from spiketrack_deploy.api.dense import ONNX, demand_onnx, dense_fit, simulate_step, track_step
from spiketrack_deploy.api.results import (
    DenseExportResult,
    DenseFitResult,
    DenseVerifyResult,
    DoctorResult,
    EnergyResult,
    ExportResult,
    SimulateResult,
    TrackResult,
    VerifyResult,
)
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.bundle.recorded import Recorded
    from spiketrack_deploy.energy.layers import LayerCounts


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What ``spiketrack-export`` is asked. ``None`` means the default: bundled model, bundled clip, its first box, the
    target's own profile, ``export/<model>-<target>``. ``profile``: a bundled profile's name or a TOML file.
    ``granularity`` ``stock``, of the engine ``lava``: what is recorded runs in Processes that Lava ships, and ``sim``
    tracks, which no such run does. ``first_layer`` and ``streams``: how the chips run it, see :func:`map`."""

    model: str | None = None
    target: str = "loihi2"
    profile: str | None = None
    first_layer: str | None = None
    streams: str | None = None
    video: Place | None = None
    frames: Place | None = None
    init: tuple[float, ...] | None = None
    max_frames: int | None = None
    engine: str = "sim"
    granularity: str | None = None
    threads: int | None = None
    out: Place | None = None
    force: bool = False
    command: tuple[str, ...] = ()


def export(request: ExportRequest, tell: Tell | None = None) -> ExportResult | DenseExportResult | DenseFitResult:
    """Checkpoint and clip to a bundle. Of a dense tracker it holds no program, and for a chip of spikes none is
    written: the result then says layer by layer what the chip could hold.

    UsageError (2), InputError (3), FitError (4), VerificationError (5), EngineError (6): then nothing is written.
    """
    from spiketrack_deploy.bundle.provenance import command_line
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.inputs.sources import find_frames, find_source
    from spiketrack_deploy.mapping.ways import DEFAULT_WAY, way_on
    from spiketrack_deploy.trackers.opening import demand_program, is_dense

    target = export_target(request.target)
    priced = resolve_target(request.profile) if request.profile else target
    way = way_on(priced.profile, request.first_layer, request.streams)
    source = find_source(request.model)
    dense = is_dense(source.path)
    if dense and way != DEFAULT_WAY:
        demand_program(source.path, "--first-layer or --streams")
    if dense and request.engine != "sim":
        demand_program(source.path, f"the {request.engine} engine")
    if dense and target.profile.family is not None:
        return dense_fit(source, target)
    out = as_path(request.out) or Path("export") / f"{source.name}-{target.name}"
    layout.check_output(out, request.force)
    clip = find_frames(as_path(request.video), as_path(request.frames), request.init)
    require_engine(request.engine)
    stock = in_stock(request.engine, request.granularity)
    engine = "sim" if stock else request.engine

    from spiketrack_deploy.bundle.export import Plan, export_bundle
    from spiketrack_deploy.bundle.seal import sealed
    from spiketrack_deploy.report.verdict import remarks, sentences

    command = command_line(request.command)
    plan = Plan(
        source,
        clip,
        target,
        priced,
        way,
        request.profile,
        engine,
        request.threads,
        request.max_frames,
        command,
        stock,
    )
    if dense:
        from spiketrack_deploy.bundle.dense import export_dense

        with layout.staging(out, request.force) as folder:
            made = export_dense(plan, folder, tell)
        return cast(DenseExportResult, {"bundle": str(out), **made})
    with layout.staging(out, request.force) as folder:
        outcome = export_bundle(plan, folder, tell)
    parity, parts = outcome.data.parity, ("per_result", "placed", "phases", "static")
    return cast(
        ExportResult,
        {
            "bundle": str(out),
            "model": source.name,
            **sealed(plan, outcome.energy, outcome.manifest, outcome.seconds, parts),
            "engine": engine,
            "frames": len(outcome.data.frames),
            "boxes": parity["boxes"],
            "engines": parity["engines"],
            "verdict": sentences(outcome.data),
            "remarks": remarks(outcome.data),
            "lava": outcome.lava,
        },
    )


def track(
    model: Place,
    video: Place | None = None,
    *,
    init: Sequence[float] | None = None,
    max_frames: int | None = None,
    engine: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    out: Place | None = None,
    force: bool = False,
    tell: Tell | None = None,
) -> TrackResult:
    """Boxes of a clip as ``boxes.csv`` and ``tracked.mp4``, by the float tracker (a model) or a program (a bundle).
    ``engine`` of a model: float, or of a dense tracker bf16, int8; ``device`` of a model: cpu, cuda, auto."""
    from spiketrack_deploy.inputs.sources import find_frames, find_source, is_bundle
    from spiketrack_deploy.trackers.opening import CPU, FLOAT, FLOATS, demand_engine, find_device

    clip = find_frames(as_path(video), None, init)
    packed = is_bundle(Path(model))
    source = None if packed else find_source(str(model))
    if source is not None and engine not in (None, *FLOATS):
        raise UsageError(
            f"--engine {engine} runs a bundle, but {model} is a model: drop the option, or export it first"
        )
    if source is not None:
        demand_engine(source.path, engine or FLOAT)
        device = find_device(device, engine or FLOAT)
    elif device != CPU:
        raise UsageError(f"--device {device} is for a model's float tracker, but {model} is a bundle: drop the option")
    dense = packed and layout.is_dense_bundle(Path(model))
    if dense:
        demand_onnx(Path(model), engine)
    elif packed and engine in FLOATS:
        raise UsageError(f"{model}: a bundle holds a program; give the model it was made from to --engine {engine}")
    engine = engine or (ONNX if dense else "sim" if packed else FLOAT)
    name = Path(model).resolve().name if source is None else source.name
    target = as_path(out) or Path("export") / f"{name}-{clip.path.stem}-track"
    layout.check_output(target, force, layout.BOXES)
    require_engine(engine)

    from spiketrack_deploy.bundle.export import write_boxes, write_overlay
    from spiketrack_deploy.tracking.runs import follow, open_clip

    frames = open_clip(clip, max_frames)
    remark = None if source is None else source.remark
    with layout.staging(target, force, layout.BOXES) as folder:
        if source is None:
            steps, costs, remark = _track_bundle(Path(model), frames, clip, engine, threads, tell)
        else:
            from spiketrack_deploy.engines.sim_threads import FLOAT_THREADS
            from spiketrack_deploy.engines.sim_threads import threads as torch_threads
            from spiketrack_deploy.trackers.opening import open_float

            with torch_threads(threads or FLOAT_THREADS):
                network = open_float(source.path, engine, exact=True, device=device).network
                steps, costs = follow(network, frames, clip.init, f"{engine} tracker", tell), None
        write_boxes(folder / layout.BOXES, clip, steps, costs)
        write_overlay(folder / layout.VIDEO, frames, clip, steps, costs, remark)
    last = steps[-1]
    return {
        "output": str(target),
        "engine": engine,
        "frames": len(steps) + 1,
        "last_box": list(last.box),
        "mean_confidence": sum(s.confidence for s in steps) / len(steps),
        "template_updates": sum(s.updated for s in steps),
        "remark": remark,
    }


def _track_bundle(
    folder: Path, frames: Any, clip: Any, engine: str, threads: int | None, tell: Tell | None
) -> tuple[Any, Any, str | None]:
    from spiketrack_deploy.bundle.chips import on_chips
    from spiketrack_deploy.bundle.contents import read_program
    from spiketrack_deploy.bundle.export import run_program
    from spiketrack_deploy.bundle.recorded import recorded_counts
    from spiketrack_deploy.engines.factory import make_engine
    from spiketrack_deploy.hardware.targets import Target

    layout.check_bundle(folder)
    if layout.is_dense_bundle(folder):
        return track_step(folder, frames, clip, threads, tell)
    program, config = read_program(folder)
    recorded = recorded_counts(folder / layout.ENERGY)
    target = Target(recorded.profile.name, recorded.profile)
    options = {"threads": threads} if engine == "sim" else {}
    with make_engine(engine, program, **options) as runner:
        run = run_program(program, runner, config, frames, clip, tell)
    whole = on_chips(program, recorded.counts, target, recorded.way)
    costs = run.costs(program, target, whole, run.placed(program, target, whole))
    return list(run.steps), costs, program.meta.get("remark")


def simulate(
    folder: Place,
    *,
    video: Place | None = None,
    frames: Place | None = None,
    init: Sequence[float] | None = None,
    max_frames: int | None = None,
    engine: str | None = None,
    threads: int | None = None,
    tell: Tell | None = None,
) -> SimulateResult:
    """Run a bundle's program on a clip: mean counts per layer of a run of each phase, boxes, time. ``engine``: sim, or
    for a dense tracker's bundle ONNX Runtime, where none is named."""
    import time

    from spiketrack_deploy.inputs.sources import find_frames
    from spiketrack_deploy.tracking.runs import open_clip

    clip, folder = find_frames(as_path(video), as_path(frames), init), Path(folder)
    layout.check_bundle(folder)
    if layout.is_dense_bundle(folder):
        demand_onnx(folder, engine)
        return simulate_step(folder, open_clip(clip, max_frames), clip, threads, tell)
    engine = engine or "sim"
    require_engine(engine)

    from spiketrack_deploy.bundle.contents import read_program
    from spiketrack_deploy.bundle.export import run_program
    from spiketrack_deploy.engines.factory import make_engine

    program, config = read_program(folder)
    source = open_clip(clip, max_frames)
    options = {"threads": threads} if engine == "sim" else {}
    with make_engine(engine, program, **options) as runner:
        start = time.perf_counter()
        run = run_program(program, runner, config, source, clip, tell)
        seconds = time.perf_counter() - start
    boxes = [[s.frame, *s.box, s.confidence] for s in run.steps]
    return simulated(folder, engine, run.counts, {n: len(runs) for n, runs in run.runs.items()}, seconds, boxes)


def simulated(
    folder: Path, engine: str, phases: Mapping[str, Sequence[LayerCounts]], runs: Mapping[str, int], seconds: float,
    boxes: list[list[float]],
) -> SimulateResult:  # fmt: skip
    """What a run of a bundle's program did. ``phases``: counts; ``runs``: of each; a network without boxes has as many
    frames as steps."""
    from spiketrack_deploy.energy.layers import whole

    frames = len(boxes) or max(runs.values())
    return {
        "bundle": str(folder),
        "engine": engine,
        "frames": frames,
        "runs": dict(runs),
        "seconds_per_frame": seconds / frames,
        "counts": {name: whole(layers).means() for name, layers in phases.items()},
        "layers": [
            {"phase": name, "name": m.name, "kind": m.kind, "block": m.block, "counts": m.means()}
            for name, layers in phases.items()
            for m in layers
        ],
        "boxes": boxes,
    }


def energy(folder: Place, profiles: Sequence[str] = (), measured: Place | None = None) -> EnergyResult:
    """Price the counts a bundle recorded with each of ``profiles`` (default: all bundled ones that price events,
    without boards), side by side and beside published trackers as dense networks. ``measured``: a file of somebody's
    own rail measurements, set beside the prediction for the target that it names (then the default profile)."""
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.bundle.recorded import recorded_counts, reprice
    from spiketrack_deploy.energy.compare import compare, default_profiles
    from spiketrack_deploy.energy.twins import dense_profiles
    from spiketrack_deploy.hardware.targets import Target, resolve_target
    from spiketrack_deploy.inputs.resources import profile_names
    from spiketrack_deploy.inputs.sources import demand_spiking
    from spiketrack_deploy.trackers.published import published

    folder = Path(folder)
    layout.check_bundle(folder)
    recorded = recorded_counts(folder / layout.ENERGY)
    if measured is not None:
        demand_spiking(folder)
    beside = _beside(folder, recorded, Path(measured)) if measured is not None else None
    if beside and not profiles:
        profiles = [beside["target"]]
    dense = layout.is_dense_bundle(folder)
    names = [one.name for one in dense_profiles()] if dense else default_profiles(profile_names())
    targets = [resolve_target(name) for name in profiles or names]
    if dense:
        from spiketrack_deploy.bundle.dense import demand_dense

        targets = [Target(one.name, demand_dense(one.profile)) for one in targets]
    program = None if dense else read_alone(folder)
    priced = [reprice(recorded, program, target) for target in targets]
    reports = [report.to_dict() for report in priced]
    keys = ("profile", "per_result", "placed", "phases", "static", "unpriced", "assumptions")
    return {
        "bundle": str(folder),
        "result": recorded.result,
        "main": priced[0].main.name,
        "profiles": [{key: report[key] for key in keys} for report in reports],
        "comparison": compare(priced, published()).to_dict(),
        "measured": beside,
    }


def _beside(folder: Path, recorded: Recorded, path: Path) -> dict[str, Any]:
    """A measurement and its residuals."""
    from spiketrack_deploy.api.chips import placed
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.energy.measured import check, read_measured, residuals
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.units import Interval

    found = read_measured(path)
    try:
        target = resolve_target(found.target)
    except UsageError as error:
        raise InputError(f"{path}: {error}") from None
    check(found, path, layout.read_manifest(folder).program_hash, target)
    predicted = placed(read_alone(folder), recorded.counts, target)
    keys = ("latency_s", "on_chip_s", "dynamic_nj")
    bands = {key: Interval.from_dict(predicted[key]) if predicted[key] else None for key in keys}
    rows = residuals(found, target.profile.price("static_power"), bands)
    return {
        "target": found.target,
        "boundary": found.boundary,
        "chips": found.chips,
        "chips_predicted": predicted["chips"],
        "frames": found.frames,
        "rows": [row.to_dict() for row in rows],
        "rails": [{"name": r.name, "static_w": r.static, "running_w": r.running} for r in found.rails],
        "note": predicted["note"],
    }


def verify(folder: Place, tell: Tell | None = None) -> VerifyResult | DenseVerifyResult:
    """Digests of every file and array, range proof, then every operation of the known answers, with NumPy alone. Of a
    dense tracker's bundle digests, then the recorded frames in ONNX Runtime: maps and boxes within the export's bounds.

    VerificationError names the layer; InputError where the folder is not a whole bundle.
    """
    if layout.is_dense_bundle(Path(folder)):
        from spiketrack_deploy.bundle.dense_parity import verify_dense

        return cast(DenseVerifyResult, verify_dense(Path(folder), tell))
    from spiketrack_deploy.bundle.verify import verify_bundle

    return cast(VerifyResult, verify_bundle(Path(folder), tell))


def doctor() -> DoctorResult:
    """Versions, engines, bundled data, and how to get what is missing."""
    from spiketrack_deploy.report.doctor import report

    return cast(DoctorResult, report())
