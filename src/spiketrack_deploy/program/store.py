"""Program files: ``program.json`` (structure, digests) beside ``arrays.npz`` (plain arrays); no pickles.

This module decides bytes and digests. It must not know what an operation computes. The program's hash is SHA-256 over
the canonical JSON of integers, shapes and wiring, which holds the digest of every array: it depends neither on the zip
container nor on the machine, nor on where the program came from, what it is called or how often its phases run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.untrusted import Arrays, Entry, read_json
from spiketrack_deploy.inputs.whole_file import whole, write_whole
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import AnyArray, Cadence, Op, Phase, Program, State, TensorSpec

SCHEMA = "spiketrack-program/2"
JSON_NAME, ARRAYS_NAME = "program.json", "arrays.npz"
AGAIN = "export the bundle again"
MAX_OPERATIONS, MAX_PHASES = 10_000, 16
"""Operations of a phase, and phases: some thirty times what the largest network here has."""
_MAX_SIDE = 2**31 - 1


def array_digest(array: AnyArray) -> str:
    """SHA-256 over dtype, shape and little-endian C-order bytes."""
    a = np.ascontiguousarray(array)
    little = a.astype(a.dtype.newbyteorder("<"), copy=False)
    sha = hashlib.sha256(f"{little.dtype.str}{a.shape}".encode())
    sha.update(little.data if little.size else b"")
    return sha.hexdigest()


def canonical_json(data: Any) -> bytes:
    """Sorted keys, no spaces, ASCII: the same bytes for the same data everywhere."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _spec_dict(spec: TensorSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "shape": list(spec.shape), "unit": spec.unit, "scale": spec.scale, "top": spec.top}


def _phase_dict(phase: Phase) -> dict[str, Any]:
    return {
        "cadence": {"start": phase.cadence.start, "every": phase.cadence.every},
        "inputs": {name: _spec_dict(spec) for name, spec in phase.inputs.items()},
        "ops": [
            {
                "name": o.name,
                "kind": o.kind,
                "inputs": list(o.inputs),
                "block": o.block,
                "attrs": dict(o.attrs),
                "arrays": dict(o.arrays),
                "value": _spec_dict(phase.values[o.name]),
            }
            for o in phase.ops
        ],
        "outputs": dict(phase.outputs),
    }


def to_dict(program: Program) -> dict[str, Any]:
    """The JSON form, digests of all arrays included, in the program's own order of phases, inputs and outputs."""
    return {
        "schema": SCHEMA,
        "meta": dict(program.meta),
        "width": program.width,
        "states": {n: {"spec": _spec_dict(s.spec), "initial": s.initial} for n, s in program.states.items()},
        "phases": {name: _phase_dict(phase) for name, phase in program.phases.items()},
        "arrays": {key: array_digest(program.arrays[key]) for key in sorted(program.arrays)},
    }


_BESIDE = ("schema", "meta", "cadence", "block", "scale")
"""What is no integer, shape or wiring: it stands in the file and not in the hash."""


def _integers(data: Any) -> Any:
    """The JSON form without what the hash does not cover."""
    if isinstance(data, Mapping):
        return {key: _integers(value) for key, value in data.items() if key not in _BESIDE}
    return [_integers(item) for item in data] if isinstance(data, list) else data


def content_hash(program: Program) -> str:
    """SHA-256 over integers, shapes and wiring: the same network compiled anywhere has the same hash."""
    return hashlib.sha256(canonical_json(_integers(to_dict(program)))).hexdigest()


def save_program(program: Program, folder: Path) -> str:
    """Write the two files into ``folder`` (made if absent) and return the content hash."""
    folder.mkdir(parents=True, exist_ok=True)
    data = to_dict(program)
    write_whole(folder / JSON_NAME, json.dumps(data, separators=(",", ":"), allow_nan=False).encode())
    with whole(folder / ARRAYS_NAME) as part, part.open("wb") as stream:
        arrays: dict[str, Any] = {key: np.ascontiguousarray(program.arrays[key]) for key in sorted(program.arrays)}
        np.savez(stream, **arrays)
    return hashlib.sha256(canonical_json(_integers(data))).hexdigest()


def _read_spec(data: Entry) -> TensorSpec:
    shape = tuple(size.integer(-1, _MAX_SIDE) for size in data["shape"].each(8))
    unit = None if data["unit"].value is None else data["unit"].text()
    return TensorSpec(data["kind"].text(), shape, unit, data["scale"].number(), data["top"].integer(0, _MAX_SIDE))


def _read_op(data: Entry) -> Op:
    return Op(
        data["name"].text(),
        data["kind"].text(),
        tuple(name.text() for name in data["inputs"].each()),
        data["block"].text(),
        {name: value.integer(-_MAX_SIDE, _MAX_SIDE) for name, value in data["attrs"].members()},
        {role: key.text() for role, key in data["arrays"].members()},
    )


def _read_phase(name: str, data: Entry) -> Phase:
    listed = data["ops"].each(MAX_OPERATIONS)
    ops = tuple(_read_op(entry) for entry in listed)
    values = {op.name: _read_spec(entry["value"]) for op, entry in zip(ops, listed)}
    inputs = {key: _read_spec(spec) for key, spec in data["inputs"].members()}
    outputs = {key: value.text() for key, value in data["outputs"].members()}
    every = data["cadence"]["every"]
    often = None if every.value is None else every.integer(1, _MAX_SIDE)
    return Phase(name, inputs, ops, values, outputs, Cadence(data["cadence"]["start"].truth(), often))


def _read_state(data: Entry) -> State:
    initial = data["initial"]
    if initial.value is None or isinstance(initial.value, str):
        return State(_read_spec(data["spec"]), initial.value)
    return State(_read_spec(data["spec"]), initial.integer(-_MAX_SIDE, _MAX_SIDE))


def _owner(data: Mapping[str, Any], key: str) -> str:
    users = {
        f"{op['name']} ({role})"
        for b in data["phases"].values()
        for op in b["ops"]
        for role, k in op["arrays"].items()
        if k == key
    }
    return ", ".join(sorted(users)) or f"array {key}"


def _read_array(archive: Arrays, key: str, data: Mapping[str, Any]) -> AnyArray:
    path = archive.path
    if key not in archive:
        raise InputError(f"{path}: the array of {_owner(data, key)} is missing; {AGAIN}")
    try:
        array: AnyArray = archive.read(key)
    except InputError as error:
        raise VerificationError(f"{path}: the array of layer {_owner(data, key)} is damaged ({error})") from None
    if array_digest(array) != data["arrays"][key]:
        raise VerificationError(
            f"{path}: the array of layer {_owner(data, key)} is not the one that was exported (its SHA-256 "
            f"differs); {AGAIN}"
        )
    return array


def load_program(folder: Path) -> Program:
    """Read, check digests, check legality.

    InputError: a file is missing, not of this schema, or structurally wrong. VerificationError: an array is not the one
    that the JSON names; the message names the layer.
    """
    json_path, array_path = folder / JSON_NAME, folder / ARRAYS_NAME
    for path in (json_path, array_path):
        if not path.is_file():
            raise InputError(f"{path}: file is missing; this is not a whole bundle, export it again")
    data = read_json(json_path, remedy=AGAIN)
    data.schema(SCHEMA)
    phases = {name: _read_phase(name, entry) for name, entry in data["phases"].members(MAX_PHASES)}
    states = {name: _read_state(entry) for name, entry in data["states"].members(MAX_OPERATIONS)}
    width = data["width"].integer(1, _MAX_SIDE)
    keys = [key for key, digest in data["arrays"].members() if digest.text()]
    meta = data["meta"].table()
    with Arrays(array_path, packed=False, remedy=AGAIN) as archive:
        arrays = {key: _read_array(archive, key, data.table()) for key in keys}
    program = Program(phases, arrays, states, width, meta)
    check_program(program)
    return program
