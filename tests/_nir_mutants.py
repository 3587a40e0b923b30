"""NIR files damaged in every way that a stranger or an accident may: one function a way, driven by a seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spiketrack_deploy.frontends.nir.drawn_graphs import GRAPHS
from spiketrack_deploy.nir_graph.tree_writer import write_tree

Damage = Callable[[h5py.File, np.random.Generator, Path], None]


def originals(folder: Path) -> list[bytes]:
    """The whole files of the conformance graphs."""
    found = []
    for name, (_, make) in GRAPHS.items():
        write_tree(make(), folder / f"{name}.nir")
        found.append((folder / f"{name}.nir").read_bytes())
    return found


def _groups(file: h5py.File) -> list[h5py.Group]:
    found: list[h5py.Group] = [file["node"]]
    file["node"].visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Group) else None)
    return found


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file["node"].visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def _one(rng: np.random.Generator, items: list[Any]) -> Any:
    return items[int(rng.integers(len(items)))]


def _replaced(file: h5py.File, rng: np.random.Generator) -> tuple[h5py.Group, str]:
    old = _one(rng, _datasets(file))
    group, name = old.parent, old.name.rsplit("/", 1)[1]
    del group[name]
    return group, name


def link(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group, name = _replaced(file, rng)
    target = [
        h5py.ExternalLink(str(secret), "/tau"),
        h5py.SoftLink("/node/edges"),
        h5py.SoftLink(f"{group.name}/{name}"),
    ]
    group[name] = _one(rng, target)


def external(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group, name = _replaced(file, rng)
    group.create_dataset(name, shape=(4,), dtype="<f8", external=[(str(secret), 0, 32)])


def virtual(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group, name = _replaced(file, rng)
    layout = h5py.VirtualLayout(shape=(4,), dtype="<f8")
    layout[:] = h5py.VirtualSource(str(secret), "tau", shape=(4,))
    group.create_virtual_dataset(name, layout)


def huge(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group, name = _replaced(file, rng)
    size = int(10 ** rng.integers(6, 15))
    shape = _one(rng, [(size,), (size, 4), (2, size), (size // 1000, 1000)])
    options = _one(rng, [{}, {"fillvalue": 0.5}, {"chunks": tuple(min(n, 64) for n in shape)}])
    group.create_dataset(name, shape=shape, dtype=_one(rng, ["<f8", "<f4", "<i8"]), **options)


def packed(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    """A small file that unpacks to much."""
    group, name = _replaced(file, rng)
    group.create_dataset(name, data=np.zeros(1 << int(rng.integers(18, 22))), compression="gzip")


def nest(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group = file["node/nodes"]
    for _ in range(int(rng.integers(2, 120))):
        group = group.create_group("deep")
        group.create_dataset("type", data="NIRGraph")
        group.create_dataset("edges", shape=(0, 2), dtype=h5py.string_dtype())
        group = group.create_group("nodes")


def share(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    """A group or field that is linked a second time, perhaps inside itself."""
    groups = _groups(file)
    _one(rng, groups)[f"again{int(rng.integers(9))}"] = _one(rng, [*groups, *_datasets(file)])


def wrong(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group, name = _replaced(file, rng)
    values = ["text", "", b"\xff\xfe", 7, -1, 0, 2.5, np.nan, np.inf, 1e308, 1j, True, np.zeros(0), np.zeros((0, 3)),
              np.full((3, 4), np.nan), np.ones((1,) * 12), np.array([-1, 5]), np.array([2**62, 2**62]),
              np.zeros(3, dtype=[("a", "<f8"), ("b", "<i4")]), np.bytes_(b"LIF"), "NIRGraph", "Softmax"]  # fmt: skip
    group.create_dataset(name, data=_one(rng, values))


def kind(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    node = _one(rng, [group for group in _groups(file) if "type" in group])
    del node["type"]
    kinds = [
        "LIF",
        "CubaLI",
        "Conv2d",
        "Delay",
        "Flatten",
        "Input",
        "Output",
        "NIRGraph",
        "MaxPool",
        "\x00",
        "x" * 10_000,
    ]
    node.create_dataset("type", data=_one(rng, kinds).replace("\x00", "?"))


def drop(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group = _one(rng, [g for g in _groups(file) if len(g)])
    del group[_one(rng, list(group))]


def add(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    group = _one(rng, _groups(file))
    name = _one(rng, ["extra", "a b", "..", "x" * 5000, "\u202e", "nodes ", "metadata2", "tau"])
    if name not in group:
        group.create_dataset(name, data=_one(rng, [1.0, "x", np.zeros(4)]))


def rewire(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    """Edges that dangle, repeat, or close cycles."""
    edges = [[end.decode() for end in pair] for pair in file["node/edges"][()]]
    names = [*file["node/nodes"], "nowhere", "", ".", "a.b"]
    for _ in range(int(rng.integers(1, 6))):
        edges.append([_one(rng, names), _one(rng, names)])
    if rng.random() < 0.3:
        edges.append(edges[0])
    del file["node/edges"]
    file["node"].create_dataset("edges", data=np.array(edges, dtype=object), dtype=h5py.string_dtype())


def many(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    """Metadata or nodes without end."""
    group = file["node"].require_group(_one(rng, ["metadata", "nodes"]))
    for index in range(int(rng.integers(10, 1500))):
        group.create_group(f"n{index}")


def stretch(file: h5py.File, rng: np.random.Generator, secret: Path) -> None:
    """A parameter or shape at the edge of sense."""
    group, name = _replaced(file, rng)
    values = [np.array([2**24, 1]), np.array([1] * 8), np.array([2**31 - 1]), np.full(4, 1e-300), np.full(4, -1.0),
              np.full((4, 6), 1e300), np.array(1e9), np.array([65536, 65536])]  # fmt: skip
    group.create_dataset(name, data=_one(rng, values))


DAMAGES: dict[str, Damage] = {
    f.__name__: f
    for f in (link, external, virtual, huge, packed, nest, share, wrong, kind, drop, add, rewire, many, stretch)
}
BYTES = ("flip", "cut", "splice")
WAYS = (*DAMAGES, *BYTES)


def mutant(whole: list[bytes], seed: int, path: Path, secret: Path) -> str:
    """Write the mutant of a seed to ``path``; returns how it was made."""
    rng = np.random.default_rng(seed)
    way, data = WAYS[seed % len(WAYS)], bytearray(_one(rng, whole))
    if way == "flip":
        for index in rng.integers(0, len(data), int(rng.integers(1, 24))):
            data[index] ^= int(rng.integers(1, 256))
    elif way == "cut":
        del data[int(rng.integers(0, len(data))) :]
    elif way == "splice":
        start, length = int(rng.integers(0, len(data))), int(rng.integers(1, 512))
        data[start : start + length] = bytes(_one(rng, whole))[start : start + int(rng.integers(0, 512))]
    path.write_bytes(bytes(data))
    if way in DAMAGES:
        with h5py.File(path, "r+") as file:
            for _ in range(int(rng.integers(1, 3))):
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, IndexError, OSError):
                    DAMAGES[way](file, rng, secret)
    return way
