"""The counts that a bundle recorded, priced again.

This module decides how ``energy.json`` gives back exact counts. It must not run a program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle.layout import AGAIN, read_json
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import SCHEMA, EnergyReport, assess
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.inputs.resources import profile_names
from spiketrack_deploy.inputs.untrusted import Entry

MAX_RUNS = 2**40


@dataclass(frozen=True, slots=True)
class Recorded:
    """Exact sums of every layer's counts over ``frames`` search frames and ``updates`` template updates."""

    frames: int
    updates: int
    interval: int
    search: list[LayerCounts]
    template: list[LayerCounts]


def recorded_counts(path: Path) -> Recorded:
    """The counts of an ``energy.json``; InputError where it is not one."""
    data = read_json(path)
    data.schema(SCHEMA)
    update = data["template_update"]
    found = Recorded(
        data["frames"].integer(1, MAX_RUNS),
        update["updates"].integer(0, MAX_RUNS),
        update["interval_frames"].integer(1, MAX_RUNS),
        _layers(data, "search"),
        _layers(data, "template"),
    )
    if not found.search or bool(found.template) != bool(found.updates):
        raise InputError(f"{path}: its layers are not those of the frames and updates that it names; {AGAIN}")
    return found


def recorded_profile(path: Path) -> Profile | None:
    """The profile an ``energy.json`` was priced with, ``None`` where that is not a bundled one."""
    name = read_json(path)["profile"]["name"].text()
    return load_profile(name) if name in profile_names() else None


def _layers(data: Entry, phase: str) -> list[LayerCounts]:
    layers = []
    for row in data["layers"].each():
        if row["phase"].text() == phase:
            counts = {name: value.integer() for name, value in row["counts_total"].members()}
            layers.append(LayerCounts(row["name"].text(), row["kind"].text(), row["block"].text(), counts))
    return layers


class _Summed(Sequence[list[LayerCounts]]):
    """Runs of which only the exact sums are known: as many as ``runs``, the first holds all, the others nothing. A mean
    needs no more, so they are not made: a file may claim any number of them."""

    def __init__(self, layers: list[LayerCounts], runs: int) -> None:
        self._layers, self._runs = layers, runs

    def __len__(self) -> int:
        return self._runs

    def __iter__(self) -> Iterator[list[LayerCounts]]:
        return iter([self._layers])

    def __getitem__(self, index: Any) -> Any:
        return [self._layers][index]


def reprice(recorded: Recorded, profile: Profile) -> EnergyReport:
    """The same counts under another profile."""
    return assess(
        _Summed(recorded.search, recorded.frames),
        _Summed(recorded.template, recorded.updates),
        profile,
        update_interval=recorded.interval,
        single_frames=False,
    )
