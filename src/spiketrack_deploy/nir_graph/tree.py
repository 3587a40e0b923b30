"""Reads any NIR file that nobody vouches for: every primitive of NIR 1.0.8, nested graphs, files of older versions.

Decides which primitives have which fields (:data:`PRIMITIVES`) and which spellings of a field are taken. Must not know
what a primitive does: shapes, order and time are the front end's business. The tracker's own graphs are read by the
stricter :mod:`reader`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from spiketrack_deploy.nir_graph.graph import FloatArray
from spiketrack_deploy.nir_graph.guard import check_in_child
from spiketrack_deploy.nir_graph.safe_hdf5 import Item, Limits, SafeFile

Value: TypeAlias = "FloatArray | tuple[int, ...] | str"
MAX_DEPTH = 32
MAX_NAME = 200
MAX_NOTES = 1000
NETWORK_LIMITS = Limits(nodes=20_000, edges=200_000, elements=1 << 27, array_bytes=1 << 30, seconds=60.0)

SLACK_BYTES = 1 << 28
"""Room for a network's own objects and for reading slab by slab, beside its arrays."""

FieldKind = Literal["array", "ints", "ints or text"]


@dataclass(frozen=True, slots=True)
class Field:
    """One stored field; ``since``: the version of NIR that brought it, where older files lack it."""

    name: str
    kind: FieldKind = "array"
    since: str | None = None


@dataclass(frozen=True, slots=True)
class Primitive:
    """A node kind of NIR 1.0.8: its equation, as NIR states it, and its fields."""

    equation: str
    fields: tuple[Field, ...]


def _arrays(names: str, *more: Field) -> tuple[Field, ...]:
    return (*(Field(name) for name in names.split()), *more)


_V_RESET, _W_IN = Field("v_reset", since="1.0.6"), Field("w_in", since="1.0.0")
_CONV = (
    Field("input_shape", "ints", since="any"),
    Field("weight"),
    Field("stride", "ints"),
    Field("padding", "ints or text"),
    Field("dilation", "ints"),
    Field("groups", "ints"),
    Field("bias", since="any"),
)
_POOL = (Field("kernel_size", "ints"), Field("stride", "ints"), Field("padding", "ints"))

PRIMITIVES: dict[str, Primitive] = {
    "Input": Primitive("what comes in", (Field("shape", "ints"),)),
    "Output": Primitive("what goes out", (Field("shape", "ints", since="any"),)),
    "Affine": Primitive("y = W x + b", _arrays("weight bias")),
    "Linear": Primitive("y = W x", _arrays("weight")),
    "Scale": Primitive("y = s x, element by element", _arrays("scale")),
    "Conv1d": Primitive("y = w (*) x + b along the last axis, groups", _CONV),
    "Conv2d": Primitive("y = w (*) x + b, zero padding, groups", _CONV),
    "SumPool2d": Primitive("y = sum over the window", _POOL),
    "AvgPool2d": Primitive("y = sum over the window / size of the window", _POOL),
    "Flatten": Primitive(
        "axes start_dim to end_dim become one",
        (Field("start_dim", "ints"), Field("end_dim", "ints"), Field("input_type", "ints", since="any")),
    ),
    "Delay": Primitive("y(t) = x(t - delay)", _arrays("delay")),
    "Threshold": Primitive("y = 1 where x > threshold, else 0", _arrays("threshold")),
    "I": Primitive("dv/dt = R x", _arrays("r")),
    "IF": Primitive("dv/dt = R x; z = [v > theta]; v = v_reset", _arrays("r v_threshold", _V_RESET)),
    "LI": Primitive("tau dv/dt = v_leak - v + R x", _arrays("tau r v_leak")),
    "LIF": Primitive("LI; z = [v > theta]; v = v_reset", _arrays("tau r v_leak v_threshold", _V_RESET)),
    "CubaLI": Primitive(
        "tau_syn dI/dt = -I + w_in x; tau_mem dv/dt = v_leak - v + R I", _arrays("tau_syn tau_mem r v_leak", _W_IN)
    ),
    "CubaLIF": Primitive(
        "CubaLI; z = [v > theta]; v = v_reset", _arrays("tau_syn tau_mem r v_leak v_threshold", _V_RESET, _W_IN)
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A node as stored: 0-d or full arrays as float64, integers as tuples, text as it is."""

    kind: str
    fields: Mapping[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A graph as stored. ``notes``: texts and numbers of its metadata. ``version``: of NIR, empty in a nested graph."""

    nodes: Mapping[str, Record | Tree]
    edges: tuple[tuple[str, str], ...]
    notes: Mapping[str, str | float] = field(default_factory=dict)
    version: str = ""


def read_tree(path: Path, *, limits: Limits = NETWORK_LIMITS, isolate: bool = True) -> Tree:
    """Read and check a NIR file as far as it can be checked without shapes.

    ``isolate`` reads it in a child process with limits on time and memory first. InputError names file, node and field.
    """
    if isolate:
        check = (__name__, check_tree.__name__)
        check_in_child(check, path, json.dumps(asdict(limits)), limits.seconds, limits.array_bytes + SLACK_BYTES)
    return _TreeFile.load(path, limits)


def check_tree(path: str, limits: str) -> None:
    """What the child of :func:`read_tree` does; ``limits`` as JSON."""
    _TreeFile.load(Path(path), Limits(**json.loads(limits)))


class _TreeFile(SafeFile[Tree]):
    elements = "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8"
    scalars = True
    free_constants = False
    nodes = 0

    def read(self) -> Tree:
        root = self.children(self.file, {"version", "node"}, frozenset({"version"}))
        version = self.text(self.dataset(root, "version")) if "version" in root else ""
        tree = self._graph(self._fields(root, "node", "node"), "")
        return Tree(tree.nodes, tree.edges, tree.notes, version)

    def _fields(self, parent: dict[str, Any], name: str, place: str) -> dict[str, Any]:
        group = self.group(parent, name)
        self.place = place
        return self.children(group, None)

    def _graph(self, found: dict[str, Any], prefix: str) -> Tree:
        place = self.place
        if prefix.count("\0") > MAX_DEPTH:
            raise self.fail(f"graphs are nested deeper than {MAX_DEPTH}")
        self._only(found, {"type", "edges", "nodes"}, {"metadata"})
        if self.text(self.dataset(found, "type")) != "NIRGraph":
            raise self.fail("is not of type NIRGraph; a file holds one graph of NIR")
        notes = self._notes(found)
        self.place = place
        inner = self.children(self.group(found, "nodes"), None)
        self.nodes += len(inner)
        if self.nodes > self.limits.nodes:
            raise self.fail(f"more than {self.limits.nodes} nodes")
        nodes = {name: self._node(inner, name, prefix) for name in sorted(inner)}
        self.place = f"{place}, field 'edges'"
        return Tree(nodes, tuple(self._edges(self.dataset(found, "edges"), nodes)), notes)

    def _node(self, parent: dict[str, Any], name: str, prefix: str) -> Record | Tree:
        shown = ".".join([*prefix.split("\0")[1:], name])
        self.place = f"node '{shown[:MAX_NAME]}'"
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise self.fail(f"a name needs 1 to {MAX_NAME} printable characters")
        found = self._fields(parent, name, self.place)
        if "type" not in found:
            raise self.fail("has no field 'type'")
        kind = self.text(self.dataset(found, "type"))
        if kind == "NIRGraph":
            return self._graph(found, f"{prefix}\0{name}")
        if kind not in PRIMITIVES:
            raise self.fail(f"its type {kind[:60]!r} is no primitive of NIR 1.0.8; there are {', '.join(PRIMITIVES)}")
        place, fields = self.place, PRIMITIVES[kind].fields
        self.place = f"{place} ({kind})"
        optional = {entry.name for entry in fields if entry.since}
        self._only(found, {"type", *(entry.name for entry in fields)} - optional, {"metadata", *optional})
        self._notes(found)
        values: dict[str, Value] = {}
        for entry in fields:
            if entry.name in found:
                self.place = f"{place} ({kind}), field '{entry.name}'"
                values[entry.name] = self._value(self.dataset(found, entry.name), entry)
        return Record(kind, values)

    def _only(self, found: dict[str, Any], needed: set[str], optional: set[str]) -> None:
        missing, extra = sorted(needed - found.keys()), sorted(found.keys() - needed - optional)
        if missing or extra:
            raise self.fail(f"missing fields {missing}, unknown fields {[name[:60] for name in extra[:8]]}")

    def _value(self, item: Item, entry: Field) -> Value:
        if entry.kind == "array":
            array: FloatArray = self.once(item, "array", self.array)
            return array
        if entry.kind == "ints or text" and item.dtype.kind in "OS":
            return self.text(item)
        numbers: tuple[int, ...] = self.once(item, "ints", self._whole)
        return numbers

    def _whole(self, item: Item) -> tuple[int, ...]:
        """Integers, or floats that are whole: some exporters store shapes so."""
        if item.dtype.kind != "f":
            return self.integers(item)
        values = self.array(item)
        if values.ndim > 1 or values.size > 8 or any(value != int(value) for value in values.flat):
            raise self.fail("is not a short list of whole numbers")
        return tuple(int(value) for value in values.flat)

    def _notes(self, found: dict[str, Any], depth: int = 0) -> dict[str, str | float]:
        """Texts and numbers of a metadata group; whatever else is there is walked (no links, no cycles) and left."""
        if "metadata" not in found:
            return {}
        place, notes = self.place, dict[str, str | float]()
        self._walk_notes(self._fields(found, "metadata", f"{place}, metadata"), notes, depth)
        self.place = place
        return notes

    def _walk_notes(self, children: dict[str, Any], notes: dict[str, str | float], depth: int) -> None:
        import h5py

        place = self.place
        if depth > MAX_DEPTH or len(children) > MAX_NOTES:
            raise self.fail(f"holds more than {MAX_NOTES} entries or is nested deeper than {MAX_DEPTH}")
        for name in children:
            self.place = f"{place} '{name[:MAX_NAME]}'"
            if isinstance(children[name], h5py.h5g.GroupID):
                self._walk_notes(self._fields(children, name, self.place), {}, depth + 1)
                continue
            item = self.dataset(children, name)
            if item.shape == () and item.dtype.kind in "OS":
                notes[name] = self.text(item)
            elif item.shape == () and item.dtype.kind in "fiu" and item.dtype.itemsize <= 8:
                notes[name] = float(item.dataset[()])
        self.place = place

    def _edges(self, item: Item, nodes: Mapping[str, object]) -> list[tuple[str, str]]:
        if item.shape == (0,):
            return []
        if len(item.shape) != 2 or item.shape[1] != 2 or item.dtype.kind not in "OS":
            raise self.fail(f"is no list of pairs of names (shape {item.shape}, type {item.dtype})")
        if item.shape[0] > self.limits.edges or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail(f"{item.shape[0]} edges, more than {self.limits.edges}")
        edges: dict[tuple[str, str], None] = {}
        for pair in item.dataset[()]:
            if not all(isinstance(end, bytes) for end in pair):
                raise self.fail("holds something that is no text")
            source, target = (self.decode(end) for end in pair)
            for end in (source, target):
                if end not in nodes and end.split(".", 1)[0] not in nodes:
                    raise self.fail(f"the edge '{source[:60]}' -> '{target[:60]}' has no node '{end[:60]}' to end at")
            if (source, target) in edges:
                raise self.fail(f"the edge '{source}' -> '{target}' is listed twice")
            edges[source, target] = None
        return list(edges)
