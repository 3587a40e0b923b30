"""SPMTrack as a PyTorch module whose state-dict keys are those of the published files.

This module decides the arithmetic of a forward pass. It must not know crops, boxes in frames, or files. Tokens are
``[state, z_0, z_1, z_2, x]``; every one attends to every other (docs/spmtrack.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from spiketrack_deploy.trackers.spmtrack.config import PATCH, REFERENCES, SpmConfig
from spiketrack_deploy.trackers.spmtrack.tmoe import ExpertLinear

EPSILON = 1e-6
BACKGROUND, FOREGROUND, SEARCH = 0, 1, 2
"""Rows of ``token_type_embed``."""


class Maps(NamedTuple):
    """One forward pass: ``score`` logits ``[B,P,P]``, ``reg`` ``[B,P,P,4]`` before the sigmoid (left, top, right,
    bottom), ``gate`` ``[B,P,P]`` token . state, ``state`` ``[B,D]`` for the next frame."""

    score: Tensor
    reg: Tensor
    gate: Tensor
    state: Tensor

    @property
    def boxes(self) -> Tensor:
        """``[B,P,P,4]``: x1, y1, x2, y2 in sides of the search crop; may leave [0, 1]."""
        return boxes_of(self.reg)


def boxes_of(reg: Tensor) -> Tensor:
    """Corners from the logits of the distances to the cell's centre, ``[...,P,P,4]``."""
    side = reg.shape[-2]
    centre = (torch.arange(side, dtype=reg.dtype, device=reg.device) + 0.5) / side
    cx, cy = centre.expand(side, side), centre.unsqueeze(1).expand(side, side)
    left, top, right, bottom = reg.sigmoid().unbind(-1)
    return torch.stack([cx - left, cy - top, cx + right, cy + bottom], -1)


class LayerScale(nn.Module):
    """``gamma`` per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        """``x * gamma``."""
        return x * self.gamma


class Attention(nn.Module):
    """``softmax(q k^T / sqrt(d)) v`` over all tokens."""

    def __init__(self, config: SpmConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.ModuleDict({name: _expert(config, config.dim, config.dim) for name in "qkv"})
        self.proj = _expert(config, config.dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B,N,D]`` -> ``[B,N,D]``."""
        q, k, v = (self.qkv[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
        joined = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        result: Tensor = self.proj(joined)
        return result


class Mlp(nn.Module):
    """``fc2(GELU(fc1(x)))``, or ``w3(silu(a) * b)`` with ``[a, b] = w12(x)``."""

    def __init__(self, config: SpmConfig) -> None:
        super().__init__()
        self.first, self.second = (name for name, _, _ in config.ffn_layers)
        self.gated, self.hidden = config.ffn == "swiglu", config.hidden
        for name, inputs, outputs in config.ffn_layers:
            self.add_module(name, _expert(config, inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[B,N,D]`` -> ``[B,N,D]``."""
        inner = activation(self.get_submodule(self.first)(x), self.gated)
        result: Tensor = self.get_submodule(self.second)(inner)
        return result


def activation(x: Tensor, gated: bool) -> Tensor:
    """GELU (erf), or the gated product of the two halves."""
    if not gated:
        return functional.gelu(x)
    a, b = x.chunk(2, dim=-1)
    return functional.silu(a) * b


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: SpmConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(config.dim, EPSILON) for _ in range(2))
        self.attn, self.mlp = Attention(config), Mlp(config)
        self.ls1, self.ls2 = LayerScale(config.dim), LayerScale(config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B,N,D]`` -> ``[B,N,D]``."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        result: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result


class Perceptron(nn.Module):
    """Three linear layers with GELU between."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., outputs]``."""
        x = functional.gelu(self.layers[0](x))
        result: Tensor = self.layers[2](functional.gelu(self.layers[1](x)))
        return result


class Head(nn.Module):
    """Search tokens gated by the state token, then classified and regressed."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls_mlp, self.reg_mlp = Perceptron(dim, 1), Perceptron(dim, 4)


class PatchEmbed(nn.Module):
    """Convolution of 14x14 patches, flattened row by row."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """``[B,3,S,S]`` -> ``[B,cells,D]``."""
        result: Tensor = self.proj(images).flatten(2).mT
        return result


class SpmTrack(nn.Module):
    """The whole network; ``forward`` is one tracked frame."""

    def __init__(self, config: SpmConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_embed = nn.Parameter(torch.empty(1, config.grid**2, config.dim))
        self.track_query = nn.Parameter(torch.empty(1, config.dim))
        self.query_embed = nn.Parameter(torch.empty(1, config.dim))
        self.token_type_embed = nn.Parameter(torch.empty(3, config.dim))
        self.patch_embed = PatchEmbed(config.dim)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.dim, EPSILON)
        self.head = Head(config.dim)

    def embed_template(self, image: Tensor, foreground: Tensor) -> Tensor:
        """``[B,3,S,S]`` normalised and its cells ``[B,T,T]`` (bool) to tokens ``[B,T*T,D]``.

        Positions are those of the top left corner of the search grid (published)."""
        side, grid = self.config.template_grid, self.config.grid
        corner = self.pos_embed.unflatten(1, (grid, grid))[:, :side, :side].flatten(1, 2)
        kind = torch.where(
            foreground.flatten(1).unsqueeze(-1), self.token_type_embed[FOREGROUND], self.token_type_embed[BACKGROUND]
        )
        return self.patch_embed(image) + corner + kind

    def embed_search(self, image: Tensor) -> Tensor:
        """``[B,3,S,S]`` normalised to tokens ``[B,P*P,D]``."""
        return self.patch_embed(image) + self.pos_embed + self.token_type_embed[SEARCH]

    def query(self, state: Tensor) -> Tensor:
        """State of the last frame ``[B,D]`` to its token ``[B,1,D]``."""
        return (state + self.track_query + self.query_embed).unsqueeze(1)

    def forward(self, references: tuple[Tensor, Tensor, Tensor], search: Tensor, state: Tensor) -> Maps:
        """Tokens of three references ``[B,T*T,D]`` and of the search crop ``[B,P*P,D]``, state ``[B,D]``."""
        x = torch.cat([self.query(state), *references, search], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.decode(self.norm(x))

    def decode(self, tokens: Tensor) -> Maps:
        """Maps of normalised tokens ``[B,N,D]``."""
        grid, skipped = self.config.grid, 1 + REFERENCES * self.config.template_grid**2
        state, cells = tokens[:, 0], tokens[:, skipped:]
        gate = cells @ state.unsqueeze(-1)
        gated = cells * gate
        score, reg = self.head.cls_mlp(gated), self.head.reg_mlp(gated)
        shape = (grid, grid)
        return Maps(
            score.unflatten(1, shape).squeeze(-1),
            reg.unflatten(1, shape),
            gate.unflatten(1, shape).squeeze(-1),
            state,
        )

    def trained(self) -> dict[str, nn.Parameter]:
        """What training changes and a released file holds: queries, experts, head."""
        return {name: value for name, value in self.named_parameters() if is_trained(name)}


def is_trained(key: str) -> bool:
    """Whether a tensor of this name is in a released file; the others are DINOv2's."""
    return ".tmoe." in key or key.startswith("head.") or key in ("track_query", "query_embed", "token_type_embed")


def _expert(config: SpmConfig, inputs: int, outputs: int) -> ExpertLinear:
    return ExpertLinear(inputs, outputs, config.experts, config.rank, config.scale)
