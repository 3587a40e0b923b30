"""Where a bundle came from: inputs, versions, command, time.

This module decides what may differ between two runs that produce the same content. It must not know results.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spiketrack_deploy import __version__
from spiketrack_deploy.inputs.versions import versions
from spiketrack_deploy.inputs.whole_file import file_digest

SCHEMA = "spiketrack-provenance/1"


def describe_input(path: Path) -> dict[str, Any]:
    """Name, size in bytes and SHA-256 of a file, or of every file in a folder of frames."""
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file())
        return {"name": path.name, "files": {p.name: file_digest(p) for p in files}}
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def command_line(argv: Sequence[str]) -> str:
    """The command as one would type it, with the program's bare name."""
    return shlex.join([os.path.basename(argv[0]), *argv[1:]]) if argv else ""


def describe(
    command: str, inputs: Mapping[str, Path], settings: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The content of ``provenance.json``. ``inputs``: role -> file or folder; ``seconds``: stage -> wall-clock time."""
    return {
        "schema": SCHEMA,
        "spiketrack_deploy": __version__,
        "command": command,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "inputs": {role: describe_input(path) for role, path in inputs.items()},
        "settings": dict(settings),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "python": platform.python_version(),
        "platform": {"system": platform.system(), "machine": platform.machine(), "byteorder": sys.byteorder},
        "packages": versions(),
    }
