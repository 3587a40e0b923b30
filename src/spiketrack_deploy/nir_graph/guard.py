"""Reads a NIR file in a child process first, so that damaged HDF5 cannot crash, hang or exhaust this one.

Decides the child's limits and turns its end into one sentence. Must not know what is in the file.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.reader import Limits, read_unguarded

MEMORY_BASE = 4 << 30
"""Address space of an interpreter with NumPy and HDF5 (mapped, not used), to which the file's own budget is added."""


def check_in_child(path: Path, limits: Limits) -> None:
    """Raise InputError if reading ``path`` in a child with limits on time and address space does not succeed."""
    root = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from spiketrack_deploy.nir_graph.guard import child_main; child_main(*sys.argv[1:])"
    )
    fields = {name: getattr(limits, name) for name in Limits.__slots__}
    command = [sys.executable, "-c", code, str(path), json.dumps(fields)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=limits.seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: reading it did not end within {limits.seconds:g} s; the file is damaged") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise InputError(f"{path}: the HDF5 library died reading it (status {done.returncode})") from error
    if answer["error"] is not None:
        raise InputError(answer["error"])


def child_main(path: str, fields: str) -> None:
    """What the child runs: read under limits, answer ``{"error": sentence or null}`` on standard output."""
    limits = Limits(**json.loads(fields))
    _limit_resources(limits)
    try:
        read_unguarded(Path(path), limits)
        error = None
    except InputError as refusal:
        error = str(refusal)
    sys.stdout.write(json.dumps({"error": error}))


def _limit_resources(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the time limit of the parent remains.
        return
    room = MEMORY_BASE + 2 * limits.array_bytes
    seconds = math.ceil(limits.seconds)
    for kind, value in ((resource.RLIMIT_AS, room), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
