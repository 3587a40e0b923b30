"""One export of a lava-dl network: the stages of a NIR network's, without those that compare with float64.

    read      .net file, input -> network.net as it was, input.npz      frontends/netx/
    lower     -> program/                                               frontends/netx/lower
    answers   recorded steps, digests of every operation                steps
    engines   every engine that can run it against the record           engines/
    run       all steps: outputs, counts
    price     energy.json, layers.csv; parity.json, outputs.npz
    show      report.html
    seal      provenance.json, MANIFEST.json

The file holds integers, and the program has the same ones, so there is no float network to be true to. This module
decides the order, and which engine runs. It must not compute anything itself.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.bundle import answers, layout
from spiketrack_deploy.bundle import steps as stepping
from spiketrack_deploy.bundle.chips import chip_figures, on_chips, single_runs
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.bundle.lava_folder import STEPS, add_lava
from spiketrack_deploy.bundle.seal import seal, sealed
from spiketrack_deploy.bundle.steps import PHASE
from spiketrack_deploy.energy.frames import CAMERA_PERIOD_S
from spiketrack_deploy.energy.layers import LayerCounts, add_runs, layer_counts
from spiketrack_deploy.energy.report import EnergyReport, assess, write_energy_json, write_layers_csv
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.frontends.netx.given import (
    DEFAULT_SEED,
    DEFAULT_STEPS,
    Given,
    drawn,
    read_input,
    takes,
)
from spiketrack_deploy.frontends.netx.lower import lower_netx
from spiketrack_deploy.frontends.netx.network import NetxNetwork
from spiketrack_deploy.frontends.netx.read import read_netx
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.describe import describe_program, describe_ranges
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.program.types import IntArray, Op, Program
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.report.network_page import NetworkReport, build, sentences

SCHEMA = "spiketrack-integers-parity/1"
SHOWN_NEURONS = 64
WIDE = (
    "sigma-delta sums take 32 bits and float32 holds 24, so the reference engine runs this program; --engine onnx or "
    "lava cut messages off so that 24 bits are enough"
)
NOT_LAVA = {"phase": PHASE, "processes": {}, "reason": "sums of more than 24 bits, which Lava's Processes do not keep"}
TIME = (
    "layers answer within the step; in one Lava run layer k answers k steps later, and until then its biases alone "
    "drive it (docs/lava-dl.md)"
)


@dataclass(frozen=True, slots=True)
class NetxPlan:
    """Everything that was decided before work began. ``input``: a file, ``None`` for drawn values of ``rate`` and
    ``seed``; ``stock``: the checked steps also run in the Processes that Lava ships."""

    path: Path
    input: Path | None
    steps: int | None
    rate: float | None
    seed: int | None
    target: Target
    priced: Target
    way: Way
    profile_path: str | None
    engine: str
    threads: int | None
    command: str
    stock: bool = False


@dataclass(slots=True)
class _Ran:
    """All steps on one engine. ``outputs``: what leaves; ``sent``: messages that are not 0 by operation."""

    outputs: dict[str, list[IntArray]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    runs: list[list[LayerCounts]] = field(default_factory=list)

    @property
    def saturated(self) -> int:
        """Values that were cut off at the limit of a membrane or message."""
        return sum(layer.counts.get("saturated", 0) for run in self.runs for layer in run)


def export_netx_bundle(plan: NetxPlan, folder: Path, tell: Tell | None) -> dict[str, Any]:
    """Write every file of a bundle into ``folder`` and say what was found. Errors are those of the stages."""
    clock = Clock(tell)
    with clock.stage("netx"):
        network = read_netx(plan.path)
        given = _given(plan, network)
        write_whole(folder / layout.NETX, plan.path.read_bytes())
    with clock.stage("lowering"):
        program, plan = _lowered(plan, network, given)
        program_hash = save_program(program, folder / layout.PROGRAM)
    steps = [{"input": values[None]} for values in given.values]
    stepping.save_input(folder, steps)
    with clock.stage("known answers"):
        recorded = stepping.record(program, steps, tell)
        stepping.keep(folder, program, recorded)
    narrow = program.width <= 24
    others = stepping.others(plan.engine) if narrow else []
    checked = [stepping.checked(name, program, recorded, clock) for name in others]
    if plan.stock:
        checked.append(stepping.in_stock(program, steps[: len(recorded)], clock))
    with make_engine(plan.engine, program, **stepping.threads(plan)) as engine:
        with clock.stage(f"{plan.engine} against reference"):
            found = answers.check(program, engine, recorded, "export", tell)
            checked.insert(0, stepping.row(plan.engine, found))
        with clock.stage("integer network"):
            ran = _run(program, engine, steps, tell)
    with clock.stage("mapping"):
        counts = {PHASE: add_runs(ran.runs, PHASE)}
        whole = on_chips(program, counts, plan.priced, plan.way)
    with clock.stage("energy"):
        energy = _energy(program, plan, counts, ran, whole)
        write_energy_json(energy, folder / layout.ENERGY)
        write_layers_csv(energy, folder / layout.LAYERS)
    parity = _parity(plan, network, given, program, ran, checked)
    layout.write_json(folder / layout.PARITY, parity)
    _write_outputs(folder / layout.OUTPUTS, ran)
    if narrow:
        with clock.stage("ONNX"):
            stepping.write_onnx(program, folder / layout.ONNX)
    with clock.stage("Lava Processes"):
        taken = add_lava(folder, program, PHASE, {"input": given.values[:STEPS]}) if narrow else NOT_LAVA
    with clock.stage("floorplan"):
        chips = (whole, chip_figures(whole)) if whole else None
    data = NetworkReport(
        plan.path.name, plan.target.name, plan.engine, plan.command, describe_program(program), energy, parity, chips,
        given.source, len(steps), _pictures(given, ran), program_hash,
    )  # fmt: skip
    return {**_seal(plan, folder, data, clock), "lava": taken}


def _given(plan: NetxPlan, network: NetxNetwork) -> Given:
    if plan.input is not None:
        return read_input(plan.input, network, plan.steps)
    steps, seed = (n if n is not None else d for n, d in ((plan.steps, DEFAULT_STEPS), (plan.seed, DEFAULT_SEED)))
    return drawn(network, steps, plan.rate, seed)


def _lowered(plan: NetxPlan, network: NetxNetwork, given: Given) -> tuple[Program, NetxPlan]:
    """The program with its workload, and the plan with the engine that can run it."""
    graded = any(layer.neuron.kind == "sdnn" for layer in network.layers)
    narrow = not graded or plan.stock or plan.engine in ("onnx", "lava")
    program = lower_netx(network, "aligned", given.top, 24 if narrow else 32, membrane=False)
    what, low, high = takes(network)
    said = {"input": f"{what}: integers of {low} to {high}"}
    out = {name: "what the last layer sends" if name == "output" else "membrane of the last layer, before its reset"
           for name in program.phases[PHASE].outputs if name not in program.states}  # fmt: skip
    meta = {**program.meta, "workload": Workload("netx", said, out, "rasters").to_dict()}
    return replace(program, meta=meta), plan if narrow else replace(plan, engine="reference")


def _run(program: Program, engine: Any, steps: stepping.Steps, tell: Tell | None) -> _Ran:
    """All steps in one session."""
    phase, session, ran = program.phases[PHASE], engine.session(), _Ran()
    shown = {name for name in phase.outputs if name not in program.states}
    for index, inputs in enumerate(steps):
        if tell and index % 8 == 0:
            tell("integer network", index, len(steps))

        def watch(op: Op, value: IntArray) -> None:
            if op.kind in ("fire", "change"):
                ran.sent[op.name] += int(np.count_nonzero(value))

        result = session.step(PHASE, inputs, watch=watch)
        ran.runs.append(layer_counts(phase.ops, result.counts))
        for name in shown:
            ran.outputs.setdefault(name, []).append(np.array(result.outputs[name][0]))
    return ran


def _energy(
    program: Program, plan: NetxPlan, counts: dict[str, list[LayerCounts]], ran: _Ran, whole: WholeNetwork | None
) -> EnergyReport:
    single = single_runs(program, plan.priced, whole, {PHASE: ran.runs})[PHASE]
    return assess(
        counts, plan.priced.profile, {PHASE: 1.0}, result="step", placed=whole.placed if whole else None,
        frame_period_s=CAMERA_PERIOD_S, apart={PHASE: [run.dynamic(plan.priced.profile).nominal for run in single]},
    )  # fmt: skip


def _parity(
    plan: NetxPlan, network: NetxNetwork, given: Given, program: Program, ran: _Ran, checked: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of ``parity.json``; ``about``: what the report says of the network."""
    diagnostics = [{"code": "note", "node": "", "text": note} for note in network.notes]
    if given.drawn:
        diagnostics.append({"code": "drawn-input", "node": "", "text": f"no --input was given: {given.source}"})
    if program.width > 24:
        diagnostics.append({"code": "engine", "node": "", "text": WIDE})
    if ran.saturated:
        text = f"{ran.saturated} values ran into the limit of {program.width} bits; Lava has another limit or none"
        diagnostics.append({"code": "saturated", "node": "", "text": text})
    layers = [
        {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape), "neuron": layer.neuron.kind,
         "neurons": layer.neurons, "weights": int(layer.weight.size), "threshold": layer.neuron.threshold,
         "messages": sum(n for op, n in ran.sent.items() if op.rpartition(".")[0] == layer.name)}
        for layer in network.layers
    ]  # fmt: skip
    neurons, weights = sum(layer.neurons for layer in network.layers), sum(x.weight.size for x in network.layers)
    cut = f"{ran.saturated} values" if ran.saturated else "no value"
    integers = (
        f"Nothing was rounded: {plan.path.name} holds integers, and these are computed as Lava does; "
        f"{cut} ran into a limit. There is no float network to compare with."
    )
    kinds = Counter(f"{layer.kind} ({layer.neuron.kind})" for layer in network.layers)
    return {
        "schema": SCHEMA,
        "network": network.name,
        "steps": len(given.values),
        "input": given.source,
        "inputs": program.meta["workload"]["inputs"],
        "source": "integers",
        "integers": integers,
        "engine": plan.engine,
        "width": program.width,
        "diagnostics": diagnostics,
        "about": [
            ["network", f"{plan.path.name}: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"],
            ["neurons, weights", f"{neurons:,}, {weights:,}"],
            ["messages, all steps", ", ".join(f"{row['name']} {row['messages']:,}" for row in layers)],
            ["time", TIME],
            ["sums", f"{program.width} bits"],
        ],
        "outputs": {name: _said(name, np.stack(values)) for name, values in ran.outputs.items()},
        "layers": layers,
        "nodes": [],
        "saturated": ran.saturated,
        "engines": checked,
        "limits": [op.name for op in program.phases[PHASE].ops if op.attrs.get("limit")],
        "ranges": describe_ranges(prove_ranges(program)),
    }


def _said(name: str, values: IntArray) -> dict[str, Any]:
    """What an output said, and its digest for those who compare."""
    from spiketrack_deploy.program.store import array_digest

    said = {"node": name, "values": values.size, "nonzero": int(np.count_nonzero(values))}
    return {**said, "low": int(values.min()), "high": int(values.max()), "sha256": array_digest(values)}


def _write_outputs(path: Path, ran: _Ran) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.stack(values) for name, values in sorted(ran.outputs.items())}
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def _pictures(given: Given, ran: _Ran) -> list[tuple[str, str, Any, Any]]:
    """Input and outputs, a few elements each; there is one kind of number, so both columns are it."""
    named = [("input", given.values), *((name, np.stack(v)) for name, v in ran.outputs.items())]
    flat = [(name, values.reshape(len(values), -1)[:, :SHOWN_NEURONS].astype(float)) for name, values in named]
    return [("integers", name, values, values) for name, values in flat]


def _seal(plan: NetxPlan, folder: Path, data: NetworkReport, clock: Clock) -> dict[str, Any]:
    manifest = seal(
        folder,
        lambda content: build(replace(data, content_hash=content)),
        plan,
        {"network": plan.path, **({"input": plan.input} if plan.input else {})},
        {"steps": data.steps, "engine": plan.engine, "seed": plan.seed, "rate": plan.rate},
        data.program_hash,
        clock,
    )
    return {
        "network": plan.path.name,
        **sealed(plan, data.energy, manifest, clock.seconds),
        "engine": plan.engine,
        "steps": data.steps,
        **{key: data.parity[key] for key in ("diagnostics", "layers", "outputs", "saturated", "engines")},
        "verdict": sentences(data),
    }
