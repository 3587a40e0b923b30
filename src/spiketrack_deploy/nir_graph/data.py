"""Recordings beside a graph: the NIRData format of NIR 1.0.8 (time-gridded data and events), read safely and written.

Decides which recordings are taken and how events become steps. Must not know graphs, conventions or programs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.nir_graph.graph import FloatArray
from spiketrack_deploy.nir_graph.guard import check_in_child
from spiketrack_deploy.nir_graph.safe_hdf5 import Item, Limits, SafeFile

DATA_LIMITS = Limits(nodes=10_000, elements=1 << 27, array_bytes=1 << 30, seconds=60.0)
MAX_STEPS = 1_000_000
_TYPES = ("TimeGriddedData", "EventData", "ValuedEventData")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What one node did: ``values`` float64 [samples, steps, neurons], ``dt`` seconds a step (None: events, which have
    times and no steps; they lie in ``events``: [samples, events] of neuron, seconds and value)."""

    dt: float | None
    values: FloatArray | None
    events: tuple[FloatArray, FloatArray, FloatArray] | None = None
    neurons: int = 0
    seconds: float = 0.0

    def gridded(self, dt: float) -> FloatArray:
        """float64 [samples, steps, neurons]; events fall into the step that their time lies in, and add up."""
        if self.values is not None:
            return self.values
        assert self.events is not None
        index, time, value = self.events
        steps = int(np.ceil(self.seconds / dt - 1e-9))
        grid = np.zeros((index.shape[0], steps, self.neurons))
        sample, event = np.nonzero((index >= 0) & np.isfinite(time) & (time >= 0))
        at = np.floor(time[sample, event] / dt + 1e-9).astype(np.int64)
        inside = at < steps
        neuron = index[sample, event].astype(np.int64)
        np.add.at(grid, (sample[inside], at[inside], neuron[inside]), value[sample, event][inside])
        return grid


def read_data(path: Path, *, isolate: bool = True) -> dict[str, dict[str, Recording]]:
    """Node -> observable -> recording; InputError names file, node and field."""
    limits = DATA_LIMITS
    if isolate:
        check = (__name__, check_data.__name__)
        check_in_child(check, path, json.dumps(asdict(limits)), limits.seconds, 2 * limits.array_bytes)
    return _DataFile.load(path, limits)


def check_data(path: str, limits: str) -> None:
    """What the child of :func:`read_data` does; ``limits`` as JSON."""
    _DataFile.load(Path(path), Limits(**json.loads(limits)))


class _DataFile(SafeFile[dict[str, dict[str, Recording]]]):
    elements = "f4 f8 b1 i1 i2 i4 i8 u1 u2 u4"

    def read(self) -> dict[str, dict[str, Recording]]:
        self._typed(self.file, "NIRGraphData")
        nodes = self.children(self.group(self.children(self.file, {"nodes"}), "nodes"), None)
        found = {}
        for name in nodes:
            self.place = f"node '{name[:200]}'"
            group = self.group(nodes, name)
            self._typed(group, "NIRNodeData")  # data of nested graphs lie under their nodes' full names
            inner = self.children(self.group(self.children(group, {"observables"}), "observables"), None)
            found[name] = {key: self._recording(name, key, inner) for key in inner}
        return found

    def _typed(self, group: Any, *wanted: str) -> str:
        kind = self._attribute(group, "__type__")
        if kind not in wanted:
            raise self.fail(f"is of type {str(kind)[:60]!r}, not {' or '.join(wanted)}")
        return str(kind)

    def _attribute(self, group: Any, name: str) -> str | float:
        import h5py

        if name not in group.attrs:
            raise self.fail(f"has no attribute {name!r}")
        attribute = h5py.h5a.open(group.id, name.encode())
        if attribute.shape not in ((), (1,)) or attribute.dtype.itemsize > self.limits.text_bytes:
            raise self.fail(f"its attribute {name!r} is no single value")
        value = group.attrs[name]
        if isinstance(value, str):
            return value[:200]
        if isinstance(value, bytes):
            return value[:200].decode("utf-8", "replace")
        number = float(np.asarray(value).reshape(-1)[0])
        if not np.isfinite(number):
            raise self.fail(f"its attribute {name!r} is not finite")
        return number

    def _number(self, group: Any, name: str, most: float) -> float:
        value = self._attribute(group, name)
        if isinstance(value, str) or not 0 < value <= most:
            raise self.fail(f"its attribute {name!r} is {str(value)[:40]}, not a number above 0 and up to {most:g}")
        return value

    def _recording(self, node: str, key: str, parent: dict[str, Any]) -> Recording:
        self.place = f"node '{node[:200]}', observable '{key[:200]}'"
        group = self.group(parent, key)
        kind = self._typed(group, *_TYPES)
        if kind == "TimeGriddedData":
            data = self.array(self._field(group, {"data"}, "data"))
            if data.ndim != 3:
                raise self.fail(f"has shape {data.shape}; (samples, steps, neurons) is needed")
            return Recording(self._number(group, "dt", 1e9), data)
        names = {"idx", "time", *(("value",) if kind == "ValuedEventData" else ())}
        index, time = (self._times(self._field(group, names, name)) for name in ("idx", "time"))
        value = self._times(self._field(group, names, "value")) if "value" in names else np.ones(index.shape)
        neurons, seconds = int(self._number(group, "n_neurons", 1 << 27)), self._number(group, "t_max", 1e9)
        if index.ndim != 2 or time.shape != index.shape or value.shape != index.shape:
            raise self.fail("idx, time and value need one shape (samples, events)")
        if not bool((index < neurons).all()):
            raise self.fail(f"names a neuron beyond its {neurons}")
        return Recording(None, None, (index, time, value), neurons, seconds)

    def _field(self, group: Any, names: set[str], name: str) -> Item:
        return self.dataset(self.children(group, names), name)

    def _times(self, item: Item) -> FloatArray:
        """As :meth:`array`, but infinity is what an absent event has for a time."""
        if f"{item.dtype.kind}{item.dtype.itemsize}" not in self.elements.split() or len(item.shape) != 2:
            raise self.fail(f"has elements of type {item.dtype} and shape {item.shape}; two axes of numbers are needed")
        values: FloatArray = np.asarray(item.dataset[()], dtype=np.float64)
        if bool(np.isnan(values).any()):
            raise self.fail("holds NaN")
        return values


def write_data(path: Path, recorded: Mapping[str, Mapping[str, FloatArray]], dt: float) -> None:
    """Time-gridded recordings (node -> observable -> [steps, ...]) as one sample each, for ``nir.read_data``."""
    import h5py

    with h5py.File(path, "w", track_order=False) as file:
        file.attrs["__type__"] = "NIRGraphData"
        nodes = file.create_group("nodes")
        for name, observables in recorded.items():
            node = nodes.create_group(name)
            node.attrs["__type__"] = "NIRNodeData"
            inner = node.create_group("observables")
            for key, values in observables.items():
                group = inner.create_group(key)
                group.attrs["__type__"] = "TimeGriddedData"
                data = np.asarray(values, dtype=np.float64).reshape(1, len(values), -1)
                group.create_dataset("data", data=data, compression="gzip", track_times=False)
                group.attrs["dt"] = dt
