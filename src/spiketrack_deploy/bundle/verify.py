"""Verification of a bundle with NumPy alone: nothing that made the bundle takes part.

This module decides the order of the checks, from cheap to dear. It must not import PyTorch, NIR or an engine other
than the reference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spiketrack_deploy.bundle import answers, layout
from spiketrack_deploy.bundle.contents import read_alone
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.errors import VerificationError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.program.bounds import demand_ranges
from spiketrack_deploy.program.store import content_hash
from spiketrack_deploy.program.types import Program


def verify_bundle(folder: Path, tell: Tell | None = None) -> dict[str, Any]:
    """Check a bundle; returns what was covered. VerificationError names file, layer or operation.

    The program is loaded before the file digests are compared, because its own digests name the layer that changed.
    """
    manifest = layout.read_manifest(folder)
    for path in manifest.files:
        if not (folder / path).is_file():
            layout.changed_files(folder, manifest)
    program = read_alone(folder)
    found = content_hash(program)
    if found != manifest.program_hash:
        raise VerificationError(
            f"{folder / layout.PROGRAM}: its hash {found[:12]} is not the manifest's {manifest.program_hash[:12]}; "
            "export again"
        )
    layout.check_bundle(folder)
    operations = _prove(program, folder)
    owner, runs = answers.load(folder, program, layout.VECTORS, layout.EXPECTED)
    if owner != found:
        raise VerificationError(
            f"{folder / layout.EXPECTED}: its known answers belong to another program; export again"
        )
    unanswered = sorted(set(program.phases) - {run.phase for run in runs})
    if unanswered:
        raise VerificationError(f"{folder / layout.EXPECTED}: has no known answers of phase {', '.join(unanswered)}")
    with ReferenceEngine(program) as engine:
        checked = answers.check(program, engine, runs, str(folder), tell)
    return {
        "bundle": str(folder),
        "ok": True,
        "content_hash": manifest.content_hash,
        "program_hash": found,
        "files": len(manifest.files),
        "arrays": len(program.arrays),
        "ranges_proved": operations,
        "runs": checked.runs,
        "operations": checked.operations,
        "integers": checked.integers,
        "without_torch": "torch" not in sys.modules,
    }


def _prove(program: Program, folder: Path) -> int:
    """Every accumulator within its width for any input; the number of operations proved."""
    try:
        ranges = demand_ranges(program, "export again")
    except VerificationError as error:
        raise VerificationError(f"{folder / layout.PROGRAM}: {error}") from None
    return sum(len(entries) for entries in ranges.values())
