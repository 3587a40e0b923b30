"""Runs templates and search crops through the shared layers as one batch, as float training does.

This module decides only how batches meet: with ordinary batch norm both branches must share one statistic, because they
share one set of weights at deployment (docs/training.md). The layers are the tracker's own.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.blocks import TransformerBlock
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.retriever import MemoryRetrieval
from spiketrack_deploy.tracking.pixels import MEAN, STD, Normalisation


def normalised(crops: Tensor, normalisation: Normalisation | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 ``[N,r,r,3]`` -> ``[N,3,r,r]``, (v / 255 - mean) / std, or as ``normalisation`` says."""
    own = normalisation
    mean = torch.tensor(own.mean if own else MEAN, dtype=dtype, device=crops.device)
    std = torch.tensor(own.std if own else STD, dtype=dtype, device=crops.device)
    return (((crops.to(dtype) if own else crops.to(dtype) / 255) - mean) / std).permute(0, 3, 1, 2)


def joint_pass(model: SpikeTrack, templates: Tensor, searches: Tensor, searches_each: int) -> Maps:
    """Maps ``[N K, ...]`` of normalised templates ``[N,3,r,r]`` and searches ``[N K,3,r,r]`` (K = ``searches_each``).

    Search crop n K + k belongs to template n. One template only: with more, time steps would differ between branches.
    """
    if model.config.templates != 1:
        raise InputError("templates and search crops share a batch only at T = 1; train T > 1 from a T = 1 network")
    count = templates.shape[0]
    x = torch.cat([templates, searches]).unsqueeze(0)
    template_rows = count
    wanted = sum(stage.startswith("mrm.") for stage in model.config.walk)
    for stage in model.config.walk:
        module = model.encoder.get_submodule(stage)
        if stage.startswith("mrm."):
            retrieval = cast(MemoryRetrieval, module)
            memory = retrieval.write(x[:, :count]).repeat_interleave(searches_each, 1)
            searched = retrieval(x[:, count:], memory)
            wanted -= 1
            x = torch.cat([x[:, :count], searched], 1) if wanted else searched
            template_rows = count if wanted else 0
        elif isinstance(module, TransformerBlock) and template_rows:
            x = _both_branches(module, x, template_rows)
        else:
            x = module(x, False)
    maps: Maps = model.decoder(x)
    return maps


def _both_branches(block: TransformerBlock, x: Tensor, template_rows: int) -> Tensor:
    """One transformer block on a mixed batch: only the positional embedding tells the branches apart.

    Attention adds the search embedding to every row; the difference to the template's is put in beforehand.
    """
    x = x + block.conv(x)
    attention = block.attn
    difference = (attention.t_pos_embeds[0] - attention.s_pos_embed).unflatten(2, x.shape[3:])
    shifted = torch.cat([x[:, :template_rows] + difference, x[:, template_rows:]], 1)
    x = x + attention(shifted, False)
    return cast(Tensor, x + block.mlp(x))


def branch_pass(model: SpikeTrack, templates: Tensor, searches: Tensor, searches_each: int) -> Maps:
    """The same by the tracker's own two branches: templates ``[T,N,3,r,r]``, any T; statistics should be frozen."""
    memories = model.template_branch(templates)
    repeated = {i: memory.repeat_interleave(searches_each, 1) for i, memory in memories.items()}
    return model.search_branch(searches.unsqueeze(0), repeated)


def float_maps(maps: Maps) -> Maps:
    """Maps in float32, so that the loss is not computed in half precision."""
    size = torch.sigmoid(maps.size_logits.float())
    return Maps(
        torch.sigmoid(maps.ctr_logits.float()),
        size,
        maps.offset.float(),
        maps.ctr_logits.float(),
        maps.size_logits.float(),
    )


def init_weights(model: nn.Module) -> None:
    """Fresh weights: truncated normal of deviation fan-in ** -0.5, so that batch norm sees ordinary numbers."""
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 3 and "pos_embed" not in name:
            fan_in = parameter[0].numel()
            nn.init.trunc_normal_(parameter, std=fan_in**-0.5)
    decoder = model.get_submodule("decoder")
    with torch.no_grad():
        for branch, value in (("ctr", -2.2), ("size", -0.7), ("offset", 0.5)):
            cast(nn.Conv2d, decoder.get_submodule(f"conv5_{branch}")).bias.fill_(value)  # type: ignore[union-attr]
