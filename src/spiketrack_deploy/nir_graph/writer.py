"""Writes a graph as ``model.nir``: the HDF5 layout of NIR 1.0.8, byte for byte reproducible.

Decides how values lie in the file. Must not know the tracker or what the nodes mean; :mod:`kinds` names the fields.
A value that occurs often is stored once and hard-linked. A constant of full shape is stored as a dataset whose fill
value is that constant: any HDF5 reader sees the full array, and it takes no room and no time.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.nir_graph.graph import (
    FloatArray,
    Graph,
    Node,
    array_digests,
    compact,
    constant_value,
    graph_digest,
)
from spiketrack_deploy.nir_graph.kinds import KINDS, check_nodes

if TYPE_CHECKING:
    import h5py

Group: TypeAlias = "h5py.Group"
Dataset: TypeAlias = "h5py.Dataset"

NIR_VERSION = "1.0.8"
GZIP_LEVEL = 1
TINY_BYTES = 4096
SAMPLE_BYTES = 256 * 1024
WORTH_COMPRESSING = 0.8
CHUNK_BYTES = 1 << 20
CORE_BYTES = 1 << 22


def write_graph(graph: Graph, path: Path) -> str:
    """Write ``graph`` to ``path`` (replacing a file there) and return its content digest, :func:`graph_digest`.

    Names and fields are checked first, so that nothing is written that :func:`reader.read_graph` refuses. Raises
    InputError for a graph that cannot be stored and for a path that cannot be written.
    """
    import h5py

    check_nodes(graph)
    digests = array_digests(graph)
    try:
        # In memory first: HDF5 crashes the process at its exit when a write to disk failed (disk full).
        with h5py.File(
            path.name, "w", track_order=False, driver="core", backing_store=False, block_size=CORE_BYTES
        ) as file:
            _Writer(file, digests).graph(graph)
            file.flush()
            image = file.id.get_file_image()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    write_whole(path, image)
    return graph_digest(graph, digests)


class _Writer:
    """Datasets that were written once, by content, so that an equal value becomes a hard link."""

    def __init__(self, file: Any, digests: dict[int, str]) -> None:
        self.file, self.digests = file, digests
        self.done: dict[Any, Dataset] = {}

    def graph(self, graph: Graph) -> None:
        self._text(self.file, "version", NIR_VERSION)
        root = self.file.create_group("node")
        self._text(root, "type", "NIRGraph")
        edges = np.array(graph.edges, dtype=object).reshape(-1, 2)
        import h5py

        root.create_dataset("edges", data=edges, dtype=h5py.string_dtype(), track_times=False)
        metadata = root.create_group("metadata")
        for key in sorted(graph.metadata):
            self._text(metadata, key, graph.metadata[key])
        nodes = root.create_group("nodes")
        for name in sorted(graph.nodes):
            self._node(nodes.create_group(name), graph.nodes[name])

    def _node(self, group: Group, node: Node) -> None:
        self._text(group, "type", node.kind)
        for field in KINDS[node.kind].fields:
            value = node.params[field.name]
            if isinstance(value, np.ndarray):
                self._array(group, field.name, value)
            else:
                self._integers(group, field.name, value)

    def _text(self, group: Group, field: str, text: str) -> None:
        import h5py

        if not self._linked(group, field, ("text", text)):
            self.done["text", text] = group.create_dataset(
                field, data=text, dtype=h5py.string_dtype(), track_times=False
            )

    def _integers(self, group: Group, field: str, value: tuple[int, ...] | int) -> None:
        key = ("integers", value)
        if not self._linked(group, field, key):
            self.done[key] = group.create_dataset(field, data=np.array(value, dtype="<i8"), track_times=False)

    def _array(self, group: Group, field: str, value: FloatArray) -> None:
        key = ("array", self.digests[id(value)])
        if self._linked(group, field, key):
            return
        held = compact(value)
        single = constant_value(held)
        options: dict[str, Any] = {"dtype": "<f8", "track_times": False}
        if single is not None and held.nbytes > TINY_BYTES:
            options.update(shape=held.shape, fillvalue=single)
        else:
            data = np.ascontiguousarray(held)
            options.update(data=data, **_compression(data))
        self.done[key] = group.create_dataset(field, **options)

    def _linked(self, group: Group, field: str, key: Any) -> bool:
        if key not in self.done:
            return False
        group[field] = self.done[key]
        return True


def _compression(data: FloatArray) -> dict[str, Any]:
    """Chunks and gzip where a sample shrinks; folded weights are noise in their last bits and do not."""
    if data.nbytes <= TINY_BYTES:
        return {}
    sample = data.reshape(-1)[: SAMPLE_BYTES // data.itemsize].tobytes()
    if len(zlib.compress(sample, GZIP_LEVEL)) > WORTH_COMPRESSING * len(sample):
        return {}
    return {"chunks": _chunks(data.shape, data.itemsize), "compression": "gzip", "compression_opts": GZIP_LEVEL}


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Whole trailing axes, as many leading slices as fit into a chunk."""
    chunks, room = list(shape), max(1, CHUNK_BYTES // itemsize)
    for axis in range(len(shape)):
        rest = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        if rest * shape[axis] <= room:
            break
        chunks[axis] = max(1, room // rest)
        if chunks[axis] > 1 or rest <= room:
            break
    return tuple(chunks)
