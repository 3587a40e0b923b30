"""Synaptic operations of a search frame, counted while training and made differentiable.

This module decides what is counted: every non-zero spike that a search-branch convolution reads, times its real fan-out
(non-zero weights only; borders, stride and groups respected), as ``program.counts`` counts synops. Products with
memories are left out (about 1 %). It must not know losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.neuron import LEVELS

_FIRST = "downsample1_1"
_WRITES = ("retriever.k_conv", "retriever.v_conv")


class SynopMeter:
    """Watches convolutions while ``active``; :meth:`total` is the mean number of synops of a search frame in the
    last pass."""

    def __init__(self, convolutions: Mapping[str, nn.Module]) -> None:
        self.active = True
        self._parts: dict[str, Tensor] = {}
        counted = {p: c for p, c in convolutions.items() if _FIRST not in p and not any(w in p for w in _WRITES)}
        for path, conv in counted.items():
            conv.register_forward_pre_hook(self._hook(path))

    def _hook(self, path: str) -> Any:
        def watch(conv: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if not self.active:
                return
            spikes = arguments[0]
            fan = fan_out(cast(nn.Conv2d, conv), tuple(spikes.shape[1:]))
            # One event per non-zero spike; the gradient reaches neurons at level 0 and 1, which can fall silent or
            # stay so.
            events = (spikes.float() * LEVELS).clamp(max=1)
            mean = (events.mean(0) * fan).sum()
            # A convolution of several calls in one pass (responders per step, branches apart) adds up.
            self._parts[path] = self._parts[path] + mean if path in self._parts else mean

        return watch

    def total(self) -> Tensor | None:
        """Synops per search frame of the pass since the last call, differentiable; forgets them. None if inactive."""
        if not self._parts:
            return None
        out = torch.stack(list(self._parts.values())).sum()
        self._parts = {}
        return out


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
