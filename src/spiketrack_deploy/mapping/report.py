"""One phase on one target as one value, and as JSON: cores, limits, time and counts of a run.

This module decides what a mapping report must contain: cores, every breach with its fixes, verdicts, loads, placement,
the closed loop, the bill of a run, and what is not known. What a result of all phases costs is decided in ``whole``.
It must not print, nor know what a phase is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.frames import Run
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.pricing import Unpriced, bill
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.mapping.activity import ASSUMED_DENSITY, Activity, Density, assumed, measured
from spiketrack_deploy.mapping.closed_loop import ClosedLoop, Interleaved, closed_loop, interleaved
from spiketrack_deploy.mapping.cost import mapped_run, mean_value, unpriced_of
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.fit import balanced_split, map_program
from spiketrack_deploy.mapping.fixes import Turns, fixes, in_turns
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.placement import ROUNDS
from spiketrack_deploy.mapping.types import ChipMapping, Fix, Population, PopulationGraph
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, Way, populations_of
from spiketrack_deploy.program.types import Arrays, Program

_LARGEST = 12
EVEN = 2.0
"""The even split that every report compares with: no core above twice the mean."""

ASSUMPTIONS = (
    "An estimate: no neuromorphic hardware and no vendor compiler was used.",
    "What the vendor's axon map counts is not public: one entry per position and destination core is assumed.",
    "Time steps of a network are unrolled in space; one run is in flight, and a level waits for the one below it.",
    "Every occupied slot of every core is stepped in every elapsed step; whether a program runs without input is not "
    "published.",
    "Products of two live activations take one step a token.",
    "Where targets are interleaved, messages of shorter ways wait in the pipeline; whether the chip's delays reach "
    "that far is not known. Without delays, each waiting value needs one more relay neuron per step (delay_neurons).",
    "The routers of all chips are taken as one mesh; how a board connects its chips is not published.",
    "Synaptic operations of a layer are shared out over its cores in proportion to their synapses; spikes that cluster "
    "make the busiest core busier.",
    "Where a profile has a hop time, it is taken as the time that a message occupies a link: an upper bound.",
    "A core's memory holds synapses, neuron state and input axons together where the profile says how large they are; "
    "entries of the axon map are not counted in bytes.",
)

MERGED_ASSUMPTION = (
    "A neuron merged with a stream sends the sum beside its spike in one step, as solver neurons of the vendor's do; "
    "its longer program is priced as any."
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
class MappingReport:
    """One phase on one target: the mapping, and everything that was computed of it."""

    mapping: ChipMapping
    profile: Profile
    activity: Activity
    value_per_spike: float
    loop: ClosedLoop
    interleaved: Interleaved
    run: Run
    unpriced: tuple[Unpriced, ...]
    balance: Balance
    fixes: tuple[Fix, ...]
    in_turns: Turns | None

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
        merged = (MERGED_ASSUMPTION,) if any(p.keeps for p in self.mapping.network.populations) else ()
        return (*ASSUMPTIONS, *merged, *family.assumptions, *_unchecked(self.mapping), *self.profile.assumptions)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        mapping, profile = self.mapping, self.profile
        return {
            "phase": self.phase,
            "holds": mapping.holds,
            "host_operations": mapping.host_operations,
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
            "placement": mapping.placement.to_dict(),
            "pipeline": {**self.interleaved.to_dict(), **_pipeline(mapping.network, self.activity)},
            "closed_loop": self.loop.to_dict(),
            "run": self.bill(),
            "assumptions": list(self.assumptions),
            "unknown": list(profile.unknown),
        }

    def rerun(self, arrays: Arrays, layers: Sequence[LayerCounts]) -> Run:
        """Another run of the same phase on the same cores, from its own counts; its time is that of the mean run."""
        activity = measured(self.mapping.network, arrays, layers, self.activity.share)
        return mapped_run(self.mapping, activity, self.profile, self.loop, mean_value(layers))

    def bill(self) -> dict[str, Any]:
        """Counts, lines and sums of a run, nanojoules."""
        lines = [
            {"price": p.price, "name": PRICES[p.price][1], "count": p.count, "energy_nj": p.energy.to_dict()}
            for p in bill(self.run.counts, self.profile)
            if p.count
        ]
        return {
            "activity": self.activity.origin,
            "counts": self.run.counts,
            "lines": lines,
            "dynamic_nj": self.run.dynamic(self.profile).to_dict(),
            "structures_nj": {k: v.to_dict() for k, v in self.run.structures(self.profile).items()},
            "unpriced": [item.to_dict() for item in self.unpriced],
        }


def map_phase(
    program: Program,
    phase: str,
    target: Target,
    *,
    counts: Sequence[LayerCounts] | None = None,
    density: Density | None = None,
    rule: str | None = None,
    rounds: int = ROUNDS,
    balance: float | None = None,
    way: Way = DEFAULT_WAY,
) -> MappingReport:
    """Map, time and count one phase. See :func:`map_program`.

    ``counts``: mean counts of every operation per run of the phase; else ``density``, an assumed share of neurons that
    spike. Raises nothing where the network does not fit; InputError where both are given, UsageError where no layer
    reads a picture that the ``way`` leaves to a host.
    """
    if counts is not None and density is not None:
        raise InputError("counts of a run and an assumed spike density were both given; choose one.")
    network = populations_of(program, phase, way)
    if counts is not None:
        activity = measured(network, program.arrays, counts)
    else:
        activity = assumed(network, program.arrays, ASSUMED_DENSITY if density is None else density)
    options: dict[str, Any] = {"rule": rule, "rounds": rounds, "balance": balance}
    mapping = map_program(program, phase, target, network=network, activity=activity, **options)
    value = mean_value(counts or ())
    profile = target.profile
    loop = closed_loop(mapping, profile, value)
    run = mapped_run(mapping, activity, profile, loop, value)
    return MappingReport(
        mapping=mapping,
        profile=profile,
        activity=activity,
        value_per_spike=value,
        loop=loop,
        interleaved=interleaved(mapping, profile, loop, value),
        run=run,
        unpriced=tuple(unpriced_of(run, profile)),
        balance=_balance(mapping, activity),
        fixes=() if mapping.holds else fixes(mapping),
        in_turns=in_turns(mapping, mapping.chips_available or 1),
    )


def _unchecked(mapping: ChipMapping) -> list[str]:
    """Limits that the profile does not state, and what that means."""
    names = ("words", "axons_in", "axons_out", "groups", "weight_bits", "payload_bits")
    absent = [name for name in names if getattr(mapping.limits, name) is None]
    return [f"The profile states no limit of {', '.join(absent)}: nothing was checked there."] if absent else []


def _balance(mapping: ChipMapping, activity: Activity) -> Balance:
    synops = mapping.synapses.synops
    even = balanced_split(mapping.network, mapping.limits, activity, EVEN, mapping.cores)
    memory = SynapseMemory.of(mapping.limits)
    done = core_synapses(mapping.network, even.pieces, even.cores, activity, memory).synops
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


def _pipeline(network: PopulationGraph, activity: Activity) -> dict[str, Any]:
    longest: dict[int, int] = {}
    for s in network.synapses:
        if s.form != "host" and network.populations[s.source].on_chip:
            longest[s.source] = max(longest.get(s.source, 0), s.delay)
    return {
        "levels": network.depth,
        "longest_delay_steps": max(longest.values(), default=0),
        "delay_neurons": sum(network.populations[i].slots * steps for i, steps in longest.items()),
        "stream_messages_beyond_the_counts": activity.extra_relays,
    }
