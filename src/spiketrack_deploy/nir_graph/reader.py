"""Reads ``model.nir`` files that nobody vouches for: HDF5 in two passes, every refusal names file, node and field.

Decides what is accepted: exactly the primitives of :data:`kinds.KINDS`, in one flat feed-forward graph. Must not know
the tracker. Pass 1 looks at links, sizes and types without reading data; pass 2 reads. HDF5's native code can crash or
spin on damaged files, so by default both passes run in a child process first (:mod:`guard`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import FloatArray, Graph, Node, Param, Shape, compact, constant, valid_name
from spiketrack_deploy.nir_graph.guard import check_in_child
from spiketrack_deploy.nir_graph.kinds import KINDS, OTHER_NIR_KINDS, Field
from spiketrack_deploy.nir_graph.order import node_shapes

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")

SLAB_BYTES = 8 << 20
MAX_NDIM = 8
KNOWN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
"""Filters that HDF5 brings itself; any other number would make it look for plug-ins on this machine."""

NATIVE_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises on damaged files; nothing else is known to escape it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may ask for. Elements count what an array declares; constants held as fill value are free."""

    nodes: int = 100_000
    edges: int = 1_000_000
    elements: int = 1 << 28
    array_bytes: int = 4 << 30
    text_bytes: int = 1 << 20
    chunk_bytes: int = 64 << 20
    seconds: float = 120.0


def read_graph(path: Path, *, limits: Limits | None = None, isolate: bool = True) -> Graph:
    """Read and check a NIR file; constant arrays come back as broadcast views.

    ``isolate`` reads the file in a child process with limits on time and memory before this process touches it; turn
    it off for a file that this process has just written. Raises InputError for everything it does not accept: links
    that leave the file, shared groups, foreign types, sizes beyond ``limits``, unknown kinds, missing or extra
    fields, wrong shapes, values that are not finite, dangling or duplicate edges, cycles.
    """
    limits = limits or Limits()
    if isolate:
        check = (__name__, check_file.__name__)
        check_in_child(check, path, json.dumps(asdict(limits)), limits.seconds, 2 * limits.array_bytes)
    return _read(path, limits)


def check_file(path: str, limits: str) -> None:
    """What the child of :func:`read_graph` does; ``limits`` as JSON."""
    _read(Path(path), Limits(**json.loads(limits)))


def _read(path: Path, limits: Limits) -> Graph:
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        file = h5py.File(path, "r", locking=False)
    except NATIVE_ERRORS as error:
        raise InputError(f"{path}: is not a readable HDF5 file (empty, truncated or another format)") from error
    with file:
        reader = _Reader(path, file, limits)
        try:
            return reader.read()
        except NATIVE_ERRORS as error:
            raise InputError(f"{path}: {reader.place}: damaged HDF5 structure ({type(error).__name__})") from error


@dataclass(frozen=True, slots=True)
class _Item:
    """A dataset found in pass 1: address in the file, handle, shape, element type."""

    address: int
    dataset: Any
    shape: Shape
    dtype: Any


class _Reader:
    def __init__(self, path: Path, file: Any, limits: Limits) -> None:
        self.path, self.file, self.limits = path, file, limits
        self.place = "root"
        self.groups: set[int] = set()
        self.items: dict[int, _Item] = {}
        self.bytes = 0
        self.values: dict[tuple[int, str], Any] = {}
        self.constants: dict[tuple[Shape, bytes], FloatArray] = {}

    def fail(self, problem: str) -> InputError:
        return InputError(f"{self.path}: {self.place}: {problem}")

    def read(self) -> Graph:
        root = self._children(self.file, {"version", "node"})
        self._dataset(root, "version")
        top = self._group(root, "node")
        self.place = "node"
        found = self._children(top, {"type", "edges", "nodes", "metadata"}, optional=frozenset({"metadata"}))
        edges_item = self._dataset(found, "edges")
        type_item = self._dataset(found, "type")
        nodes_group = self._group(found, "nodes")
        metadata_items = self._metadata_items(found)
        node_items = self._node_items(nodes_group)

        self.place = "node/type"
        if self._text(type_item) != "NIRGraph":
            raise self.fail("the root is not a NIRGraph")
        nodes = {name: self._node(name, items) for name, items in node_items.items()}
        metadata = {}
        for key, item in metadata_items.items():
            self.place = f"metadata '{key}'"
            metadata[key] = self._text(item)
        self.place = "node/edges"
        edges = self._edges(edges_item, nodes)
        graph = Graph(nodes, edges, metadata)
        self.place = "graph"
        try:
            node_shapes(graph)
        except InputError as error:
            raise self.fail(str(error)) from error
        return graph

    # Pass 1: structure only, no data is read.

    def _children(self, group: Any, allowed: set[str] | None, optional: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Handles of all links of ``group``; hard links only, names checked against ``allowed``."""
        import h5py

        names = [self._decode(name) for name in group.id]
        if allowed is not None:
            extra, missing = sorted(set(names) - allowed), sorted(allowed - optional - set(names))
            if extra or missing:
                raise self.fail(f"missing fields {missing}, unknown fields {extra[:8]}")
        children = {}
        for name in names:
            link = group.id.links.get_info(name.encode()).type
            if link != h5py.h5l.TYPE_HARD:
                raise self.fail(f"'{name}' is a soft or external link; only data inside the file is accepted")
            children[name] = h5py.h5o.open(group.id, name.encode())
        return children

    def _decode(self, name: bytes) -> str:
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"the name {name!r} is not text") from error

    def _group(self, children: dict[str, Any], name: str) -> Any:
        import h5py

        handle = children[name]
        if not isinstance(handle, h5py.h5g.GroupID):
            raise self.fail(f"'{name}' is not a group")
        address = int(h5py.h5o.get_info(handle).addr)
        if address in self.groups:
            raise self.fail(f"the group '{name}' is linked twice; only datasets may be shared")
        self.groups.add(address)
        return h5py.Group(handle)

    def _dataset(self, children: dict[str, Any], name: str) -> _Item:
        import h5py

        handle = children[name]
        if not isinstance(handle, h5py.h5d.DatasetID):
            raise self.fail(f"field '{name}' is not a dataset")
        address = int(h5py.h5o.get_info(handle).addr)
        if address not in self.items:
            self.items[address] = self._new_item(name, address, h5py.Dataset(handle))
        return self.items[address]

    def _new_item(self, name: str, address: int, dataset: h5py.Dataset) -> _Item:
        import h5py

        plist = dataset.id.get_create_plist()
        if plist.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
            raise self.fail(f"field '{name}' is a virtual dataset; only data inside the file is accepted")
        if plist.get_external_count():
            raise self.fail(f"field '{name}' keeps its data in another file")
        if dataset.shape is None or len(dataset.shape) > MAX_NDIM:
            raise self.fail(f"field '{name}' has no usable shape ({dataset.shape})")
        for index in range(plist.get_nfilters()):
            if plist.get_filter(index)[0] not in KNOWN_FILTERS:
                raise self.fail(f"field '{name}' uses a filter other than {', '.join(KNOWN_FILTERS.values())}")
        elements = int(np.prod(dataset.shape, dtype=object)) if dataset.shape else 1
        dtype = dataset.dtype
        if elements > self.limits.elements:
            raise self.fail(f"field '{name}' declares {elements} elements, more than {self.limits.elements}")
        if dataset.chunks and int(np.prod(dataset.chunks, dtype=object)) * dtype.itemsize > self.limits.chunk_bytes:
            raise self.fail(f"field '{name}' is stored in chunks of more than {self.limits.chunk_bytes} bytes")
        # Data that was never allocated is the fill value everywhere and will be held as one number.
        if dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
            self.bytes += elements * max(8, dtype.itemsize)
        if self.bytes > self.limits.array_bytes:
            raise self.fail(f"field '{name}': the file declares more than {self.limits.array_bytes} bytes of data")
        return _Item(address, dataset, tuple(int(n) for n in dataset.shape), dtype)

    def _metadata_items(self, found: dict[str, Any]) -> dict[str, _Item]:
        if "metadata" not in found:
            return {}
        children = self._children(self._group(found, "metadata"), None)
        self.place = "metadata"
        return {key: self._dataset(children, key) for key in children}

    def _node_items(self, group: Any) -> dict[str, dict[str, _Item]]:
        import h5py

        self.place = "node/nodes"
        if len(group.id) > self.limits.nodes:
            raise self.fail(f"{len(group.id)} nodes, more than {self.limits.nodes}")
        items = {}
        children = self._children(group, None)
        for name in children:
            self.place = f"node '{name}'"
            if not valid_name(name):
                raise self.fail("the name has characters other than letters, digits and _.@#-, or is too long")
            fields = self._children(self._group(children, name), None)
            if isinstance(fields.get("nodes"), h5py.h5g.GroupID):
                raise self.fail("nested graphs are not accepted; the tracker's graph is flat")
            items[name] = {field: self._dataset(fields, field) for field in fields}
        return items

    # Pass 2: data.

    def _node(self, name: str, items: dict[str, _Item]) -> Node:
        self.place = f"node '{name}'"
        if "type" not in items:
            raise self.fail("missing fields ['type'], unknown fields []")
        kind = self._text(items["type"])
        if kind not in KINDS:
            known = "is a NIR primitive that no tracker graph has" if kind in OTHER_NIR_KINDS else "is no NIR primitive"
            raise self.fail(f"its type {kind!r} {known}; accepted are {', '.join(KINDS)}")
        fields = KINDS[kind].fields
        want = {field.name for field in fields}
        missing, extra = sorted(want - items.keys()), sorted(items.keys() - want - {"type"})
        if missing or extra:
            raise self.fail(f"({kind}) missing fields {missing}, unknown fields {extra[:8]}")
        params: dict[str, Param] = {}
        for field in fields:
            self.place = f"node '{name}', field '{field.name}'"
            params[field.name] = self._param(items[field.name], field)
        return Node(kind, params)

    def _param(self, item: _Item, field: Field) -> Param:
        if field.type == "array":
            array: FloatArray = self._once(item, "array", self._array)
            if field.ndim is not None and array.ndim != field.ndim:
                raise self.fail(f"has {array.ndim} axes, not {field.ndim}")
            return array
        numbers: tuple[int, ...] = self._once(item, "ints", self._integers)
        if field.type == "int":
            if len(numbers) != 1:
                raise self.fail(f"holds {len(numbers)} numbers, not one")
        elif field.length is not None and item.shape == ():
            numbers = numbers * field.length
        if field.length is not None and len(numbers) != field.length:
            raise self.fail(f"holds {len(numbers)} numbers, not {field.length}")
        if any(number < field.minimum for number in numbers):
            raise self.fail(f"holds {numbers}, every number must be at least {field.minimum}")
        return numbers[0] if field.type == "int" else numbers

    def _once(self, item: _Item, what: str, load: Callable[[_Item], T]) -> T:
        key = (item.address, what)
        if key not in self.values:
            self.values[key] = load(item)
        value: T = self.values[key]
        return value

    def _text(self, item: _Item) -> str:
        return self._once(item, "text", self._load_text)

    def _load_text(self, item: _Item) -> str:
        if item.shape != () or item.dtype.kind not in "OS" or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail("is not one text")
        raw = item.dataset[()]
        if not isinstance(raw, bytes) or len(raw) > self.limits.text_bytes:
            raise self.fail(f"is not a text of at most {self.limits.text_bytes} bytes")
        return self._decode(raw)

    def _integers(self, item: _Item) -> tuple[int, ...]:
        if item.dtype.kind not in "iu" or len(item.shape) > 1 or (item.shape and item.shape[0] > MAX_NDIM):
            raise self.fail(f"is not a short list of integers (type {item.dtype}, shape {item.shape})")
        return tuple(int(number) for number in np.atleast_1d(item.dataset[()]))

    def _array(self, item: _Item) -> FloatArray:
        import h5py

        if item.dtype.kind != "f" or item.dtype.itemsize not in (4, 8):
            raise self.fail(f"has elements of type {item.dtype}; float32 or float64 is needed")
        if not item.shape or 0 in item.shape:
            raise self.fail(f"has shape {item.shape}; at least one axis and one element are needed")
        if item.dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
            value = np.full((1,), item.dataset.fillvalue, dtype=np.float64)
            self._finite(value)
            return self._constant(float(value[0]), item.shape)
        return self._stored(item)

    def _constant(self, value: float, shape: Shape) -> FloatArray:
        key = (shape, np.float64(value).tobytes())
        return self.constants.setdefault(key, constant(value, shape))

    def _finite(self, values: npt.NDArray[np.floating[Any]]) -> None:
        if not np.isfinite(values).all():
            raise self.fail("holds values that are not finite (NaN or infinity)")

    def _stored(self, item: _Item) -> FloatArray:
        """Read slab by slab; memory for the whole is taken only when a second value turns up."""
        row = int(np.prod(item.shape[1:], dtype=np.int64)) * 8
        rows = max(1, SLAB_BYTES // row)
        if item.dataset.chunks:
            rows = max(1, rows // item.dataset.chunks[0]) * item.dataset.chunks[0]
        whole: FloatArray | None = None
        first: float | None = None
        for start in range(0, item.shape[0], rows):
            slab = np.ascontiguousarray(item.dataset[start : start + rows], dtype=np.float64)
            self._finite(slab)
            held = compact(slab) if whole is None else slab
            same = whole is None and not any(held.strides) and (first is None or _same_bits(first, held.flat[0]))
            if same:
                first = float(held.flat[0])
                continue
            if whole is None:
                whole = np.empty(item.shape)
                if first is not None:
                    whole[:start] = first
            whole[start : start + rows] = slab
        if whole is None and first is not None:
            return self._constant(first, item.shape)
        if whole is None:
            raise self.fail("holds no data")
        whole.flags.writeable = False
        return whole

    def _edges(self, item: _Item, nodes: dict[str, Node]) -> list[tuple[str, str]]:
        if len(item.shape) != 2 or item.shape[1] != 2 or item.dtype.kind not in "OS":
            raise self.fail(f"is no list of pairs of names (shape {item.shape}, type {item.dtype})")
        if item.shape[0] > self.limits.edges or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail(f"{item.shape[0]} edges, more than {self.limits.edges}")
        edges: list[tuple[str, str]] = []
        for pair in item.dataset[()]:
            if not all(isinstance(end, bytes) for end in pair):
                raise self.fail("holds something that is no text")
            source, target = (self._decode(end) for end in pair)
            for end in (source, target):
                if end not in nodes:
                    raise self.fail(f"the edge '{source}' -> '{target}' has no node '{end}' to end at")
            edges.append((source, target))
        if len(set(edges)) != len(edges):
            twice = next(edge for index, edge in enumerate(edges) if edge in set(edges[:index]))
            raise self.fail(f"the edge '{twice[0]}' -> '{twice[1]}' is listed twice")
        return edges


def _same_bits(first: float, second: float) -> bool:
    return np.float64(first).tobytes() == np.float64(second).tobytes()
