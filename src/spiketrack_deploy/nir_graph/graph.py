"""What a graph with cuts is in memory: nodes, edges, cuts, names, and the digest of their content.

Decides the data types that every other module of this package, and the lowering, reads. Must not know the
tracker, HDF5 or PyTorch: NumPy is all it imports.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
Param: TypeAlias = "FloatArray | tuple[int, ...] | int"
Shape: TypeAlias = "tuple[int, ...]"

CUT_PREFIX = "cut:"
"""Marks, among a cut's inputs, a value that comes straight from another cut (it has no node)."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@#-]{0,199}")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One NIR primitive. ``kind`` is NIR's class name; ``params`` its fields.

    Arrays are float64 (a constant of full shape is a broadcast view, see :func:`constant`), pairs such as a
    stride are tuples of int, and so is the ``shape`` of Input and Output (without a batch axis).
    """

    kind: str
    params: dict[str, Param]

    def array(self, field: str) -> FloatArray:
        """The float64 array stored in ``field``; TypeError if the field is not an array."""
        value = self.params[field]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{self.kind}.{field} is not an array")
        return value

    def ints(self, field: str) -> tuple[int, ...]:
        """The tuple of integers stored in ``field``; TypeError if the field is not a tuple."""
        value = self.params[field]
        if not isinstance(value, tuple):
            raise TypeError(f"{self.kind}.{field} is not a tuple of integers")
        return value

    def integer(self, field: str) -> int:
        """The integer stored in ``field``; TypeError if the field is not an integer."""
        value = self.params[field]
        if not isinstance(value, int):
            raise TypeError(f"{self.kind}.{field} is not an integer")
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A flat NIR graph. Several edges into one node are summed, in the order of ``edges``."""

    nodes: dict[str, Node]
    edges: list[tuple[str, str]]
    metadata: dict[str, str]

    def sources(self) -> dict[str, list[str]]:
        """For each node the nodes that feed it, in edge order."""
        sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in self.edges:
            sources[target].append(source)
        return sources


@dataclass(frozen=True, slots=True)
class Cut:
    """What NIR cannot say: one operation between Output nodes (its inputs) and Input nodes (its outputs).

    ``inputs`` holds names of Output nodes or ``cut:<id>`` where the value comes straight from another cut;
    ``outputs`` is empty when only other cuts (or the host) read the result.
    """

    id: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[str, Any]


def valid_name(name: str) -> bool:
    """Whether ``name`` may name a node or a cut: letters, digits and ``_.@#-``, at most 200 characters."""
    return _NAME.fullmatch(name) is not None


def phase_of(name: str) -> str:
    """The phase that a node's, a cut's or a step's name begins with."""
    return name.removeprefix(CUT_PREFIX).split(".", 1)[0]


def phases_of(graph: Graph, cuts: Sequence[Cut]) -> list[str]:
    """Every phase, in the order in which the cuts are executed; phases without a cut follow in the order of nodes."""
    return list(dict.fromkeys(phase_of(name) for name in [*(cut.id for cut in cuts), *graph.nodes]))


def split_name(name: str) -> tuple[str, str, int, str]:
    """``search.encoder.block3.0.attn.q_spike@t0.k1`` -> (phase, module path, step, part); part may be empty.

    Raises ValueError where the name does not follow that form.
    """
    head, mark, tail = name.partition("@t")
    step, _, part = tail.partition(".")
    phase, dot, path = head.partition(".")
    if not mark or not dot or not phase or not path or not step.isdecimal():
        raise ValueError(f"'{name}' is not of the form <phase>.<module path>@t<step>[.<part>]")
    return phase, path, int(step), part


def constant(value: float, shape: Shape) -> FloatArray:
    """A read-only array of ``shape`` that holds ``value`` everywhere and needs no memory."""
    return np.broadcast_to(np.float64(value), shape)


def constant_value(array: FloatArray) -> float | None:
    """The one value of a constant made by :func:`constant` (or of a single-element array), else None."""
    if array.size == 0:
        return None
    if array.size == 1 or not any(array.strides):
        return float(array[(0,) * array.ndim])
    return None


def compact(array: FloatArray) -> FloatArray:
    """The same array, as a broadcast view where all its elements are the same bit pattern."""
    if array.size == 0 or constant_value(array) is not None:
        return constant(float(array.flat[0]), array.shape) if array.size else array
    bits = np.ascontiguousarray(array, dtype=np.float64).view(np.int64).reshape(-1)
    if bits[-1] == bits[0] and bool((bits == bits[0]).all()):
        return constant(float(array.flat[0]), array.shape)
    return array


def array_digest(array: FloatArray) -> str:
    """SHA-256 over shape and little-endian float64 bytes; a constant is digested by its value, however it is held."""
    held = compact(array)
    hasher = hashlib.sha256(f"float64{list(held.shape)}".encode())
    value = constant_value(held)
    if value is not None:
        hasher.update(b"constant" + np.array(value, dtype="<f8").tobytes())
    else:
        hasher.update(b"data")
        hasher.update(np.ascontiguousarray(held, dtype="<f8").data)
    return hasher.hexdigest()


def array_digests(graph: Graph) -> dict[int, str]:
    """:func:`array_digest` of every distinct array object of a graph, keyed by ``id``."""
    digests: dict[int, str] = {}
    by_constant: dict[tuple[Shape, bytes], str] = {}
    for node in graph.nodes.values():
        for value in node.params.values():
            if not isinstance(value, np.ndarray) or id(value) in digests:
                continue
            single = constant_value(value)
            key = (value.shape, np.array(single, dtype="<f8").tobytes()) if single is not None else None
            digest = by_constant.get(key) if key is not None else None
            if digest is None:
                digest = array_digest(value)
                if key is not None:
                    by_constant[key] = digest
            digests[id(value)] = digest
    return digests


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value that digests are taken of: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def graph_digest(graph: Graph, digests: Mapping[int, str] | None = None) -> str:
    """SHA-256 of the canonical content: nodes by name, parameters, edges in order, metadata.

    It depends on values only: neither on the file's layout nor on which arrays share memory.
    """
    known = array_digests(graph) if digests is None else digests
    hasher = hashlib.sha256()
    for name in sorted(graph.nodes):
        node = graph.nodes[name]
        params = {
            field: known[id(value)] if isinstance(value, np.ndarray) else value for field, value in node.params.items()
        }
        hasher.update(canonical_json([name, node.kind, params]).encode() + b"\n")
    hasher.update(canonical_json(graph.edges).encode() + b"\n")
    hasher.update(canonical_json(graph.metadata).encode() + b"\n")
    return hasher.hexdigest()
