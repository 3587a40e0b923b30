"""What a report is made from: the JSON of a bundle's files, and a few formatters.

This module decides the names by which the page finds its figures. It must not compute a figure that no file holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.units import Interval, si_interval

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportData:
    """``energy``, ``parity``: content of the files of that name. ``program``: ``program.describe``.

    ``frames``: one dict a tracked frame (frame, confidence, updated, energy_nj, events, active). ``stills``:
    caption and JPEG bytes of a few frames with their boxes. ``model``, ``clip``: name and remarks.
    ``hashes``: content and program. ``chips``: mapping report and floorplan (HTML), ``None`` where there is no chip.
    """

    model: Json
    clip: Json
    target: str
    engine: str
    command: str
    program: Json
    energy: Json
    parity: Json
    frames: Sequence[Json]
    hashes: Json
    stills: Sequence[tuple[str, bytes]] = ()
    chips: tuple[Json, str] | None = None


def interval(value: Json, scale: float = 1.0) -> Interval:
    """``{"nominal","low","high"}`` as an interval."""
    return Interval(value["low"], value["nominal"], value["high"]) * scale


def joules(value: Json) -> str:
    """A nanojoule interval of energy.json, printed: ``2.5 uJ [1.1 uJ .. 4 uJ]``."""
    return si_interval(interval(value, 1e-9), "J").replace(" u", " \u00b5")


def nominal(value: Json) -> str:
    """The nominal of a nanojoule interval, for places where the band stands beside."""
    return si_interval(Interval.exact(value["nominal"] * 1e-9), "J").replace(" u", " \u00b5")


def percent(value: float) -> str:
    """A share with three significant digits."""
    return f"{100 * value:.3g} %"


def thin(value: float) -> str:
    """An integer in groups of three; a mean with one decimal."""
    text = f"{value:,.1f}" if isinstance(value, float) and not value.is_integer() else f"{int(value):,}"
    return text.replace(",", "\u202f")


def branch_layers(energy: Json, phase: str) -> list[Json]:
    """Rows of one phase in execution order."""
    return [row for row in energy["layers"] if row["phase"] == phase]
