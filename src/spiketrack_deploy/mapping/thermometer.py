"""Neurons of four levels as four hard-coded LIF each: what that takes, and which operations then need no program.

This module decides what becomes of populations, synapses and activity. It must not know prices, nor when a LIF is exact
(``program.lif``: the rule by which the Lava Processes are chosen).

A spike of value n is n of four binary spikes: a connection has four times the sources where it reads such neurons, and
four copies where it ends in them, so sixteen times the synapses between two of them. A stream is still summed by
accumulators, which are programs. It is a sum, so whoever reads it can sum what it consists of instead: then the
connections in front of it are there once for every reader, and a level less has to be waited for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spiketrack_deploy.energy.frames import ResultCost, Run, result_cost
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.activity import Activity
from spiketrack_deploy.mapping.closed_loop import VALUE_PER_SPIKE, closed_loop
from spiketrack_deploy.mapping.cost import mapped_run
from spiketrack_deploy.mapping.fit import lay_out
from spiketrack_deploy.mapping.populations import with_levels
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.mapping.types import ChipMapping, IntArray, PopulationGraph, Synapses, Verdict
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.lif import levels_defect
from spiketrack_deploy.program.types import Phase, Program

OWN, LIF, SUMS = "own neurons", "four LIF", "four LIF, streams as sums"
SUMMABLE = ("add", "conv", "image_conv", "head_out", "avg_pool", "upsample")
"""Operations that a reader's own synapses can do as well: linear, without rounding."""
STREAM = "accumulator neurons that pass a signed sum on as a graded message"
_FIGURE = re.compile(r"\d+")
_ROUNDS = 10
"""Of the placement: hops are a small part of what a form costs."""


@dataclass(frozen=True)
class Form:
    """One way to hold a phase. ``needs``: what still needs a program or a host, and why. ``cost``: of a steady result,
    with ``chips`` beside those of the other phases."""

    name: str
    mapping: ChipMapping
    activity: Activity
    needs: tuple[Verdict, ...]
    chips: int
    cost: ResultCost

    @property
    def programmed(self) -> int:
        """Neurons that run a program."""
        pairs = zip(self.mapping.network.populations, self.mapping.programmed)
        return sum(p.slots for p, programmed in pairs if p.on_chip and programmed)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        mapping = self.mapping
        return {
            "name": self.name,
            "neurons": sum(mapping.network.slots.values()),
            "programmed": self.programmed,
            "synapses": int(mapping.synapses.nonzero.sum()),
            "synaptic_words": int(mapping.loads.words.sum()),
            "cores": mapping.cores,
            "chips": self.chips,
            "levels": mapping.network.depth,
            "holds": mapping.holds,
            "cost": self.cost.to_dict(),
            "native": len(mapping.verdicts) - len(self.needs),
            "needs": [v.to_dict() for v in self.needs],
            "reasons": reasons(self.needs),
        }


@dataclass(frozen=True, slots=True)
class _Wiring:
    """A network with the activity of every bundle of synapses."""

    network: PopulationGraph
    activity: Activity


@dataclass(frozen=True, slots=True)
class _Values:
    """Mean value of a spike: what an operation reads, by visit and by message; what it emits; ``otherwise`` where
    nothing was counted."""

    visits: Mapping[str, float]
    messages: Mapping[str, float]
    emitted: Mapping[str, float]
    otherwise: float = VALUE_PER_SPIKE

    @classmethod
    def of(cls, layers: Sequence[LayerCounts]) -> _Values:
        """Of counts."""

        def over(above: str, below: str) -> dict[str, float]:
            return {x.name: x[above] / x[below] for x in layers if x[below] and x[above]}

        return cls(over("unit_ops", "synops"), over("input_sum", "events"), over("output_sum", "neuron_spiking"))


def forms(
    program: Program, report: MappingReport, layers: Sequence[LayerCounts], steady: ResultCost, others: Sequence[Run],
    beside: int,
) -> tuple[Form, ...]:  # fmt: skip
    """The phase as it is, with LIF where they are exact, and with streams as sums too; empty where no neuron has
    several levels without being a membrane of several steps. ``layers``: counts of a run, where there are any;
    ``steady``: a result as it is, which takes ``others`` beside this phase, on ``beside`` further chips. Mapped
    afresh: cores, work and time are counted, nothing is scaled."""
    phase = program.phases[report.phase]
    defects = _defects(program, phase, report.mapping.network)
    levels = {
        op.name: program.arrays[op.arrays["thresholds"]].shape[1]
        for op in phase.ops
        if op.name in defects and defects[op.name] is None
    }
    if not levels:
        return ()
    own = _Wiring(report.mapping.network, report.activity)
    values = _Values.of(layers if report.activity.measured else ())
    if report.profile.substeps > 1 and any(defects.values()):
        values = _Values({}, {}, {}, 1.0)  # the run counts every spike as so many events, those of four LIF too
    wirings = [(LIF, _thermometer(own, levels, values))]
    if (sums := _summed(own, phase)) is not None:
        wirings.append((SUMS, _thermometer(sums, levels, values)))
    found = [Form(OWN, report.mapping, report.activity, _needs(report.mapping, phase), steady.chips, steady)]
    for name, wiring in wirings:
        found.append(_form(name, wiring, program, phase, report, steady, others, beside, levels, defects))
    return tuple(found)


def _defects(program: Program, phase: Phase, network: PopulationGraph) -> dict[str, str | None]:
    """Neurons of several levels -> why they are not LIF."""
    entries = {entry.op: entry for entry in prove_ranges(program)[phase.name]}
    kinds = {op.name: op.kind for op in phase.ops}
    inside = {p.op: "its neurons sum a stream that others read too" for p in network.populations if p.keeps}
    for s in network.synapses:
        if s.form == "product":
            inside[network.populations[s.target].op] = "its neurons multiply two live activations"
        if s.transposed:
            inside[network.populations[s.source].op] = "a gate reads its map row by row"
    found, here = {}, {p.op for p in network.populations if p.kind == "neurons"}
    for op in phase.ops:
        if op.kind == "ni_lif" and op.name in here:
            rounds = "it rounds its input first" if kinds.get(op.inputs[0]) == "requantise" else None
            defect = levels_defect(op, program.op_arrays(op), phase, entries.get(op.inputs[0]))
            found[op.name] = defect or inside.get(op.name) or rounds
    return found


def _form(
    name: str, wiring: _Wiring, program: Program, phase: Phase, report: MappingReport, steady: ResultCost,
    others: Sequence[Run], beside: int, levels: Mapping[str, int], defects: Mapping[str, str | None],
) -> Form:  # fmt: skip
    exact = "one LIF without memory a level, whose spikes add up: the same integers"
    judged = tuple(
        replace(v, verdict="native", reason=exact) if v.op in levels
        else replace(v, reason=f"no LIF alone: {defects[v.op]}") if defects.get(v.op) else v
        for v in report.mapping.verdicts
    )  # fmt: skip
    profile = _binary(report.profile) if all(d is None for d in defects.values()) else report.profile
    value = 1.0 if profile is not report.profile else report.value_per_spike
    mapping = lay_out(
        wiring.network, wiring.activity, judged, Target(report.mapping.target, profile), program.width,
        rule=report.mapping.rule, rounds=_ROUNDS,
    )  # fmt: skip
    run = mapped_run(mapping, wiring.activity, profile, closed_loop(mapping, profile, value), value)
    chips = mapping.chips + beside
    cost = result_cost(steady.kind, [run, *others], profile, max(mapping.chips_available or 0, chips), steady.period_s)
    return Form(name, mapping, wiring.activity, _needs(mapping, phase), chips, cost)


def _binary(profile: Profile) -> Profile:
    """A chip of binary spikes takes one step where every spike is binary."""
    limits = {name: limit for name, limit in profile.limits.items() if name != "substeps"}
    return profile if len(limits) == len(profile.limits) else profile.model_copy(update={"limits": limits})


def _needs(mapping: ChipMapping, phase: Phase) -> tuple[Verdict, ...]:
    """What still needs a program or a host. A sum needs one where it has neurons of its own."""
    relays = {p.op for p in mapping.network.populations if p.kind == "relay"}
    left = set(phase.outputs.values())
    found = []
    for v in mapping.verdicts:
        if v.op in relays and v.verdict == "native":
            words = "its sum is read out, and a LIF has no port for its membrane" if v.op in left else STREAM
            found.append(replace(v, verdict="microcode", reason=words))
        elif v.verdict != "native" and (v.op in relays or v.kind not in SUMMABLE):
            found.append(v)
    return tuple(found)


def _thermometer(wiring: _Wiring, levels: Mapping[str, int], values: _Values) -> _Wiring:
    """Populations of ``levels`` (operation -> LIF a neuron) with so many times the channels, next to each other."""
    network, activity = wiring.network, wiring.activity
    times = [levels.get(p.op, 1) if p.kind == "neurons" else 1 for p in network.populations]
    populations = tuple(replace(p, channels=p.channels * k) for p, k in zip(network.populations, times))
    rate, synops, share = activity.rate.copy(), activity.synops.copy(), []
    for index, s in enumerate(network.synapses):
        sources, copies = times[s.source], times[s.target]
        if sources > 1:
            rate[index] = min(1.0, rate[index] * values.messages.get(s.op, values.otherwise) / sources)
        if s.form != "product":  # the spikes of a neuron arrive together: one product, as before
            synops[index] *= copies * (values.visits.get(s.op, values.otherwise) if sources > 1 else 1.0)
        fan_in: IntArray = np.repeat(activity.share[index], copies, axis=0) * sources
        share.append(fan_in)
    spiking = {
        op: count * (values.emitted.get(op, values.otherwise) if op in levels else 1.0)
        for op, count in activity.spiking.items()
    }
    changed = replace(activity, rate=rate, synops=synops, share=tuple(share), spiking=spiking)
    return _Wiring(replace(network, populations=populations), changed)


def _summed(wiring: _Wiring, phase: Phase) -> _Wiring | None:
    """Streams that only neurons and other sums read are gone: what they consist of goes to each reader. ``None`` where
    there is no such stream, or where something comes back from the step before."""
    network, activity = wiring.network, wiring.activity
    if any(s.target <= s.source for s in network.synapses):
        return None
    kinds, left = {op.name: op.kind for op in phase.ops}, set(phase.outputs.values())
    bundles: list[tuple[int, Synapses]] = list(enumerate(network.synapses))
    gone = set()
    for index, p in enumerate(network.populations):
        into = [(i, s) for i, s in bundles if s.target == index]
        outof = [s for _, s in bundles if s.source == index]
        linear = p.kind == "relay" and kinds.get(p.op) in SUMMABLE and p.op not in left
        if not (linear and outof and all(_plain(s, network) for s in outof)):
            continue
        gone.add(index)
        moved = [(i, replace(s, target=to.target)) for to in outof for i, s in into]
        bundles = [(i, s) for i, s in bundles if index not in (s.source, s.target)] + moved
    if not gone:
        return None
    at = {old: new for new, old in enumerate(i for i in range(len(network.populations)) if i not in gone)}
    bundles.sort(key=lambda one: one[1].target)
    kept = [p for i, p in enumerate(network.populations) if i in at]
    names = {i: network.populations[i].name for i in at}
    synapses = [
        replace(s, source=at[s.source], target=at[s.target], name=f"{names[s.source]} -> {names[s.target]}")
        for _, s in bundles
    ]
    order = np.array([i for i, _ in bundles])
    shares = tuple(activity.share[i] for i in order.tolist())
    changed = replace(activity, rate=activity.rate[order], synops=activity.synops[order], share=shares)
    return _Wiring(with_levels(network.phase, kept, synapses), changed)


def _plain(s: Synapses, network: PopulationGraph) -> bool:
    """Whether a reader takes the stream as it is, one to one."""
    return s.form == "identity" and s.bits == 1 and network.populations[s.target].kind in ("neurons", "relay")


def reasons(needs: Sequence[Verdict]) -> list[tuple[str, str, str, int]]:
    """Verdict, kind, reason and number of operations; reasons that differ in a figure are one, with its largest."""
    found: dict[tuple[str, ...], list[str]] = {}
    for v in needs:
        found.setdefault((v.verdict, v.kind, _FIGURE.sub("", v.reason)), []).append(v.reason)

    def largest(reason: str) -> int:
        return max((int(n) for n in _FIGURE.findall(reason)), default=0)

    return [(verdict, kind, max(all_, key=largest), len(all_)) for (verdict, kind, _), all_ in sorted(found.items())]
