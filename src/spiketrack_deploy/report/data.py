"""What a report is made from, and a few formatters.

This module decides the names by which the page finds its figures. It must not compute one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.units import Interval, si_interval

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """The frames that were tracked: how many, their size, the first box; ``bundled``: the clip of the package."""

    name: str
    frames: int
    width: int
    height: int
    init: tuple[float, ...]
    bundled: bool


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """One tracked frame. ``energy``: all that it cost, nanojoules; ``events``: spike messages; ``active``:
    share of neurons that spike."""

    frame: int
    confidence: float
    updated: bool
    energy: Interval
    events: float
    active: float


@dataclass(frozen=True, slots=True)
class ReportData:
    """``parity``: content of the file of that name. ``program``: ``program.describe``. ``stills``: caption and JPEG
    bytes of a few frames with their boxes. ``weights``: what is known of the model's weights; ``remark``: what must
    stand beside every result of the model. ``chips``: the whole network there and its
    floorplan (HTML), ``None`` where there is no chip."""

    model: str
    weights: str
    remark: str | None
    clip: ClipFacts
    target: str
    engine: str
    command: str
    program: Json
    energy: EnergyReport
    parity: Json
    frames: Sequence[FrameFacts]
    program_hash: str
    content_hash: str = ""
    stills: Sequence[tuple[str, bytes]] = ()
    chips: tuple[WholeNetwork, str] | None = None


def joules(value: Interval) -> str:
    """A nanojoule interval, printed: ``2.5 uJ [1.1 uJ .. 4 uJ]``."""
    return micro(si_interval(value * 1e-9, "J"))


def micro(text: str) -> str:
    """The same text with a micro sign before units."""
    return text.replace(" us", " \u00b5s").replace(" uJ", " \u00b5J")


def nominal(value: Interval | float) -> str:
    """The nominal of a nanojoule interval, for places where the band stands beside."""
    return joules(Interval.exact(value.nominal if isinstance(value, Interval) else value))


def percent(value: float) -> str:
    """A share with three significant digits."""
    return f"{100 * value:.3g} %"


def thin(value: float) -> str:
    """An integer in groups of three; a mean with one decimal."""
    text = f"{value:,.1f}" if isinstance(value, float) and not value.is_integer() else f"{int(value):,}"
    return text.replace(",", "\u202f")


def how_often(per_result: float, result: str) -> str:
    """How often a phase runs, in words."""
    if per_result == 1:
        return f"in every {result}"
    if per_result > 1:
        return f"{per_result:g} times a {result}"
    return f"every {1 / per_result:g} {result}s" if per_result else f"at the start alone, no part of a {result}"
