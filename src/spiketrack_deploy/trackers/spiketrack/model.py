"""SpikeTrack as one weight set with two branches: templates write memories, the search region reads them.

This module decides the order of stages (the configuration's walk) and nothing inside them. It must not know frames,
boxes or files. Source: SpikeTrack, CVPR 2026 (arXiv 2602.23963); docs/spiketrack.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.blocks import ConvBlock, Downsample, TransformerBlock
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.head import Head, Maps
from spiketrack_deploy.trackers.spiketrack.retriever import MemoryRetrieval

# Registration order, which is the order of the published state dict; execution order is the walk.
_GROUPS = (
    "downsample1_1",
    "ConvBlock1_1",
    "downsample1_2",
    "ConvBlock1_2",
    "downsample2",
    "ConvBlock2_1",
    "ConvBlock2_2",
    "downsample3",
    "block3",
    "downsample4",
    "block4",
    "mrm",
)


class Encoder(nn.Module):
    """The stages of the walk under their published names; absent stages have no module and no keys."""

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__()
        self.walk = config.walk
        for group in _GROUPS:
            members = [s for s in config.walk if s.split(".")[0] == group]
            if members == [group]:
                self.add_module(group, _new_stage(group, config))
            elif members:
                self.add_module(group, nn.ModuleDict({s.split(".")[1]: _new_stage(s, config) for s in members}))

    def memories(self, x: Tensor) -> dict[int, Tensor]:
        """Template images ``[T,B,3,r,r]`` -> {mrm index: ``[T,B,heads,d,rd]``}; stops behind the last memory."""
        out: dict[int, Tensor] = {}
        wanted = sum(stage.startswith("mrm.") for stage in self.walk)
        for stage in self.walk:
            if len(out) == wanted:
                break
            module = self.get_submodule(stage)
            if stage.startswith("mrm."):
                out[int(stage[4:])] = cast(MemoryRetrieval, module).write(x)
            else:
                x = module(x, True)
        return out

    def features(self, x: Tensor, memories: Mapping[int, Tensor]) -> Tensor:
        """Search image ``[1,B,3,r,r]`` and memories -> ``[1,B,C,P,P]``."""
        for stage in self.walk:
            module = self.get_submodule(stage)
            if stage.startswith("mrm."):
                index = int(stage[4:])
                if index not in memories:
                    raise InputError(
                        f"the search branch needs memory {index}; run the template branch of this network first"
                    )
                x = module(x, memories[index])
            else:
                x = module(x, False)
        return x


class SpikeTrack(nn.Module):
    """The whole network; state-dict keys are the published ones (``encoder.``, ``decoder.``)."""

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Head(config)

    def template_branch(self, images: Tensor) -> dict[int, Tensor]:
        """Normalised template crops ``[T,B,3,r,r]``, oldest kept first -> {mrm index: memory ``[T,B,heads,d,rd]``}.

        A memory is ``k^T v`` without any factor: every value is a multiple of 1/16.
        """
        self._check(images, self.config.templates)
        return self.encoder.memories(images)

    def search_branch(self, image: Tensor, memories: Mapping[int, Tensor]) -> Maps:
        """Normalised search crop ``[1,B,3,r,r]`` and the memories of :meth:`template_branch` -> :class:`Maps`."""
        self._check(image, 1)
        maps: Maps = self.decoder(self.encoder.features(image, memories))
        return maps

    def forward(self, templates: Tensor, search: Tensor) -> Maps:
        """Both branches in one call, as training runs them."""
        return self.search_branch(search, self.template_branch(templates))

    def _check(self, images: Tensor, steps: int) -> None:
        side = self.config.resolution
        if images.dim() != 5 or images.shape[0] != steps or tuple(images.shape[2:]) != (3, side, side):
            raise InputError(
                f"network {self.config.name} takes images of shape [{steps}, batch, 3, {side}, {side}], "
                f"not {list(images.shape)}"
            )


def _new_stage(stage: str, config: TrackerConfig) -> nn.Module:
    width = config.width(stage)
    if stage.startswith("downsample"):
        return _new_downsample(stage, config)
    if stage.startswith("ConvBlock"):
        return ConvBlock(width, config)
    if stage.startswith("mrm."):
        return MemoryRetrieval(width, config)
    return TransformerBlock(width, config)


def _new_downsample(stage: str, config: TrackerConfig) -> nn.Module:
    width = config.width(stage)
    if stage == "downsample1_1":
        return Downsample(3, width, kernel=7, stride=config.stride(stage), first=True)
    before = {
        "downsample1_2": "downsample1_1",
        "downsample2": "downsample1_2",
        "downsample3": "downsample2",
        "downsample4": "downsample3",
    }
    return Downsample(config.width(before[stage]), width, stride=config.stride(stage))
