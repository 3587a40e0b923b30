"""Every number of a training run that is a choice, in one frozen value.

This module decides which choices exist, their defaults and their legal ranges. It must not know PyTorch nor the data.
Where the defaults come from: docs/training.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from spiketrack_deploy.errors import InputError

PHASES = ("float", "integer")
"""``float``: NI-LIF surrogate on real weights. ``integer``: the forward pass is the integer program's arithmetic."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run.

    ``steps`` optimiser steps of ``templates_per_step`` templates with ``searches`` search crops each, over all workers.
    ``minutes`` above 0 replaces the step count by a budget of training time: the schedule then follows the clock
    and two
    runs differ; with 0 a run is a function of recipe, configuration, data, seed and worker count. ``video`` and
    ``paste``
    are shares of draws (the rest are two views of one picture). ``synop_penalty`` is the loss per 10^6 synaptic
    operations of a search frame; ``ema`` the decay of the averaged weights per step; ``time_rate`` multiplies the
    learning rate of gates and membrane decays, which see weak gradients (T > 1 only). Lengths in target sizes, scales
    as natural logarithms. Raises :class:`InputError` for an illegal value.
    """

    phase: str = "float"
    seed: int = 1
    steps: int = 12000
    minutes: float = 0.0
    workers: int = 1
    templates_per_step: int = 24
    searches: int = 2
    learning_rate: float = 1.5e-3
    time_rate: float = 1.0
    warm_up: float = 0.05
    weight_decay: float = 0.02
    clip: float = 2.0
    ema: float = 0.998
    half_precision: bool = True
    synop_penalty: float = 0.0
    video: float = 0.4
    paste: float = 0.15
    least_side: float = 16.0
    template_scale: float = 0.04
    template_shift: float = 0.03
    search_scale: float = 0.30
    search_shift: float = 0.3
    aspect: float = 0.07
    flip: float = 0.5
    gain: float = 0.15
    channel_gain: float = 0.06
    grey: float = 0.08
    blur: float = 0.15
    motion_blur: float = 0.15
    distractor: float = 0.15
    occlusion: float = 0.10
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    log_size_weight: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        if self.phase not in PHASES:
            raise InputError(f"recipe: phase must be one of {', '.join(PHASES)}, not {self.phase!r}")
        for name in ("steps", "workers", "templates_per_step", "searches"):
            if not 1 <= getattr(self, name) <= 10**9:
                raise InputError(f"recipe: {name} must be at least 1, not {getattr(self, name)}")
        if self.templates_per_step % self.workers:
            raise InputError(
                f"recipe: {self.templates_per_step} templates a step cannot be shared by {self.workers} workers"
            )
        for name in (
            "video",
            "paste",
            "flip",
            "grey",
            "blur",
            "motion_blur",
            "distractor",
            "occlusion",
            "warm_up",
            "ema",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"recipe: {name} is a share between 0 and 1, not {getattr(self, name)}")
        if self.video + self.paste > 1:
            raise InputError("recipe: video and paste are shares of draws and must not exceed 1 together")
        if not self.learning_rate > 0 or not self.clip > 0 or self.seed < 0:
            raise InputError("recipe: learning_rate and clip must be above 0, seed at least 0")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Strict: unknown keys and wrong types raise :class:`InputError`; absent keys take the default."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(str(k) for k in data if k not in known)
        if unknown:
            raise InputError(f"recipe has unknown keys: {', '.join(unknown[:8])}; known are {', '.join(sorted(known))}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-ready."""
        return asdict(self)


def _check_type(name: str, value: object, kind: object) -> None:
    if kind == "bool":
        ok = isinstance(value, bool)
    elif kind == "int":
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "str":
        ok = isinstance(value, str)
    else:
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not ok:
        raise InputError(f"recipe: {name} must be a {'number, at least 0' if kind == 'float' else kind}, not {value!r}")
