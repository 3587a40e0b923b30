"""The tables of ``anchors.py``: figures in groups, each price set beside what was measured, and the verdict on each row
of the older anchor table.

This module decides how results are shown and grouped. It must not compute a prediction.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anchor_fit import Bands
from anchor_score import BOARDS, FITTED, Item, Score
from anchor_sets import StepTime

from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.units import Interval, si

OLD_TABLE = (
    ("A1 synaptic counters, per layer", "evidence", "replay against the chip's own counters; no price in it"),
    ("A1 spikes, layer by layer", "evidence", "against what another interpreter recorded"),
    ("A1 cores, 74", "fitted", "the layout's rules were fitted to this log"),
    ("A1 step time", "fitted", "t_synop was solved from it: tests counts and layout"),
    ("A1 band covers every run", "fitted", "the old high end, 38 pJ a synop, was one of these runs"),
    (
        "A1 nominal within 30 %",
        "consistency",
        "passed at synop 14 to 32, idle neuron 0 to 198, message 0 to 701 pJ",
    ),
    ("A2 reset of a chip", "evidence", "a price of Davies 2018 against a measurement of Frady 2020"),
    ("A3 static power of a chip", "fitted", "the profile's input against its own quotient"),
    ("A4 energy of an inference", "consistency", "a paper's power over its own rate"),
    ("A5 boundaries of NxTF", "consistency", "two boundaries, compared and not averaged"),
    ("A6 TransT", "fitted", "its operations were solved from this energy"),
    ("A7 B256-T3 in the paper's convention", "fitted", "0.753 was solved from 9.9 mJ; TransT / 7.6 repeats it"),
    ("A8 peak of Hala Point", "fitted", "the low end of the synop against its own quotient"),
    ("exact-count vectors V1 to V8", "evidence", "counted by hand and by brute force"),
    ("t_neuron, high end 44 ns", "fitted", "solved from B2: no evidence when B2 is scored"),
)
"""Row of the older table, its kind and why. Evidence could have failed with a wrong price or count; a fitted row
cannot; a consistency row only within the range stated."""


@dataclass(frozen=True, slots=True)
class Group:
    """Scores of one kind of figure of one anchor."""

    name: str
    scores: tuple[Score, ...]

    @property
    def misses(self) -> list[float]:
        """Relative misses of the nominal predictions."""
        return [score.miss for score in self.scores if score.miss is not None]

    @property
    def median(self) -> float | None:
        """Median size of a miss."""
        return statistics.median(abs(miss) for miss in self.misses) if self.misses else None

    @property
    def unit(self) -> tuple[str, float]:
        """Unit and factor into it."""
        return ("s", 1.0) if isinstance(self.scores[0].item, StepTime) else ("J", 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """JSON data in the units of the figures (nJ, s)."""
        return {
            "group": self.name,
            "figures": [
                {
                    "what": score.item.what,
                    "measured": score.item.measured.to_dict(),
                    "predicted": score.predicted.to_dict() if score.predicted else None,
                    "miss": score.miss,
                    "inside": score.inside,
                }
                for score in self.scores
            ],
            "median_miss": self.median,
        }


def key(item: Item) -> str:
    """Name of the group: points of a series, such as networks of growing size, go together."""
    what, _, point = item.what.partition(": ")
    return f"{item.anchor} {what}{', ' + point.split(' ')[0] if point else ''}"


def groups(scores: Sequence[Score]) -> list[Group]:
    """In the order of their first figures."""
    found: dict[str, list[Score]] = {}
    for score in scores:
        found.setdefault(key(score.item), []).append(score)
    return [Group(name, tuple(items)) for name, items in found.items()]


def overall(found: Sequence[Group]) -> float:
    """Median over groups of their median misses: a group counts once, however many points it has."""
    return statistics.median(group.median for group in found if group.median is not None)


def _range(intervals: Sequence[Interval], unit: tuple[str, float], nominal: bool) -> str:
    low = min(i.nominal if nominal else i.low for i in intervals) * unit[1]
    high = max(i.nominal if nominal else i.high for i in intervals) * unit[1]
    first, last = si(low, unit[0]), si(high, unit[0])
    return first if first == last else f"{first} .. {last}"


def _ends(misses: Sequence[float]) -> str:
    if not misses:
        return ""
    return f"{min(misses):+.0%}" + (f" .. {max(misses):+.0%}" if len(misses) > 1 else "")


def show_scores(title: str, found: Sequence[Group]) -> None:
    """A table: measured, nominal prediction, band, miss, and how many figures lie inside the band."""
    print(f"\n{title}")
    print(f"{'':34s} {'measured':>22s} {'predicted':>22s} {'band':>22s} {'miss':>14s} {'by words':>9s}  inside")
    for group in found:
        measured = _range([s.item.measured for s in group.scores], group.unit, nominal=False)
        told = [s.predicted for s in group.scores if s.predicted is not None]
        nominal = _range(told, group.unit, nominal=True) if told else "no price"
        band = _range(told, group.unit, nominal=False) if told else ""
        miss, words = _ends(group.misses), _ends([s.by_words for s in group.scores if s.by_words is not None])
        inside = f"{sum(s.inside for s in group.scores)} of {len(group.scores)}"
        print(f"{group.name[:34]:34s} {measured:>22s} {nominal:>22s} {band:>22s} {miss:>14s} {words:>9s}  {inside}")
    print(f"median miss over these {len(found)} rows: {overall(found):.0%} (a row counts once, by its own median)")


def amount(name: str, value: float) -> str:
    """A price in a readable unit."""
    dimension = "power" if name in BOARDS else PRICES[name][0]
    unit, factor = {"energy": ("J", 1e-9), "time": ("s", 1.0), "power": ("W", 1.0)}[dimension]
    return "0" if not value else si(value * factor, unit)


def show_prices(joint: Bands, wide: Bands, left: Mapping[str, Bands], readings: Mapping[str, Bands]) -> None:
    """Each price: joint fit with its bootstrap band, the band that covers all, what it is without each anchor and with
    one read otherwise."""
    left = {f"no {name}": bands for name, bands in left.items()} | dict(readings)
    print(f"\n{'price':17s} {'fit':>9s} {'5 .. 95 %':>20s} {'covers all':>20s} " + " ".join(
        f"{name:>9s}" for name in left
    ))  # fmt: skip
    for name in (*FITTED, *BOARDS):
        if name not in joint:
            continue
        fitted, ships = (f"{amount(name, b.low)} .. {amount(name, b.high)}" for b in (joint[name], wide[name]))
        others = " ".join(
            f"{amount(name, bands[name].nominal) if name in bands else '-':>9s}" for bands in left.values()
        )
        print(f"{name:17s} {amount(name, joint[name].nominal):>9s} {fitted:>20s} {ships:>20s} {others}")


def show_stepping(found: Mapping[str, Sequence[Group]]) -> dict[str, dict[str, float]]:
    """What decided whether stepping costs by the time or by the step, printed and returned: misses, and the median."""
    print("\nMiss under prices from all the others, where stepping itself costs")
    told = {}
    for structure, rows in found.items():
        energies = {row.name: row.misses[0] for row in rows if len(row.scores) == 1 and row.unit[0] == "J"}
        told[structure] = energies | {"median of all rows": overall(rows)}
        shown = ", ".join(f"{name} {miss:+.0%}" for name, miss in energies.items())
        print(f"  {structure:12s} {shown}; median of all rows {overall(rows):.0%}")
    return told


def show_slack(found: Mapping[str, Mapping[str, tuple[float, float] | None]], tolerance: float) -> None:
    """Per figure: how wrong each price could be."""
    print(f"\nHow many times its value a price could be, alone, and the figure still be met within {tolerance:.0%}")
    print("(0 to inf: the figure does not test the price; never: missed whatever the price)")
    for name, prices in found.items():
        told = []
        for price, ends in prices.items():
            told.append(f"{price} {'never' if ends is None else f'{ends[0]:.2g} to {ends[1]:.2g}'}")
        print(f"{name[:34]:34s} {'; '.join(told)}")


def show_old() -> None:
    """The rows of the older anchor table."""
    print("\nRows of the older anchor table")
    for name, kind, why in OLD_TABLE:
        print(f"{kind:12s} {name}: {why}")
