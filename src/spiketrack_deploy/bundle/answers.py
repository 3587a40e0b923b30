"""Known answers that travel with a bundle: recorded inputs, and the digest of every operation's integers.

This module decides what is recorded and how it is checked: with the reference engine, operation by operation, by
NumPy alone. It must not know trackers, prices or PyTorch. The search phase is checked from recorded memories, so that
a fault in the template phase is named once and not a second time behind it.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import Engine, ReferenceEngine
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.store import array_digest, canonical_json, content_hash
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Program

SCHEMA = "spiketrack-vectors/1"
Tell = Callable[[str, int, int], None]
"""``tell(what, done, total)``: progress."""


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded execution of a phase. ``digests``: SHA-256 of each operation's integers (int64)."""

    phase: str
    inputs: Mapping[str, AnyArray]
    digests: Mapping[str, str]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verification covered: runs, operations, integers."""

    runs: int
    operations: int
    integers: int


def execute(
    program: Program, engine: Engine, phase: str, inputs: Mapping[str, AnyArray]
) -> tuple[Run, dict[str, IntArray], int]:
    """Run a phase and digest every operation's output; returns the run, the phase's outputs and the integers seen."""
    digests: dict[str, str] = {}
    seen = 0

    def watch(op: Op, value: IntArray) -> None:
        nonlocal seen
        digests[op.name] = array_digest(np.asarray(value, dtype=np.int64))
        seen += value.size

    result = engine.run(phase, inputs, count=True, watch=watch)
    counts = {name: _plain(c) for name, c in result.counts.items()}
    return Run(phase, dict(inputs), digests, counts), dict(result.outputs), seen


def _plain(counts: OpCounts) -> dict[str, int]:
    return {key: value for key, value in counts.to_dict().items() if value}


def record(program: Program, templates: AnyArray, searches: Sequence[AnyArray], tell: Tell | None = None) -> list[Run]:
    """Record one template pass and the search frames that read its memories, with the reference engine.

    ``templates`` uint8 ``[T,3,r,r]``, each of ``searches`` uint8 ``[1,3,r,r]``.
    """
    runs: list[Run] = []
    memories: dict[str, AnyArray] = {}
    with ReferenceEngine(program) as engine:
        if "template" in program.phases:  # a network without retrievers has none
            run, outputs, _ = execute(program, engine, "template", {"image": templates})
            runs.append(run)
            memories = {name: value.astype(np.int32) for name, value in outputs.items()}
        for index, image in enumerate(searches):
            if tell:
                tell("known answers", index + 1, len(searches) + 1)
            runs.append(execute(program, engine, "search", {"image": image, **memories})[0])
    return runs


def save(folder: Path, program: Program, runs: Sequence[Run], vectors: str, expected: str) -> None:
    """Write the inputs (plain npz) and the digests (JSON) of ``runs`` into the bundle ``folder``."""
    arrays = {
        f"{i}.{name}": np.ascontiguousarray(value) for i, run in enumerate(runs) for name, value in run.inputs.items()
    }
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(sorted(arrays.items()))
    np.savez_compressed(buffer, **named)
    (folder / vectors).write_bytes(buffer.getvalue())
    data = {
        "schema": SCHEMA,
        "program": content_hash(program),
        "runs": [
            {
                "phase": run.phase,
                "inputs": {name: array_digest(value) for name, value in run.inputs.items()},
                "ops": run.digests,
                "counts": run.counts,
            }
            for run in runs
        ],
    }
    (folder / expected).write_bytes(canonical_json(data))


def load(folder: Path, vectors: str, expected: str) -> tuple[str, list[Run]]:
    """Content hash of the program the vectors belong to, and the recorded runs.

    InputError: missing or malformed file; VerificationError: an input is not the one that was recorded.
    """
    for path in (folder / vectors, folder / expected):
        if not path.is_file():
            raise InputError(f"{path}: file is missing; this is not a whole bundle, export it again")
    try:
        data = json.loads((folder / expected).read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(
                f"{folder / expected}: schema {data['schema']!r} is not {SCHEMA!r}; export the bundle again"
            )
        with np.load(folder / vectors, allow_pickle=False) as archive:
            runs = [_read_run(archive, i, entry, folder / vectors) for i, entry in enumerate(data["runs"])]
        return str(data["program"]), runs
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{folder / expected}: not a record of known answers ({type(error).__name__}: {error}); export again"
        ) from None


def _read_run(archive: Mapping[str, AnyArray], index: int, entry: Mapping[str, Any], path: Path) -> Run:
    inputs = {}
    for name, digest in entry["inputs"].items():
        inputs[name] = archive[f"{index}.{name}"]
        if array_digest(inputs[name]) != digest:
            raise VerificationError(
                f"{path}: recorded input {name} of run {index} is not the one that was exported; export again"
            )
    return Run(entry["phase"], inputs, dict(entry["ops"]), {k: dict(v) for k, v in entry["counts"].items()})


def first_difference(program: Program, want: Run, got: Run) -> str | None:
    """Name of the first operation, in execution order, whose integers or counts differ, with what differs."""
    for op in program.phases[want.phase].ops:
        if want.digests.get(op.name) != got.digests.get(op.name):
            return f"{op.name} ({op.kind}): its integers differ"
        if want.counts.get(op.name) != got.counts.get(op.name):
            recorded, now = want.counts.get(op.name), got.counts.get(op.name)
            return f"{op.name} ({op.kind}): its counts differ, {recorded} recorded and {now} now"
    return None


def check(program: Program, engine: Engine, runs: Sequence[Run], where: str, tell: Tell | None = None) -> Checked:
    """Execute every recorded run with ``engine``; VerificationError names the first operation that differs."""
    operations = integers = 0
    for index, want in enumerate(runs):
        if want.phase not in program.phases:
            raise InputError(
                f"{where}: recorded run {index} is of a phase {want.phase!r} that the program lacks; export again"
            )
        if tell:
            tell("known answers", index, len(runs))
        got, _, seen = execute(program, engine, want.phase, want.inputs)
        difference = first_difference(program, want, got)
        if difference:
            raise VerificationError(
                f"{where}: {want.phase} phase, layer {difference} ({engine.name} engine against the record)"
            )
        operations += len(got.digests)
        integers += seen
    return Checked(len(runs), operations, integers)
