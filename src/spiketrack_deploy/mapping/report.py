"""The answer to "does it fit, how fast, what dominates" as one JSON object.

This module decides what a mapping report must contain: chips and cores, every breach with its fixes, verdicts, loads,
placement, times, energies with static power as a line of its own, and what is not known. It must not print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from spiketrack_deploy.energy.pricing import Counted
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.mapping.activity import ASSUMED_DENSITY, Activity, assumed, measured
from spiketrack_deploy.mapping.cost import MappedEnergy, mapped_energy
from spiketrack_deploy.mapping.fit import balanced_split, map_program
from spiketrack_deploy.mapping.fixes import fixes, in_turns
from spiketrack_deploy.mapping.latency import VALUE_PER_SPIKE, Latency, latency
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.placement import ROUNDS
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.types import ChipMapping, Network
from spiketrack_deploy.program.types import Program

SCHEMA = "spiketrack-mapping/1"
_LARGEST = 12
EVEN = 2.0
"""The even split that every report compares with: no core above twice the mean."""

ASSUMPTIONS = (
    "An estimate: no neuromorphic hardware and no vendor compiler was used.",
    "Convolution memory follows a fit of 16 rows of public compiler logs with one bit more than the weight's own "
    "(conservative); grouped, one-to-one and interpolating synapses follow the same rule by extrapolation.",
    "One input axon per source position with its channels as atoms; what the compiler's axon map counts is not public, "
    "one entry per position and destination core is assumed.",
    "Time steps of a template network are unrolled in space; one frame enters per step.",
    "Messages of shorter ways wait in the pipeline; whether the chip's delays reach that far is not known. Without "
    "delays, each waiting value needs one more relay neuron per step (pipeline.delay_neurons).",
    "The routers of all chips are taken as one mesh; how a board connects its chips is not published.",
    "Synaptic operations of a layer are shared out over its cores in proportion to their synapses; spikes that cluster "
    "make the busiest core busier.",
    "Where a profile has a hop time, it is taken as the time that a message occupies a link: an upper bound.",
    "Neuron state is not counted in bytes: how many a graded neuron program needs is not known.",
)


def activity_for(
    network: Network, program: Program, counts: Iterable[Counted] | None, density: float | None
) -> Activity:
    """Counts of a run where there are any, else an assumed spike density (0..1)."""
    if counts is not None and density is not None:
        raise InputError("counts of a run and an assumed spike density were both given; choose one.")
    if counts is not None:
        return measured(network, program.arrays, counts)
    return assumed(network, program.arrays, ASSUMED_DENSITY if density is None else density)


def mapping_report(
    program: Program,
    profile: Profile,
    *,
    target: str | None = None,
    chips_available: int | None = None,
    phase: str = "search",
    counts: Iterable[Counted] | None = None,
    density: float | None = None,
    rule: str = "contiguous",
    rounds: int = ROUNDS,
    balance: float | None = None,
) -> tuple[ChipMapping, dict[str, Any]]:
    """Map, time and price one phase; the other phase's cores are stated beside it. See :func:`map_program`.

    ``counts``: mean counts of every operation per run of the phase. Raises nothing where the network does not fit.
    """
    layers = None if counts is None else list(counts)
    activity = activity_for(populations(program, phase), program, layers, density)
    mapping = map_program(
        program,
        profile,
        phase=phase,
        chips_available=chips_available,
        target=target,
        activity=activity,
        rule=rule,
        rounds=rounds,
        balance=balance,
    )
    value = VALUE_PER_SPIKE if layers is None else _mean_value(layers)
    time = latency(mapping, profile, value)
    energy = mapped_energy(mapping, activity, profile, time, value_per_spike=value)
    return mapping, _report(mapping, program, profile, time, energy, activity)


def _mean_value(layers: Sequence[Counted]) -> float:
    """Mean value of a spike, over synaptic operations."""
    synops = sum(layer["synops"] for layer in layers)
    return sum(layer["unit_ops"] for layer in layers) / synops if synops else VALUE_PER_SPIKE


def _report(
    mapping: ChipMapping, program: Program, profile: Profile, time: Latency, energy: MappedEnergy, activity: Activity
) -> dict[str, Any]:
    breached = not mapping.fits
    turns_on = mapping.chips_available or 1
    turns = in_turns(mapping, turns_on)
    return {
        "schema": SCHEMA,
        "target": mapping.target,
        "profile": {"name": profile.name, "title": profile.title, "sha256": profile.digest},
        "phase": mapping.network.phase,
        "fits": mapping.fits,
        "cores": mapping.cores,
        "chips": mapping.chips,
        "chips_available": mapping.chips_available,
        "limits": mapping.limits.to_dict(),
        "neurons": mapping.network.slots,
        "synapses": int(mapping.synapses.nonzero.sum()),
        "synaptic_words": int(mapping.loads.words.sum()),
        "loads": mapping.loads.to_dict(),
        "balance": _balance(mapping, activity),
        "breaches": [breach.to_dict() for breach in mapping.breaches],
        "fixes": [fix.to_dict() for fix in fixes(mapping)] if breached else [],
        "in_turns": turns.to_dict() if turns else None,
        "verdicts": {
            "count": dict(Counter(v.verdict for v in mapping.verdicts)),
            "operations": [v.to_dict() for v in mapping.verdicts],
        },
        "largest_layers": _largest(mapping),
        "other_phase": _other_phase(mapping, program, profile),
        "placement": mapping.placement.to_dict(),
        "pipeline": _pipeline(mapping.network, activity),
        "latency": time.to_dict(),
        "energy": energy.to_dict(),
        "assumptions": [*ASSUMPTIONS, *_unchecked(mapping), *profile.assumptions],
        "unknown": list(profile.unknown),
    }


def _unchecked(mapping: ChipMapping) -> list[str]:
    """Limits that the profile does not state, and what that means."""
    names = ("words", "axons_in", "axons_out", "groups", "weight_bits", "payload_bits")
    absent = [name for name in names if getattr(mapping.limits, name) is None]
    if not absent:
        return []
    return [
        f"The profile states no limit of {', '.join(absent)}: nothing was checked there, and words follow the rule of "
        "another chip family."
    ]


def _balance(mapping: ChipMapping, activity: Activity) -> dict[str, Any]:
    """How unevenly the work lies (the busiest core over the mean), and what an even split would take and save."""
    synops = mapping.synapses.synops
    mean, busiest = float(synops.mean()), float(synops.max())
    even = balanced_split(mapping.network, mapping.limits, activity, EVEN, mapping.cores)
    done = core_synapses(mapping.network, even.pieces, even.cores, activity).synops
    return {
        "synops_busiest_core": busiest,
        "synops_mean_core": mean,
        "ratio": busiest / mean if mean else 0.0,
        "even": {
            "balance": EVEN,
            "cores": even.cores,
            "chips": max(1, -(-even.cores // mapping.limits.cores_per_chip)),
            "synops_busiest_core": float(done.max()),
        },
    }


def _largest(mapping: ChipMapping) -> list[dict[str, Any]]:
    held: dict[int, set[int]] = {}
    for core, population, *_ in mapping.pieces.tolist():
        held.setdefault(population, set()).add(core)
    order = sorted(held, key=lambda index: -mapping.network.populations[index].slots)[:_LARGEST]
    return [
        {
            "name": p.name,
            "kind": p.kind,
            "block": p.block,
            "neurons": p.slots,
            "shape": [p.channels, p.height, p.width],
            "cores": len(held[index]),
        }
        for index in order
        for p in [mapping.network.populations[index]]
    ]


def _other_phase(mapping: ChipMapping, program: Program, profile: Profile) -> dict[str, Any] | None:
    """The phase that was not mapped needs cores of its own, or the host, or turns."""
    other = next((name for name in program.phases if name != mapping.network.phase), None)
    if other is None:
        return None
    limits = core_limits(profile)
    network = populations(program, other)
    cores = split(network, limits).cores
    return {
        "phase": other,
        "neurons": network.slots,
        "cores": cores,
        "chips_alone": max(1, -(-cores // limits.cores_per_chip)),
        "chips_together": max(1, -(-(cores + mapping.cores) // limits.cores_per_chip)),
        "note": "runs at template updates only: on chips of its own, in turns with the other phase, or on the host",
    }


def _pipeline(network: Network, activity: Activity) -> dict[str, Any]:
    longest: dict[int, int] = {}
    for s in network.synapses:
        if s.form != "host" and network.populations[s.source].on_chip:
            longest[s.source] = max(longest.get(s.source, 0), s.delay)
    return {
        "depth_steps": network.depth,
        "longest_delay_steps": max(longest.values(), default=0),
        "delay_neurons": sum(network.populations[i].slots * steps for i, steps in longest.items()),
        "stream_messages_beyond_the_counts": activity.extra_relays,
    }
