"""How pixels become the real numbers that enter a network.

This module decides the published normalisation, what another may be, and when one is dyadic, so that binary arithmetic
represents every pixel. It must not know networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import checked, shown
from spiketrack_deploy.tracking.crop import Floats
from spiketrack_deploy.tracking.images import Image

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""The published ones (ImageNet's), of pixels 0..1."""
FRACTION_BITS = 8
"""A mean with more of them would not leave a float32 sum room."""

_Three = Annotated[tuple[float, ...], Field(strict=False, min_length=3, max_length=3)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Normalisation:
    """``(v - mean) / std`` of pixels ``v`` 0..255, by channel (red, green, blue); ``mean`` 0..255, ``std`` 1..1024."""

    mean: _Three
    std: _Three

    @model_validator(mode="wrap")
    @classmethod
    def _legal(cls, data: Any, handler: Callable[[Any], Normalisation]) -> Normalisation:
        if isinstance(data, Mapping):
            return cls(**data)
        if not isinstance(data, (cls, ArgsKwargs)):
            raise InputError(f"normalisation must be an object of mean and std, not {shown(data)}")
        found = checked(handler, data, "normalisation", (field.name for field in fields(cls)))
        if not all(0 <= m <= 255 for m in found.mean) or not all(1 <= s <= 1024 for s in found.std):
            raise InputError(
                "normalisation: mean must be three numbers of 0 to 255 and std three of 1 to 1024, in pixels"
            )
        return found

    def to_dict(self) -> dict[str, list[float]]:
        """JSON-ready."""
        return {key: list(value) for key, value in asdict(self).items()}

    @property
    def dyadic(self) -> bool:
        """Whether every normalised pixel is a short binary fraction: powers of two as ``std``, short means."""
        whole = all(float(m * 2**FRACTION_BITS).is_integer() for m in self.mean)
        return whole and all(math.frexp(s)[0] == 0.5 for s in self.std)


def pixel_units(normalisation: Normalisation | None) -> tuple[Floats, Floats]:
    """Mean and divisor of pixels 0..255 by channel, float64 ``[3]``; None: the published normalisation."""
    if normalisation is None:
        return 255.0 * np.array(MEAN), 255.0 * np.array(STD)
    return np.array(normalisation.mean), np.array(normalisation.std)


def normalise(crop: Image, normalisation: Normalisation | None = None) -> Floats:
    """An RGB crop ``[r, r, 3]`` as float64 ``[3, r, r]``: ``(v / 255 - mean) / std``, or as ``normalisation`` says."""
    table = _normalised_values(normalisation)
    return np.stack([table[c][crop[:, :, c]] for c in range(3)])


@lru_cache(maxsize=4)
def _normalised_values(normalisation: Normalisation | None) -> Floats:
    """``[3, 256]``: a byte has only 256 values, so the division is done once and is the same on every machine."""
    levels = np.arange(256, dtype=np.float64)
    if normalisation is None:
        return np.stack([(levels / 255 - mean) / std for mean, std in zip(MEAN, STD)])
    return np.stack([(levels - mean) / std for mean, std in zip(*pixel_units(normalisation))])


def require_dyadic(normalisation: Normalisation | None) -> None:
    """InputError where pixels are not normalised so that binary arithmetic represents them."""
    if normalisation is None or not normalisation.dyadic:
        stated = "the published one" if normalisation is None else str(normalisation.to_dict())
        raise InputError(
            f"an exact network needs a dyadic normalisation of pixels, its configuration has {stated}; state one as "
            '"normalisation": {"mean": [124, 124, 124], "std": [64, 64, 64]}'
        )
