"""The cuts: the closed vocabulary of operations NIR cannot say, their parameters, and ``model.cuts.json``.

Decides what a cut may be and how the list is stored and checked. Must not know the tracker or how a cut is
executed. One row of :data:`CUT_OPS` per operation drives writing, reading and shape inference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.untrusted import read_json
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.nir_graph.graph import (
    CUT_PREFIX,
    Cut,
    Graph,
    Shape,
    canonical_json,
    graph_digest,
    phase_of,
    split_name,
    valid_name,
)

CUTS_VERSION = 1
TRANSPOSE = "(C,H,W) -> (H*W,C)"
MAX_CUTS_BYTES = 16 * 2**20

CutShape = Callable[[Cut, Sequence[Shape]], Shape]
Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class CutOp:
    """One operation: its equation, number of inputs (None: 2 x steps) and outputs, parameters, shape rule."""

    equation: str
    inputs: int | None
    outputs: int
    params: Mapping[str, tuple[str, Check]]
    shape: CutShape


def _is_int(minimum: int) -> Check:
    return lambda value: type(value) is int and value >= minimum


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_three(check: Check) -> Check:
    return lambda value: isinstance(value, (list, tuple)) and len(value) == 3 and all(check(item) for item in value)


def _fail(cut: Cut, problem: str) -> InputError:
    return InputError(f"cut '{cut.id}' ({cut.op}): {problem}")


def _key_value(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    (keys, values), heads = inputs, cut.params["heads"]
    if len(keys) != 3 or keys[1:] != values[1:] or keys[0] % heads or values[0] % heads:
        raise _fail(cut, f"keys {keys} and values {values} do not split into {heads} heads over equal positions")
    return (heads, keys[0] // heads, values[0] // heads)


def _query(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    queries, matrix = inputs
    want = (cut.params["heads"], cut.params["head_dim"])
    if len(matrix) != 3 or matrix[:2] != want or len(queries) != 3 or queries[0] != want[0] * want[1]:
        raise _fail(cut, f"queries {queries} and matrix {matrix} do not fit {want[0]} heads of {want[1]}")
    return (matrix[0] * matrix[2], *queries[1:])


def _same(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _upsample(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) != 3:
        raise _fail(cut, f"needs (channels, height, width) but the input is {inputs[0]}")
    factor = cut.params["factor"]
    return (inputs[0][0], inputs[0][1] * factor, inputs[0][2] * factor)


def _transpose(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    if len(inputs[0]) != 3:
        raise _fail(cut, f"needs (channels, height, width) but the input is {inputs[0]}")
    return (inputs[0][1] * inputs[0][2], inputs[0][0])


def _gate(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    steps = cut.params["steps"]
    logits, spikes = inputs[:steps], inputs[steps:]
    if len(set(spikes)) != 1 or len(spikes[0]) != 3 or any(shape != (1, spikes[0][0]) for shape in logits):
        raise _fail(cut, f"logits {list(logits)} do not fit spikes {list(spikes)}: one logit per channel and step")
    return spikes[0]


def _decode(cut: Cut, inputs: Sequence[Shape]) -> Shape:
    ctr, offset, size = inputs
    if len(ctr) != 3 or ctr[0] != 1 or offset != (2, *ctr[1:]) or size != offset:
        raise _fail(cut, f"maps {ctr}, {offset}, {size} are not one score, two offsets and two sizes per cell")
    return ctr[1:]


_HEADS = {"heads": ("a positive integer", _is_int(1))}
_SLOT = {"memory": ("an index >= 0", _is_int(0)), "step": ("an index >= 0", _is_int(0))}

NORMALISE = ("normalise", "normalise_pixels")
"""Operations through which an image enters."""


def _enters(equation: str) -> CutOp:
    fields: dict[str, tuple[str, Check]] = {
        "mean": ("three numbers", _is_three(_is_number)),
        "std": ("three positive numbers", _is_three(lambda v: _is_number(v) and v > 0)),
        "shape": ("three positive integers", _is_three(_is_int(1))),
    }
    return CutOp(equation, 0, 1, fields, lambda cut, _: tuple(cut.params["shape"]))


CUT_OPS: dict[str, CutOp] = {
    "normalise": _enters("y = (v / 255 - mean) / std, v uint8, on the host"),
    "normalise_pixels": _enters("y = (v - mean) / std, v uint8, on the host"),
    "key_value": CutOp("M = k^T v per head, positions summed, unscaled", 2, 0, _HEADS, _key_value),
    "query": CutOp(
        "y = q M * gain per head; gain null: ((q M) * d^-1/2) * 2",
        2,
        1,
        {
            **_HEADS,
            "head_dim": ("a positive integer", _is_int(1)),
            "gain": ("null or a number", lambda v: v is None or _is_number(v)),
        },
        _query,
    ),
    "memory_write": CutOp("memory[i][t] <- M", 1, 0, _SLOT, _same),
    "memory_read": CutOp("M = memory[i][t]", 0, 0, _SLOT, _same),
    "upsample": CutOp(
        "bilinear, source coordinate (j + 1/2) / factor - 1/2, clamped at the border",
        1,
        1,
        {
            "factor": ("an integer >= 2", _is_int(2)),
            "mode": ("'bilinear'", lambda v: v == "bilinear"),
            "align_corners": ("false", lambda v: v is False),
        },
        _upsample,
    ),
    "transpose": CutOp(
        "y[n, c] = x[c, n // W, n % W]", 1, 1, {"perm": (f"'{TRANSPOSE}'", lambda v: v == TRANSPOSE)}, _transpose
    ),
    "gate": CutOp(
        "y[c] = sum over t of softmax_t(logit[t, c]) * spike[t, c]",
        None,
        1,
        {"steps": ("an integer >= 2", _is_int(2))},
        _gate,
    ),
    "decode": CutOp(
        "score = clamp(sigmoid(ctr)), size = clamp(sigmoid(size)), offset as it is, on the host",
        3,
        0,
        {"clamp": ("a number in (0, 0.5)", lambda v: _is_number(v) and 0 < v < 0.5)},
        _decode,
    ),
}


def write_cuts(cuts: Sequence[Cut], graph: Graph, path: Path, *, digest: str | None = None) -> None:
    """Write ``model.cuts.json`` (canonical order, two-space indent, a final newline).

    ``digest`` is :func:`graph_digest` of ``graph`` where the caller has it already.
    """
    body: dict[str, Any] = {
        "version": CUTS_VERSION,
        "graph_sha256": graph_digest(graph) if digest is None else digest,
        "config": json.loads(graph.metadata["config"]),
        "cuts": [cut_record(cut) for cut in cuts],
    }
    body["sha256"] = sha256(canonical_json(body).encode()).hexdigest()
    write_whole(path, json.dumps(body, indent=2, allow_nan=False) + "\n")


def cut_record(cut: Cut) -> dict[str, Any]:
    """A cut as the JSON object that stands in the file."""
    return {
        "id": cut.id,
        "op": cut.op,
        "inputs": list(cut.inputs),
        "outputs": list(cut.outputs),
        "params": cut.params,
    }


def read_cuts(path: Path, graph: Graph) -> list[Cut]:
    """Read the cuts that belong to ``graph``, in execution order.

    Raises InputError where the file is not what :func:`write_cuts` makes (unknown or missing keys, wrong types,
    names the graph lacks) and VerificationError where it is well-formed but a digest differs.
    """
    body = _load(path)
    _expect_keys(f"{path}: the file", body, {"version", "graph_sha256", "config", "cuts", "sha256"})
    if body["version"] != CUTS_VERSION:
        raise InputError(f"{path}: version {body['version']!r} is not {CUTS_VERSION}; export the model again")
    if not isinstance(body["cuts"], list):
        raise InputError(f"{path}: 'cuts' is not a list")
    cuts = [_parse(path, index, entry, graph) for index, entry in enumerate(body["cuts"])]
    _check_order(path, cuts)
    claimed = body.pop("sha256")
    if claimed != sha256(canonical_json(body).encode()).hexdigest():
        raise VerificationError(f"{path}: its content was changed after export (sha256 differs); export again")
    if body["graph_sha256"] != graph_digest(graph):
        raise VerificationError(f"{path}: it was written for another graph than the one given; export both again")
    if canonical_json(body["config"]) != graph.metadata.get("config"):
        raise VerificationError(f"{path}: 'config' differs from the configuration inside the graph; export again")
    return cuts


def _load(path: Path) -> dict[str, Any]:
    return read_json(path, MAX_CUTS_BYTES, "export the model again").table()


def _expect_keys(where: str, entry: Mapping[str, Any], want: set[str]) -> None:
    missing, extra = sorted(want - entry.keys()), sorted(entry.keys() - want)
    if missing or extra:
        raise InputError(f"{where}: missing keys {missing}, unknown keys {extra}")


def _parse(path: Path, index: int, entry: Any, graph: Graph) -> Cut:
    where = f"cut {index}"
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {where} is not an object")
    _expect_keys(f"{path}: {where}", entry, {"id", "op", "inputs", "outputs", "params"})
    name, op = entry["id"], entry["op"]
    if not isinstance(name, str) or not _is_id(name):
        raise InputError(f"{path}: {where}: 'id' {name!r} is no valid name")
    where = f"cut '{name}'"
    ends = {}
    for field in ("inputs", "outputs"):
        if not isinstance(entry[field], list) or not all(isinstance(item, str) for item in entry[field]):
            raise InputError(f"{path}: {where}: '{field}' is not a list of names")
        ends[field] = tuple(entry[field])
    cut = Cut(name, op, ends["inputs"], ends["outputs"], entry["params"])
    check_cut(cut, graph, f"{path}: ")
    return cut


def _is_id(name: str) -> bool:
    try:
        split_name(name)
    except ValueError:
        return False
    return valid_name(name)


def check_cut(cut: Cut, graph: Graph, prefix: str = "") -> None:
    """Raise InputError unless ``cut`` is of a known operation with just its parameters, each of them legal, and its
    ends are of the right number and kind and lie in its own phase.
    """
    if not isinstance(cut.op, str) or cut.op not in CUT_OPS:
        raise InputError(f"{prefix}cut '{cut.id}': 'op' {cut.op!r} is none of {', '.join(CUT_OPS)}")
    spec = CUT_OPS[cut.op]
    if not isinstance(cut.params, dict):
        raise InputError(f"{prefix}cut '{cut.id}': 'params' is not an object")
    _expect_keys(f"{prefix}cut '{cut.id}', 'params'", cut.params, set(spec.params))
    for key, (expected, check) in spec.params.items():
        if not check(cut.params[key]):
            raise InputError(f"{prefix}cut '{cut.id}': parameter '{key}' is {cut.params[key]!r}, not {expected}")
    want = 2 * int(cut.params["steps"]) if spec.inputs is None else spec.inputs
    if len(cut.inputs) != want or len(cut.outputs) != spec.outputs:
        raise InputError(
            f"{prefix}cut '{cut.id}': {cut.op} takes {want} inputs and {spec.outputs} outputs, "
            f"not {len(cut.inputs)} and {len(cut.outputs)}"
        )
    ends = [(name, "Output") for name in cut.inputs if not name.startswith(CUT_PREFIX)]
    for name, kind in ends + [(name, "Input") for name in cut.outputs]:
        node = graph.nodes.get(name)
        if node is None or node.kind != kind or phase_of(name) != phase_of(cut.id):
            raise InputError(f"{prefix}cut '{cut.id}': '{name}' is no {kind} node of this phase of the graph")


def _check_order(path: Path, cuts: Sequence[Cut]) -> None:
    seen: set[str] = set()
    for cut in cuts:
        for name in cut.inputs:
            if name.startswith(CUT_PREFIX) and name not in seen:
                raise InputError(f"{path}: cut '{cut.id}': '{name}' is not the id of an earlier cut")
        if CUT_PREFIX + cut.id in seen:
            raise InputError(f"{path}: cut '{cut.id}' is listed twice")
        seen.add(CUT_PREFIX + cut.id)
