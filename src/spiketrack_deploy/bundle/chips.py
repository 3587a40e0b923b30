"""Chips of a program: the whole network on a target, its floorplan, and what every single result cost there.

This module decides when there is a chip to map to, and which runs belong to which result. It must not map or price
anything itself, nor know what a phase is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spiketrack_deploy.energy.frames import (
    CAMERA_PERIOD_S,
    START,
    STEADY,
    UPDATE,
    ResultCost,
    Run,
    counted_run,
    result_cost,
)
from spiketrack_deploy.energy.layers import LayerCounts, main_phase, runs_per_result
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.ways import DEFAULT_WAY, Way
from spiketrack_deploy.mapping.whole import WholeNetwork, map_network
from spiketrack_deploy.program.types import Program

Counts = Mapping[str, Sequence[LayerCounts]]


def on_chips(
    program: Program, counts: Counts, target: Target, way: Way = DEFAULT_WAY, period_s: float = CAMERA_PERIOD_S
) -> WholeNetwork | None:
    """Every phase with its counted activity on the target's chips; ``period_s``: time between two results.

    ``None`` where the target has no family: a convention, or a chip of which nobody knows how it holds a network.
    """
    if target.profile.family is None:
        return None
    return map_network(program, target, counts=counts, way=way, period_s=period_s)


def chip_figures(whole: WholeNetwork) -> str:
    """The floorplan of the main phase as an HTML figure."""
    from spiketrack_deploy.report.floorplan import figure_html, floorplan

    return figure_html(floorplan(whole.report.mapping, whole.profile))


def single_runs(
    program: Program,
    target: Target,
    whole: WholeNetwork | None,
    runs: Mapping[str, Sequence[Sequence[LayerCounts]]],
) -> dict[str, list[Run]]:
    """Phase -> every one of its runs as it is charged for, from its own counts."""

    def one(name: str, layers: Sequence[LayerCounts]) -> Run:
        if whole is None:
            return counted_run(name, layers, target.profile)
        return whole.phases[name].rerun(program.arrays, layers)

    return {name: [one(name, layers) for layers in found] for name, found in runs.items()}


def result_costs(
    program: Program,
    target: Target,
    whole: WholeNetwork | None,
    runs: Mapping[str, Sequence[Run]],
    updated: Sequence[bool],
) -> list[ResultCost]:
    """The cost of the start and of every result behind it. ``runs``: phase -> its runs in order.

    A phase that runs at the start has its first run there; its later ones belong to the results that were ``updated``,
    one each.
    """

    def cost(kind: str, taken: Mapping[str, Run]) -> ResultCost:
        if whole is not None:
            return whole.result(kind, taken)
        return result_cost(kind, list(taken.values()), target.profile, 0)

    main = main_phase(runs_per_result(program))
    waiting = {name: list(found) for name, found in runs.items() if name != main}
    first = {name: waiting[name].pop(0) for name in waiting if program.phases[name].cadence.start and waiting[name]}
    found = [cost(START, first)]
    for run, again in zip(runs[main], updated, strict=True):
        joined = {name: later.pop(0) for name, later in waiting.items() if again and later}
        found.append(cost(UPDATE if joined else STEADY, {main: run, **joined}))
    return found
