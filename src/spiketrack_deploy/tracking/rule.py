"""The rule of the loop: what a tracker's host does with the maps, beyond taking the highest cell.

This module decides which settings there are, their ranges and what each does to a map, a box and the next crop. It must
not know networks. The default is the published rule: every setting off, the window as it is. None of them costs a chip
anything: they act on maps that have left it and on the crop that goes in next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain
from dataclasses import fields
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.documents import checked, shown
from spiketrack_deploy.tracking.boxes import Box
from spiketrack_deploy.tracking.crop import Floats

Share = Annotated[float, Field(ge=0, le=1)]

_AROUND = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (-1, -1), (1, -1))
"""Where a lost target is looked for, one place a frame, in halves of a crop's side (x, y)."""


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class LoopRule:
    """Settings of the loop; those that are left out are the published rule's.

    ``window``: exponent of the Hann window, 0 for none. ``change``: a cell whose box differs in size s or aspect r from
    the last one counts ``exp(-change (max(r, 1/r) max(s, 1/s) - 1))`` of its score (Li et al., SiamRPN, CVPR 2018).
    ``size_rate``: share of the found width and height that is taken over. ``lead``: the next crop's centre is
    ahead by this share of the velocity, of which ``inertia`` is kept from frame to frame. ``doubt``: below this score
    of the chosen cell, before window and penalty, the size is kept, the next crop is ``widen`` times as wide, and after
    ``refind`` such frames in a row (0: never) crops look around in turn, and the box waits until a score reaches
    ``doubt`` again.
    """

    window: Annotated[float, Field(ge=0, le=8)] = 1.0
    change: Annotated[float, Field(ge=0, le=8)] = 0.0
    size_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    lead: Share = 0.0
    inertia: Share = 0.0
    doubt: Share = 0.0
    widen: Annotated[float, Field(ge=1, le=4)] = 1.0
    refind: Annotated[int, Field(ge=0, le=10**6)] = 0

    @model_validator(mode="wrap")
    @classmethod
    def _legal(cls, data: Any, handler: Callable[[Any], LoopRule]) -> LoopRule:
        if isinstance(data, Mapping):
            return cls(**data)
        if not isinstance(data, (cls, ArgsKwargs)):
            raise InputError(f"loop settings must be an object of few entries, not {shown(data)}")
        return checked(handler, data, "loop settings", (field.name for field in fields(cls)))

    def to_dict(self) -> dict[str, float]:
        """What differs from the published rule, JSON-ready; empty for that rule."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def weights(self, hann: Floats, size: Floats, last: tuple[float, float]) -> Floats:
        """What each cell's score counts, ``[P,P]``: the window ``hann`` and the penalty on ``size`` ``[2,P,P]`` against
        the ``last`` width and height, all in fractions of the crop."""
        window = hann if self.window == 1 else hann**self.window
        if not self.change:
            return window
        area, aspect = np.sqrt(size[0] * size[1]) / math.sqrt(last[0] * last[1]), size[0] / size[1] * last[1] / last[0]
        odd = np.maximum(aspect, 1 / aspect) * np.maximum(area, 1 / area) - 1
        return np.asarray(window * np.exp(-self.change * odd), dtype=np.float64)


PUBLISHED = LoopRule()
"""The rule of the published tracker."""


@plain(slots=True)
class Motion:
    """What one target's loop remembers beside its box: velocity in pixels a frame, frames in doubt in a row."""

    rule: LoopRule
    velocity: tuple[float, float] = (0.0, 0.0)
    doubted: int = 0

    def search_box(self, last: Box, side: float, width: int, height: int) -> Box:
        """The box around which the next crop of ``side`` frame pixels is cut; the last one under the published rule."""
        rule, (x, y, w, h) = self.rule, last
        lost = self._lost()
        if not rule.lead and not lost:
            return last
        dx, dy = (rule.lead * v for v in self.velocity)
        if lost:
            step = _AROUND[(self.doubted - rule.refind) % len(_AROUND)]
            dx, dy = 0.5 * side * step[0], 0.5 * side * step[1]
        # A crop's centre stays inside the frame, so that the crop never holds nothing.
        cx, cy = min(max(x + w / 2 + dx, 0.0), width - 1.0), min(max(y + h / 2 + dy, 0.0), height - 1.0)
        return cx - w / 2, cy - h / 2, w, h

    def factor(self, factor: float) -> float:
        """Side of the next crop in target sizes."""
        return factor * self.rule.widen if self.doubted else factor

    def taken(self, last: Box, found: Box, score: float) -> Box:
        """The box of the frame, not clipped: ``found``, or what the rule makes of it; ``score`` is its cell's own."""
        rule = self.rule
        if rule == PUBLISHED:
            return found
        lost, sure = self._lost(), score >= rule.doubt
        self.doubted = 0 if sure else self.doubted + 1
        if lost and not sure:
            self.velocity = (0.0, 0.0)
            return last
        rate = rule.size_rate if sure else 0.0
        cx, cy = found[0] + found[2] / 2, found[1] + found[3] / 2
        moved = (cx - last[0] - last[2] / 2, cy - last[1] - last[3] / 2)
        # Found again somewhere else is no movement.
        old, new = self.velocity, (0.0, 0.0) if lost else moved
        self.velocity = tuple(rule.inertia * o + (1 - rule.inertia) * n for o, n in zip(old, new))  # type: ignore[assignment]
        w, h = last[2] + rate * (found[2] - last[2]), last[3] + rate * (found[3] - last[3])
        return cx - w / 2, cy - h / 2, w, h

    def _lost(self) -> bool:
        return bool(self.rule.refind) and self.doubted >= self.rule.refind
