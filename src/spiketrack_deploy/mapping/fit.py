"""The whole mapping: split, traffic, placement, breaches, verdicts.

This module decides the order of the steps and what counts as exceeding a limit. It must not know prices.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.activity import Activity, assumed
from spiketrack_deploy.mapping.entry import by_host, outside
from spiketrack_deploy.mapping.families import FAMILIES
from spiketrack_deploy.mapping.limits import core_limits
from spiketrack_deploy.mapping.loads import core_synapses, row_work
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.placement import ROUNDS, place
from spiketrack_deploy.mapping.populations import populations
from spiketrack_deploy.mapping.split import Split, Work, split
from spiketrack_deploy.mapping.traffic import traffic
from spiketrack_deploy.mapping.types import (
    Breach,
    ChipMapping,
    CoreLimits,
    CoreLoads,
    IntArray,
    PopulationGraph,
    Verdict,
)
from spiketrack_deploy.mapping.verdicts import verdicts
from spiketrack_deploy.program.types import DECAY_BITS, Program

_REMEDIES = {
    "neurons": "one row of one channel is wider than a core: use a smaller crop",
    "words": "one channel's kernel does not fit: fewer input channels or fewer weight bits",
    "axons_in": "one row reads too many positions: a smaller crop or a smaller kernel",
    "groups": "fewer populations in a core",
    "memory": "synapses, states and axons of one row exceed a core together: a smaller crop or fewer channels",
}


def map_program(
    program: Program,
    phase: str,
    target: Target,
    *,
    network: PopulationGraph | None = None,
    activity: Activity | None = None,
    rule: str | None = None,
    rounds: int = ROUNDS,
    balance: float | None = None,
) -> ChipMapping:
    """Map one phase of ``program`` to the cores of a target: a board has so many chips, a chip as many as needed.

    ``network``: the phase's populations, some of which may be left to the host (default: all on the chips).
    ``activity``: weighs the traffic (default: an assumed spike density). ``rule``: see ``split`` (default: the chip
    family's). ``balance``: no core does more than so many times the mean work of
    the cores used without it, so that steps are shorter and cores more; at least 1.

    Does not raise where the network does not fit: the breaches say so. UsageError for a balance below 1
    or beside another rule, InputError for a phase without neurons, ProfileError for a profile without usable limits.
    """
    whole = populations(program, phase)
    network = network or whole
    activity = activity or assumed(network, program.arrays)
    found = by_host(verdicts(program.phases[phase], core_limits(target.profile)), outside(whole, network))
    return lay_out(network, activity, found, target, program.width, rule=rule, rounds=rounds, balance=balance)


def lay_out(
    network: PopulationGraph,
    activity: Activity,
    judged: tuple[Verdict, ...],
    target: Target,
    width: int,
    *,
    rule: str | None = None,
    rounds: int = ROUNDS,
    balance: float | None = None,
) -> ChipMapping:
    """:func:`map_program` of populations that are there. ``judged``: a verdict an operation; ``width``: signed bits of
    a stream."""
    profile = target.profile
    limits = core_limits(profile)
    rule = rule or FAMILIES[limits.family].split
    parts = split(network, limits, rule)
    if balance is not None and rule != "contiguous":
        raise UsageError(f"a balance goes with the contiguous rule only, not with {rule}; leave one of them out.")
    if balance is not None:
        parts = split(network, limits, rule, _work(network, activity, balance, parts.cores))
    if not parts.cores:
        raise InputError(f"the {network.phase} phase has no neuron to map.")
    flow, entries, copies = traffic(network, parts.pieces, parts.cores, activity.rate)
    chips = limits.chips_for(parts.cores)
    return ChipMapping(
        network=network,
        limits=limits,
        target=target.name,
        rule=rule,
        chips_available=profile.chips,
        pieces=parts.pieces,
        loads=CoreLoads(parts.neurons, parts.words, parts.axons_in, entries, parts.groups),
        synapses=core_synapses(network, parts.pieces, parts.cores, activity, SynapseMemory.of(limits)),
        traffic=flow,
        messages=copies * activity.rate,
        copies=copies,
        placement=place(flow, parts.cores, limits, chips, rounds),
        breaches=(
            *_core_breaches(network, parts, limits),
            *_axon_breaches(network, parts.pieces, entries, limits),
            *_capabilities(network, profile, limits, width),
            *chip_breach(network, chips, profile.chips, parts.cores, limits),
        ),
        verdicts=judged,
    )


def balanced_split(
    network: PopulationGraph, limits: CoreLimits, activity: Activity, balance: float, cores: int
) -> Split:
    """The split in which no core does more than ``balance`` times the mean work of ``cores`` cores."""
    return split(network, limits, "contiguous", _work(network, activity, balance, cores))


def _work(network: PopulationGraph, activity: Activity, balance: float, cores: int) -> Work:
    if not 1 <= balance < float("inf"):
        raise UsageError(f"the balance is {balance}, must be a finite number of at least 1.")
    rows = row_work(network, activity)
    return Work(rows, balance * sum(float(r.sum()) for r in rows) / max(cores, 1))


def _core_breaches(network: PopulationGraph, parts: Split, limits: CoreLimits) -> list[Breach]:
    """One breach per rule and population: the largest unit that no core holds."""
    worst: dict[tuple[str, int], Breach] = {}
    for o in parts.overflows:
        key = (o.rule, o.population)
        if key not in worst or o.used > worst[key].used:
            worst[key] = Breach(o.rule, network.populations[o.population].name, o.used, o.limit, _REMEDIES[o.rule])
    return list(worst.values())


def _axon_breaches(network: PopulationGraph, pieces: IntArray, entries: IntArray, limits: CoreLimits) -> list[Breach]:
    """Cores whose neurons reach too many positions of other cores: the worst core per population."""
    if limits.axons_out is None:
        return []
    found: dict[str, Breach] = {}
    for core in np.nonzero(entries > limits.axons_out)[0]:
        name = network.populations[int(pieces[pieces[:, 0] == core, 1][0])].name
        used = int(entries[core])
        if name not in found or used > found[name].used:
            remedy = "spread its readers over fewer cores (fewer channels), or fewer positions a core"
            found[name] = Breach("axons_out", name, used, limits.axons_out, remedy)
    return list(found.values())


def _capabilities(network: PopulationGraph, profile: Profile, limits: CoreLimits, width: int) -> list[Breach]:
    """What the chip cannot express at all; another way is named, so none of these is fatal. ``width``: signed bits of
    a stream."""
    found = []
    relays = [p for p in network.populations if p.kind == "relay" or p.keeps]
    if relays and limits.payload_bits is not None and limits.payload_bits < width:
        total = sum(p.slots for p in relays)
        remedy = f"{total} stream values a run go through the host, or bit by bit over {width} sub-steps"
        found.append(Breach("payload_bits", relays[0].name, width, limits.payload_bits, remedy, fatal=False))
    state = profile.limits.get("state_bits")
    if state is not None and state.value < width:
        remedy = f"coarser stream units (the range proof needs signed {width} bits)"
        found.append(Breach("state_bits", "every accumulator", width, state.value, remedy, fatal=False))
    decay = profile.limits.get("decay_bits")
    carried = next((p for p in network.populations if p.step), None)
    if carried is not None and decay is not None and decay.value < DECAY_BITS:
        remedy = "coarser decays: the network must be quantised again"
        found.append(Breach("decay_bits", carried.name, DECAY_BITS, decay.value, remedy, fatal=False))
    wide = [s for s in network.synapses if limits.weight_bits is not None and s.bits > limits.weight_bits]
    if wide:
        s = max(wide, key=lambda one: one.bits)
        limit = limits.weight_bits or 0
        remedy = f"chained from {-(-s.bits // limit)} synapses (their words are counted), or the matrix clipped"
        found.append(Breach("weight_bits", s.op, s.bits, limit, remedy, fatal=False))
    return found


def chip_breach(
    network: PopulationGraph, chips: int, available: int | None, cores: int, limits: CoreLimits
) -> list[Breach]:
    """More chips than the board has; names the largest layer."""
    if available is None or chips <= available:
        return []
    largest = max((p for p in network.populations if p.on_chip), key=lambda p: p.slots)
    remedy = f"{cores} cores need {chips} chips of {limits.cores_per_chip}; see the fixes"
    return [Breach("chips", f"whole network (largest layer {largest.name})", chips, available, remedy)]
