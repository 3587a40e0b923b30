"""A linear layer with a mixture of experts beside it (TMoE).

    g = softmax(G x)      h = A x      y = W x + b + s * [B_1 .. B_E] [g_1 h; ..; g_E h]

This module decides the arithmetic of one layer, dense routing per token (arXiv 2503.18338, section 3.2; the published
code computes ``sum_i g_i (B_i h)``, the same products in another order). It must not know where the layer stands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Experts(nn.Module):
    """The adapter. ``compress_expert`` A ``[r, in]``, ``routed_experts`` B_i ``[out, r]``, ``expert_route`` G."""

    def __init__(self, inputs: int, outputs: int, experts: int, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.compress_expert = nn.Parameter(torch.empty(rank, inputs))
        self.routed_experts = nn.ParameterList([torch.empty(outputs, rank) for _ in range(experts)])
        self.expert_route = nn.Linear(inputs, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``, scaled."""
        gate = self.expert_route(x).softmax(-1)
        hidden = x @ self.compress_expert.mT
        mixed = (gate.unsqueeze(-1) * hidden.unsqueeze(-2)).flatten(-2)
        return self.scale * (mixed @ self.joined().mT)

    def joined(self) -> Tensor:
        """``[out, E r]``: all experts side by side."""
        return torch.cat(list(self.routed_experts), dim=1)


class ExpertLinear(nn.Module):
    """``linear`` is frozen and always on; ``tmoe`` is trained."""

    def __init__(self, inputs: int, outputs: int, experts: int, rank: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.tmoe = Experts(inputs, outputs, experts, rank, scale)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        result: Tensor = self.linear(x) + self.tmoe(x)
        return result
