"""What a bundle's files say: its program, what that is for, the remark and the tracker configuration it carries.

This module decides what a bundle's program must be so that it can be trusted to be one. It must not run anything.
:func:`read_alone` needs NumPy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import Entry
from spiketrack_deploy.program.store import AGAIN, JSON_NAME, load_program
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.program.workload import Workload
from spiketrack_deploy.trackers.settings import CONFIGURATIONS, no_tracker, tracker_config
from spiketrack_deploy.tracking.program_network import SEARCH, check_tracks

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What a program's shapes must agree with, as far as its workload says it in plain numbers."""

    name: str
    resolution: int
    grid: int
    templates: int


def read_alone(folder: Path) -> Program:
    """A bundle's program; InputError where nothing says what it is for, or it is not what it says to be."""
    file = str(folder / layout.PROGRAM / JSON_NAME)
    program = load_program(folder / layout.PROGRAM)
    meta = Entry(program.meta, file, "meta", AGAIN)
    remark = meta.get("remark")
    if remark is not None and remark.value is not None:
        remark.text()
    workload = Workload.read(meta["workload"])
    if workload.tracker is not None:
        if workload.front_end not in CONFIGURATIONS:
            raise no_tracker(workload, file)
        tracker, search = meta["workload"]["tracker"], program.phases.get(SEARCH)
        centre = search.outputs.get("ctr") if search is not None else None
        cells = search.spec(centre).shape[-1] if search is not None and centre is not None else 0
        sides = (tracker["resolution"].integer(1), cells, tracker["templates"].integer(1))
        try:
            check_tracks(program, _Sizes(tracker["name"].text(), *sides))
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return program


def read_program(folder: Path) -> tuple[Program, TrackerConfig]:
    """A bundle's program and the tracker configuration it carries; InputError where they are not of one tracker."""
    file = str(folder / layout.PROGRAM / JSON_NAME)
    program = read_alone(folder)
    try:
        config = tracker_config(program, file)
        check_tracks(program, config)
    except InputError as error:
        raise InputError(str(error) if file in str(error) else f"{file}: {error}") from None
    return program, config
