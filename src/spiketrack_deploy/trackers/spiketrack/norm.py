"""Batch norms of the two kinds the published network mixes, and the switch between them.

This module decides which vectors are parameters and which are buffers (the state-dict keys differ only in
``num_batches_tracked``). It must not know where a norm stands.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5
Norm = TypeVar("Norm", bound=nn.Module)


class FrozenNorm(nn.Module):
    """Batch norm with fixed statistics and fixed affine: four buffers ``[n]``, no counter.

    ``s = weight / sqrt(running_var + 1e-5)``, ``y = x s + (bias - running_mean s)``, channel axis 1.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, EPS)


class ThawedNorm(nn.BatchNorm2d):
    """Stand-in for a :class:`FrozenNorm` while statistics are learned; :func:`freeze_norms` turns it back."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts ``[B,C,N]`` and ``[B,C,H,W]``: one stand-in serves both."""


def norm1d(channels: int, frozen: bool) -> nn.Module:
    """Norm over ``[B,C,N]``."""
    return FrozenNorm(channels) if frozen else nn.BatchNorm1d(channels, eps=EPS)


def norm2d(channels: int, frozen: bool) -> nn.Module:
    """Norm over ``[B,C,H,W]``."""
    return FrozenNorm(channels) if frozen else nn.BatchNorm2d(channels, eps=EPS)


def thaw_norms(model: nn.Module) -> None:
    """Replace every frozen norm by a trainable one with the same vectors, for training from scratch."""
    for parent, name, norm in _children(model, FrozenNorm):
        like = norm.running_mean
        thawed = ThawedNorm(like.numel(), eps=EPS).to(like.device, like.dtype)
        thawed.load_state_dict({**norm.state_dict(), "num_batches_tracked": torch.tensor(0)})
        setattr(parent, name, thawed.train(parent.training))


def freeze_norms(model: nn.Module) -> None:
    """Undo :func:`thaw_norms`, so that the state-dict keys are the published ones again."""
    for parent, name, norm in _children(model, ThawedNorm):
        like = norm.weight
        frozen = FrozenNorm(like.numel()).to(like.device, like.dtype)
        state = norm.state_dict()
        state.pop("num_batches_tracked")
        frozen.load_state_dict(state)
        setattr(parent, name, frozen.train(parent.training))


def _children(model: nn.Module, kind: type[Norm]) -> list[tuple[nn.Module, str, Norm]]:
    pairs = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    return [(parent, name, child) for parent, name, child in pairs if isinstance(child, kind)]
