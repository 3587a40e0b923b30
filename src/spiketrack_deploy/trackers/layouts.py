"""How a tracker's configuration is named and read, whichever tracker it is of.

This module decides what a configuration may look like before its fields are checked. It must not know the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import shown
from spiketrack_deploy.trackers.kinds import SPIKETRACK

Layout = TypeVar("Layout")
_MOST = 100


def published_layout(name: str, layouts: Mapping[str, Layout]) -> Layout:
    """The layout of that name; InputError lists the names."""
    if name not in layouts:
        raise InputError(f"there is no configuration {name!r}; choose one of {', '.join(layouts)}")
    return layouts[name]


def entries(data: Any, network: str) -> dict[str, Any]:
    """``data`` as an object of few entries, without its ``network``, which must be the one named (a SpikeTrack's leaves
    it out); InputError where it is none."""
    if not isinstance(data, Mapping) or len(data) > _MOST or not all(isinstance(key, str) for key in data):
        raise InputError(f"a tracker configuration must be a JSON object of few entries, not {shown(data)}")
    found = data.get("network", SPIKETRACK)
    if found != network:
        raise InputError(f"it is that of network {shown(found)}, not of {network!r}")
    return {key: value for key, value in data.items() if key != "network"}
