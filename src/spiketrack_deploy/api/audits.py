"""Published energies derived again, and a network beside its dense twins.

This module decides what is audited and with which counts. It must not print; heavy parts are imported when the verb
runs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spiketrack_deploy.api.asked import Place
from spiketrack_deploy.api.bundles import ExportRequest, export
from spiketrack_deploy.api.results import AuditResult
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.energy.frames import Run
    from spiketrack_deploy.energy.layers import LayerCounts
    from spiketrack_deploy.hardware.schema import Profile
    from spiketrack_deploy.hardware.targets import Target
    from spiketrack_deploy.program.dense import DenseLayer
    from spiketrack_deploy.program.types import Program

COUNTED_FRAMES = 5
"""Frames of the bundled clip that a model is run on where no bundle has its counts."""


def audit(
    subject: Place | None = None, *, paper_nj: float | None = None, target: str = "loihi2", tell: Tell | None = None
) -> AuditResult:
    """Derive a paper's energy of a frame by every published convention, beside dense twins and a chip.

    ``subject``: a bundle (its own counts), a model (run on a few frames of the bundled clip), or an official layout
    such as ``s256_t1`` (multiply-accumulates counted on the model, spikes unknown: what the number implies of them), or
    a dense tracker, which has no spikes: its multiply-accumulates alone, and no ``conventions``;
    without one the SpikeTrack paper's table, each number for every layout that it can be of. ``paper_nj``: the number,
    nanojoules. ``target``: the chip that it is held against, which must price events.
    """
    from spiketrack_deploy.api.chips import dense_layers
    from spiketrack_deploy.energy.pricing import event_prices
    from spiketrack_deploy.hardware.targets import resolve_target
    from spiketrack_deploy.inputs.sources import is_bundle
    from spiketrack_deploy.trackers.published import SPIKETRACK
    from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS

    goal = resolve_target(target)
    if not event_prices(goal.profile):
        raise UsageError(f"target {target} prices no event: a paper's number cannot be held against it")
    if subject is None and paper_nj is not None:
        raise UsageError("say of which bundle, model or layout the paper's number is")
    name = str(subject)
    if subject is None or name in OFFICIAL_CONFIGS:
        found = [row for row in SPIKETRACK if subject is None or row.layout == name]
        told = [(row.layout, row.nanojoules, row.source) for row in found]
        if paper_nj is not None:
            told = [(name, paper_nj, "given")]
        cases = [_layout(layout, number, source, goal, tell) for layout, number, source in told]
    elif (dense := dense_layers(name)) is not None:
        cases = [_dense(name, dense, paper_nj)]
    elif is_bundle(Path(name)):
        cases = [_counted(Path(name), paper_nj, target)]
    else:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "bundle"
            export(ExportRequest(model=name, target=target, max_frames=COUNTED_FRAMES, out=out), tell)
            cases = [_counted(out, paper_nj, target)]
    return {"subject": None if subject is None else name, "target": target, "cases": cases}


def _dense(name: str, layers: Sequence[DenseLayer], paper: float | None) -> dict[str, Any]:
    """A dense tracker: no spikes, hence no convention of them; what its multiply-accumulates cost is its dense twin."""
    from spiketrack_deploy.energy.conventions import dense_twin
    from spiketrack_deploy.energy.layers import LayerCounts
    from spiketrack_deploy.energy.twins import dense_profiles

    counts = [LayerCounts(one.name, one.kind, one.block, one.counts.to_dict()) for one in layers]
    return {
        "name": name,
        "phase": "frame",
        "counted": False,
        "runs": 0,
        "dense_macs": sum(layer.macs for layer in layers),
        "largest_spike": 0,
        "mean_value": None,
        "rate": None,
        "paper_nj": paper,
        "paper_source": "given" if paper else None,
        "conventions": [],
        "chip": None,
        "dense": [dense_twin(counts, one).to_dict() for one in dense_profiles()],
        "duels": [],
    }


def _layout(name: str, paper: float, source: str, goal: Target, tell: Tell | None) -> dict[str, Any]:
    """An official layout: shapes of a tracker with drawn weights, and what the number says of its spikes."""
    from spiketrack_deploy.api.chips import placed
    from spiketrack_deploy.energy.layers import main_phase, runs_per_result, shape_counts
    from spiketrack_deploy.frontends.compile import compile
    from spiketrack_deploy.mapping.closed_loop import VALUE_PER_SPIKE
    from spiketrack_deploy.mapping.whole import map_network
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
    from spiketrack_deploy.training.budget import drawn

    if tell:
        tell(f"counting {name}", 0, 0)
    program = compile(drawn(TrackerConfig.official(name))).program
    phase = main_phase(runs_per_result(program))
    layers, levels = shape_counts(program, phase), largest_spike(program, phase)
    case = _case(name, phase, layers, levels, paper, source, None)
    implied = next(row["implied_mean_value"] for row in case["conventions"])
    if implied is not None and 0 < implied <= levels and goal.profile.family is not None:
        if tell:
            tell(f"mapping {name}", 0, 0)
        share = min(1.0, implied / VALUE_PER_SPIKE)
        whole = map_network(program, goal, density=share, rounds=1)
        basis = f"at the implied mean spike value {implied:.3g}: {100 * share:.0f} % of the neurons spike"
        case["chip"] = {"profile": goal.profile.name, **placed(program, {}, goal, whole), "activity": basis}
    return case


def _counted(bundle: Path, paper: float | None, target: str) -> dict[str, Any]:
    """A bundle: what really happened in its recorded runs."""
    from spiketrack_deploy.api.chips import placed
    from spiketrack_deploy.bundle import layout
    from spiketrack_deploy.bundle.chips import on_chips
    from spiketrack_deploy.bundle.contents import read_alone
    from spiketrack_deploy.bundle.recorded import recorded_counts
    from spiketrack_deploy.energy.frames import counted_run
    from spiketrack_deploy.energy.layers import main_phase
    from spiketrack_deploy.hardware.targets import resolve_target

    layout.check_bundle(bundle)
    recorded, program = recorded_counts(bundle / layout.ENERGY), read_alone(bundle)
    phase = main_phase(recorded.per_result)
    layers = recorded.counts[phase]
    goal = resolve_target(target)
    whole = on_chips(program, recorded.counts, goal, recorded.way)
    chip = {"profile": goal.profile.name, **placed(program, recorded.counts, goal, whole)}
    levels, source = largest_spike(program, phase), "given" if paper else None
    run = whole.report.run if whole else counted_run(phase, layers, goal.profile)
    return _case(bundle.resolve().name, phase, layers, levels, paper, source, chip, (goal.profile, run))


def _case(
    name: str,
    phase: str,
    layers: Sequence[LayerCounts],
    levels: int,
    paper: float | None,
    source: str | None,
    chip: dict[str, Any] | None,
    counted_on: tuple[Profile, Run] | None = None,
) -> dict[str, Any]:
    from spiketrack_deploy.energy.audit import readings, sums
    from spiketrack_deploy.energy.conventions import dense_twin
    from spiketrack_deploy.energy.twins import dense_profiles, duels, rate
    from spiketrack_deploy.units import Interval

    counted = counted_on is not None
    cost = (chip or {}).get("total_nj") or (chip or {}).get("dynamic_nj")
    rows = readings(layers, counted=counted, levels=levels, paper=paper)
    return {
        "name": name,
        "phase": phase,
        "counted": counted,
        "runs": layers[0].runs if counted else 0,
        "dense_macs": sum(layer["dense_macs"] for layer in layers),
        "largest_spike": levels,
        "mean_value": sums(layers)["mean_value"] if counted else None,
        "rate": rate(layers) if counted else None,
        "paper_nj": paper,
        "paper_source": source,
        "conventions": [row.to_dict(Interval.from_dict(cost) if cost else None) for row in rows],
        "chip": chip,
        "dense": [dense_twin(layers, one).to_dict() for one in dense_profiles()],
        "duels": [one.to_dict() for one in duels(layers, *counted_on)] if counted_on else [],
    }


def largest_spike(program: Program, phase: str) -> int:
    """The largest value that a spike of the phase can have."""
    return max((s.top for s in program.phases[phase].values.values() if s.kind == "spikes"), default=1)
