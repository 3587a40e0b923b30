"""Networks on chips: mapped to cores, and counted before they are trained.

This module decides which program and which counts are mapped. It must not print; heavy parts are imported when a verb
runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from spiketrack_deploy.api.bundles import Place
from spiketrack_deploy.api.results import BudgetResult, MapResult
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.energy.layers import Mean
    from spiketrack_deploy.program.types import Program


def map(
    subject: Place,
    *,
    target: str = "loihi2",
    phase: str = "search",
    density: float | None = None,
    rule: str = "contiguous",
    balance: float | None = None,
    pictures: Place | None = None,
) -> MapResult:
    """Map a bundle's program (or a model, lowered without calibration) to the cores and chips of ``target``.

    ``target``: a chip or a board by profile name, or a TOML file. ``density``: assumed share of neurons that spike, in
    place of a bundle's own counts. ``balance``: no core does more than so many times the mean work. ``pictures``: a
    folder for the drawn chips. Where it does not fit, ``fits`` is False and nothing is raised.
    """
    from spiketrack_deploy.mapping.limits import resolve_target
    from spiketrack_deploy.mapping.report import mapping_report

    profile, chips = resolve_target(target)
    program, counts = program_and_counts(str(subject), phase if density is None else None)
    mapping, report = mapping_report(
        program,
        profile,
        target=target,
        chips_available=chips,
        phase=phase,
        counts=counts,
        density=density,
        rule=rule,
        balance=balance,
    )
    if pictures is not None:
        from spiketrack_deploy.report.floorplan import floorplan, write_pictures

        write_pictures(floorplan(mapping, profile), Path(pictures))
    return cast(MapResult, {"subject": str(subject), **report})


def program_and_counts(subject: str, phase: str | None) -> tuple[Program, list[Mean] | None]:
    """The program of a bundle or a model, and with ``phase`` the mean counts that a bundle recorded for it."""
    from spiketrack_deploy.inputs.sources import find_source, is_bundle

    path = Path(subject)
    if is_bundle(path):
        from spiketrack_deploy.bundle import layout
        from spiketrack_deploy.bundle.contents import read_program
        from spiketrack_deploy.bundle.recorded import recorded_counts
        from spiketrack_deploy.energy.layers import Mean

        layout.check_bundle(path)
        program, _ = read_program(path)
        if phase is None:
            return program, None
        recorded = recorded_counts(path / layout.ENERGY)
        runs = recorded.frames if phase == "search" else recorded.updates
        layers = recorded.search if phase == "search" else recorded.template
        means = [Mean(x.name, x.kind, x.block, x.counts, runs) for x in layers]
        return program, means or None
    from spiketrack_deploy.frontends.compile import compile

    return compile(find_source(subject).path).program, None


def budget(
    config: Place | None = None, *, target: str = "loihi2", search: bool = False, tell: Tell | None = None
) -> BudgetResult:
    """Count what the search phase of ``config`` needs of one chip, before training: slots, relays, words, cores, MACs.

    ``config``: a ``config.json``, the name of a bundled model (without one, the default model) or an official layout
    such as ``s256_t1``. ``search``: also the best fitting layouts around it (minutes).
    """
    from spiketrack_deploy.api.training import find_config
    from spiketrack_deploy.training import budget as counting

    chosen, limits = find_config(config), counting.chip_limits(target)
    rows = [counting.budget(chosen, limits)]
    if search:
        rows += counting.search(chosen, limits, lambda done: tell("layouts counted", done, 0) if tell else None)
    return {
        "target": target,
        "cores": limits.cores,
        "slots": limits.slots,
        "words": limits.cores * limits.words,
        "rows": [{**row.to_dict(), "fits": row.fits(limits), "free": row.free(limits)} for row in rows],
    }
