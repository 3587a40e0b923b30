"""Finds, reads and checks hardware profiles.

This module decides how a file becomes a :class:`Profile` and how each defect is reported; it must not know what the
values are used for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spiketrack_deploy.errors import InputError, ProfileError
from spiketrack_deploy.hardware.schema import Profile
from spiketrack_deploy.hardware.vocabulary import EXCLUSIVE, RESTATED
from spiketrack_deploy.inputs.resources import find_profile, profile_names
from spiketrack_deploy.inputs.untrusted import read_toml, shown

MAX_BYTES = 1 << 20
_SHOWN = 8


def load_profile(path_or_name: str | Path) -> Profile:
    """Read one profile, by the name of a bundled one or by path (a ``Path``, a separator, or the ending ``.toml``).

    A board, or another set of coefficients of a chip, comes with that chip's values filled in (``Profile.chip``). A
    command that takes a name from its user asks :func:`targets.resolve_target`.

    Raises ProfileError naming the file and every field that is wrong (first 8), UsageError for an unknown name.
    """
    text = str(path_or_name)
    is_path = isinstance(path_or_name, Path) or text.endswith(".toml") or "/" in text
    path = Path(path_or_name) if is_path else find_profile(text)
    return checked_profile(_joined(_read(path), path), path)


def checked_profile(data: Any, path: Path) -> Profile:
    """The profile that ``data`` (as a TOML or JSON file ``path`` holds it) describes; ProfileError names every
    wrong field."""
    try:
        return Profile.model_validate(data)
    except ValidationError as error:
        raise ProfileError(_defects(path, error)) from error


def list_profiles() -> tuple[Profile, ...]:
    """Every bundled profile, by name."""
    return tuple(load_profile(name) for name in profile_names())


def _joined(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """A profile that builds on a chip, with that chip's part filled in; its own values come first, and stand instead of
    the chip's prices for the same event."""
    name = data.get("chip")
    if not isinstance(name, str):
        return data
    if name not in profile_names():
        raise ProfileError(f"profile {path}: chip: unknown chip {name!r}; bundled are {', '.join(profile_names())}.")
    base = _read(find_profile(name))
    if base.get("kind") != "chip" or "chip" in base:
        raise ProfileError(f"profile {path}: chip: {name!r} is not a chip's own profile.")
    tables = ("limits", "prices") if data.get("kind") == "board" else ("limits",)
    joined = {**({"family": base["family"]} if "family" in base else {}), **data}
    for table in tables:
        own = data.get(table, {})
        if not isinstance(own, dict):
            joined[table] = own
            continue
        replaced = {x for pair in (*EXCLUSIVE, *RESTATED) for x, other in (pair, pair[::-1]) if other in own}
        joined[table] = {**{k: v for k, v in base.get(table, {}).items() if k not in replaced}, **own}
    if data.get("kind") == "board":
        for text in ("unknown", "assumptions"):
            own = data.get(text, [])
            joined[text] = [*base.get(text, []), *own] if isinstance(own, list) else own
    return joined


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path, MAX_BYTES, "correct the profile or give another")
    except InputError as error:
        raise ProfileError(f"profile {error}") from None


def _defects(path: Path, error: ValidationError) -> str:
    """One sentence naming the fields; the validator's own prefix says nothing to the reader."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "profile"
        lines.append(f"{field}: {item['msg'].removeprefix('Value error, ')}")
    more = f" (and {len(lines) - _SHOWN} more)" if len(lines) > _SHOWN else ""
    remedy = "Correct the file: every price needs value, unit, low, high, tag and source."
    return f"profile {path}: {shown('; '.join(lines[:_SHOWN]))[:2000]}{more}. {remedy}"
