"""The answer to "does it fit, how fast, what dominates" as one value, and as JSON.

This module decides what a mapping report must contain: chips and cores, every breach with its fixes, verdicts, loads,
placement, times, energies with static power as a line of its own, and what is not known. It must not print, nor know
what a phase is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.activity import ASSUMED_DENSITY, Activity, assumed, measured
from spiketrack_deploy.mapping.cost import MappedEnergy, mapped_energy
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.fit import balanced_split, map_program
from spiketrack_deploy.mapping.fixes import Turns, fixes, in_turns
from spiketrack_deploy.mapping.latency import VALUE_PER_SPIKE, Latency, latency
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.placement import ROUNDS
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.split import split
from spiketrack_deploy.mapping.types import ChipMapping, Fix, Population, PopulationGraph
from spiketrack_deploy.program.types import Program

SCHEMA = "spiketrack-mapping/2"
_LARGEST = 12
EVEN = 2.0
"""The even split that every report compares with: no core above twice the mean."""

ASSUMPTIONS = (
    "An estimate: no neuromorphic hardware and no vendor compiler was used.",
    "What the vendor's axon map counts is not public: one entry per position and destination core is assumed.",
    "Time steps of a network are unrolled in space; one frame enters per step.",
    "Messages of shorter ways wait in the pipeline; whether the chip's delays reach that far is not known. Without "
    "delays, each waiting value needs one more relay neuron per step (pipeline.delay_neurons).",
    "The routers of all chips are taken as one mesh; how a board connects its chips is not published.",
    "Synaptic operations of a layer are shared out over its cores in proportion to their synapses; spikes that cluster "
    "make the busiest core busier.",
    "Where a profile has a hop time, it is taken as the time that a message occupies a link: an upper bound.",
    "Neuron state is not counted in bytes: how many a graded neuron program needs is not known.",
)


@dataclass(frozen=True, slots=True)
class Balance:
    """How unevenly the work lies, in synaptic operations of a core and run, and what an even split would take."""

    busiest: float
    mean: float
    even_cores: int
    even_chips: int
    even_busiest: float

    @property
    def ratio(self) -> float:
        """The busiest core over the mean."""
        return self.busiest / self.mean if self.mean else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "synops_busiest_core": self.busiest,
            "synops_mean_core": self.mean,
            "ratio": self.ratio,
            "even": {
                "balance": EVEN,
                "cores": self.even_cores,
                "chips": self.even_chips,
                "synops_busiest_core": self.even_busiest,
            },
        }


@dataclass(frozen=True, slots=True)
class OtherPhase:
    """A phase that was not mapped needs cores of its own. ``neurons``: by kind; ``chips_together``: with the mapped
    one."""

    phase: str
    neurons: dict[str, int]
    cores: int
    chips_alone: int
    chips_together: int
    note: str = "on chips of its own, in turns with the mapped phase, or on the host"

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MappingReport:
    """One phase on one target: the mapping, and everything that was computed of it."""

    mapping: ChipMapping
    profile: Profile
    activity: Activity
    time: Latency
    energy: MappedEnergy
    balance: Balance
    fixes: tuple[Fix, ...]
    in_turns: Turns | None
    other_phases: tuple[OtherPhase, ...]

    @property
    def phase(self) -> str:
        """The phase that was mapped."""
        return self.mapping.network.phase

    @property
    def verdicts(self) -> dict[str, int]:
        """Verdict -> operations."""
        return dict(Counter(v.verdict for v in self.mapping.verdicts))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the reader must know beside the numbers."""
        family = FAMILIES[self.mapping.limits.family]
        return (*ASSUMPTIONS, *family.assumptions, *_unchecked(self.mapping), *self.profile.assumptions)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        mapping, profile = self.mapping, self.profile
        return {
            "schema": SCHEMA,
            "target": mapping.target,
            "profile": {"name": profile.name, "title": profile.title, "sha256": profile.digest},
            "phase": self.phase,
            "fits": mapping.fits,
            "cores": mapping.cores,
            "chips": mapping.chips,
            "chips_available": mapping.chips_available,
            "limits": mapping.limits.to_dict(),
            "neurons": mapping.network.slots,
            "synapses": int(mapping.synapses.nonzero.sum()),
            "synaptic_words": int(mapping.loads.words.sum()),
            "loads": mapping.loads.to_dict(),
            "balance": self.balance.to_dict(),
            "breaches": [breach.to_dict() for breach in mapping.breaches],
            "fixes": [fix.to_dict() for fix in self.fixes],
            "in_turns": self.in_turns.to_dict() if self.in_turns else None,
            "verdicts": {"count": self.verdicts, "operations": [v.to_dict() for v in mapping.verdicts]},
            "largest_layers": _largest(mapping),
            "other_phases": [other.to_dict() for other in self.other_phases],
            "placement": mapping.placement.to_dict(),
            "pipeline": _pipeline(mapping.network, self.activity),
            "latency": self.time.to_dict(),
            "energy": self.energy.to_dict(),
            "assumptions": list(self.assumptions),
            "unknown": list(profile.unknown),
        }


def map_phase(
    program: Program,
    phase: str,
    target: Target,
    *,
    counts: Sequence[LayerCounts] | None = None,
    density: float | None = None,
    rule: str | None = None,
    rounds: int = ROUNDS,
    balance: float | None = None,
) -> MappingReport:
    """Map, time and price one phase; the cores of every other phase are stated beside it. See :func:`map_program`.

    ``counts``: mean counts of every operation per run of the phase; else ``density``, an assumed share of neurons that
    spike. Raises nothing where the network does not fit; InputError where both are given.
    """
    if counts is not None and density is not None:
        raise InputError("counts of a run and an assumed spike density were both given; choose one.")
    network = populations(program, phase)
    if counts is not None:
        activity = measured(network, program.arrays, counts)
    else:
        activity = assumed(network, program.arrays, ASSUMED_DENSITY if density is None else density)
    mapping = map_program(program, phase, target, activity=activity, rule=rule, rounds=rounds, balance=balance)
    value = _mean_value(counts or ())
    time = latency(mapping, target.profile, value)
    return MappingReport(
        mapping=mapping,
        profile=target.profile,
        activity=activity,
        time=time,
        energy=mapped_energy(mapping, activity, target.profile, time, value),
        balance=_balance(mapping, activity),
        fixes=() if mapping.fits else fixes(mapping),
        in_turns=in_turns(mapping, mapping.chips_available or 1),
        other_phases=tuple(_other(mapping, program, name) for name in program.phases if name != phase),
    )


def _mean_value(layers: Sequence[LayerCounts]) -> float:
    """Mean value of a spike, over synaptic operations; an assumed one where nothing was counted."""
    synops = sum(layer["synops"] for layer in layers)
    return sum(layer["unit_ops"] for layer in layers) / synops if synops else VALUE_PER_SPIKE


def _unchecked(mapping: ChipMapping) -> list[str]:
    """Limits that the profile does not state, and what that means."""
    names = ("words", "axons_in", "axons_out", "groups", "weight_bits", "payload_bits")
    absent = [name for name in names if getattr(mapping.limits, name) is None]
    return [f"The profile states no limit of {', '.join(absent)}: nothing was checked there."] if absent else []


def _balance(mapping: ChipMapping, activity: Activity) -> Balance:
    synops = mapping.synapses.synops
    even = balanced_split(mapping.network, mapping.limits, activity, EVEN, mapping.cores)
    done = core_synapses(mapping.network, even.pieces, even.cores, activity).synops
    chips = mapping.limits.chips_for(even.cores)
    return Balance(float(synops.max()), float(synops.mean()), even.cores, chips, float(done.max()))


def _largest(mapping: ChipMapping) -> list[dict[str, Any]]:
    held: dict[int, set[int]] = {}
    for core, population, *_ in mapping.pieces.tolist():
        held.setdefault(population, set()).add(core)
    order = sorted(held, key=lambda index: -mapping.network.populations[index].slots)[:_LARGEST]
    return [_layer(mapping.network.populations[index], len(held[index])) for index in order]


def _layer(p: Population, cores: int) -> dict[str, Any]:
    return {
        "name": p.name,
        "kind": p.kind,
        "block": p.block,
        "neurons": p.slots,
        "shape": [p.channels, p.height, p.width],
        "cores": cores,
    }


def _other(mapping: ChipMapping, program: Program, phase: str) -> OtherPhase:
    limits = mapping.limits
    network = populations(program, phase)
    cores = split(network, limits).cores
    together = limits.chips_for(cores + mapping.cores)
    return OtherPhase(phase, network.slots, cores, limits.chips_for(cores), together)


def _pipeline(network: PopulationGraph, activity: Activity) -> dict[str, Any]:
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
