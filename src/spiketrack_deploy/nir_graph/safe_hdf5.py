"""HDF5 that nobody vouches for: what an open file may contain, and its values loaded within a budget.

Decides which links, types, filters and sizes are accepted (pass 1, no data is read) and how texts, integers and arrays
are loaded (pass 2). Must not know what the groups and fields mean: :mod:`reader` and :mod:`tree` say that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import FloatArray, Shape, compact, constant

if TYPE_CHECKING:
    import h5py

T = TypeVar("T")
V = TypeVar("V")

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


@dataclass(frozen=True, slots=True)
class Item:
    """A dataset found in pass 1: address in the file, handle, shape, element type."""

    address: int
    dataset: Any
    shape: Shape
    dtype: Any


class SafeFile(Generic[T]):
    """An open file, the place that is being read (for messages), and what was found and loaded so far.

    A dialect says in :meth:`read` which groups and fields there are.
    """

    elements = "f4 f8"
    """Types of an array's elements."""
    scalars = False
    """Whether an array may have no axis."""
    free_constants = True
    """Whether data that were never allocated, which is one number everywhere, are free."""

    def __init__(self, path: Path, file: Any, limits: Limits) -> None:
        self.path, self.file, self.limits = path, file, limits
        self.place = "root"
        self.groups: set[int] = set()
        self.items: dict[int, Item] = {}
        self.bytes = 0
        self.values: dict[tuple[int, str], Any] = {}
        self.constants: dict[tuple[Shape, bytes], FloatArray] = {}

    def fail(self, problem: str) -> InputError:
        return InputError(f"{self.path}: {self.place}: {problem}")

    def read(self) -> T:
        """What the file holds; the dialect's business."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, limits: Limits) -> T:
        """:meth:`read` of ``path``; InputError where it is no HDF5, or damaged at the place that was reached."""
        import h5py

        if not path.is_file():
            raise InputError(f"{path}: there is no such file")
        try:
            file = h5py.File(path, "r", locking=False)
        except NATIVE_ERRORS as error:
            raise InputError(f"{path}: is not a readable HDF5 file (empty, truncated or another format)") from error
        with file:
            reader = cls(path, file, limits)
            try:
                return reader.read()
            except NATIVE_ERRORS as error:
                raise InputError(f"{path}: {reader.place}: damaged HDF5 structure ({type(error).__name__})") from error

    # Pass 1: structure only, no data is read.

    def children(self, group: Any, allowed: set[str] | None, optional: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Handles of all links of ``group``; hard links only, names checked against ``allowed``."""
        import h5py

        names = [self.decode(name) for name in group.id]
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

    def decode(self, name: bytes) -> str:
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"the name {name!r} is not text") from error

    def group(self, children: dict[str, Any], name: str) -> Any:
        import h5py

        handle = children[name]
        if not isinstance(handle, h5py.h5g.GroupID):
            raise self.fail(f"'{name}' is not a group")
        address = int(h5py.h5o.get_info(handle).addr)
        if address in self.groups:
            raise self.fail(f"the group '{name}' is linked twice; only datasets may be shared")
        self.groups.add(address)
        return h5py.Group(handle)

    def dataset(self, children: dict[str, Any], name: str) -> Item:
        import h5py

        handle = children[name]
        if not isinstance(handle, h5py.h5d.DatasetID):
            raise self.fail(f"field '{name}' is not a dataset")
        address = int(h5py.h5o.get_info(handle).addr)
        if address not in self.items:
            self.items[address] = self._new_item(name, address, h5py.Dataset(handle))
        return self.items[address]

    def _new_item(self, name: str, address: int, dataset: h5py.Dataset) -> Item:
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
        if not self.free_constants or dataset.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED:
            self.bytes += elements * max(8, dtype.itemsize)
        if self.bytes > self.limits.array_bytes:
            raise self.fail(f"field '{name}': the file declares more than {self.limits.array_bytes} bytes of data")
        return Item(address, dataset, tuple(int(n) for n in dataset.shape), dtype)

    def once(self, item: Item, what: str, load: Callable[[Item], V]) -> V:
        key = (item.address, what)
        if key not in self.values:
            self.values[key] = load(item)
        value: V = self.values[key]
        return value

    def text(self, item: Item) -> str:
        return self.once(item, "text", self._load_text)

    def _load_text(self, item: Item) -> str:
        if item.shape != () or item.dtype.kind not in "OS" or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail("is not one text")
        raw = item.dataset[()]
        if not isinstance(raw, bytes) or len(raw) > self.limits.text_bytes:
            raise self.fail(f"is not a text of at most {self.limits.text_bytes} bytes")
        return self.decode(raw)

    def integers(self, item: Item) -> tuple[int, ...]:
        if item.dtype.kind not in "iu" or len(item.shape) > 1 or (item.shape and item.shape[0] > MAX_NDIM):
            raise self.fail(f"is not a short list of integers (type {item.dtype}, shape {item.shape})")
        return tuple(int(number) for number in np.atleast_1d(item.dataset[()]))

    def array(self, item: Item) -> FloatArray:
        import h5py

        if f"{item.dtype.kind}{item.dtype.itemsize}" not in self.elements.split():
            raise self.fail(f"has elements of type {item.dtype}; float32 or float64 is needed")
        if 0 in item.shape or not (item.shape or self.scalars):
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

    def _stored(self, item: Item) -> FloatArray:
        """Read slab by slab; memory for the whole is taken only when a second value turns up."""
        if not item.shape:
            single = np.array(item.dataset[()], dtype=np.float64)
            self._finite(single)
            return single
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


def _same_bits(first: float, second: float) -> bool:
    return np.float64(first).tobytes() == np.float64(second).tobytes()
