"""One execution under several profiles, beside published trackers as dense networks.

This module decides what stands beside what. It must not know how a figure is printed. A profile that prices nothing of
what was counted has no energy, which is not an energy of zero; figures of different boundaries are never added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.hardware.profiles import load_profile
from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.units import Interval

SCHEMA = "spiketrack-comparison/1"


@dataclass(frozen=True, slots=True)
class Reference:
    """A published tracker as a dense network: ``macs`` multiply-accumulates of a frame, and how that is known."""

    name: str
    macs: float
    source: str


def spmtrack_macs(width: int, blocks: int, gated: bool) -> int:
    """Multiply-accumulates of one SPMTrack frame (CVPR 2025, arXiv 2503.18338), by layer shapes.

    ``width`` D, ``blocks`` L; ``gated``: SwiGLU of 4096 in place of a 4D-wide MLP. Three references and a query are run
    with the search crop in every frame: 1 + 3 * 14**2 + 27**2 tokens; four routed experts of rank 64 on six layers.
    """
    search, reference, experts, rank, hidden = 27**2, 14**2, 4, 64, 4096
    tokens = 1 + 3 * reference + search
    inputs = 5 * width + (hidden if gated else 4 * width)
    outputs = 5 * width + (2 * hidden if gated else 4 * width)
    mlp = 3 * width * hidden if gated else 8 * width**2
    per_token = 4 * width**2 + mlp + experts * inputs + rank * inputs + experts * rank * outputs
    attention = 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * 14**2 * width
    head = search * (4 * width**2 + 6 * width)
    return patches + blocks * (tokens * per_token + attention) + head


def references() -> tuple[Reference, ...]:
    """Trackers that the field compares with."""
    spmtrack = "layer shapes of the published code, three references in every frame (arXiv 2503.18338)"
    return (
        Reference("TransT-N4", 16.35e9, "75.2 mJ of arXiv 2602.23963 over 4.6 pJ"),
        Reference("OSTrack-256", 34.5e9, "158.7 mJ of the same convention over 4.6 pJ"),
        Reference("SPMTrack-B", spmtrack_macs(768, 12, False), spmtrack),
        Reference("SPMTrack-L", spmtrack_macs(1024, 24, False), spmtrack),
        Reference("SPMTrack-G", spmtrack_macs(1536, 40, True), spmtrack),
    )


def priced(report: EnergyReport) -> bool:
    """Whether the profile prices anything that was counted."""
    return any(part.count for part in report.search.parts)


def _row(report: EnergyReport) -> dict[str, Any]:
    static = report.static_per_chip_frame
    has = priced(report)
    causes = {PRICES[name].cause for name in report.profile.prices if PRICES[name].cause is not None}
    return {
        "profile": report.profile.name,
        "title": report.profile.title,
        "kind": report.profile.kind,
        "chips": report.profile.chips,
        "priced": has,
        "search_nj": report.search.dynamic.to_dict() if has else None,
        "template_amortised_nj": report.template_amortised.to_dict() if has else None,
        "dynamic_nj": report.per_frame.to_dict() if has else None,
        "static_per_chip_frame_nj": static.to_dict() if static else None,
        "causes_priced": sorted(cause for cause in causes if cause),
        "unpriced": [item.to_dict() for item in report.unpriced if item.count],
    }


def _dense(name: str, macs: float, costs: Sequence[tuple[str, Interval]], source: str) -> dict[str, Any]:
    return {
        "name": name,
        "macs": macs,
        "source": source,
        "energy_nj": {profile: (mac * macs).to_dict() for profile, mac in costs},
    }


def compare(reports: Sequence[EnergyReport]) -> dict[str, Any]:
    """Rows per profile, and as dense-MAC lines the network's own dense twin and published trackers; plain JSON data.

    All reports must be of the same counts. Raises InputError for no report, or for reports of other counts.
    """
    if not reports:
        raise InputError("energy: there is no profile to compare; name at least one.")
    first = reports[0]
    if any(report.search.counts != first.search.counts or report.frames != first.frames for report in reports):
        raise InputError("energy: the reports are of different runs; compare the same counts only.")
    costs = [(twin.profile, twin.mac) for twin in first.twins]
    lines = [_dense("this tracker, dense twin", first.twins[0].macs, costs, "the same network as an ANN")]
    lines += [_dense(item.name, item.macs, costs, item.source) for item in references()]
    return {
        "schema": SCHEMA,
        "profiles": [_row(report) for report in reports],
        "dense": lines,
        "published_convention_nj": first.convention.published.to_dict(),
        "notes": [
            "Dense lines are arithmetic only, 45 nm; memory, routing and static power are outside.",
            "Boundaries differ between profiles: read each row with what it leaves unpriced.",
        ],
    }


def default_profiles(names: Sequence[str]) -> list[str]:
    """Of ``names`` those worth a row: own prices of events, and no board, whose events cost what its chip's cost."""
    found = []
    for name in names:
        profile = load_profile(name)
        if profile.kind != "board" and any(PRICES[price].cause is not None for price in profile.prices):
            found.append(name)
    return found
