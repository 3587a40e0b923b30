"""The head (``decoder``): three equal convolution stacks for score, offset and size.

This module decides the logits of the maps (docs/spiketrack.md, "Head"). It must not know how maps become boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.blocks import conv_norm
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF

BRANCHES = (("ctr", 1), ("offset", 2), ("size", 2))
"""Branch name and output channels, in execution order."""

LAYERS = 4
CLAMP = 1e-4
"""Score and size stay within [CLAMP, 1 - CLAMP]."""


@dataclass(frozen=True, slots=True)
class Maps:
    """Head output on the P x P grid: score ``[B,1,P,P]``, size and offset ``[B,2,P,P]`` (x first).

    Size is a fraction of the search crop, offset is in cells. ``ctr_logits`` and ``size_logits`` are the values before
    sigmoid and clamp; the offset has neither.
    """

    score: Tensor
    size: Tensor
    offset: Tensor
    ctr_logits: Tensor
    size_logits: Tensor


class Head(nn.Module):
    """One shared input neuron, then ``conv1_X`` .. ``conv5_X`` for X in ctr, offset, size; widths halve."""

    def __init__(self, config: TrackerConfig) -> None:
        super().__init__()
        for branch, outputs in BRANCHES:
            c_in = config.final_width
            for layer in range(1, LAYERS + 1):
                c_out = config.head_width >> (layer - 1)
                self.add_module(f"conv{layer}_{branch}", conv_norm(c_in, c_out, 3, bias=True, frozen=False))
                c_in = c_out
            self.add_module(f"conv5_{branch}", nn.Conv2d(c_in, outputs, 1))
        for branch in ("ctr", "size", "offset"):
            for layer in range(1, LAYERS + 1):
                self.add_module(f"{branch}{layer}_spike", NILIF())
        self.spike = NILIF()

    def forward(self, x: Tensor) -> Maps:
        """Search features ``[1,B,C,P,P]`` -> :class:`Maps`."""
        x = self.spike(x)
        logits: dict[str, Tensor] = {}
        for branch, _ in BRANCHES:
            y = x.squeeze(0)
            for layer in range(1, LAYERS + 1):
                y = self.get_submodule(f"conv{layer}_{branch}")(y)
                # The neuron reads its first axis as time, so the single step stands in front of the batch.
                y = self.get_submodule(f"{branch}{layer}_spike")(y.unsqueeze(0)).squeeze(0)
            logits[branch] = self.get_submodule(f"conv5_{branch}")(y)
        score, size = (torch.sigmoid(logits[b]).clamp(CLAMP, 1 - CLAMP) for b in ("ctr", "size"))
        return Maps(score, size, logits["offset"], logits["ctr"], logits["size"])
