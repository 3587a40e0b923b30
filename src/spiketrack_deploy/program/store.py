"""Program files: ``program.json`` (structure, digests) beside ``arrays.npz`` (plain arrays); no pickles.

This module decides bytes and digests. It must not know what an operation computes. The program's hash is SHA-256 over
the canonical JSON of integers, shapes and wiring, which holds the digest of every array: it depends neither on the zip
container nor on the machine, nor on where the program came from, what it is called or how often its phases run.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import AnyArray, Cadence, Op, Phase, Program, State, TensorSpec

SCHEMA = "spiketrack-program/2"
JSON_NAME, ARRAYS_NAME = "program.json", "arrays.npz"
_MAX_BYTES = 4 * 2**30


def array_digest(array: AnyArray) -> str:
    """SHA-256 over dtype, shape and little-endian C-order bytes."""
    a = np.ascontiguousarray(array)
    little = a.astype(a.dtype.newbyteorder("<"), copy=False)
    header = f"{little.dtype.str}{a.shape}".encode()
    return hashlib.sha256(header + little.tobytes()).hexdigest()


def canonical_json(data: Any) -> bytes:
    """Sorted keys, no spaces, ASCII: the same bytes for the same data everywhere."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _spec_dict(spec: TensorSpec) -> dict[str, Any]:
    return {"kind": spec.kind, "shape": list(spec.shape), "unit": spec.unit, "scale": spec.scale, "top": spec.top}


def _phase_dict(phase: Phase) -> dict[str, Any]:
    return {
        "name": phase.name,
        "cadence": {"start": phase.cadence.start, "every": phase.cadence.every},
        "inputs": [[name, _spec_dict(spec)] for name, spec in phase.inputs.items()],
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
        "outputs": [[public, value] for public, value in phase.outputs.items()],
    }


def to_dict(program: Program) -> dict[str, Any]:
    """The JSON form, digests of all arrays included. Phases, inputs and outputs are lists: their order counts."""
    return {
        "schema": SCHEMA,
        "meta": dict(program.meta),
        "width": program.width,
        "states": [[n, {"spec": _spec_dict(s.spec), "initial": s.initial}] for n, s in program.states.items()],
        "phases": [_phase_dict(phase) for phase in program.phases.values()],
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
    (folder / JSON_NAME).write_bytes(canonical_json(data))
    with (folder / ARRAYS_NAME).open("wb") as stream:
        arrays: dict[str, Any] = {key: np.ascontiguousarray(program.arrays[key]) for key in sorted(program.arrays)}
        np.savez(stream, **arrays)
    return hashlib.sha256(canonical_json(_integers(data))).hexdigest()


def _read_spec(data: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(int(n) for n in data["shape"])
    return TensorSpec(str(data["kind"]), shape, data["unit"], float(data["scale"]), int(data["top"]))


def _read_phase(data: Mapping[str, Any]) -> Phase:
    ops = tuple(
        Op(
            o["name"],
            o["kind"],
            tuple(o["inputs"]),
            o["block"],
            {k: int(v) for k, v in o["attrs"].items()},
            dict(o["arrays"]),
        )
        for o in data["ops"]
    )
    values = {o["name"]: _read_spec(o["value"]) for o in data["ops"]}
    inputs = {name: _read_spec(spec) for name, spec in data["inputs"]}
    every = data["cadence"]["every"]
    cadence = Cadence(bool(data["cadence"]["start"]), None if every is None else int(every))
    return Phase(str(data["name"]), inputs, ops, values, dict(data["outputs"]), cadence)


def _owner(data: Mapping[str, Any], key: str) -> str:
    users = {
        f"{op['name']} ({role})"
        for b in data["phases"]
        for op in b["ops"]
        for role, k in op["arrays"].items()
        if k == key
    }
    return ", ".join(sorted(users)) or f"array {key}"


def _check_header(stream: IO[bytes], size: int) -> None:
    """ValueError unless the header describes exactly the bytes behind it: memory is only then set aside for them."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(f"its header says {dtype} {shape}, which is not what follows")


def _read_array(archive: zipfile.ZipFile, key: str, path: Path, data: Mapping[str, Any]) -> AnyArray:
    try:
        with archive.open(key + ".npy") as stream:
            _check_header(stream, archive.getinfo(key + ".npy").file_size)
        with archive.open(key + ".npy") as stream:
            array: AnyArray = np.lib.format.read_array(stream, allow_pickle=False)
    except KeyError:
        raise InputError(f"{path}: the array of {_owner(data, key)} is missing; export the bundle again") from None
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise VerificationError(
            f"{path}: the array of layer {_owner(data, key)} is damaged ({error}); export the bundle again"
        ) from None
    if array_digest(array) != data["arrays"][key]:
        raise VerificationError(
            f"{path}: the array of layer {_owner(data, key)} is not the one that was exported (its SHA-256 "
            "differs); export the bundle again"
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
    try:
        data = json.loads(json_path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise InputError(
                f"{json_path}: schema {data['schema']!r} is not {SCHEMA!r}; export the bundle again with this version"
            )
        phases = {phase.name: phase for phase in map(_read_phase, data["phases"])}
        states = {n: State(_read_spec(s["spec"]), s["initial"]) for n, s in data["states"]}
        keys, meta, width = list(data["arrays"]), data["meta"], int(data["width"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{json_path}: not a program file ({type(error).__name__}: {error}); export the bundle again"
        ) from None
    try:
        archive = zipfile.ZipFile(array_path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{array_path}: not an array archive ({error}); export the bundle again") from None
    with archive:
        if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
            raise InputError(f"{array_path}: declares more than {_MAX_BYTES} bytes; refused")
        arrays = {key: _read_array(archive, key, array_path, data) for key in keys}
    program = Program(phases, arrays, states, width, meta)
    check_program(program)
    return program
