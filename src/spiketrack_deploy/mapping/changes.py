"""What would change the total of a result, each change computed: fewer steps, smaller crop, fewer slots, more targets.

This module decides which changes are tried and what of a run each scales. It must not know prices. A change alters the
structure alone: what it does to the network's accuracy is not known here. A changed network is split again; its
synaptic work is scaled from the counts of this one, because nobody ran the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spiketrack_deploy.energy.frames import ResultCost, Run, result_cost
from spiketrack_deploy.mapping.closed_loop import ENDS, CoreWork, barrier, core_times, longest, slots_per_core
from spiketrack_deploy.mapping.fixes import fewer_channels, smaller_crop
from spiketrack_deploy.mapping.loads import core_synapses
from spiketrack_deploy.mapping.memory import SynapseMemory
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.mapping.split import RULES, split
from spiketrack_deploy.mapping.types import PopulationGraph
from spiketrack_deploy.units import ZERO, Interval, total

SYNAPTIC = ("synops", "macs", "relay_synops", "synaptic_words", "unit_ops")
SENT = ("messages", "unit_messages", "relay_messages", "hops_ew", "hops_ns", "active_updates", "chip_crossings")
STEPPED = ("slot_steps_native", "slot_steps_microcode", "idle_updates", "relay_updates")


@dataclass(frozen=True, slots=True)
class Change:
    """``what`` in words, cores and chips, and the cost of a steady result with it. ``alone``: of one target that has
    the chips to itself and pays for its image, as the result that is changed."""

    what: str
    cores: int
    chips: int
    cost: ResultCost
    alone: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {"change": self.what, "cores": self.cores, "chips": self.chips, "cost": self.cost.to_dict()}


@dataclass(frozen=True, slots=True)
class _Scenario:
    """A changed run: steps of every level, work of its busiest core over all of them (``[levels]``), slots of the
    fullest core, all slots relative to before, factors of synaptic work and of messages."""

    steps: tuple[float, ...]
    synops: tuple[float, ...]
    words: tuple[float, ...]
    fullest: float
    slots: float
    synaptic: float
    sent: float
    cores: int


def changes(report: MappingReport, beside: int, steady: ResultCost) -> tuple[Change, ...]:
    """``beside``: chips of other phases. Cores and slots of a changed network are counted, its work is scaled."""
    base = _base(report)
    found = [_changed(report, beside, steady, "half as many levels", _fewer_steps(base, 0.5))]
    if max(base.steps) > 1:
        serial = replace(base, steps=(1.0,) * len(base.steps))
        found.append(_changed(report, beside, steady, "products of live activations in one step each", serial))
    for factor in (0.75, 0.5):
        crop = _resized(report, base, smaller_crop(report.mapping.network, factor), factor**2, factor**2)
        found.append(_changed(report, beside, steady, f"crop side x {factor:g}", crop))
        slim = _resized(report, base, fewer_channels(report.mapping.network, factor), factor**2, factor)
        found.append(_changed(report, beside, steady, f"channels x {factor:g} (fewer slots)", slim))
    hard = _hard_coded(report, steady)
    return (*found, *([hard] if hard else []), _other_rule(report, base, beside, steady), _targets(report, steady))


def _base(report: MappingReport) -> _Scenario:
    levels = report.loop.levels
    return _Scenario(
        steps=tuple(float(level.steps) for level in levels),
        synops=tuple(level.synops for level in levels),
        words=tuple(level.words for level in levels),
        fullest=float(report.mapping.loads.neurons.max()),
        slots=1.0,
        synaptic=1.0,
        sent=1.0,
        cores=report.mapping.cores,
    )


def _fewer_steps(base: _Scenario, factor: float) -> _Scenario:
    return replace(base, steps=tuple(steps * factor for steps in base.steps))


def _resized(
    report: MappingReport, base: _Scenario, network: PopulationGraph, synaptic: float, sent: float
) -> _Scenario:
    """Split again; a product's tokens are the positions of the changed network."""
    mapping = report.mapping
    parts = split(network, mapping.limits, mapping.rule)
    return replace(
        base,
        steps=_steps(report, network),
        synops=tuple(x * synaptic for x in base.synops),
        words=tuple(x * synaptic for x in base.words),
        fullest=float(parts.neurons.max()),
        slots=sum(network.slots.values()) / sum(mapping.network.slots.values()),
        synaptic=synaptic,
        sent=sent,
        cores=parts.cores,
    )


def _steps(report: MappingReport, network: PopulationGraph) -> tuple[float, ...]:
    """Elapsed steps of every level; a product of live activations takes one for each token."""
    steps = np.ones(network.depth + 1)
    for s in network.synapses:
        source = network.populations[s.source]
        if s.form == "product" and source.kind != "memory":
            level = network.level[s.target]
            steps[level] = max(steps[level], source.height * source.width)
    return tuple((steps[1:] * report.profile.substeps).tolist())


def _changed(report: MappingReport, beside: int, steady: ResultCost, what: str, to: _Scenario) -> Change:
    mapping, base = report.mapping, _base(report)
    chips = mapping.limits.chips_for(to.cores)
    elapsed = sum(to.steps) / sum(base.steps)
    factors = dict.fromkeys(SYNAPTIC, to.synaptic) | dict.fromkeys(SENT, to.sent)
    factors |= dict.fromkeys(STEPPED, to.slots * elapsed) | {"barriers": elapsed}
    # Relative to the same model of the run as it is, so that what this leaves out (links) cancels.
    time = _in_proportion(report.loop.latency, _time(report, to, chips), _time(report, base, mapping.chips))
    factors["chip_steps"] = elapsed * chips / mapping.chips
    before = report.loop.latency.nominal
    factors["chip_ns"] = (time.nominal / before if before else 1.0) * chips / mapping.chips
    run = _scaled(report.run, factors, time)
    every = chips + beside
    return Change(what, to.cores, every, _cost(report, run, every, steady))


def _cost(report: MappingReport, run: Run, chips: int, steady: ResultCost) -> ResultCost:
    powered = max(report.mapping.chips_available or 0, chips)
    return result_cost(steady.kind, [run], report.profile, powered, steady.period_s)


def _in_proportion(time: Interval, one: Interval, other: Interval) -> Interval:
    """``time`` times ``one / other``, end by end, in order again."""
    triples = ((getattr(x, end) for x in (time, one, other)) for end in ENDS)
    ends = [whole * part / of if of else whole for whole, part, of in triples]
    return Interval(min(ends), ends[1], max(ends))


def _time(report: MappingReport, to: _Scenario, chips: int) -> Interval:
    native, microcode = slots_per_core(report.mapping)
    programmed = float(microcode.sum() / max(native.sum() + microcode.sum(), 1.0))
    each = []
    for steps, synops, words in zip(to.steps, to.synops, to.words):
        work = CoreWork.of(
            synops=synops / steps,
            words=words / steps,
            native=to.fullest * (1 - programmed),
            microcode=to.fullest * programmed,
        )
        step = longest(core_times(work, report.profile).values()) + (barrier(report.profile, chips) or ZERO)
        each.append(step * steps)
    return total(each)


def _scaled(run: Run, factors: Mapping[str, float], time: Interval) -> Run:
    def by(counts: Mapping[str, float]) -> dict[str, float]:
        return {name: count * factors.get(name, 1.0) for name, count in counts.items()}

    operations = {op: by(counts) for op, counts in run.operations.items()}
    return replace(run, operations=operations, whole=by(run.whole), time=time)


def _hard_coded(report: MappingReport, steady: ResultCost) -> Change | None:
    """The same slots as hard-coded neurons, where both kinds have prices and some are programmed."""
    profile, mapping, base = report.profile, report.mapping, _base(report)
    prices = [profile.price(name) for name in ("t_slot_native", "slot_native", "slot_microcode")]
    if not report.run.counts.get("slot_steps_microcode") or None in prices:
        return None
    times = []
    for steps, synops, words in zip(base.steps, base.synops, base.words):
        work = CoreWork.of(synops=synops / steps, words=words / steps, native=base.fullest)
        floor = barrier(profile, mapping.chips) or ZERO
        times.append((longest(core_times(work, profile).values()) + floor) * steps)
    operations = {
        op: {
            **counts,
            "slot_steps_native": counts.get("slot_steps_native", 0.0) + counts.get("slot_steps_microcode", 0.0),
            "slot_steps_microcode": 0.0,
        }
        for op, counts in report.run.operations.items()
    }
    time = total(times)
    whole = {**report.run.whole, "chip_ns": mapping.chips * time.nominal * 1e9}
    run = replace(report.run, operations=operations, whole=whole, time=time)
    return Change("all neurons hard-coded instead of programmed", mapping.cores, steady.chips,
                  result_cost(steady.kind, [run], profile, steady.chips, steady.period_s))  # fmt: skip


def _other_rule(report: MappingReport, base: _Scenario, beside: int, steady: ResultCost) -> Change:
    """The same network split by the other rule: its busiest cores are counted."""
    mapping = report.mapping
    rule = next(rule for rule in RULES if rule != mapping.rule)
    parts = split(mapping.network, mapping.limits, rule)
    memory = SynapseMemory.of(mapping.limits)
    done = core_synapses(mapping.network, parts.pieces, parts.cores, report.activity, memory)
    other = replace(
        base,
        synops=tuple(done.by_level[1:].max(axis=1).tolist()),
        words=tuple(done.words[1:].max(axis=1).tolist()),
        fullest=float(parts.neurons.max()),
        cores=parts.cores,
    )
    return _changed(report, beside, steady, f"split by the rule {rule}", other)


def _targets(report: MappingReport, steady: ResultCost) -> Change:
    """As many independent targets as fill the pipeline: what each costs at the rate that the chips then reach."""
    pipe, loop = report.interleaved, report.loop
    factors = dict.fromkeys((*STEPPED, "chip_steps", "barriers"), pipe.interval / loop.steps)
    factors["chip_ns"] = pipe.period.nominal / loop.latency.nominal if loop.latency.nominal else 1.0
    run = replace(_scaled(report.run, factors, pipe.period), entering=0.0)
    cost = result_cost(steady.kind, [run], report.profile, steady.chips, 0.0)
    what = f"{pipe.targets} targets interleaved, each (without the images' way)"
    return Change(what, report.mapping.cores, steady.chips, cost, alone=False)
