"""What the frames of an evaluation cost and how busy each layer was: recorded sums times prices.

This module decides which means are stated. It must not know files or scores. Energies are nanojoules with a band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts, Mean, sum_counts
from spiketrack_deploy.energy.pricing import by_cause, intervals, needs_mapping, price, unpriced
from spiketrack_deploy.evaluation.metrics import bootstrap
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.units import ZERO, Interval, total

PHASES = {"search": "frames", "template": "updates"}
"""Phase of a program -> what one run of it is called in a record."""

Layers = Mapping[str, Sequence[tuple[str, str, str]]]
"""Phase -> (name, kind, block) of its operations in order."""


def layers_of(program: Program) -> dict[str, list[tuple[str, str, str]]]:
    """:data:`Layers` of a program."""
    return {name: [(op.name, op.kind, op.block) for op in phase.ops] for name, phase in program.phases.items()}


def add_up(activities: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the recorded activity of several sequences."""
    whole: dict[str, Any] = {"frames": 0, "updates": 0, "search": {}, "template": {}}
    for activity in activities:
        for phase, runs in PHASES.items():
            whole[runs] += activity[runs]
            for op, counts in activity[phase].items():
                into = whole[phase].setdefault(op, {})
                for key, value in counts.items():
                    into[key] = into.get(key, 0) + value
    return whole


def means(activity: Mapping[str, Any], layers: Layers, phase: str) -> list[Mean]:
    """Counts of every layer of a phase over its runs; empty where it never ran."""
    runs = activity[PHASES[phase]]
    if not runs:
        return []
    checked = [LayerCounts(*layer, activity[phase].get(layer[0], {})) for layer in layers.get(phase, ())]
    return [Mean(c.name, c.kind, c.block, c.counts, runs) for c in checked]


def dynamic(activity: Mapping[str, Any], layers: Layers, profile: Profile) -> dict[str, Interval]:
    """Nanojoules of one search frame, of one template update, and of one frame with its share of the updates that took
    place in these sequences (the first one included)."""
    parts = {phase: total(price(m, profile).total for m in means(activity, layers, phase)) for phase in PHASES}
    share = activity["updates"] / activity["frames"] if activity["frames"] else 0.0
    return {
        "search": parts["search"],
        "template_update": parts["template"],
        "per_frame": parts["search"] + parts["template"] * share,
    }


def cost_of(activities: Mapping[str, Mapping[str, Any]], layers: Layers, profile: Profile) -> dict[str, Any]:
    """Energy of a tracker over all its sequences (sequence -> activity), as JSON data.

    ``per_frame_nj`` carries the band of the prices; ``sequences_nj`` is the bootstrap interval of its nominal value
    over sequences, another kind of uncertainty and kept apart.
    """
    whole = add_up(list(activities.values()))
    search, template = means(whole, layers, "search"), means(whole, layers, "template")
    energies = dynamic(whole, layers, profile)
    each = {
        name: dynamic(one, layers, profile)["per_frame"].nominal for name, one in activities.items() if one["frames"]
    }
    low, high = bootstrap(list(each.values())) if each else (0.0, 0.0)
    missing = unpriced(search, profile, "search frame") + unpriced(template, profile, "template update")
    return {
        "profile": profile.name,
        "profile_sha256": profile.digest,
        "frames": whole["frames"],
        "template_updates": whole["updates"],
        "per_frame_nj": energies["per_frame"].to_dict(),
        "search_nj": energies["search"].to_dict(),
        "template_update_nj": energies["template_update"].to_dict(),
        "sequences_nj": {"low": low, "high": high},
        "by_sequence_nj": each,
        "by_cause_nj": intervals(by_cause(part for m in search for part in price(m, profile).parts)),
        "counts_per_frame": sum_counts(search),
        "counts_per_update": sum_counts(template),
        "layers": [_layer(m, profile) for m in search],
        "unpriced": [item.to_dict() for item in (*missing, *needs_mapping(profile, "search frame"))],
    }


def _layer(layer: Mean, profile: Profile) -> dict[str, Any]:
    """One row: mean counts a frame, share of neurons that spike, mean spike value read, energy."""
    updates, size = layer["neuron_updates"], layer["input_size"]
    energy = price(layer, profile).total
    return {
        "name": layer.name,
        "kind": layer.kind,
        "block": layer.block,
        "counts": layer.means(),
        "firing_rate": layer["neuron_spiking"] / updates if updates else None,
        "mean_input": layer["input_sum"] / size if size else None,
        "energy_nj": energy.to_dict() if energy != ZERO else None,
    }
