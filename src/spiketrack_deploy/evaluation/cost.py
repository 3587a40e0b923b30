"""What the frames of an evaluation cost and how busy each layer was: recorded sums times prices.

This module decides which means are stated. It must not know files, scores or what a phase is for. Energies are
nanojoules with a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts, whole
from spiketrack_deploy.energy.pricing import (
    LayerEnergy,
    by_cause,
    dynamic_energy,
    intervals,
    needs_mapping,
    price,
    unpriced,
)
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.evaluation.metrics import bootstrap
from spiketrack_deploy.evaluation.tally import PhaseTally, Tally
from spiketrack_deploy.hardware.schema import Profile
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


def per_frame(counts: Counts, frames: int, profile: Profile) -> Interval:
    """Nanojoules of one frame with its share of every run that took place in these sequences, starts included."""
    return total(dynamic_energy(layers, profile) * _share(layers, frames) for layers in counts.values())


def _share(layers: Sequence[LayerCounts], frames: int) -> float:
    return layers[0].runs / frames if frames and layers else 0.0


def cost_of(tallies: Mapping[str, Tally], layers: Layers, profile: Profile) -> dict[str, Any]:
    """Energy of a tracker over all its sequences (sequence -> tally), as JSON data.

    ``per_frame_nj`` carries the band of the prices; ``sequences_nj`` is the bootstrap interval of its nominal value
    over sequences, another kind of uncertainty and kept apart. ``main``: the phase that ran most often.
    """
    every = add_up(list(tallies.values()))
    counts = counts_of(every, layers)
    each = {
        name: per_frame(counts_of(one, layers), one.frames, profile).nominal
        for name, one in tallies.items()
        if one.frames
    }
    low, high = bootstrap(list(each.values())) if each else (0.0, 0.0)
    missing = [item for name, phase in counts.items() for item in unpriced(phase, profile, name)]
    energies = {name: [price(layer, profile) for layer in phase] for name, phase in counts.items()}
    return {
        "profile": profile.name,
        "profile_sha256": profile.digest,
        "frames": every.frames,
        "per_frame_nj": per_frame(counts, every.frames, profile).to_dict(),
        "main": max(counts, key=lambda name: every.phases[name].runs, default=None),
        "phases": {name: _phase(counts[name], energies[name], every.frames) for name in counts},
        "sequences_nj": {"low": low, "high": high},
        "by_sequence_nj": each,
        "layers": [
            {"phase": name, **_layer(layer, energy)}
            for name, phase in counts.items()
            for layer, energy in zip(phase, energies[name])
        ],
        "unpriced": [item.to_dict() for item in (*missing, *needs_mapping(profile, "frame"))],
    }


def _phase(counts: Sequence[LayerCounts], energies: Sequence[LayerEnergy], frames: int) -> dict[str, Any]:
    """One run: energy, causes and mean counts; how many runs there were, also per frame."""
    return {
        "runs": counts[0].runs if counts else 0,
        "per_frame": _share(counts, frames),
        "unamortised_nj": total(layer.total for layer in energies).to_dict(),
        "by_cause_nj": intervals(by_cause(part for layer in energies for part in layer.parts)),
        "counts": whole(counts).means(),
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
