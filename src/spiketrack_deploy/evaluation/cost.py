"""What the frames of an evaluation cost and how busy each layer was: recorded sums times prices.

This module decides which means are stated. It must not know files, scores or what a phase is for. Energies are
nanojoules with a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrack_deploy.energy.frames import Run, counted_run
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.layers import whole as whole_counts
from spiketrack_deploy.energy.pricing import (
    LayerEnergy,
    bill,
    by_cause,
    intervals,
    needs_mapping,
    price,
    unpriced,
)
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.evaluation.metrics import bootstrap
from spiketrack_deploy.evaluation.tally import PhaseTally, Tally
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.mapping.whole import WholeNetwork, map_network
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.units import ZERO, Interval, total

Layers = Mapping[str, Sequence[tuple[str, str, str]]]
"""Phase -> (name, kind, block) of its operations in order."""

Counts = Mapping[str, Sequence[LayerCounts]]
"""Phase -> its layers, summed over its runs; phases that never ran are left out."""


def layers_of(program: Program) -> dict[str, list[tuple[str, str, str]]]:
    """:data:`Layers` of a program."""
    return {name: [(op.name, op.kind, op.block) for op in phase.ops] for name, phase in program.phases.items()}


def add_up(tallies: Sequence[Tally]) -> Tally:
    """Sum the recorded tallies of several sequences."""
    every = Tally()
    for tally in tallies:
        every.frames += tally.frames
        for name, phase in tally.phases.items():
            into = every.phases.setdefault(name, PhaseTally())
            into.runs += phase.runs
            for op, counts in phase.sums.items():
                into.add(op, counts)
    return every


def counts_of(tally: Tally, layers: Layers) -> dict[str, list[LayerCounts]]:
    """Counts of every layer of every phase that ran. InputError: the tally is of another program."""
    found = {}
    for name, phase in tally.phases.items():
        known = {layer[0] for layer in layers.get(name, ())}
        strange = next((op for op in phase.sums if op not in known), None)
        if strange is not None:
            raise InputError(f"phase {name}, operation {strange}: is not of this program; evaluate again with --force")
        if phase.runs:
            found[name] = [LayerCounts(*layer, phase.sums.get(layer[0], {}), phase.runs) for layer in layers[name]]
    return found


def runs_of(counts: Counts, program: Program | None, whole: WholeNetwork | None, profile: Profile) -> dict[str, Run]:
    """Phase -> its mean run as it is charged for: on its cores, or by the counts alone where there are none."""
    return {
        name: whole.phases[name].rerun(program.arrays, layers)
        if whole and program
        else counted_run(name, layers, profile)
        for name, layers in counts.items()
    }


def per_frame(counts: Counts, runs: Mapping[str, Run], frames: int, profile: Profile) -> Interval:
    """Dynamic nanojoules of one frame with its share of every run that took place in these sequences, starts too."""
    return total(runs[name].dynamic(profile) * _share(layers, frames) for name, layers in counts.items())


def _share(layers: Sequence[LayerCounts], frames: int) -> float:
    return layers[0].runs / frames if frames and layers else 0.0


def cost_of(tallies: Mapping[str, Tally], program: Program, target: Target, way: Way) -> dict[str, Any]:
    """Energy of a tracker over all its sequences (sequence -> tally), as JSON data.

    ``per_frame_nj``: dynamic energy, starts included, and static power and input of a mean frame on the target's chips;
    ``dynamic_nj`` alone beside it, both with the band of the prices. ``sequences_nj`` is the bootstrap interval of the
    former's nominal value over sequences, another kind of uncertainty and kept apart. ``main``: the phase that ran most
    often. ``placed``: chips, latency and cost of a mean frame, where the target has chips, which run it this ``way``.
    """
    layers, profile = layers_of(program), target.profile
    counts = counts_of(add_up(list(tallies.values())), layers)
    whole = map_network(program, target, counts=counts, way=way) if profile.family and counts else None
    return _stated(tallies, layers, profile, program, whole)


def cost_of_layers(tallies: Mapping[str, Tally], layers: Layers, profile: Profile) -> dict[str, Any]:
    """As :func:`cost_of` for what has no program: by its operations alone."""
    return _stated(tallies, layers, profile, None, None)


def _stated(
    tallies: Mapping[str, Tally], layers: Layers, profile: Profile, program: Program | None, whole: WholeNetwork | None
) -> dict[str, Any]:
    every = add_up(list(tallies.values()))
    counts = counts_of(every, layers)
    fixed = (whole.cost.static or ZERO) + (whole.cost.input or ZERO) if whole else ZERO

    def dynamic(one: Tally) -> Interval:
        of = counts_of(one, layers)
        return per_frame(of, runs_of(of, program, whole, profile), one.frames, profile)

    each = {name: dynamic(one).nominal + fixed.nominal for name, one in tallies.items() if one.frames}
    low, high = bootstrap(list(each.values())) if each else (0.0, 0.0)
    runs = runs_of(counts, program, whole, profile)
    spent = per_frame(counts, runs, every.frames, profile)
    if whole:
        missing = list(whole.placed.unpriced)
    else:
        missing = [item for name, phase in counts.items() for item in unpriced(phase, profile, name)]
        missing += needs_mapping(profile, "frame")
    energies = {
        name: [price(layer, runs[name].operations.get(layer.name, {}), profile) for layer in phase]
        for name, phase in counts.items()
    }
    return {
        "profile": profile.name,
        "profile_sha256": profile.digest,
        "frames": every.frames,
        "per_frame_nj": (spent + fixed).to_dict(),
        "dynamic_nj": spent.to_dict(),
        "placed": whole.placed.to_dict() if whole else None,
        "main": max(counts, key=lambda name: every.phases[name].runs, default=None),
        "phases": {name: _phase(counts[name], runs[name], profile, every.frames) for name in counts},
        "sequences_nj": {"low": low, "high": high},
        "by_sequence_nj": each,
        "layers": [
            {"phase": name, **_layer(layer, energy)}
            for name, phase in counts.items()
            for layer, energy in zip(phase, energies[name])
        ],
        "unpriced": [item.to_dict() for item in missing],
    }


def _phase(counts: Sequence[LayerCounts], run: Run, profile: Profile, frames: int) -> dict[str, Any]:
    """One run: energy, causes and mean counts; how many runs there were, also per frame."""
    return {
        "runs": counts[0].runs if counts else 0,
        "per_frame": _share(counts, frames),
        "unamortised_nj": run.dynamic(profile).to_dict(),
        "by_cause_nj": intervals(by_cause(bill(run.counts, profile))),
        "counts": whole_counts(counts).means(),
    }


def _layer(layer: LayerCounts, energy: LayerEnergy) -> dict[str, Any]:
    """One row: mean counts a run, share of neurons that spike, mean spike value read, energy."""
    updates, size, cost = layer["neuron_updates"], layer["input_size"], energy.total
    return {
        "name": layer.name,
        "kind": layer.kind,
        "block": layer.block,
        "counts": layer.means(),
        "firing_rate": layer["neuron_spiking"] / updates if updates else None,
        "mean_input": layer["input_sum"] / size if size else None,
        "energy_nj": cost.to_dict() if cost != ZERO else None,
    }
