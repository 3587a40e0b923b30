"""What pydantic finds wrong with a document, as one sentence.

This module decides the wording. It must not know what a document means, nor how files are read (:mod:`untrusted`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from spiketrack_deploy.errors import InputError

SHOWN = 8
"""How many faults a sentence lists."""
_KINDS = ((str, "a text"), ((list, tuple), "a list"), (Mapping, "an object"))
_UNKNOWN = "unexpected_keyword_argument"
_REPHRASED = {"missing": "is missing", _UNKNOWN: "is no known entry"}
T = TypeVar("T")


def shown(value: object) -> str:
    """A value out of an untrusted document, fit for a message: short, one line, printable, never nested."""
    if value is None or isinstance(value, (bool, float)):
        return "null" if value is None else repr(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else f"an integer of {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) <= 80:
        return ascii(value) if not value.isprintable() else repr(value)
    return next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)


def checked(make: Callable[[Any], T], data: object, what: str, known: Iterable[str]) -> T:
    """``make(data)``, with pydantic's findings as one :class:`InputError`; ``known``: the entries that there are."""
    try:
        return make(data)
    except ValidationError as error:
        # The first fault of every entry; what follows from it says nothing new.
        faults = {item["loc"][:1]: item for item in reversed(error.errors(include_url=False))}
        sentences = [_sentence(item) for item in reversed(faults.values())]
        more = f" (and {len(sentences) - SHOWN} more)" if len(sentences) > SHOWN else ""
        hint = f"; known are {', '.join(known)}" if any(_UNKNOWN == item["type"] for item in faults.values()) else ""
        raise InputError(f"{what}: {'; '.join(sentences[:SHOWN])}{more}{hint}") from error


def _sentence(item: Any) -> str:
    name = shown(".".join(map(str, item["loc"])))[1:-1]
    if item["type"] in _REPHRASED:
        return f"{name} {_REPHRASED[item['type']]}"
    told = item["msg"].removeprefix("Input ").removeprefix("Value error, ").replace(" after validation", "")
    joined = f"{name} {told}" if told.startswith("should") else f"{name}: {told}"
    return joined if " not " in told else f"{joined}, not {shown(item['input'])}"
