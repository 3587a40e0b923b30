"""The counts that a bundle recorded, and the profile they were priced with: priced again.

This module decides how ``energy.json`` gives back exact counts. It must not run a program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spiketrack_deploy.bundle.chips import on_chips
from spiketrack_deploy.bundle.layout import AGAIN, read_json
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import SCHEMA, EnergyReport, assess
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import checked_profile
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.inputs.untrusted import Entry
from spiketrack_deploy.mapping.entry import FIRST_LAYER
from spiketrack_deploy.mapping.populations import SHARED_STREAMS
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, Way
from spiketrack_deploy.program.types import Program

MAX_RUNS = 2**40
MAX_PHASES = 64


@dataclass(frozen=True, slots=True)
class Recorded:
    """Exact sums of every layer's counts by phase, runs of each phase per result, what a result is called, the
    profile of the export, and how its chips ran the program."""

    result: str
    per_result: Mapping[str, float]
    counts: Mapping[str, tuple[LayerCounts, ...]]
    profile: Profile
    way: Way = DEFAULT_WAY


def recorded_counts(path: Path) -> Recorded:
    """The content of an ``energy.json``; InputError where it is not one."""
    data = read_json(path)
    data.schema(SCHEMA)
    phases = dict(data["phases"].members(MAX_PHASES))
    runs = {name: phase["runs"].integer(1, MAX_RUNS) for name, phase in phases.items()}
    counts: dict[str, list[LayerCounts]] = {name: [] for name in phases}
    for row in data["layers"].each():
        name = row["phase"].text()
        if name in counts:
            counts[name].append(_layer(row, runs[name]))
    if not counts or not all(counts.values()):
        raise InputError(f"{path}: its layers are not those of the phases that it names; {AGAIN}")
    profile = {key: value for key, value in data["profile"].table().items() if key != "sha256"}
    return Recorded(
        data["result"].text(),
        {name: phase["per_result"].number() for name, phase in phases.items()},
        {name: tuple(layers) for name, layers in counts.items()},
        checked_profile(profile, path),
        _way(data),
    )


def _way(data: Entry) -> Way:
    """Bundles of earlier versions say nothing of it: they were mapped the default way."""
    placed = data["placed"]
    said = None if placed.value is None else placed.get("way")
    if said is None:
        return DEFAULT_WAY
    for key, known in (("first_layer", FIRST_LAYER), ("streams", SHARED_STREAMS)):
        if said[key].text() not in known:
            raise said[key].fault(" or ".join(known))
    return Way(said["first_layer"].text(), said["streams"].text())


def _layer(row: Entry, runs: int) -> LayerCounts:
    counts = {name: value.integer() for name, value in row["counts_total"].members()}
    return LayerCounts(row["name"].text(), row["kind"].text(), row["block"].text(), counts, runs)


def reprice(recorded: Recorded, program: Program | None, target: Target) -> EnergyReport:
    """The same counts under another profile, on its chips where it has a family and there is a program."""
    whole = on_chips(program, recorded.counts, target, recorded.way) if program is not None else None
    placed = whole.placed if whole else None
    return assess(recorded.counts, target.profile, recorded.per_result, result=recorded.result, placed=placed)
