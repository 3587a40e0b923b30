"""What verbs are asked for alike: a place, a target, an engine; and how it is refused.

This module decides sentences of refusal that several verbs share. It must not run anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spiketrack_deploy.errors import EngineError, UsageError

if TYPE_CHECKING:
    from spiketrack_deploy.hardware.targets import Target

Place = str | Path
"""A file or folder."""


def as_path(place: Place | None) -> Path | None:
    """``None`` stays what it is: the default."""
    return None if place is None else Path(place)


def export_target(name: str) -> Target:
    """The target of an export; UsageError where nothing could be said of it."""
    from spiketrack_deploy.energy.pricing import event_prices
    from spiketrack_deploy.hardware.targets import resolve_target

    target = resolve_target(name)
    if target.profile.family is None and not event_prices(target.profile):
        raise UsageError(
            f"target {target.name} has no family of chips to map to and no price of an event: nothing can be said of "
            "it; choose another (spiketrack targets)"
        )
    return target


def in_stock(engine: str, granularity: str | None) -> bool:
    """Whether Lava's own Processes are asked for; UsageError of another engine."""
    if granularity and engine != "lava":
        raise UsageError(f"--granularity {granularity}: is of --engine lava; {engine} has none")
    return granularity == "stock"


def require_engine(name: str) -> None:
    """EngineError before any work where an engine cannot run here; the sentence says how to get it."""
    if name == "lava":
        from spiketrack_deploy.engines.lava_interpreter import lava_python

        lava_python()
    if name == "onnx":
        from importlib.util import find_spec

        if find_spec("onnxruntime") is None:
            raise EngineError("the onnx engine needs onnxruntime: pip install onnxruntime")
