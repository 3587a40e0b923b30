"""Memory retrieval (``mrm.i``): what a template writes and how the search branch reads it.

This module decides the memory's arithmetic (docs/spiketrack.md, "Retrieval"). It must not know where in the walk a
retriever stands nor when templates change.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.blocks import (
    MLP,
    conv_norm,
    folded,
    key_value,
    new_embedding,
    query,
    template_embeddings,
    with_embedding,
)
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF


class Gate(nn.Module):
    """Channel-wise softmax over time; its first layer reads the P*P positions, which fixes the resolution."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv1d(cells, cells // 2, 1), NILIF(), nn.Conv1d(cells // 2, 1, 1))

    def forward(self, y: Tensor) -> Tensor:
        """``[T,B,C,P,P]`` spikes -> ``[1,B,C,P,P]`` real: sum over t of weight[b,c,t] y[t,b,c]."""
        steps, batch, channels = y.shape[:3]
        logits: Tensor = self.mlp(y.flatten(3).permute(1, 2, 3, 0).flatten(0, 1))
        weights = logits.reshape(batch, channels, steps).softmax(-1).permute(2, 0, 1)
        return (weights[..., None, None] * y).sum(0, keepdim=True)


class Retriever(nn.Module):
    """Template side :meth:`write`, search side :meth:`forward`; works on the P x P grid."""

    def __init__(self, width: int, config: TrackerConfig) -> None:
        super().__init__()
        self.grid, self.heads, self.gain = config.grid, config.heads, config.attention_gain
        cells, values, steps = config.grid**2, config.value_ratio * width, config.templates
        self.s_pos_embed = new_embedding(width, cells)
        self.head_spike = NILIF()
        self.q_conv = conv_norm(width, width, frozen=False)
        self.k_conv = conv_norm(width, width, frozen=False)
        self.v_conv = conv_norm(width, values, frozen=False)
        self.q_spike = NILIF()
        self.k_spike = NILIF()
        self.v_spike = NILIF()
        self.attn_spike = NILIF()
        self.proj_conv = conv_norm(values, width, frozen=False)
        self.gate = Gate(cells)
        self.gate_spike = NILIF()
        self.seg_responder_dw = nn.ModuleList(
            [conv_norm(values, values, 3, groups=values, frozen=False) for _ in range(steps)]
        )
        self.seg_responder_pw = nn.ModuleList([conv_norm(values, width, frozen=False) for _ in range(steps)])
        self.fuser = conv_norm(width, width, frozen=False)
        self.seg_pw_spike = NILIF()
        self.seg_dw_spike = NILIF()
        self.fuser_spike = NILIF()
        self.t_pos_embeds = template_embeddings(width, cells)

    def write(self, x: Tensor) -> Tensor:
        """Template features ``[T,B,C,H,H]`` -> memory ``[T,B,heads,d,rd]`` in sixteenths, unscaled, one per step."""
        z = with_embedding(self._pooled(x), self.s_pos_embed, self.t_pos_embeds, template=True)
        z = self.head_spike(z)
        v = self.v_spike(folded(self.v_conv, z))
        k = self.k_spike(folded(self.k_conv, z))
        return key_value(k.flatten(3), v.flatten(3), self.heads)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Search features ``[1,B,C,H,H]`` and a memory -> ``[1,B,C,H,H]``, to be added to the stream."""
        steps, space = len(self.seg_responder_dw), (self.grid, self.grid)
        if memory.shape[0] != steps:
            raise InputError(f"a memory of {memory.shape[0]} template(s) meets a network built for {steps}")
        z = self.head_spike(with_embedding(self._pooled(x), self.s_pos_embed, self.t_pos_embeds, template=False))
        short_cut = folded(self.q_conv, z)
        # The copies differ behind the neuron, because its membrane accumulates over them.
        q = self.q_spike(short_cut.flatten(3).expand(steps, -1, -1, -1))
        a = self.q_spike(query(q, memory, self.gain).unflatten(3, space))
        a = self.seg_dw_spike(_per_step(self.seg_responder_dw, a))
        a = self.seg_pw_spike(_per_step(self.seg_responder_pw, a) + short_cut)
        q = self.fuser_spike(folded(self.fuser, a).flatten(3))
        y = self.attn_spike(query(q, memory, self.gain).unflatten(3, space))
        if steps > 1:
            y = self.gate_spike(self.gate(y))
        out = folded(self.proj_conv, y)
        if x.shape[3:] != out.shape[3:]:
            up = F.interpolate(out.flatten(0, 1), size=x.shape[3:], mode="bilinear", align_corners=False)
            out = up.unflatten(0, out.shape[:2])
        return out

    def _pooled(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.grid:
            return x
        pooled = F.adaptive_avg_pool2d(x.flatten(0, 1), self.grid)
        return pooled.unflatten(0, x.shape[:2])


def _per_step(modules: nn.ModuleList, x: Tensor) -> Tensor:
    """Module t applied to step t of ``[T,B,C,H,W]``."""
    outs: list[Tensor] = [module(step) for module, step in zip(modules, x)]
    return torch.stack(outs)


class MemoryRetrieval(nn.Module):
    """``mrm.i``: retriever and MLP, both residual on the search side; the template side only writes."""

    def __init__(self, width: int, config: TrackerConfig) -> None:
        super().__init__()
        self.retriever = Retriever(width, config)
        self.mlp = MLP(width, config.mlp_expansion, frozen=False)

    def write(self, x: Tensor) -> Tensor:
        """See :meth:`Retriever.write`; the features themselves stay as they are."""
        return self.retriever.write(x)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """``[1,B,C,H,H]`` -> same shape."""
        x = x + self.retriever(x, memory)
        return x + self.mlp(x)
