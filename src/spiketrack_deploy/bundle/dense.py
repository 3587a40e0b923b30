"""One export of a dense tracker: no integer program, but everything else that an export says.

    open      checkpoint -> network, its layers counted on the module           trackers/opening.py
    follow    float32 tracker on the clip: boxes                                tracking/runs.py
    ONNX      the whole step, and the same clip in stock ONNX Runtime
    int8      linear layers in int8, the same clip
    price     counts -> energy.json, layers.csv; dense.json                     energy/
    show      tracked.mp4, report.html; seal                                    report/, layout

This module decides the order and the names of the files. It must not know which dense tracker it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.bundle.dense_parity import PARITY_FRAMES, Beside, compare_onnx
from spiketrack_deploy.bundle.export import Plan, write_boxes, write_overlay
from spiketrack_deploy.bundle.seal import seal, sealed
from spiketrack_deploy.energy.conventions import dense_twin
from spiketrack_deploy.energy.frames import STEADY, result_cost
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import EnergyReport, assess, write_energy_json, write_layers_csv
from spiketrack_deploy.energy.twins import as_dense, dense_profiles
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.program.dense import KINDS, DenseLayer, by_part, total_macs
from spiketrack_deploy.report.data import ClipFacts
from spiketrack_deploy.report.dense_page import DenseReport, build
from spiketrack_deploy.trackers.opening import INT8, DenseModel, open_dense
from spiketrack_deploy.tracking.boxes import overlaps
from spiketrack_deploy.tracking.loop import TrackedFrame
from spiketrack_deploy.tracking.runs import follow, open_clip
from spiketrack_deploy.tracking.video import FrameSource

SCHEMA = "spiketrack-dense/1"


def export_dense(plan: Plan, folder: Path, tell: Tell | None) -> dict[str, Any]:
    """Write every file of a dense bundle into ``folder``; returns what the command prints.

    VerificationError: ONNX Runtime does not give the maps and boxes that PyTorch gives."""
    from spiketrack_deploy.engines.sim_threads import FLOAT_THREADS, threads

    demand_dense(plan.priced.profile)
    clock, frames = Clock(tell), open_clip(plan.clip, plan.max_frames)
    with threads(plan.threads or FLOAT_THREADS):
        with clock.stage("checkpoint"):
            model = open_dense(plan.source.path)
        with clock.stage("float tracker"):
            steps, seconds = _followed(model.network(), plan, frames, tell, "float tracker")
        with clock.stage("ONNX"):
            model.export_onnx(folder / layout.DENSE_ONNX)
            found = compare_onnx(model, folder, plan.clip.init, frames)
        with clock.stage("int8"):
            quantised = model.network(INT8)
            int8, int8_seconds = _followed(quantised, plan, frames, tell, "int8 tracker")
            pair = Beside(model.network(), quantised)
            _followed(pair, plan, open_clip(plan.clip, PARITY_FRAMES + 1), None, "")
    found["int8"] = {
        "mean_overlap": float(overlaps([s.box for s in int8], [s.box for s in steps]).mean()),
        **pair.found(),
        "seconds_per_frame": int8_seconds,
        "float32_seconds_per_frame": seconds,
    }
    with clock.stage("energy"):
        energy = price(model.layers, len(steps), plan)
        write_energy_json(energy, folder / layout.ENERGY)
        write_layers_csv(energy, folder / layout.LAYERS)
        cost = result_cost(STEADY, [energy.main.run], energy.profile, 0)
        costs = [cost] * (len(steps) + 1)
        write_boxes(folder / layout.BOXES, plan.clip, steps, costs)
    described = describe(model, found.pop("experts"))
    layout.write_json(folder / layout.DENSE, described)
    layout.write_json(folder / layout.PARITY, found)
    with clock.stage("video"):
        stills = write_overlay(folder / layout.VIDEO, frames, plan.clip, steps, costs, plan.source.remark)
    size, place = (frames.width, frames.height), plan.clip.path.name
    clip = ClipFacts(place, len(steps) + 1, *size, plan.clip.init, plan.clip.bundled)
    names = (plan.source.name, plan.source.weights, plan.source.remark)
    report = DenseReport(*names, clip, plan.target.name, plan.command, described, energy, found, stills)
    return _seal(plan, folder, report, clock, len(steps))


def _followed(
    network: Any, plan: Plan, frames: FrameSource, tell: Tell | None, what: str
) -> tuple[list[TrackedFrame], float]:
    begin = time.perf_counter()
    steps = follow(network, frames, plan.clip.init, what, tell)
    return steps, (time.perf_counter() - begin) / len(steps)


def counted(layers: Sequence[DenseLayer], runs: int) -> list[LayerCounts]:
    """What ``runs`` frames count; every frame counts the same."""
    return [
        LayerCounts(one.name, one.kind, one.block, {k: v * runs for k, v in one.counts.to_dict().items() if v}, runs)
        for one in layers
    ]


def price(layers: Sequence[DenseLayer], runs: int, plan: Plan) -> EnergyReport:
    """On the profile that was asked for; nothing is amortised. UsageError where it prices no dense network."""
    return assess({"frame": counted(layers, runs)}, demand_dense(plan.priced.profile), {"frame": 1.0}, result="frame")


def demand_dense(profile: Profile) -> Profile:
    """The profile with its price of a dense network's multiply-accumulate; UsageError where it has none."""
    found = as_dense(profile)
    if found is None:
        names = ", ".join(one.name for one in dense_profiles())
        raise UsageError(f"{profile.name} prices no multiply-accumulate of a dense network; choose one of {names}")
    return found


def describe(model: DenseModel, experts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``dense.json``."""
    return {
        "schema": SCHEMA,
        "config": model.config,
        "network_hash": model.digest,
        "parameters": model.parameters,
        "macs": total_macs(model.layers),
        "macs_by_part": by_part(model.layers),
        "bytes_float32": sum(layer.bytes_moved(4) for layer in model.layers),
        "accelerators": [dense_twin(counted(model.layers, 1), one).to_dict() for one in dense_profiles()],
        "bytes_int8": sum(layer.bytes_moved(1) for layer in model.layers),
        "layers": [layer.to_dict() for layer in model.layers],
        "experts": list(experts),
    }


def read_layers(folder: Path) -> list[DenseLayer]:
    """The layers of a dense bundle; InputError where ``dense.json`` is not one."""
    data = layout.read_json(folder / layout.DENSE)
    data.schema(SCHEMA)
    words, numbers = ("name", "kind", "block", "part"), ("macs", "weights", "reads", "writes", "elements")
    layers = []
    for row in data["layers"].each():
        if row["kind"].text() not in KINDS:
            raise row["kind"].fault(f"one of {', '.join(KINDS)}")
        text, counts = [row[key].text() for key in words], [row[key].integer() for key in numbers]
        layers.append(DenseLayer(text[0], text[1], text[2], text[3], *counts))
    return layers


def _seal(plan: Plan, folder: Path, report: DenseReport, clock: Clock, frames: int) -> dict[str, Any]:
    inputs = {f"model{i or ''}": file for i, file in enumerate(plan.source.files)} | {"clip": plan.clip.path}
    settings = {"model": plan.source.name, "init": list(plan.clip.init), "max_frames": plan.max_frames}
    described = report.described
    manifest = seal(
        folder, lambda content: build(report, content), plan, inputs, settings, described["network_hash"], clock
    )
    return {
        "model": plan.source.name,
        **sealed(plan, report.energy, manifest, clock.seconds),
        "frames": frames,
        "parity": report.parity,
        "dense": {key: described[key] for key in ("macs", "macs_by_part", "parameters", "bytes_float32")},
        "verdict": report.sentences(),
    }
