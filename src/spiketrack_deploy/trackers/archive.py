"""Tensor files: PyTorch zip archives and safetensors, opened without executing anything and read tensor by tensor.

This module decides which bytes make up which tensor and refuses whatever does not fit the file. It must not know
SpikeTrack: names and shapes are judged by :mod:`checkpoint`. The layout: docs/spiketrack.md, "Checkpoint".
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs import untrusted
from spiketrack_deploy.trackers.inert_pickle import BrokenPickle, Call, Name, Reference, read_pickle

_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MAX_DIMENSIONS = 8
_MAX_WRAPPERS = 4
CONFIG_KEY = "spiketrack_config"
"""Where our own files keep their configuration: safetensors metadata (JSON text), or beside ``net`` (a dict)."""

_DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_NAMED_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPES.values()}
_WRAPPERS = frozenset(["_rebuild_parameter", "_rebuild_parameter_with_state"])
_TYPED = frozenset(["_rebuild_tensor", "_rebuild_tensor_v2"])


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor still in its file: shape, dtype, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The state dict of a file, unread, and the configuration text stored in it, if any."""

    tensors: Mapping[str, TensorSource]
    config: object | None
    close: Callable[[], None]


def shown(key: object) -> str:
    """A name out of an untrusted file, fit for a message: short, one line, printable."""
    text = str(key)
    return untrusted.shown(text if len(text) <= 80 else text[:77] + "...")


def open_tensors(path: Path) -> TensorFile:
    """Index of a checkpoint: ``.safetensors``, or a PyTorch zip with ``net`` or a bare state dict.

    Raises :class:`InputError` for a missing, empty, truncated, foreign or hostile file. Values are read on demand.
    """
    untrusted.check_ordinary(path, "give the file with the weights")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    if not size:
        raise InputError(f"checkpoint {path} is empty")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if start.startswith(b"PK\x03\x04"):
        return _open_zip(path, size)
    if start.startswith(_LEGACY_MAGIC):
        raise InputError(
            f"checkpoint {path} is in PyTorch's format from before 1.6, which is not read here; "
            "load it with a PyTorch you trust it with and save it again"
        )
    raise InputError(f"checkpoint {path} is neither a PyTorch zip archive nor a .safetensors file")


def _open_safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(str(path), framework="pt").__enter__()
        metadata = handle.metadata() or {}
        names: list[str] = handle.keys()
        sources = {name: _safetensor_source(handle, name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"checkpoint {path} is no usable safetensors file: {error}") from error
    return TensorFile(sources, metadata.get(CONFIG_KEY), lambda: handle.__exit__(None, None, None))


_SAFETENSOR_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _safetensor_source(handle: Any, key: str) -> TensorSource:
    part = handle.get_slice(key)
    kind = part.get_dtype()
    if kind not in _SAFETENSOR_DTYPES:
        raise ValueError(f"tensor {shown(key)} has the unsupported type {kind}")
    return TensorSource(tuple(part.get_shape()), _SAFETENSOR_DTYPES[kind], lambda: handle.get_tensor(key))


def _open_zip(path: Path, size: int) -> TensorFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise InputError(f"checkpoint {path} is a damaged or truncated PyTorch archive: {error}") from error
    try:
        storages = _Storages(path, archive, size)
        top = read_pickle(storages.read_entry("data.pkl"))
        state, config = _state_dict(path, top)
        sources = {key: storages.source(key, value) for key, value in state.items()}
    except BrokenPickle as error:
        archive.close()
        raise InputError(f"checkpoint {path}: {error}") from error
    except InputError:
        archive.close()
        raise
    return TensorFile(sources, config, archive.close)


def _state_dict(path: Path, top: object) -> tuple[dict[str, Call], object | None]:
    """Name -> rebuild call, from the entry ``net`` or from the top itself, and the stored configuration."""
    config = top.get(CONFIG_KEY) if isinstance(top, dict) else None
    net = top.get("net", top) if isinstance(top, dict) else None
    if not isinstance(net, dict) or not any(isinstance(v, Call) for v in net.values()):
        raise InputError(f"checkpoint {path} holds no state dict: neither an entry 'net' nor tensors at its top")
    state: dict[str, Call] = {}
    strange: list[str] = []
    for key, value in net.items():
        if isinstance(key, str) and isinstance(value, Call):
            state[key] = value
        elif key != CONFIG_KEY:
            strange.append(shown(key))
    if strange:
        names = ", ".join(strange[:8])
        raise InputError(f"checkpoint {path}: {len(strange)} entries of its state dict are no tensors: {names}")
    return state, config


class _Storages:
    """The byte blocks of one archive. Sizes are checked against the file before anything is allocated."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, size: int) -> None:
        self._path, self._archive = path, archive
        self._entries = {info.filename: info for info in archive.infolist()}
        self._last: tuple[str, bytearray] | None = None
        heads = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(heads) != 1:
            raise InputError(f"checkpoint {path} is a zip file but no PyTorch archive: it has no data.pkl")
        self._root = heads[0][: -len("data.pkl")]
        for info in self._entries.values():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                name = shown(info.filename)
                raise InputError(f"checkpoint {path}: entry {name} is compressed or encrypted; PyTorch never does that")
            if info.file_size != info.compress_size or info.file_size > size:
                raise InputError(f"checkpoint {path}: entry {shown(info.filename)} claims more bytes than the file has")
        order = self._root + "byteorder"
        if order in self._entries and self.read_entry("byteorder").strip() != b"little":
            raise InputError(f"checkpoint {path} was written on a big-endian machine, which is not read here")

    def read_entry(self, name: str) -> bytes:
        """Bytes of one entry, checked against its checksum."""
        info = self._entries.get(self._root + name)
        if info is None:
            raise InputError(f"checkpoint {self._path} is damaged: it has no entry {shown(name)}")
        try:
            with self._archive.open(info) as stream:
                data = stream.read()
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            what = f"entry {shown(name)} cannot be read: {error}"
            raise InputError(f"checkpoint {self._path} is damaged: {what}") from error
        if len(data) != info.file_size:
            raise InputError(f"checkpoint {self._path} is damaged: entry {shown(name)} ends too early")
        return data

    def source(self, key: str, value: Call) -> TensorSource:
        """The tensor that an inert rebuild call describes; :class:`InputError` where it does not fit its storage."""
        parts = _tensor_parts(value)
        if parts is None:
            raise InputError(f"checkpoint {self._path}: entry {shown(key)} of its state dict is no tensor")
        storage, offset, shape, stride, dtype = parts
        name = f"data/{storage}"
        info = self._entries.get(self._root + name)
        if info is None:
            raise InputError(f"checkpoint {self._path}: the bytes of tensor {shown(key)} are missing")
        count, extent = 1, offset + 1
        for n, step in zip(shape, stride):
            count *= n
            extent += (n - 1) * step
        available = info.file_size // dtype.itemsize
        if count and (count > available or extent > available):
            what = f"tensor {shown(key)} claims more values than its {info.file_size} bytes hold"
            raise InputError(f"checkpoint {self._path}: {what}")

        def read() -> Tensor:
            if not count:
                return torch.empty(shape, dtype=dtype)
            # Tensors may share one storage; keeping the last one makes reading them linear.
            if self._last is None or self._last[0] != name:
                self._last = (name, bytearray(self.read_entry(name)))
            flat = torch.frombuffer(self._last[1], dtype=dtype, count=available)
            return flat.as_strided(shape, stride, offset).clone()

        return TensorSource(shape, dtype, read)


def _tensor_parts(call: Call) -> tuple[str, int, tuple[int, ...], tuple[int, ...], torch.dtype] | None:
    """(storage key, offset, shape, stride, dtype) of a rebuild call of PyTorch, None for anything else."""
    inner = _unwrapped(call)
    if inner is None or len(inner.arguments) < 4:
        return None
    storage = _storage(inner.arguments[0])
    offset, shape, stride = _sizes((inner.arguments[1],)), _sizes(inner.arguments[2]), _sizes(inner.arguments[3])
    if storage is None or offset is None or shape is None or stride is None:
        return None
    if len(shape) != len(stride):
        return None
    key, dtype = storage
    if inner.function == Name("torch._utils", "_rebuild_tensor_v3"):
        named = inner.arguments[6] if len(inner.arguments) > 6 else None
        if not isinstance(named, Name) or named.module != "torch" or named.name not in _NAMED_DTYPES:
            return None
        dtype = _NAMED_DTYPES[named.name]
    elif not _is_torch(inner.function, _TYPED):
        return None
    return key, offset[0], shape, stride, dtype


def _unwrapped(call: object) -> Call | None:
    """The tensor rebuild inside the wrappers that PyTorch puts around parameters and tensor subclasses."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(call, Call):
            return None
        if _is_torch(call.function, _WRAPPERS) and call.arguments:
            call = call.arguments[0]
        elif call.function == Name("torch._tensor", "_rebuild_from_type_v2") and len(call.arguments) >= 3:
            arguments = call.arguments[2]
            call = Call(call.arguments[0], arguments) if isinstance(arguments, tuple) else None
        else:
            return call
    return None


def _is_torch(function: object, names: frozenset[str]) -> bool:
    return isinstance(function, Name) and function.module == "torch._utils" and function.name in names


def _sizes(values: object) -> tuple[int, ...] | None:
    """``values`` as sizes, None where it is no tuple of integers that can be sizes."""
    if isinstance(values, Call) and values.function == Name("torch", "Size") and len(values.arguments) == 1:
        values = values.arguments[0]
    if not isinstance(values, tuple) or len(values) > _MAX_DIMENSIONS:
        return None
    sizes = tuple(n for n in values if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**62)
    return sizes if len(sizes) == len(values) else None


def _storage(value: object) -> tuple[str, torch.dtype] | None:
    if not isinstance(value, Reference) or not isinstance(value.identity, tuple) or len(value.identity) < 3:
        return None
    tag, kind, key = value.identity[:3]
    if tag != "storage" or not isinstance(key, str) or not isinstance(kind, Name):
        return None
    if kind.module not in ("torch", "torch.storage"):
        return None
    dtype = _DTYPES.get(kind.name)
    return None if dtype is None else (key, dtype)
