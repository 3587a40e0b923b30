"""What a program is for: what goes in, what comes out, how a result is shown. (How often a phase runs: on the phase.)

This module decides the words in which a front end says so, and how they are read back. Nothing here changes an integer.
It must not know how a program computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spiketrack_deploy.inputs.untrusted import Entry

SHOWN = ("boxes", "rasters")
_MOST = 64


@dataclass(frozen=True, slots=True)
class Workload:
    """``front_end``: who recognised the network. ``inputs``, ``outputs``: name that the program knows -> what it is.
    ``shown``: ``boxes`` on video, or ``rasters``. ``tracker``: the configuration of the tracker as its own room writes
    it, opaque to everything else; None where there is none.
    """

    front_end: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    shown: str
    tracker: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def read(cls, entry: Entry) -> Workload:
        """Inverse of :meth:`to_dict`, from a file; InputError where it is not one."""
        shown, tracker = entry["shown"], entry["tracker"]
        if shown.text() not in SHOWN:
            raise shown.fault(" or ".join(SHOWN))
        inputs, outputs = ({k: v.text() for k, v in entry[key].members(_MOST)} for key in ("inputs", "outputs"))
        return cls(
            entry["front_end"].text(),
            inputs,
            outputs,
            shown.text(),
            None if tracker.value is None else tracker.table(),
        )
