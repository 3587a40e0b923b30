"""The whole program on a target: every phase, who runs which, what results cost, and whether it fits.

This module decides what is said of a whole network: fit, chips, rate, total, and what would change it. It must not know
what a phase is for, nor any price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spiketrack_deploy.energy.frames import (
    CAMERA_PERIOD_S,
    STEADY,
    Placed,
    ResultCost,
    Run,
    result_cost,
)
from spiketrack_deploy.energy.layers import LayerCounts, main_phase, runs_per_result
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.activity import Density
from spiketrack_deploy.mapping.arrangements import HOST, OWN, SHARING, Arrangement, arrange, default
from spiketrack_deploy.mapping.changes import Change, changes
from spiketrack_deploy.mapping.entry import CHIP, without_first_layer
from spiketrack_deploy.mapping.entry import HOST as BY_HOST
from spiketrack_deploy.mapping.report import MappingReport, map_phase
from spiketrack_deploy.mapping.split import RULES, split
from spiketrack_deploy.mapping.thermometer import Form, forms
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, STREAMS_WORDS, Way
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.units import Interval, number_of, si_interval

SCHEMA = "spiketrack-mapping/3"
_OTHER_ROUNDS = 40


@dataclass(frozen=True)
class WholeNetwork:
    """A program on a target. ``phases``: every phase mapped; ``main``: the one that runs most often;
    ``arrangements``: all ways to share chips, ``chosen`` one of them; ``cores_by_rule``: phase -> rule -> cores;
    ``counts``: of a run of the main phase, empty where its activity is assumed; ``way``: how it was mapped;
    ``density``: what was assumed."""

    program: Program
    counts: Sequence[LayerCounts]
    target: Target
    main: str
    phases: Mapping[str, MappingReport]
    cores_by_rule: Mapping[str, Mapping[str, int]]
    arrangements: tuple[Arrangement, ...]
    chosen: Arrangement
    way: Way = DEFAULT_WAY
    density: Density | None = None

    @property
    def profile(self) -> Profile:
        """The target's."""
        return self.target.profile

    @property
    def report(self) -> MappingReport:
        """The main phase on its cores."""
        return self.phases[self.main]

    @property
    def cost(self) -> ResultCost:
        """The mean result of the chosen arrangement: the one number for total energy, latency and chips."""
        return self.chosen.mean

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What would change the total, computed."""
        others = [(words, replace(self.way, streams=streams)) for streams, words in STREAMS_WORDS.items()]
        afresh = [self._afresh(words, way) for words, way in others if way.on(self.profile) == way != self.way]
        if without_first_layer(self.report.mapping.network):
            by_host = replace(self.way, first_layer=BY_HOST)
            afresh.append(self._afresh("first layer on the host, its spikes enter", by_host))
        scaled = changes(self.report, self._beside, self.chosen.results[STEADY])
        return (*(change for change in afresh if change), *scaled)

    def _afresh(self, what: str, way: Way) -> Change | None:
        """The main phase mapped another way; ``None`` where that changes no slot."""
        before, steady = self.report.mapping, self.chosen.results[STEADY]
        known = self.counts or None
        options: dict[str, Any] = {
            "way": way,
            "rule": before.rule,
            "rounds": 1,
            "counts": known,
            "density": None if known else self.density,
        }
        report = map_phase(self.program, self.main, self.target, **options)
        mapping = report.mapping
        if mapping.network.slots == before.network.slots:
            return None
        chips = mapping.chips + self._beside
        powered = max(mapping.chips_available or 0, chips)
        cost = result_cost(steady.kind, [report.run], self.profile, powered, steady.period_s)
        return Change(f"{what} (the same integers)", mapping.cores, chips, cost)

    @cached_property
    def forms(self) -> tuple[Form, ...]:
        """The main phase's neurons as they are, and as hard-coded ones where that gives the same integers."""
        steady = self.chosen.results[STEADY]
        others = [self.phases[name].run for name in steady.phases if name != self.main]
        return forms(self.program, self.report, self.counts, steady, others, self._beside)

    @property
    def _beside(self) -> int:
        return self.chosen.chips - self.report.mapping.chips if self.chosen.sharing == OWN else 0

    @property
    def dominant(self) -> tuple[str, float]:
        """The largest nominal term of the total, and its share."""
        terms = dict[str, float]()
        for name in self.cost.phases:
            share = 1.0 if name == self.main else self._share
            for line in self.phases[name].bill()["lines"]:
                terms[line["name"]] = terms.get(line["name"], 0.0) + line["energy_nj"]["nominal"] * share
        cost = self.cost
        terms |= {
            name: part.nominal
            for name, part in (("static power", cost.static), ("static power while the image enters", cost.input))
            if part
        }
        top = max(terms, key=lambda name: terms[name], default="nothing is priced")
        return top, terms.get(top, 0.0) / cost.total.nominal if cost.total.nominal else 0.0

    @property
    def _share(self) -> float:
        update = self.chosen.results.get("update")
        steady = self.chosen.results[STEADY]
        if update is None or update.dynamic.nominal == steady.dynamic.nominal:
            return 0.0
        return (self.cost.dynamic.nominal - steady.dynamic.nominal) / (update.dynamic.nominal - steady.dynamic.nominal)

    @property
    def sentence(self) -> str:
        """Fit, cores and chips with their band, and what is assumed of the other phases."""
        chosen, mapping = self.chosen, self.report.mapping
        low, high = chosen.band
        board = f" of {mapping.chips_available}" if mapping.chips_available else ""
        others = "".join(f", with {words}" for words in (chosen.words, *self.way.words) if words)
        return (
            f"It {chosen.answer} {self.target.name}: {number_of(chosen.cores, 'core')} on {_chips(chosen.chips, board)}"
            f" [{low} .. {high}]{others}."
        )

    def camera(self) -> tuple[str, ...]:
        """Whether it keeps up with the frame period, in words: the chips alone, then with the image's way."""
        cost, rate = self.cost, f"{1 / self.cost.period_s:.3g} frames a second"
        if not cost.on_chip.high:
            return (f"At {rate}: not known, {self.profile.name} has no time for what happens.",)
        said = [f"At {rate} the chips alone: {_keeps(cost.on_chip, cost.period_s)}, {_seconds(cost.on_chip)} a frame."]
        if self.chosen.host_operations:
            said[0] += f" What the host takes for its {self.chosen.host_operations:,} operations is not in it."
        if self.report.loop.untimed:
            said[0] += f" Without a time: {', '.join(self.report.loop.untimed)}."
        if cost.image is None:
            return (*said, "The image's way into the chip has no time in this profile.")
        what = "way of the first layer's spikes" if self.way.by_host else "image's way"
        way = (
            f"The {what} into the chip: {_seconds(cost.image)} by the only published path; with it "
            f"{_keeps(cost.latency, cost.period_s)}, {_seconds(cost.latency)} a frame."
        )
        return (*said, way)

    @property
    def placed(self) -> Placed:
        """What an energy statement needs of it."""
        listed = [item for name, report in self.phases.items() if self._runs(name) for item in report.unpriced]
        return Placed(
            runs={name: report.run for name, report in self.phases.items()},
            sentence=self.sentence,
            camera=self.camera(),
            chips=self.chosen.chips,
            chips_band=self.chosen.band,
            results=self.chosen.results,
            mean=self.cost,
            way=self.way.to_dict(),
            unpriced=(*listed, *self.chosen.unpriced),
        )

    def _runs(self, phase: str) -> bool:
        return phase == self.main or self.chosen.sharing != HOST

    def result(self, kind: str, runs: Mapping[str, Run]) -> ResultCost:
        """One result of a kind, from the counts of its own runs (phase -> run)."""
        like = self.chosen.results[kind]
        taken = [run for name, run in runs.items() if self._runs(name)]
        return result_cost(kind, taken, self.profile, like.chips, like.period_s)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        profile, pipe = self.profile, self.report.interleaved
        dominant, share = self.dominant
        return {
            "schema": SCHEMA,
            "target": self.target.name,
            "profile": {"name": profile.name, "title": profile.title, "sha256": profile.digest},
            "main": self.main,
            "answer": self.chosen.answer,
            "fits": self.chosen.fits,
            "holds": self.chosen.holds,
            "sentence": self.sentence,
            "camera": list(self.camera()),
            "sharing": self.chosen.sharing,
            **self.way.to_dict(),
            "cost": self.cost.to_dict(),
            "dominant": {"name": dominant, "share": share},
            "chips": self.chosen.chips,
            "chips_band": list(self.chosen.band),
            "cores_by_rule": {name: dict(cores) for name, cores in self.cores_by_rule.items()},
            "arrangements": [one.to_dict() for one in self.arrangements],
            "interleaved": pipe.to_dict(),
            "changes": [change.to_dict() for change in self.changes],
            "forms": [form.to_dict() for form in self.forms],
        }


def _chips(number: int, board: str = "") -> str:
    return f"{number:,}{board} chip" + ("" if number == 1 else "s")


def _seconds(time: Interval) -> str:
    return si_interval(time, "s")


def _keeps(time: Interval, period_s: float) -> str:
    if time.high <= period_s:
        return "yes"
    if time.low > period_s:
        return "no"
    return "nominally yes, but not over the whole band" if time.nominal <= period_s else "nominally no"


def map_network(
    program: Program,
    target: Target,
    *,
    counts: Mapping[str, Sequence[LayerCounts]] | None = None,
    density: Density | None = None,
    rule: str | None = None,
    balance: float | None = None,
    sharing: str | None = None,
    rounds: int | None = None,
    period_s: float = CAMERA_PERIOD_S,
    way: Way = DEFAULT_WAY,
) -> WholeNetwork:
    """Map every phase and add up what results cost. ``counts``: phase -> mean counts of a run; phases without are
    mapped with an assumed spike density. ``sharing``: one of :data:`SHARING`; by default in turns where the other
    phases run at the start alone, else on chips of their own if the target has them. ``period_s``: time between two
    results, over which chips are powered. See ``report.map_phase`` for the rest.

    UsageError: another ``sharing``, or nothing reads a picture that the ``way`` leaves to a host.
    """
    way = way.on(target.profile)
    if sharing is not None and sharing not in SHARING:
        raise UsageError(f"there is no way {sharing!r} to share chips; choose one of {', '.join(SHARING)}")
    often = runs_per_result(program)
    main = main_phase(often)
    phases, taken = {}, dict[str, Sequence[LayerCounts]]()
    for name in program.phases:
        options: dict[str, Any] = {"rule": rule, "balance": balance if name == main else None, "way": way}
        if name != main and all(spec.kind != "image" for spec in program.phases[name].inputs.values()):
            options["way"] = replace(way, first_layer=CHIP)
        if rounds is not None or name != main:
            options["rounds"] = rounds or _OTHER_ROUNDS
        known = (counts or {}).get(name) if density is None else None
        taken[name] = known or ()
        phases[name] = map_phase(
            program, name, target, counts=known or None, density=None if known else density, **options
        )
    by_rule = {
        name: {one: split(r.mapping.network, r.mapping.limits, one).cores for one in RULES}
        for name, r in phases.items()
    }
    arranged = tuple(arrange(program, phases, main, by_rule, sharer, period_s) for sharer in SHARING)
    if len(phases) == 1:
        arranged = arranged[:1]
    wanted = sharing or default(arranged, any(share for name, share in often.items() if name != main))
    chosen = next((one for one in arranged if one.sharing == wanted), arranged[0])
    return WholeNetwork(program, taken[main], target, main, phases, by_rule, arranged, chosen, way, density)
