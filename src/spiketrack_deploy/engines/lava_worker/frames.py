"""Messages over file descriptors: a JSON header and raw integer arrays, length-prefixed; never a pickle.

This module decides bytes on the wire between parent, worker and Lava Processes. It must not know what a message means.
Layout: two little-endian uint64 (header bytes, body bytes), the header, then the arrays one after the other in C order.
Headers are ours, but lengths and dtypes are checked all the same: a torn stream must end in an error, not in nonsense.
"""

from __future__ import annotations

import json
import os
import select
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Check = Callable[[], None]
"""Called about ten times a second while waiting; raises to end the wait."""

_LENGTHS = struct.Struct("<QQ")
_DTYPES: dict[str, np.dtype[Any]] = {
    "uint8": np.dtype("u1"),
    "int8": np.dtype("i1"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
_MAX_HEADER = 64 * 2**20
_POLL_MS = 100


class Channel:
    """One end of a two-way (socket) or one-way (pipe: the other descriptor is ``None``) connection."""

    def __init__(self, read_fd: int | None, write_fd: int | None) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        for fd in {read_fd, write_fd} - {None}:
            os.set_blocking(fd, False)  # type: ignore[arg-type]

    def send(
        self, header: Mapping[str, Any], arrays: Mapping[str, Array] | None = None, check: Check | None = None
    ) -> None:
        """Write one message. OSError: the other end is gone. TypeError: an array of another dtype than integers."""
        packed = {}
        for name, array in (arrays or {}).items():
            if array.dtype.name not in _DTYPES:
                raise TypeError(f"array {name} has dtype {array.dtype}, which the wire does not carry")
            packed[name] = np.ascontiguousarray(array, dtype=_DTYPES[array.dtype.name])
        described = dict(header, arrays=[[name, a.dtype.name, list(a.shape)] for name, a in packed.items()])
        text = json.dumps(described).encode()
        self._write(_LENGTHS.pack(len(text), sum(a.nbytes for a in packed.values())) + text, check)
        for array in packed.values():
            if array.size:
                self._write(array.reshape(-1).view(np.uint8).data, check)

    def recv(self, check: Check | None = None) -> tuple[dict[str, Any], dict[str, Array]]:
        """Read one message. ConnectionError: the other end closed, or what came is not a message."""
        header_bytes, body_bytes = _LENGTHS.unpack(self._read(_LENGTHS.size, check))
        if header_bytes > _MAX_HEADER:
            raise ConnectionError("the stream of messages is torn")
        header: dict[str, Any] = json.loads(bytes(self._read(header_bytes, check)))
        arrays: dict[str, Array] = {}
        for name, dtype, shape in header.pop("arrays"):
            kind, size = _DTYPES[dtype], int(np.prod(shape, dtype=np.int64))
            body_bytes -= size * kind.itemsize
            if body_bytes < 0:
                raise ConnectionError("the stream of messages is torn")
            arrays[name] = np.frombuffer(self._read(size * kind.itemsize, check), dtype=kind).reshape(shape)
        return header, arrays

    def close(self) -> None:
        """Close both descriptors."""
        for fd in {self.read_fd, self.write_fd} - {None}:
            os.close(fd)  # type: ignore[arg-type]
        self.read_fd = self.write_fd = None

    def _wait(self, fd: int, event: int, check: Check | None) -> None:
        poll = select.poll()
        poll.register(fd, event)
        while not poll.poll(_POLL_MS):
            if check is not None:
                check()

    def _read(self, count: int, check: Check | None) -> bytearray:
        if self.read_fd is None:
            raise ConnectionError("the connection is closed")
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                got = os.readv(self.read_fd, [view[done:]])
            except BlockingIOError:
                self._wait(self.read_fd, select.POLLIN, check)
                continue
            if not got:
                raise ConnectionError("the other end closed the connection")
            done += got
        return data

    def _write(self, data: bytes | memoryview, check: Check | None) -> None:
        if self.write_fd is None:
            raise ConnectionError("the connection is closed")
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.write_fd, view) :]
            except BlockingIOError:
                self._wait(self.write_fd, select.POLLOUT, check)
