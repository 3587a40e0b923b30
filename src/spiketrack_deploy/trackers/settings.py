"""Which tracker a program is for: from the workload that it carries to a configuration.

This module decides which tracker's room reads a configuration; the room is imported when one is read. It must not know
how a program runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.untrusted import Entry
from spiketrack_deploy.program.store import AGAIN
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.program.workload import Workload

if TYPE_CHECKING:
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig


def _spiketrack(data: Mapping[str, Any]) -> TrackerConfig:
    from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig

    return TrackerConfig.from_dict(data)


CONFIGURATIONS: Mapping[str, Callable[[Mapping[str, Any]], TrackerConfig]] = {"spiketrack": _spiketrack}
"""Front end -> who reads its tracker's configuration."""


def no_tracker(workload: Workload, file: str) -> InputError:
    """What to raise where a program has to follow a box and cannot."""
    return InputError(f"{file}: it came through {workload.front_end!r} and is for no tracker, so it follows no box")


def tracker_config(program: Program, file: str = "program") -> TrackerConfig:
    """The configuration of the tracker that ``program`` is for; InputError, naming ``file``, where it is for none."""
    entry = Entry(program.meta, file, "meta", AGAIN)["workload"]
    workload = Workload.read(entry)
    if workload.tracker is None or workload.front_end not in CONFIGURATIONS:
        raise no_tracker(workload, file)
    entry["tracker"]["name"].text()
    return CONFIGURATIONS[workload.front_end](workload.tracker)
