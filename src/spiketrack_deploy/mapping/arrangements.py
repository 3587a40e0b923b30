"""Ways to share chips between the phases of a program, and what results cost in each.

This module decides how phases share chips, and when a network may be said to fit. It must not know what a phase is for,
nor any price. The phase that runs most often for a result has its chips to itself while it runs; the others are

    own     on chips of their own, powered all the time
    turns   in turns on the same chips: what it takes to load a phase's weights and bring the others' back has no price
    host    on the host's processor: its time and energy are not known

A program never *fits* while operations stay on a host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.frames import (
    START,
    ResultCost,
    mean_cost,
    phases_of_results,
    result_cost,
    update_share,
)
from spiketrack_deploy.energy.pricing import Unpriced
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.mapping.split import RULES
from spiketrack_deploy.program.types import Program

OWN, TURNS, HOST = "own", "turns", "host"
SHARING = (OWN, TURNS, HOST)
_WORDS = {
    OWN: "{others} on chips of its own",
    TURNS: "{others} in turns on the same chips",
    HOST: "{others} on the host's processor",
}


@dataclass(frozen=True, slots=True)
class Arrangement:
    """One way to share chips. ``others``: the phases beside the main one; ``chips``: nominal, ``band``: over usable
    cores of a chip and both split rules; ``results``: kind -> cost; ``mean``: of a result in the long run;
    ``host_operations``: left to a host."""

    sharing: str
    others: tuple[str, ...]
    cores: int
    chips: int
    band: tuple[int, int]
    holds: bool
    host_operations: int
    results: Mapping[str, ResultCost]
    mean: ResultCost
    unpriced: tuple[Unpriced, ...]

    @property
    def words(self) -> str:
        """Who runs the other phases; empty where there are none."""
        return _WORDS[self.sharing].format(others=" and ".join(self.others)) if self.others else ""

    @property
    def fits(self) -> bool:
        """Everything is on the chips, within their limits."""
        return self.holds and not self.host_operations

    @property
    def answer(self) -> str:
        """``fits``, ``needs a host for N operations beside``, or ``does not fit``."""
        if not self.holds:
            return "does not fit"
        return "fits" if self.fits else f"needs a host for {self.host_operations:,} operations beside"

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {
            "sharing": self.sharing,
            "words": self.words,
            "answer": self.answer,
            "fits": self.fits,
            "cores": self.cores,
            "chips": self.chips,
            "chips_band": list(self.band),
            "host_operations": self.host_operations,
            "results": {kind: cost.to_dict() for kind, cost in self.results.items()},
            "mean": self.mean.to_dict(),
            "unpriced": [item.to_dict() for item in self.unpriced],
        }


def default(arranged: Sequence[Arrangement], recurring: bool) -> str:
    """In turns, unless other phases come back (``recurring``) and chips of their own are there."""
    own = arranged[0]
    return own.sharing if recurring and own.holds else TURNS


def arrange(
    program: Program,
    phases: Mapping[str, MappingReport],
    main: str,
    by_rule: Mapping[str, Mapping[str, int]],
    sharing: str,
    period_s: float,
) -> Arrangement:
    """One of :data:`SHARING`. ``by_rule``: phase -> split rule -> cores; ``period_s``: seconds between two results."""
    first = phases[main].mapping
    others = tuple(name for name in phases if name != main)
    on_chip = (main,) if sharing == HOST else (main, *others)

    def chips(cores: Mapping[str, int], per_chip: int | None = None) -> int:
        each = [first.limits.chips_for(cores[name], per_chip) for name in on_chip]
        return max(each) if sharing == TURNS else sum(each)

    nominal = {name: phases[name].mapping.cores for name in on_chip}
    number = chips(nominal)
    usable = first.limits.usable or (first.limits.cores_per_chip,)
    spread = [number] + [
        chips({name: by_rule[name][rule] for name in on_chip}, per_chip) for rule in RULES for per_chip in usable
    ]
    available = first.chips_available
    powered = max(available or 0, number)
    profile, taken = phases[main].profile, phases_of_results(program)
    results = {
        kind: result_cost(kind, [phases[name].run for name in names if name in on_chip], profile, powered, period_s)
        for kind, names in taken.items()
    }
    host = sum(phases[name].mapping.host_operations for name in on_chip)
    return Arrangement(
        sharing=sharing,
        others=others,
        cores=max(nominal.values()) if sharing == TURNS else sum(nominal.values()),
        chips=number,
        band=(min(spread), max(spread)),
        holds=all(phases[name].mapping.holds for name in on_chip) and (available is None or number <= available),
        host_operations=host + sum(len(program.phases[name].ops) for name in others if name not in on_chip),
        results=results,
        mean=mean_cost(results, update_share(program)),
        unpriced=(*_beyond(phases, others, sharing, START in taken), *_first_layers(phases, on_chip)),
    )


def _beyond(phases: Mapping[str, MappingReport], others: Sequence[str], sharing: str, starts: bool) -> list[Unpriced]:
    """What an arrangement does beside its runs, none of which has a price."""
    found = []
    for name in others if sharing != OWN else ():
        words = sum(int(report.mapping.loads.words.sum()) for report in phases.values())
        if sharing == TURNS:
            reason = "words of synaptic memory loaded whenever this phase takes its turn: never published"
            found.append(Unpriced("words_loaded", words, name, reason))
        else:
            reason = "the phase's operations on the host: its processor is not part of this model"
            found.append(Unpriced("phase_on_host", None, name, reason))
    return found


def _first_layers(phases: Mapping[str, MappingReport], on_chip: Sequence[str]) -> list[Unpriced]:
    """First layers that the host runs, which have no price."""
    reason = "the first layer on the host: its processor is not part of this model"
    return [
        Unpriced("first_layer_on_host", None, name, reason)
        for name in on_chip
        if any(p.kind == "entry" for p in phases[name].mapping.network.populations)
    ]
