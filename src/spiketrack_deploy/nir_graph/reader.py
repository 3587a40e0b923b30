"""Reads ``model.nir`` files that nobody vouches for: HDF5 in two passes, every refusal names file, node and field.

Decides what is accepted: exactly the primitives of :data:`kinds.KINDS`, in one flat feed-forward graph. Must not know
the tracker. Pass 1 looks at links, sizes and types without reading data; pass 2 reads. HDF5's native code can crash or
spin on damaged files, so by default both passes run in a child process first (:mod:`guard`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import FloatArray, Graph, Node, Param, valid_name
from spiketrack_deploy.nir_graph.guard import check_in_child
from spiketrack_deploy.nir_graph.kinds import KINDS, OTHER_NIR_KINDS, Field
from spiketrack_deploy.nir_graph.order import node_shapes
from spiketrack_deploy.nir_graph.safe_hdf5 import Item, Limits, SafeFile


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
    return _Reader.load(path, limits)


def check_file(path: str, limits: str) -> None:
    """What the child of :func:`read_graph` does; ``limits`` as JSON."""
    _Reader.load(Path(path), Limits(**json.loads(limits)))


class _Reader(SafeFile[Graph]):
    def read(self) -> Graph:
        root = self.children(self.file, {"version", "node"})
        self.dataset(root, "version")
        top = self.group(root, "node")
        self.place = "node"
        found = self.children(top, {"type", "edges", "nodes", "metadata"}, optional=frozenset({"metadata"}))
        edges_item = self.dataset(found, "edges")
        type_item = self.dataset(found, "type")
        nodes_group = self.group(found, "nodes")
        metadata_items = self._metadata_items(found)
        node_items = self._node_items(nodes_group)

        self.place = "node/type"
        if self.text(type_item) != "NIRGraph":
            raise self.fail("the root is not a NIRGraph")
        nodes = {name: self._node(name, items) for name, items in node_items.items()}
        metadata = {}
        for key, item in metadata_items.items():
            self.place = f"metadata '{key}'"
            metadata[key] = self.text(item)
        self.place = "node/edges"
        edges = self._edges(edges_item, nodes)
        graph = Graph(nodes, edges, metadata)
        self.place = "graph"
        try:
            node_shapes(graph)
        except InputError as error:
            raise self.fail(str(error)) from error
        return graph

    def _metadata_items(self, found: dict[str, Any]) -> dict[str, Item]:
        if "metadata" not in found:
            return {}
        children = self.children(self.group(found, "metadata"), None)
        self.place = "metadata"
        return {key: self.dataset(children, key) for key in children}

    def _node_items(self, group: Any) -> dict[str, dict[str, Item]]:
        import h5py

        self.place = "node/nodes"
        if len(group.id) > self.limits.nodes:
            raise self.fail(f"{len(group.id)} nodes, more than {self.limits.nodes}")
        items = {}
        children = self.children(group, None)
        for name in children:
            self.place = f"node '{name}'"
            if not valid_name(name):
                raise self.fail("the name has characters other than letters, digits and _.@#-, or is too long")
            fields = self.children(self.group(children, name), None)
            if isinstance(fields.get("nodes"), h5py.h5g.GroupID):
                raise self.fail("nested graphs are not accepted; the tracker's graph is flat")
            items[name] = {field: self.dataset(fields, field) for field in fields}
        return items

    # Pass 2: data.

    def _node(self, name: str, items: dict[str, Item]) -> Node:
        self.place = f"node '{name}'"
        if "type" not in items:
            raise self.fail("missing fields ['type'], unknown fields []")
        kind = self.text(items["type"])
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

    def _param(self, item: Item, field: Field) -> Param:
        if field.type == "array":
            array: FloatArray = self.once(item, "array", self.array)
            if field.ndim is not None and array.ndim != field.ndim:
                raise self.fail(f"has {array.ndim} axes, not {field.ndim}")
            return array
        numbers: tuple[int, ...] = self.once(item, "ints", self.integers)
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

    def _edges(self, item: Item, nodes: dict[str, Node]) -> list[tuple[str, str]]:
        if len(item.shape) != 2 or item.shape[1] != 2 or item.dtype.kind not in "OS":
            raise self.fail(f"is no list of pairs of names (shape {item.shape}, type {item.dtype})")
        if item.shape[0] > self.limits.edges or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail(f"{item.shape[0]} edges, more than {self.limits.edges}")
        edges: list[tuple[str, str]] = []
        for pair in item.dataset[()]:
            if not all(isinstance(end, bytes) for end in pair):
                raise self.fail("holds something that is no text")
            source, target = (self.decode(end) for end in pair)
            for end in (source, target):
                if end not in nodes:
                    raise self.fail(f"the edge '{source}' -> '{target}' has no node '{end}' to end at")
            edges.append((source, target))
        if len(set(edges)) != len(edges):
            twice = next(edge for index, edge in enumerate(edges) if edge in set(edges[:index]))
            raise self.fail(f"the edge '{twice[0]}' -> '{twice[1]}' is listed twice")
        return edges
