"""Engines by name.

This module decides which names there are; an engine's libraries are imported only when that engine is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from spiketrack_deploy.engines.base import Engine, ReferenceEngine
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import Program

Maker = Callable[..., Engine]


def _reference() -> Maker:
    return ReferenceEngine


def _sim() -> Maker:
    from spiketrack_deploy.engines.sim import SimEngine

    return SimEngine


def _lava() -> Maker:
    from spiketrack_deploy.engines.lava_engine import LavaEngine

    return LavaEngine


def _onnx() -> Maker:
    from spiketrack_deploy.engines.onnx_engine import OnnxEngine

    return OnnxEngine


_MAKERS: dict[str, Callable[[], Maker]] = {"reference": _reference, "sim": _sim, "lava": _lava, "onnx": _onnx}
ENGINES = tuple(_MAKERS)


def make_engine(name: str, program: Program, **options: Any) -> Engine:
    """The engine ``name`` for ``program``; ``options`` are keyword arguments of its class (``sim``: threads, kernels;
    ``onnx``: threads; ``lava``: python, time limits; ``reference``: none).

    EngineError: no such engine, an option that it does not have, or a dependency is missing.
    """
    if name not in _MAKERS:
        raise EngineError(f"no engine is named {name!r}; choose one of {', '.join(ENGINES)}")
    maker = _MAKERS[name]()
    known = [p for p in inspect.signature(maker).parameters if p != "program"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise EngineError(f"engine {name} has no option {', '.join(unknown)}; it takes {', '.join(known) or 'none'}")
    return maker(program, **options)
