"""One execution under several profiles, beside other networks as dense ones.

This module decides what stands beside what. It must not know how a figure is printed. A profile that prices nothing of
what was counted has no energy, which is not an energy of zero; figures of different boundaries are never added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.conventions import dense_twin
from spiketrack_deploy.energy.pricing import event_prices, intervals, priced_causes
from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.energy.twins import Duel, dense_profiles, duels
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.units import Interval

SCHEMA = "spiketrack-comparison/3"


@dataclass(frozen=True, slots=True)
class DenseLine:
    """A dense network in the arithmetic of several profiles: ``energy`` in nanojoules by profile."""

    name: str
    macs: float
    energy: Mapping[str, Interval]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {"name": self.name, "macs": self.macs, "source": self.source, "energy_nj": intervals(self.energy)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same counts under several profiles, and dense networks beside them; ``duels``: against the own dense twin,
    accelerators against the first chip that prices events."""

    reports: tuple[EnergyReport, ...]
    dense: tuple[DenseLine, ...]
    duels: tuple[Duel, ...]

    @property
    def published(self) -> Interval:
        """One run of the main phase under the published convention, nanojoules."""
        return self.reports[0].main.convention.published

    def to_dict(self) -> dict[str, Any]:
        """JSON data: a row per profile, dense lines, notes."""
        return {
            "schema": SCHEMA,
            "profiles": [_row(report) for report in self.reports],
            "dense": [line.to_dict() for line in self.dense],
            "duels": [duel.to_dict() for duel in self.duels],
            "published_convention_nj": self.published.to_dict(),
            "notes": [
                "Dense lines: cmos45 is arithmetic, with _memory also SRAM traffic; an accelerator is what it drew.",
                "Boundaries differ between profiles: read each row with what it leaves unpriced.",
            ],
        }


def priced(report: EnergyReport) -> bool:
    """Whether the profile prices anything that was counted."""
    return any(part.count for phase in report.phases for part in phase.parts)


def _row(report: EnergyReport) -> dict[str, Any]:
    static = report.static
    has = priced(report)
    return {
        "profile": report.profile.name,
        "title": report.profile.title,
        "kind": report.profile.kind,
        "chips": report.profile.chips,
        "priced": has,
        "phases_nj": {phase.name: phase.amortised.to_dict() if has else None for phase in report.phases},
        "dynamic_nj": report.dynamic.to_dict() if has else None,
        "static_per_chip_frame_nj": static.energy.to_dict() if static else None,
        "causes_priced": sorted(priced_causes(report.profile)),
        "unpriced": [item.to_dict() for item in report.unpriced if item.count],
    }


def compare(reports: Sequence[EnergyReport], others: Sequence[tuple[str, float, str]] = ()) -> Comparison:
    """Profiles side by side, and as dense-MAC lines the network's own dense twin (of a run of the main phase) and
    ``others``: name, multiply-accumulates of a result, and how that is known.

    All reports must be of the same counts. Raises InputError for no report, or for reports of other counts.
    """
    if not reports:
        raise InputError("energy: there is no profile to compare; name at least one.")
    first = reports[0]
    counts = [(phase.name, phase.per_result, phase.counts) for phase in first.phases]
    if any([(phase.name, phase.per_result, phase.counts) for phase in r.phases] != counts for r in reports):
        raise InputError("energy: the reports are of different runs; compare the same counts only.")
    twins = [dense_twin(first.main.counts, profile) for profile in dense_profiles()]

    def line(name: str, macs: float, source: str) -> DenseLine:
        return DenseLine(name, macs, {twin.profile: twin.mac * macs for twin in twins}, source)

    lines = [line("this network, dense twin", twins[0].macs, "the same network as an ANN")]
    lines += [line(*other) for other in others]
    chip = next((r for r in reports if r.profile.kind != "convention" and event_prices(r.profile)), None)
    own = duels(first.main.counts, chip.profile, chip.main.run) if chip else ()
    return Comparison(tuple(reports), tuple(lines), own)


def default_profiles(names: Sequence[str]) -> list[str]:
    """Of ``names`` those worth a row: own prices of events, and no board, whose events cost what its chip's cost."""
    found = []
    for name in names:
        profile = load_profile(name)
        if profile.kind != "board" and event_prices(profile):
            found.append(name)
    return found
