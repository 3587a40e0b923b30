"""What the spikes of a search frame cost, counted while training and made differentiable.

This module decides what is counted: every non-zero spike that a search-branch convolution reads, times its real fan-out
(non-zero weights only; borders, stride and groups respected), as ``program.counts`` counts synops; and the energy of
both where there are prices (:class:`SpikePrices`). Products with memories are left out (about 1 %). It must not know
losses, nor where a price comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.neuron import LEVELS
from spiketrack_deploy.training.units import operation_of

_FIRST = "downsample1_1"
_WRITES = ("retriever.k_conv", "retriever.v_conv")


@dataclass(frozen=True, slots=True)
class SpikePrices:
    """Nanojoules that one synaptic operation, and one spike on its way to the cores of an operation, add to a frame:
    ``spike`` by operation of the program."""

    synop: float
    spike: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spent:
    """Means of a search frame, differentiable: synaptic operations; nanojoules of them and of the spikes on their way
    (``None`` without prices)."""

    synops: Tensor
    energy: Tensor | None


class SpikeMeter:
    """Watches convolutions while ``active``; :meth:`total` is what a search frame of the last pass spent."""

    def __init__(self, convolutions: Mapping[str, nn.Module], prices: SpikePrices | None = None) -> None:
        self.active = True
        self.prices = prices
        self._synops: list[Tensor] = []
        self._energy: list[Tensor] = []
        counted = {p: c for p, c in convolutions.items() if _FIRST not in p and not any(w in p for w in _WRITES)}
        for path, conv in counted.items():
            conv.register_forward_pre_hook(self._hook(prices.spike.get(operation_of(path)[0], 0.0) if prices else 0.0))

    def _hook(self, spike: float) -> Any:
        def watch(conv: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if not self.active:
                return
            spikes = arguments[0]
            fan = fan_out(cast(nn.Conv2d, conv), tuple(spikes.shape[1:]))
            # One event per non-zero spike; the gradient reaches neurons at level 0 and 1, which can fall silent or
            # stay so.
            events = (spikes.float() * LEVELS).clamp(max=1).mean(0)
            synops = (events * fan).sum()
            self._synops.append(synops)
            if self.prices is not None:
                self._energy.append(self.prices.synop * synops + spike * events.sum())

        return watch

    def total(self) -> Spent | None:
        """What a search frame of the pass since the last call spent; forgets it. None if inactive."""
        if not self._synops:
            return None
        synops, energy = torch.stack(self._synops).sum(), torch.stack(self._energy).sum() if self._energy else None
        self._synops, self._energy = [], []
        return Spent(synops, energy)


def fan_out(conv: nn.Conv2d | nn.Conv1d, shape: tuple[int, ...]) -> Tensor:
    """``[C,H,W]`` (or ``[C,N]``): how many non-zero weights each input position of ``shape`` meets, borders
    included."""
    live = (conv.weight.detach() != 0).float()
    one_d = isinstance(conv, nn.Conv1d)
    apply = F.conv1d if one_d else F.conv2d
    with torch.enable_grad():
        # The gradient of a sum of outputs with respect to an input is the sum of the weights that read it.
        probe = torch.zeros((1, *shape), device=live.device, requires_grad=True)
        out = apply(probe, live, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        (fan,) = torch.autograd.grad(out.sum(), probe)
    return fan[0]
