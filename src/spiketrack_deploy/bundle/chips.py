"""Chips of an exported program, for its report: the mapping and its floorplan as a figure.

This module decides when there is a chip to map to. It must not map anything itself.
"""

from __future__ import annotations

from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.report import MappingReport
from spiketrack_deploy.program.types import Program


def chip_figures(program: Program, energy: EnergyReport, target: Target) -> tuple[MappingReport, str] | None:
    """Mapping of the main phase with its counted activity, and its floorplan as HTML.

    ``None`` where the target has no family: a convention, or a chip of which nobody knows how it holds a network.
    """
    if target.profile.family is None:
        return None
    from spiketrack_deploy.mapping.report import map_phase
    from spiketrack_deploy.report.floorplan import figure_html, floorplan

    report = map_phase(program, energy.main.name, target, counts=energy.main.counts)
    return report, figure_html(floorplan(report.mapping, target.profile))
