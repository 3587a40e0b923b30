"""Known answers that travel with a bundle: recorded inputs, and the digest of every operation's integers.

This module decides what is recorded and how it is checked: with the reference engine, operation by operation, by
NumPy alone. It must not know trackers, prices or PyTorch. The search phase is checked from recorded memories, so that
a fault in the template phase is named once and not a second time behind it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.engines.base import Engine, ReferenceEngine
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.untrusted import Arrays, Entry, read_json
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.store import AGAIN, array_digest, canonical_json, content_hash
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Program

SCHEMA = "spiketrack-vectors/1"
MAX_RUNS = 64


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded execution of a phase. ``digests``: SHA-256 of each operation's integers (int64)."""

    phase: str
    inputs: Mapping[str, AnyArray]
    digests: Mapping[str, str]
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a verification covered: runs, operations, integers; and how many of these integers belong to an output whose
    digest is not the recorded one."""

    runs: int
    operations: int
    integers: int
    differing: int


def execute(
    program: Program, engine: Engine, phase: str, inputs: Mapping[str, AnyArray]
) -> tuple[Run, dict[str, IntArray], dict[str, int]]:
    """Run a phase and digest every operation's output; returns the run, the phase's outputs and the integers of every
    operation."""
    digests: dict[str, str] = {}
    seen: dict[str, int] = {}

    def watch(op: Op, value: IntArray) -> None:
        digests[op.name] = array_digest(np.asarray(value, dtype=np.int64))
        seen[op.name] = value.size

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
    write_whole(folder / vectors, buffer.getvalue())
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
    write_whole(folder / expected, canonical_json(data))


def load(folder: Path, program: Program, vectors: str, expected: str) -> tuple[str, list[Run]]:
    """Content hash of the program the vectors belong to, and the recorded runs, which must be of ``program``'s phases
    and of its inputs' shapes.

    InputError: missing or malformed file; VerificationError: an input is not the one that was recorded.
    """
    for path in (folder / vectors, folder / expected):
        if not path.is_file():
            raise InputError(f"{path}: file is missing; this is not a whole bundle, export it again")
    data = read_json(folder / expected, remedy=AGAIN)
    data.schema(SCHEMA)
    with Arrays(folder / vectors, packed=True, remedy=AGAIN) as archive:
        listed = data["runs"].each(MAX_RUNS)
        runs = [_read_run(archive, program, index, entry) for index, entry in enumerate(listed)]
    if not runs:
        raise InputError(f"{folder / expected}: holds no recorded run; {AGAIN}")
    return data["program"].text(), runs


def _read_run(archive: Arrays, program: Program, index: int, entry: Entry) -> Run:
    name = entry["phase"].text()
    if name not in program.phases:
        raise entry["phase"].fault("a phase of the program")
    inputs = {}
    for key, spec in program.phases[name].inputs.items():
        inputs[key] = archive.read(f"{index}.{key}", tuple(spec.shape))
        if array_digest(inputs[key]) != entry["inputs"][key].text():
            raise VerificationError(
                f"{archive.path}: recorded input {key} of run {index} is not the one that was exported; {AGAIN}"
            )
    digests = {op: digest.text() for op, digest in entry["ops"].members()}
    counts = {op: {key: n.integer() for key, n in found.members()} for op, found in entry["counts"].members()}
    return Run(name, inputs, digests, counts)


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
    operations = integers = differing = 0
    for index, want in enumerate(runs):
        if tell:
            tell("known answers", index, len(runs))
        got, _, seen = execute(program, engine, want.phase, want.inputs)
        operations += len(got.digests)
        integers += sum(seen.values())
        differing += sum(size for op, size in seen.items() if got.digests[op] != want.digests.get(op))
        difference = first_difference(program, want, got)
        if difference:
            raise VerificationError(
                f"{where}: {want.phase} phase, layer {difference} ({engine.name} engine against the record; so far "
                f"{differing:,} of {integers:,} integers are of outputs that differ)"
            )
    return Checked(len(runs), operations, integers, differing)
