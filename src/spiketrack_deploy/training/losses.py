"""What the head should answer for a box, and how far its answer is off.

This module decides the training loss: focal loss on the score map, L1, GIoU and log-size error on the boxes
(docs/training.md). It must not know crops nor the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.training.recipe import Recipe

_LEAST_SIGMA = 0.55
_SIGMA_PER_CELL = 0.18
_BOX_CELLS = 0.35
"""Cells whose Gaussian exceeds this answer for the box too: a neighbour may win, and offsets are unbounded."""
_LEAST_SIZE = 1e-3


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars of one batch: ``total`` is what is minimised; the others are its parts, unweighted."""

    total: Tensor
    score: Tensor
    l1: Tensor
    giou: Tensor
    log_size: Tensor


def gaussian_map(boxes: Tensor, side: int) -> Tensor:
    """``[N,side,side]``: a Gaussian about each box centre (boxes ``[N,4]`` centre and size in fractions), 1 in its
    cell."""
    at = torch.arange(side, device=boxes.device, dtype=boxes.dtype) + 0.5
    sigma = (_SIGMA_PER_CELL * boxes[:, 2:] * side).clamp_min(_LEAST_SIGMA)
    dx = (at[None] - boxes[:, 0:1] * side) / sigma[:, 0:1]
    dy = (at[None] - boxes[:, 1:2] * side) / sigma[:, 1:2]
    target = torch.exp(-0.5 * (dy[:, :, None] ** 2 + dx[:, None, :] ** 2))
    cell = (boxes[:, :2] * side).long().clamp(0, side - 1)
    target[torch.arange(len(boxes), device=boxes.device), cell[:, 1], cell[:, 0]] = 1.0
    return target


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Penalty-reduced focal loss (CornerNet, arXiv 1808.01244, eq. 1: alpha 2, beta 4), a mean over targets."""
    positive = target == 1
    p = torch.sigmoid(logits)
    at_target = F.logsigmoid(logits) * (1 - p) ** 2
    elsewhere = F.logsigmoid(-logits) * p**2 * (1 - target) ** 4
    return -torch.where(positive, at_target, elsewhere).sum() / positive.sum().clamp_min(1)


def corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Top left and bottom right ``[...,2]`` of boxes ``[...,4]`` given as centre and size."""
    return boxes[..., :2] - 0.5 * boxes[..., 2:], boxes[..., :2] + 0.5 * boxes[..., 2:]


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(IoU, generalised IoU; Rezatofighi 2019, arXiv 1902.09630) of boxes ``[...,4]`` as centre and size."""
    (a1, a2), (b1, b2) = corners(a), corners(b)
    shared = (torch.minimum(a2, b2) - torch.maximum(a1, b1)).clamp_min(0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared
    hull = (torch.maximum(a2, b2) - torch.minimum(a1, b1)).prod(-1)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def cell_boxes(maps: Maps) -> Tensor:
    """The box that each cell answers: ``[N,P,P,4]`` centre and size in fractions of the crop."""
    side = maps.offset.shape[-1]
    at = torch.arange(side, device=maps.offset.device, dtype=maps.offset.dtype)
    cx = (at[None, None] + maps.offset[:, 0]) / side
    cy = (at[None, :, None] + maps.offset[:, 1]) / side
    return torch.stack([cx, cy, maps.size[:, 0], maps.size[:, 1]], -1)


def best_boxes(maps: Maps, window: Tensor) -> Tensor:
    """The box ``[N,4]`` of each sample's best cell, its score times ``window`` ``[P,P]``."""
    best = (maps.score[:, 0] * window).flatten(1).argmax(1)
    return cell_boxes(maps).flatten(1, 2)[torch.arange(len(best), device=best.device), best]


@dataclass(frozen=True, slots=True)
class BoxErrors:
    """Scalars: mean L1, 1 - GIoU, mean absolute log ratio of width and height."""

    l1: Tensor
    giou: Tensor
    log_size: Tensor

    def weighed(self, recipe: Recipe) -> Tensor:
        """Their sum as the recipe weighs them."""
        return recipe.l1_weight * self.l1 + recipe.giou_weight * self.giou + recipe.log_size_weight * self.log_size


def box_errors(answered: Tensor, wanted: Tensor, weight: Tensor) -> BoxErrors:
    """Errors of boxes ``[N,P,P,4]``, summed over cells and samples with ``weight`` ``[N,P,P]``."""
    l1 = ((answered - wanted).abs().mean(-1) * weight).sum()
    giou = ((1 - overlap(answered, wanted)[1]) * weight).sum()
    ratio = torch.log(answered[..., 2:].clamp_min(_LEAST_SIZE) / wanted[..., 2:].clamp_min(_LEAST_SIZE))
    return BoxErrors(l1, giou, (ratio.abs().mean(-1) * weight).sum())


def tracking_loss(maps: Maps, boxes: Tensor, recipe: Recipe) -> Losses:
    """Losses of head maps against boxes ``[N,4]`` (centre and size, fractions of the search crop).

    A box without size is that of an absent target: no cell should score, and no box is wrong.
    """
    side = maps.offset.shape[-1]
    target = gaussian_map(boxes, side) * (boxes[:, 2] > 0)[:, None, None]
    score = focal(maps.ctr_logits[:, 0], target)
    weight = torch.where(target > _BOX_CELLS, target, torch.zeros_like(target))
    weight = weight / weight.sum().clamp_min(_LEAST_SIZE)
    errors = box_errors(cell_boxes(maps), boxes[:, None, None].expand(-1, side, side, -1), weight)
    # This order of the sum is that of every recorded curve.
    total = score + recipe.l1_weight * errors.l1 + recipe.giou_weight * errors.giou
    return Losses(total + recipe.log_size_weight * errors.log_size, score, errors.l1, errors.giou, errors.log_size)
