"""Chips of an exported program, for its report: the mapping's JSON and the floorplan as a figure.

This module decides when there is a chip to map to. It must not map anything itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spiketrack_deploy.energy.layers import LayerCounts, mean_layers
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.program.types import Program

_NEEDED = ("cores_per_chip", "neurons_per_core")


def chip_figures(
    program: Program, frames: Sequence[Sequence[LayerCounts]], profile: Profile, target: str
) -> tuple[dict[str, Any], str] | None:
    """Mapping report of the search phase with its counted activity, and its floorplan as HTML.

    ``None`` where the profile is a convention or states no cores: then there is nothing to map to.
    """
    if profile.kind == "convention" or any(name not in profile.limits for name in _NEEDED):
        return None
    from spiketrack_deploy.mapping.report import mapping_report
    from spiketrack_deploy.report.floorplan import figure_html, floorplan

    counts = mean_layers(frames, "search frame")
    # A board is priced by its own name; the target says only which chip the program was made for.
    name = profile.name if profile.kind == "board" else target
    mapping, report = mapping_report(program, profile, target=name, chips_available=profile.chips, counts=counts)
    return report, figure_html(floorplan(mapping, profile))
