"""Small documents that a user wrote: JSON objects, and the sentence about what is wrong in one.

This module decides how a document is opened and how pydantic's findings are worded. It must not know what a document
means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from spiketrack_deploy.errors import InputError

MAX_BYTES = 1 << 20
SHOWN = 8
"""How many faults a sentence lists."""
_KINDS = ((str, "a text"), ((list, tuple), "a list"), (Mapping, "an object"))
_REPHRASED = {"missing": "is missing", "unexpected_keyword_argument": "is no known entry"}
T = TypeVar("T")


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object of a file; ``what`` ("recipe") begins the sentence of every :class:`InputError`."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{what} {path} is no ordinary file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{what} {path} is larger than {MAX_BYTES >> 20} MiB; that is no {what}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} {path} must be a JSON object, not {shown(found)}")
    return found


def shown(value: object) -> str:
    """A value out of an untrusted document, fit for a message: short, one line, printable, never nested."""
    if value is None or isinstance(value, (bool, float)):
        return "null" if value is None else repr(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) <= 80:
        return ascii(value) if not value.isprintable() else repr(value)
    return next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)


def checked(make: Callable[[Any], T], data: object, what: str) -> T:
    """``make(data)``, with pydantic's findings as one :class:`InputError`: ``what: entry, what is wrong, ...``."""
    try:
        return make(data)
    except ValidationError as error:
        # The first fault of every entry; what follows from it says nothing new.
        faults = {item["loc"][:1]: item for item in reversed(error.errors(include_url=False))}
        sentences = [_sentence(item) for item in reversed(faults.values())]
        more = f" (and {len(sentences) - SHOWN} more)" if len(sentences) > SHOWN else ""
        raise InputError(f"{what}: {'; '.join(sentences[:SHOWN])}{more}") from error


def _sentence(item: Any) -> str:
    name = shown(".".join(map(str, item["loc"])))[1:-1]
    if item["type"] in _REPHRASED:
        return f"{name} {_REPHRASED[item['type']]}"
    told = item["msg"].removeprefix("Input ").removeprefix("Value error, ").replace(" after validation", "")
    joined = f"{name} {told}" if told.startswith("should") else f"{name}: {told}"
    return joined if " not " in told else f"{joined}, not {shown(item['input'])}"
