"""Writes a stored graph as NIR 1.0.8 lays it out, so that ``nir.read`` opens it.

Decides how values lie in the file. Must not know what the nodes mean, or the tracker, whose graphs :mod:`writer` shares
and digests.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.nir_graph.tree import Record, Tree
from spiketrack_deploy.nir_graph.writer import NIR_VERSION

if TYPE_CHECKING:
    import h5py


def write_tree(tree: Tree, path: Path) -> None:
    """Write ``tree`` to ``path``, the same bytes for the same graph. InputError where the path cannot be written."""
    import h5py

    try:
        with h5py.File(path.name, "w", track_order=False, driver="core", backing_store=False) as file:
            file.create_dataset("version", data=NIR_VERSION, dtype=h5py.string_dtype(), track_times=False)
            _graph(file.create_group("node"), tree)
            file.flush()
            image = file.id.get_file_image()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
    write_whole(path, image)


def _graph(group: h5py.Group, tree: Tree) -> None:
    import h5py

    text: dict[str, Any] = {"dtype": h5py.string_dtype(), "track_times": False}
    group.create_dataset("type", data="NIRGraph", **text)
    group.create_dataset("edges", data=np.array(tree.edges, dtype=object).reshape(-1, 2), **text)
    if tree.notes:
        notes = group.create_group("metadata")
        for key, note in tree.notes.items():
            notes.create_dataset(key, data=note, **(text if isinstance(note, str) else {"track_times": False}))
    nodes = group.create_group("nodes")
    for name, node in tree.nodes.items():
        inner = nodes.create_group(name)
        if isinstance(node, Record):
            inner.create_dataset("type", data=node.kind, **text)
            for key, value in node.fields.items():
                if isinstance(value, str):
                    inner.create_dataset(key, data=value, **text)
                elif isinstance(value, tuple):
                    inner.create_dataset(key, data=_integers(key, value), track_times=False)
                else:
                    inner.create_dataset(key, data=value, track_times=False)
        else:
            _graph(inner, node)


def _integers(key: str, value: tuple[int, ...]) -> Any:
    """A shape stays a list; a single integer elsewhere (groups, start_dim) is stored as one."""
    return value[0] if len(value) == 1 and key not in ("shape", "input_type") else np.array(value, dtype=np.int64)
