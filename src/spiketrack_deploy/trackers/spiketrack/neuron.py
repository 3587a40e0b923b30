"""The NI-LIF neuron: integer activations 0..4 with a learned per-step decay, quirks of the published code included.

This module decides what a neuron emits and what gradient it passes. It must not know which layer it stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError

LEVELS = 4
"""Largest integer spike n; the emitted value is n / 4."""

BUILT_STEPS = 4
"""The published network builds every neuron for four steps (three decays), whatever T is."""

LOGIT_QUARTER = -1.0986122886681098


class _GradedSpike(torch.autograd.Function):
    """n / 4 with n = round_half_even(clamp(m, 0, 4)); gradient 1/4 inside [0, 4], else 0 (straight through)."""

    @staticmethod
    def forward(ctx: Any, membrane: Tensor) -> Tensor:
        ctx.save_for_backward((membrane >= 0) & (membrane <= LEVELS))
        return membrane.clamp(0, LEVELS).round_().mul_(1 / LEVELS)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        (inside,) = ctx.saved_tensors
        return grad[0] * inside * (1 / LEVELS)


def graded_spike(membrane: Tensor) -> Tensor:
    """The stateless neuron: ``n / 4`` of any real tensor; ties go to the even integer."""
    if torch.is_grad_enabled() and membrane.requires_grad:
        out: Tensor = _GradedSpike.apply(membrane)
        return out
    return membrane.clamp(0, LEVELS).round_().mul_(1 / LEVELS)


class NILIF(nn.Module):
    """``mem_update`` of the published code (docs/spiketrack.md, "Neuron").

    m[0] = x[0];  m[t] = (m[t-1] - s[t-1]) * sigmoid(decay[t-1]) + x[t];  n[t] = round_half_even(clamp(m[t], 0, 4));
    s[t] = n[t] / 4 is both the output and what the reset removes. State starts at 0 in every call.

    Input ``[T, ...]`` with T <= 3, or ``[M, C, T]`` with M > 3 (the gate's layout, time last); the output has
    the layout of the input. ``tap``, where set, receives every output; :func:`record.record_spikes` sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.full((BUILT_STEPS - 1,), LOGIT_QUARTER))
        self.tap: Callable[[Tensor], None] | None = None

    def forward(self, x: Tensor) -> Tensor:
        # The published neuron takes any first axis above three for "time is last"; that is what bounds T.
        if x.shape[0] < BUILT_STEPS:
            spikes = self._steps(x)
        elif x.dim() == 3:
            spikes = self._steps(x.permute(2, 0, 1)).permute(1, 2, 0)
        else:
            raise InputError(
                f"a neuron got {x.shape[0]} time steps in a tensor of shape {list(x.shape)}; at most 3 work"
            )
        if self.tap is not None:
            self.tap(spikes)
        return spikes

    def _steps(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return graded_spike(x)
        if x.shape[0] > BUILT_STEPS:
            raise InputError(f"a neuron got {x.shape[0]} time steps; it has decays for {BUILT_STEPS}")
        keep = torch.sigmoid(self.decay)
        membrane = x[0]
        spikes = [graded_spike(membrane)]
        for t in range(1, x.shape[0]):
            membrane = (membrane - spikes[-1]) * keep[t - 1] + x[t]
            spikes.append(graded_spike(membrane))
        return torch.stack(spikes)
