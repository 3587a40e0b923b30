"""Runs a check of a file in a child process, so that damaged HDF5 cannot crash, hang or exhaust this one.

Decides the child's limits and turns its end into one sentence. Must not know what is in the file or how it is read: the
check is named to the child and imported there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from spiketrack_deploy.errors import InputError

MEMORY_BASE = 1 << 30
"""Address space of an interpreter with NumPy and HDF5 (mapped, not used), to which the file's own budget is added."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Each thread of a linear algebra library maps a stack and buffers of its own, and none is used."""


def check_in_child(check: tuple[str, str], path: Path, argument: str, seconds: float, memory: int) -> None:
    """Call ``check`` (module, function) with ``path`` and ``argument`` in a child that may take ``seconds`` and, beside
    the interpreter, ``memory`` bytes of address space; InputError if it refuses, dies or does not end.
    """
    root = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {root!r}); from {check[0]} import {check[1]} as check; "
        f"from {__name__} import child_main; child_main(check, {seconds!r}, {memory!r}, *sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(path), argument]
    try:
        environment = {**os.environ, **ONE_THREAD}
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: reading it did not end within {seconds:g} s; the file is damaged") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise InputError(f"{path}: the HDF5 library died reading it (status {done.returncode})") from error
    if answer["error"] is not None:
        raise InputError(answer["error"])


def child_main(check: Callable[..., object], seconds: float, memory: int, *arguments: str) -> None:
    """What the child runs: ``check`` under limits, answering ``{"error": sentence or null}`` on standard output."""
    _limit_resources(seconds, memory)
    try:
        check(*arguments)
        error = None
    except InputError as refusal:
        error = str(refusal)
    sys.stdout.write(json.dumps({"error": error}))


def _limit_resources(seconds: float, memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the time limit of the parent remains.
        return
    limits = (
        (resource.RLIMIT_AS, MEMORY_BASE + memory),
        (resource.RLIMIT_CPU, math.ceil(seconds)),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, value in limits:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
