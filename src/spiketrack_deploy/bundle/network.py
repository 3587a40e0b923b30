"""One export of a NIR network: the stages in order, each writing its file into the temporary folder.

    read      NIR file, convention, input -> model.nir as it was        frontends/nir/
    judge     the float64 reference on the input                        frontends/nir/reference
    lower     -> program/                                               frontends/nir/lower
    answers   recorded steps, digests of every operation                answers
    engines   every engine against the record                           engines/
    run       all steps: outputs, counts, agreement with float64        agreement
    price     energy.json, layers.csv; parity.json, outputs.npz
    Lava      lava/                                                     lava_folder
    show      report.html
    seal      provenance.json, MANIFEST.json

This module decides the order and the names of the files. It must not compute anything itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.bundle import answers, layout
from spiketrack_deploy.bundle import network_results as results
from spiketrack_deploy.bundle import steps as stepping
from spiketrack_deploy.bundle.agreement import Agreement
from spiketrack_deploy.bundle.chips import chip_figures, on_chips, single_runs
from spiketrack_deploy.bundle.clock import Clock
from spiketrack_deploy.bundle.lava_folder import STEPS, add_lava
from spiketrack_deploy.bundle.seal import seal, sealed
from spiketrack_deploy.bundle.steps import PHASE
from spiketrack_deploy.energy.frames import CAMERA_PERIOD_S
from spiketrack_deploy.energy.layers import add_runs, layer_counts
from spiketrack_deploy.energy.report import assess, write_energy_json, write_layers_csv
from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import VerificationError
from spiketrack_deploy.frontends.nir.lower import InputKind, Lowered, LowerOptions, lower_network
from spiketrack_deploy.frontends.nir.network import SPIKING
from spiketrack_deploy.frontends.nir.prepare import FloatRun, Prepared, Words, demand_none, float_run, prepare
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.program.describe import describe_program
from spiketrack_deploy.program.store import save_program
from spiketrack_deploy.program.types import IntArray, Op
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.report.network_page import NetworkReport, build, sentences


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Everything that was decided before work began. ``priced``: whose prices and cores count; ``stock``: the checked
    steps also run in the Processes that Lava ships."""

    path: Path
    words: Words
    target: Target
    priced: Target
    way: Way
    profile_path: str | None
    engine: str
    threads: int | None
    weight_bits: int
    input_bits: int
    max_spike_error: float | None
    command: str
    stock: bool = False


def export_network_bundle(plan: NetworkPlan, folder: Path, tell: Tell | None) -> dict[str, Any]:
    """Write every file of a bundle into ``folder`` and say what was found. Errors are those of the stages."""
    clock = Clock(tell)
    with clock.stage("NIR"):
        prepared = prepare(plan.path, plan.words)
        write_whole(folder / layout.NIR, plan.path.read_bytes())
    drawn = _drawn(prepared, plan)
    with clock.stage("float64 reference"):
        floats = float_run(prepared, drawn, tell)
    with clock.stage("lowering"):
        lowered = lower_network(prepared.network, prepared.convention, _options(prepared, floats, plan))
        program_hash = save_program(lowered.program, folder / layout.PROGRAM)
    with clock.stage("known answers"):
        steps = _encoded(prepared, lowered)
        recorded = stepping.record(lowered.program, steps, tell)
        stepping.keep(folder, lowered.program, recorded)
        stepping.save_input(folder, steps)
    agreement = Agreement(prepared.network, floats)
    checked = [stepping.checked(name, lowered.program, recorded, clock) for name in stepping.others(plan.engine)]
    if plan.stock:
        checked.append(stepping.in_stock(lowered.program, steps[: len(recorded)], clock))
    with make_engine(plan.engine, lowered.program, **stepping.threads(plan)) as engine:
        with clock.stage(f"{plan.engine} against reference"):
            found = answers.check(lowered.program, engine, recorded, "export", tell)
            checked.insert(0, stepping.row(plan.engine, found))
        with clock.stage("integer network"):
            ran = _run(lowered, engine, steps, agreement, [*drawn, *plan.words.trace], tell)
    if plan.max_spike_error is not None and agreement.share() > plan.max_spike_error:
        raise VerificationError(_too_far(plan, agreement))
    shown = results.afterwards(prepared, floats, ran, lowered)
    if plan.words.strict:
        demand_none(plan.path, shown)
    diagnostics = [*prepared.diagnostics, *shown]
    with clock.stage("mapping"):
        counts = {PHASE: add_runs(ran.runs, PHASE)}
        period = _period(prepared)
        whole = on_chips(lowered.program, counts, plan.priced, plan.way, period)
    with clock.stage("energy"):
        single = single_runs(lowered.program, plan.priced, whole, {PHASE: ran.runs})[PHASE]
        energy = assess(
            counts,
            plan.priced.profile,
            {PHASE: 1.0},
            result="step",
            placed=whole.placed if whole else None,
            frame_period_s=period,
            apart={PHASE: [run.dynamic(plan.priced.profile).nominal for run in single]},
        )
        write_energy_json(energy, folder / layout.ENERGY)
        write_layers_csv(energy, folder / layout.LAYERS)
    parity = results.parity(prepared, lowered, agreement, checked, diagnostics)
    layout.write_json(folder / layout.PARITY, parity)
    results.write_outputs(folder / layout.OUTPUTS, prepared, floats, ran, plan.words.trace)
    with clock.stage("ONNX"):
        stepping.write_onnx(lowered.program, folder / layout.ONNX)
    with clock.stage("Lava Processes"):
        first = {name: np.concatenate([step[name] for step in steps[:STEPS]]) for name in steps[0]}
        taken = add_lava(folder, lowered.program, PHASE, first)
    with clock.stage("floorplan"):
        chips = (whole, chip_figures(whole)) if whole else None
    data = NetworkReport(
        plan.path.name, plan.target.name, plan.engine, plan.command, describe_program(lowered.program), energy, parity,
        chips, prepared.given.source, prepared.given.steps, results.pictures(prepared, floats, ran, drawn),
        program_hash,
    )  # fmt: skip
    return {**_seal(plan, folder, data, prepared, agreement, clock), "lava": taken}


def _period(prepared: Prepared) -> float:
    """Seconds between two steps, over which chips are powered; those of a camera where time is counted in steps."""
    return prepared.convention.dt if prepared.convention.dt < 1 else CAMERA_PERIOD_S


def _drawn(prepared: Prepared, plan: NetworkPlan) -> list[str]:
    """Neurons whose membranes are kept for outputs.npz and the report: those asked for, else the last that spikes."""
    spiking = [name for name in prepared.network.neurons if prepared.network.nodes[name].kind in SPIKING]
    return list(dict.fromkeys(plan.words.trace)) or (spiking or list(prepared.network.neurons))[-1:]


def _options(prepared: Prepared, floats: FloatRun, plan: NetworkPlan) -> LowerOptions:
    given, kinds = prepared.given, dict[str, InputKind]()
    for name, values in given.values.items():
        largest = float(np.abs(values).max())
        spikes = given.is_spikes(name)
        kinds[name] = InputKind(top=max(1, int(largest))) if spikes else InputKind(limit=largest, bits=plan.input_bits)
    said = {
        name: f"spikes and counts up to {kind.top}, as they are"
        if kind.limit is None
        else f"real values as {kind.bits}-bit integers of {kind.step:g}"
        for name, kind in kinds.items()
    }
    out = dict.fromkeys(prepared.network.outputs, "sum of what feeds it")
    meta = {
        "workload": Workload("nir", said, out, "rasters").to_dict(),
        "convention": asdict(prepared.convention),
        "quantisation": {"weights": f"{plan.weight_bits} bits", "decay_bits": 12, "stream_bits": 24},
        "back_edges": [[edge.source, edge.target] for edge in prepared.network.back_edges],
    }
    return LowerOptions(weight_bits=plan.weight_bits, kinds=kinds, observed=floats.largest, meta=meta)


def _encoded(prepared: Prepared, lowered: Lowered) -> list[dict[str, IntArray]]:
    given = prepared.given
    return [
        {name: lowered.encode(name, values[step]) for name, values in given.values.items()}
        for step in range(given.steps)
    ]


def _run(
    lowered: Lowered,
    engine: Engine,
    steps: Sequence[Mapping[str, IntArray]],
    agreement: Agreement,
    traced: Sequence[str],
    tell: Tell | None,
) -> results.Ran:
    """All steps in one session; what neurons and outputs say is compared while it runs."""
    phase, session = lowered.program.phases[PHASE], engine.session()
    ran = results.Ran({name: [] for name in [*lowered.outputs, *traced]}, {name: [] for name in traced})
    wanted = {**lowered.values, **lowered.outputs}
    shown = {one.value for one in (*wanted.values(), *lowered.voltages.values())}
    for index, inputs in enumerate(steps):
        if tell and index % 8 == 0:
            tell("integer network", index, len(steps))
        seen: dict[str, IntArray] = dict(session.states)

        def watch(op: Op, value: IntArray, seen: dict[str, IntArray] = seen) -> None:
            if op.name in shown:
                seen[op.name] = np.array(value)

        result = session.step(PHASE, inputs, watch=watch)
        ran.runs.append(layer_counts(phase.ops, result.counts))
        values = {
            name: seen[one.value].reshape(one.factor.shape) * one.factor
            for name, one in wanted.items()
            if one.value in seen and (name in agreement.tallies or name in ran.values)
        }
        agreement.add(index, values)
        for name, kept in ran.values.items():
            kept.append(values[name])
        for name, kept in ran.membranes.items():
            one = lowered.voltages[name]
            kept.append(seen[one.value].reshape(one.factor.shape) * one.factor)
    return ran


def _too_far(plan: NetworkPlan, agreement: Agreement) -> str:
    worst = max(agreement.judged(), key=lambda tally: tally.differing / max(tally.values, 1))
    first = worst.first or {}
    return (
        f"{plan.path}: {100 * agreement.share():.3g} % of the spikes differ from float64, more than the "
        f"{100 * (plan.max_spike_error or 0):.3g} % of --max-spike-error; most in node '{worst.name}', first in step "
        f"{first.get('step')} at {first.get('index')}; try more --weight-bits"
    )


def _seal(
    plan: NetworkPlan, folder: Path, data: NetworkReport, prepared: Prepared, agreement: Agreement, clock: Clock
) -> dict[str, Any]:
    from spiketrack_deploy.frontends.nir.build import Read
    from spiketrack_deploy.frontends.nir.outline import outline

    drawing = outline(Read(prepared.network, ()))
    settings = {
        "convention": data.parity["convention"],
        "weight_bits": plan.weight_bits,
        "input_bits": plan.input_bits,
        "steps": prepared.given.steps,
        "engine": plan.engine,
    }
    manifest = seal(
        folder,
        lambda content: build(replace(data, content_hash=content, outline=drawing)),
        plan,
        {"network": plan.path, **({"input": plan.words.input} if plan.words.input else {})},
        settings,
        data.program_hash,
        clock,
    )
    return {
        "network": plan.path.name,
        **sealed(plan, data.energy, manifest, clock.seconds),
        "engine": plan.engine,
        "steps": prepared.given.steps,
        **{key: data.parity[key] for key in ("convention", "diagnostics", "back_edges", "outputs", "engines")},
        "spike_error": agreement.share(),
        "verdict": sentences(data),
    }
