"""The loss that SPMTrack is trained with, per search crop.

This module decides targets and terms (arXiv 2503.18338; published training code). It must not know data or optimisers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from spiketrack_deploy.trackers.spmtrack.model import Maps
from spiketrack_deploy.tracking.aligned_crop import rasterise


class Terms(NamedTuple):
    """Of every crop of a batch: classification and box term ``[B]``, positive cells ``[B,P,P]`` (bool)."""

    score: Tensor
    box: Tensor
    cells: Tensor


def loss_terms(maps: Maps, targets: Tensor) -> Terms:
    """Terms against ``targets`` ``[B,4]``: x1, y1, x2, y2 in sides of the crop.

    Classification: cross entropy over all cells against the overlap of each predicted box in the target's cells; box:
    1 - GIoU there. Both are divided by the number of those cells."""
    side = maps.score.shape[-1]
    cells = torch.zeros_like(maps.score, dtype=torch.bool)
    for index, row in enumerate(targets.tolist()):
        x1, y1, x2, y2 = (min(max(v, 0), side) for v in rasterise((row[0] * side, row[1] * side,
                                                                    row[2] * side, row[3] * side)))  # fmt: skip
        cells[index, y1:y2, x1:x2] = True
    iou, giou = overlaps(maps.boxes, targets[:, None, None].to(maps.reg))
    labels = torch.where(cells, iou.detach(), 0.0)
    score = functional.binary_cross_entropy_with_logits(maps.score, labels, reduction="none")
    count = cells.sum((1, 2)).clamp(min=1)
    return Terms(score.sum((1, 2)) / count, torch.where(cells, 1 - giou, 0.0).sum((1, 2)) / count, cells)


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union and its generalised form (Rezatofighi et al. 2019) of ``[...,4]`` corners."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - common
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    outside = hull.prod(-1)
    iou = common / union
    return iou, iou - (outside - union) / outside
