"""Whether a set of tensors is exactly one network's, told in one sentence.

This module decides what counts as a fault and how faults are listed. It must not know which network, nor file formats
(:mod:`archive`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.archive import TensorSource, shown

LISTED = 8
"""How many names of each kind of fault a message lists."""


@dataclass(slots=True)
class Faults:
    """What is wrong with a state dict, by kind."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """``"3 missing (a, b, c); 1 unexpected (d)"``, empty where all is well."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of the wrong shape or type": self.misshaped,
            "not finite or with negative variance": self.unusable,
        }
        return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _never(key: str) -> bool:
    return False


def compare(
    expected: Mapping[str, Tensor],
    sources: Mapping[str, TensorSource],
    optional: Callable[[str], bool] = _never,
    ignored: Callable[[str], bool] = _never,
) -> Faults:
    """Names, shapes and kinds of ``sources`` against ``expected`` (on any device); nothing is read.

    ``optional``: keys that may be missing; ``ignored``: keys that may be there too."""
    faults = Faults()
    for key, wanted in expected.items():
        source = sources.get(key)
        if source is None:
            if not optional(key):
                faults.missing.append(key)
        elif source.shape != tuple(wanted.shape):
            faults.misshaped.append(f"{key} {list(source.shape)} instead of {list(wanted.shape)}")
        elif source.dtype.is_floating_point != wanted.dtype.is_floating_point:
            faults.misshaped.append(f"{key} {source.dtype} instead of {wanted.dtype}")
    faults.unexpected += [shown(key) for key in sources if key not in expected and not ignored(key)]
    return faults


def read_values(file: Path, key: str, source: TensorSource, dtype: torch.dtype, faults: Faults) -> Tensor:
    """One tensor, in ``dtype`` where it is of floating point; values that are not finite are a fault."""
    try:
        value = source.read()
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        raise InputError(f"checkpoint {file}: tensor {key} cannot be read: {error}") from error
    if value.dtype.is_floating_point:
        value = value.to(dtype)
        if not bool(torch.isfinite(value).all()):
            faults.unusable.append(key)
    return value
