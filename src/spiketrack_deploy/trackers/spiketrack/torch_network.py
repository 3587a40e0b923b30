"""The float network behind the loop's :class:`~spiketrack_deploy.tracking.loop.Network` interface.

This module decides precision and conversion between crops and tensors. It must not know boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import HeadMaps, maps_from_logits
from spiketrack_deploy.tracking.pixels import normalise


class TorchNetwork:
    """A :class:`SpikeTrack` in evaluation mode; float64 is the reference precision, float32 the fast one.

    The model is converted in place (device, dtype, mode); ``config`` may carry other loop settings than its own.
    """

    def __init__(
        self,
        model: SpikeTrack,
        config: TrackerConfig | None = None,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> None:
        self._config = model.config if config is None else config
        self._dtype, self._device = dtype, device
        self._memories: Mapping[int, Tensor] | None = None
        self.model = model.eval().to(device, dtype)

    @property
    def config(self) -> TrackerConfig:
        """Layout and loop settings."""
        return self._config

    @property
    def memories(self) -> Mapping[int, Tensor]:
        """{mrm index: memory ``[T,1,heads,d,rd]``} of the current templates."""
        if self._memories is None:
            raise InputError("the network has no templates yet; call set_templates first")
        return self._memories

    def set_templates(self, crops: Sequence[Image]) -> None:
        """Recompute every memory from T crops (uint8 ``[r,r,3]``)."""
        if len(crops) != self._config.templates:
            raise InputError(
                f"network {self._config.name} takes {self._config.templates} template crops, not {len(crops)}"
            )
        with torch.inference_mode():
            self._memories = self.model.template_branch(self._tensor(crops))

    def search(self, crop: Image) -> HeadMaps:
        """Maps of one search crop (uint8 ``[r,r,3]``), decoded on the host in float64."""
        with torch.inference_mode():
            maps = self.model.search_branch(self._tensor([crop]), self.memories)
        logits = (maps.ctr_logits, maps.offset, maps.size_logits)
        ctr, offset, size = (x[0].double().cpu().numpy() for x in logits)
        return maps_from_logits(ctr, offset, size)

    def _tensor(self, crops: Sequence[Image]) -> Tensor:
        images = torch.from_numpy(np.stack([normalise(crop, self._config.normalisation) for crop in crops]))
        return images.to(self._device, self._dtype).unsqueeze(1)
