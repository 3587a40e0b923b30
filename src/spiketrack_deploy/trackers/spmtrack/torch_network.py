"""SPMTrack behind the loop's :class:`~spiketrack_deploy.tracking.reference_loop.ReferenceNetwork` interface.

This module decides precision and conversion between crops and tensors. It must not know boxes in frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spmtrack.config import REFERENCES, SpmConfig
from spiketrack_deploy.trackers.spmtrack.model import Maps, SpmTrack
from spiketrack_deploy.tracking.aligned_crop import Floats, Pixels
from spiketrack_deploy.tracking.pixels import MEAN, STD
from spiketrack_deploy.tracking.reference_loop import BoxMaps, ReferenceTracker


class SpmNetwork:
    """An :class:`SpmTrack` in evaluation mode, literally computed; float64 is the reference precision."""

    loop: ClassVar = ReferenceTracker

    def __init__(self, model: SpmTrack, dtype: torch.dtype = torch.float64) -> None:
        self.model, self._dtype = model.eval().to(dtype), dtype

    @property
    def config(self) -> SpmConfig:
        """Layout and loop settings."""
        return self.model.config

    def start(self) -> Tensor:
        """A state of zeros ``[1,D]``."""
        return torch.zeros(1, self.config.dim, dtype=self._dtype)

    def reference(self, crop: Floats, cells: Pixels) -> Tensor:
        """Tokens ``[1,T*T,D]`` of a template."""
        with torch.inference_mode():
            mask = foreground_mask(cells, self.config.template_grid)
            return self.model.embed_template(self.image(crop, self.config.template), mask)

    def search(self, crop: Floats, references: Sequence[Tensor], state: Tensor) -> BoxMaps:
        """One tracked frame."""
        if len(references) != REFERENCES:
            raise InputError(f"network {self.config.name} takes {REFERENCES} references, not {len(references)}")
        with torch.inference_mode():
            first, second, third = references
            tokens = self.model.embed_search(self.image(crop, self.config.search))
            return box_maps(self.model((first, second, third), tokens, state))[0]

    def image(self, crop: Floats, side: int) -> Tensor:
        """``[side,side,3]`` in 0..255 to normalised ``[1,3,side,side]``."""
        if crop.shape != (side, side, 3):
            raise InputError(f"crop must be ({side}, {side}, 3), is {crop.shape}")
        return normalised(crop).to(self._dtype)


def normalised(crop: Floats) -> Tensor:
    """``(v / 255 - mean) / std`` of ``[S,S,3]``, float64 ``[1,3,S,S]``."""
    values = (np.asarray(crop, dtype=np.float64) / 255 - MEAN) / STD
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))


def foreground_mask(cells: Pixels, grid: int) -> Tensor:
    """bool ``[1,grid,grid]``, true in the rectangle ``cells``."""
    mask = torch.zeros(1, grid, grid, dtype=torch.bool)
    x1, y1, x2, y2 = cells
    mask[:, y1:y2, x1:x2] = True
    return mask


def box_maps(maps: Maps) -> list[BoxMaps]:
    """Of every crop of a batch, in float64 on the host."""
    score, boxes = (one.double().cpu().numpy() for one in (maps.score, maps.boxes))
    return [BoxMaps(score[i], boxes[i], maps.state[i : i + 1]) for i in range(len(score))]
