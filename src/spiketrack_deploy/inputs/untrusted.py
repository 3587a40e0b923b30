"""Reads files that anybody may have written: bytes, text, JSON, TOML and arrays, each within bounds.

This module decides what is refused before memory or time is spent on it: what is no ordinary file, too large, nested
too deeply, text that cannot be shown, numbers that no machine word holds, packed arrays that unpack to more than is
allowed. It must not know what a file means. Every room may import it, so it needs NumPy and the standard library alone.
Every refusal is one InputError that names the file, the place in it, and what to do (``remedy``).
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spiketrack_deploy.errors import InputError

if TYPE_CHECKING:  # NumPy is imported where arrays are read: --help does without
    import numpy as np
    from numpy.typing import NDArray

JSON_BYTES = 16 * 2**20
TOML_BYTES = 2**20
ARRAY_BYTES = 2**30
MAX_DEPTH = 32
"""Objects and lists within one another."""
MAX_DIGITS = 19
"""A longer integer does not fit 64 bits."""
MAX_KEY_PARTS = 32
_MAX_DIRECTORY = 2**22
_REMEDY = "correct the file"
_WORD = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_WORD}(?:[ \t]*\.[ \t]*{_WORD}){{{MAX_KEY_PARTS},}}")
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biuf][1248])', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)
DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError,
    IndexError, OverflowError,
)  # fmt: skip
"""What Python's reader of zip files raises over damaged, encrypted or strangely packed ones."""


def check_ordinary(path: Path, remedy: str = _REMEDY) -> None:
    """InputError unless ``path`` is an ordinary file or a link to one: a pipe or device would be waited for."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket"
        raise InputError(f"{path}: cannot be read, it is {what} and no file; {remedy}")


def read_bytes(path: Path, limit: int, remedy: str = _REMEDY) -> bytes:
    """The whole file; InputError where it is no ordinary file, cannot be read, or holds more than ``limit`` bytes."""
    check_ordinary(path, remedy)
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from None
    if len(data) > limit:
        raise InputError(f"{path}: is larger than {limit:,} bytes, more than such a file can need; {remedy}")
    return data


def read_text(path: Path, limit: int, remedy: str = _REMEDY) -> str:
    """:func:`read_bytes` as UTF-8."""
    try:
        return read_bytes(path, limit, remedy).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text in UTF-8 (byte {error.start}); {remedy}") from None


def first_line(path: Path) -> str:
    """The first line, at most 1,000 bytes of it; what is no UTF-8 is replaced."""
    check_ordinary(path)
    with path.open("rb") as stream:
        return stream.readline(1000).decode("utf-8", errors="replace").rstrip("\r\n")


def shown(text: str) -> str:
    """``text`` with everything that a terminal would obey or cannot show written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def read_json(path: Path, limit: int = JSON_BYTES, remedy: str = _REMEDY) -> Entry:
    """A JSON file, its numbers, text and depth checked."""
    return parse_json(read_text(path, limit, remedy), str(path), remedy)


def parse_json(text: str, file: str, remedy: str = _REMEDY) -> Entry:
    """JSON text that comes from ``file``; see :func:`read_json`."""
    try:
        data = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_no_number)
        _check(data)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{file}: is not valid JSON ({reason}); {remedy}") from None
    return Entry(data, file, "", remedy)


def read_toml(path: Path, limit: int = TOML_BYTES, remedy: str = _REMEDY) -> dict[str, Any]:
    """A TOML file as plain data, its depth and text checked."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    text = read_text(path, limit, remedy)
    try:
        if _LONG_KEY.search(text):  # the parser's time grows with the square of the parts
            raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts")
        data: dict[str, Any] = tomllib.loads(text)
        _check(data)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split("; use sys.")[0]
        raise InputError(f"{path}: is not valid TOML ({reason}); {remedy}") from None
    return data


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond all numbers")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _check(data: object) -> None:
    """ValueError for what is nested too deeply, and for text with halves of surrogate pairs: nothing can encode it."""
    waiting: list[tuple[object, int]] = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, str):
            if not value.isascii():
                value.encode("utf-8")
        elif isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]


class Entry:
    """A value of a JSON file that knows where it stands: asking it for a type that it has not is an InputError."""

    __slots__ = ("file", "place", "remedy", "value")

    def __init__(self, value: Any, file: str, place: str, remedy: str) -> None:
        self.value, self.file, self.place, self.remedy = value, file, place, remedy

    def fault(self, wanted: str) -> InputError:
        """What to raise where the value is not what is needed here."""
        kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
        is_ = kinds.get(type(self.value)) or shown(str(self.value))
        return InputError(f"{self.file}: {shown(self.place) or 'the whole'} must be {wanted}, is {is_}; {self.remedy}")

    def __getitem__(self, key: str) -> Entry:
        found = self.get(key)
        if found is None:
            where = f" in {shown(self.place)}" if self.place else ""
            raise InputError(f"{self.file}: {key} is missing{where}; {self.remedy}")
        return found

    def get(self, key: str) -> Entry | None:
        """A member of an object, ``None`` where it has none of this name."""
        members = self.table()
        place = f"{self.place}.{key}" if self.place else key
        return Entry(members[key], self.file, place, self.remedy) if key in members else None

    def table(self) -> dict[str, Any]:
        """The value as an object, as plain data."""
        if not isinstance(self.value, dict):
            raise self.fault("an object")
        return self.value

    def members(self, most: int = 100_000) -> Iterator[tuple[str, Entry]]:
        """Names, which are :meth:`text`, and values of an object."""
        if len(self.table()) > most:
            raise self.fault(f"an object of at most {most:,} members")
        for key in self.value:
            yield Entry(key, self.file, f"a name in {self.place or 'the whole'}", self.remedy).text(), self[key]

    def each(self, most: int = 100_000) -> list[Entry]:
        """Entries of a list."""
        if not isinstance(self.value, list):
            raise self.fault("a list")
        if len(self.value) > most:
            raise InputError(
                f"{self.file}: {shown(self.place) or 'the list'} has {len(self.value):,} entries, at most {most:,} "
                f"are possible; {self.remedy}"
            )
        return [Entry(v, self.file, f"{self.place}[{i}]", self.remedy) for i, v in enumerate(self.value)]

    def text(self, most: int = 300) -> str:
        """Printable text of at most ``most`` characters."""
        if not isinstance(self.value, str) or len(self.value) > most or not self.value.isprintable():
            raise self.fault(f"printable text of at most {most} characters")
        return self.value

    def integer(self, low: int = 0, high: int = 2**63 - 1) -> int:
        """An integer, and no truth value, within ``low`` and ``high``."""
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.fault(f"an integer of {low} to {high}")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if type(self.value) not in (int, float):
            raise self.fault("a number")
        return float(self.value)

    def truth(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.fault("true or false")
        return self.value

    def schema(self, wanted: str) -> None:
        """InputError unless the member ``schema`` is ``wanted``."""
        found = self["schema"].value
        if found != wanted:
            known = shown(repr(found))[:80]
            raise InputError(f"{self.file}: schema {known} is not {wanted!r}; {self.remedy} with this version")


class Arrays:
    """The arrays of an ``.npz`` file: integers, floats and truth values in C or Fortran order; no objects, no pickles.

    ``limit``: bytes that all arrays together may unpack to. ``packed``: whether members may be compressed; where they
    may not, the arrays cannot be larger than the file.
    """

    def __init__(self, path: Path, limit: int = ARRAY_BYTES, *, packed: bool, remedy: str = _REMEDY) -> None:
        self.path, self.remedy = path, remedy
        check_ordinary(path, remedy)
        try:
            _check_directory(path)
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise InputError(f"{path}: not an array archive ({error}); {remedy}") from None
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if packed else (zipfile.ZIP_STORED,)
        if any(info.compress_type not in methods or info.flag_bits & 1 for info in self._zip.infolist()):
            self._zip.close()
            raise InputError(f"{path}: packed in another way than an export does; {remedy}")
        if sum(info.file_size for info in self._zip.infolist()) > limit:
            self._zip.close()
            raise InputError(f"{path}: its arrays unpack to more than {limit:,} bytes; {remedy}")

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """Names of the arrays, in the order of the file."""
        return list(self._members)

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """One array, of ``shape`` where that is given; nothing is unpacked before its header is checked."""
        import numpy as np

        info = self._members.get(name)
        if info is None:
            raise InputError(f"{self.path}: array {shown(name)} is missing; {self.remedy}")
        try:
            with self._zip.open(info) as stream:
                dtype, found, order, start = _header(stream)
                if math.prod(found) * dtype.itemsize != info.file_size - start or shape not in (None, found):
                    raise ValueError(f"its header says {dtype} {found}, which is not what belongs there")
                data = bytearray(stream.read())
            return np.frombuffer(data, dtype).reshape(found, order=order)
        except DAMAGE as error:
            raise InputError(f"{self.path}: array {shown(name)} is damaged ({error}); {self.remedy}") from None


def _check_directory(path: Path) -> None:
    """ValueError where the archive's list of members is so long that reading it would exhaust memory."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 2**16 - 22))
        tail = stream.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) < place + 22:
        raise ValueError("it has no end record")
    if struct.unpack_from("<I", tail, place + 12)[0] > _MAX_DIRECTORY:
        raise ValueError("it has too many members")


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], Any, int]:
    """dtype, shape, order and length of a ``.npy`` header, read without evaluating it as Python."""
    import numpy as np

    magic = stream.read(8)
    if magic not in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        raise ValueError("it is no array")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(length) if length <= 1024 else b""
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ValueError("its header is not one of plain numbers")
    shape = tuple(int(n) for n in match[3].split(b",") if n.strip())
    return np.dtype(match[1].decode()), shape, "F" if match[2] == b"True" else "C", 8 + width + length
