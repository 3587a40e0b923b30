"""What a bundle's files say, read with NumPy alone: its program, the tracker configuration and remark it carries.

This module decides what a bundle's program must be so that a tracker can run it. It must not run anything.
"""

from __future__ import annotations

from pathlib import Path

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import Entry
from spiketrack_deploy.program.store import AGAIN, JSON_NAME, load_program
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.settings import tracker_config
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.tracking.program_network import check_tracks


def read_program(folder: Path) -> tuple[Program, TrackerConfig]:
    """A bundle's program and the tracker configuration it carries; InputError where they are not of one tracker."""
    file = folder / layout.PROGRAM / JSON_NAME
    program = load_program(folder / layout.PROGRAM)
    meta = Entry(program.meta, str(file), "meta", AGAIN)
    remark = meta.get("remark")
    if remark is not None and remark.value is not None:
        remark.text()
    config = tracker_config(program, str(file))
    try:
        check_tracks(program, config)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return program, config
