"""The counts that a bundle recorded, priced again.

This module decides how ``energy.json`` gives back exact counts. It must not run a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle.layout import read_json
from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.energy.report import SCHEMA, EnergyReport, assess
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.schema import Profile


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
    try:
        if data["schema"] != SCHEMA:
            raise InputError(
                f"{path}: schema {data['schema']!r} is not {SCHEMA!r}; export the bundle again with this version"
            )
        update = data["template_update"]
        found = Recorded(
            int(data["frames"]),
            int(update["updates"]),
            int(update["interval_frames"]),
            _layers(data, "search"),
            _layers(data, "template"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: not an energy file ({type(error).__name__}: {error}); export the bundle again"
        ) from None
    if found.frames < 1 or not found.search:
        raise InputError(f"{path}: holds no search frame; export the bundle again")
    return found


def _layers(data: dict[str, Any], phase: str) -> list[LayerCounts]:
    return [
        LayerCounts(row["name"], row["kind"], row["block"], row["counts_total"])
        for row in data["layers"]
        if row["phase"] == phase
    ]


def _runs(layers: list[LayerCounts], runs: int) -> list[list[LayerCounts]]:
    """Runs whose exact sums are ``layers``: a mean needs sums and the number of runs, so one run may hold all."""
    nothing = [LayerCounts(layer.name, layer.kind, layer.block, {}) for layer in layers]
    return [layers] + [nothing] * (runs - 1) if layers else []


def reprice(recorded: Recorded, profile: Profile) -> EnergyReport:
    """The same counts under another profile."""
    return assess(
        _runs(recorded.search, recorded.frames),
        _runs(recorded.template, recorded.updates),
        profile,
        update_interval=recorded.interval,
        single_frames=False,
    )
