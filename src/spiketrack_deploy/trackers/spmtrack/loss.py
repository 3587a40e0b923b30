"""The loss that SPMTrack is trained with, for one search crop.

This module decides targets and terms (arXiv 2503.18338; published training code). It must not know data or optimisers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from spiketrack_deploy.trackers.spmtrack.model import Maps
from spiketrack_deploy.tracking.aligned_crop import rasterise
from spiketrack_deploy.tracking.boxes import Box


def loss_terms(maps: Maps, target: Box) -> tuple[Tensor, Tensor, Tensor]:
    """Classification and box term of a batch of one, and the positive cells (row-major indices).

    ``target``: x1, y1, x2, y2 in sides of the crop. Classification: cross entropy over all cells against the overlap of
    each predicted box in the target's cells; box: 1 - GIoU there. Both are divided by the number of those cells."""
    side = maps.score.shape[-1]
    x1, y1, x2, y2 = (min(max(v, 0), side) for v in rasterise((target[0] * side, target[1] * side,
                                                                target[2] * side, target[3] * side)))  # fmt: skip
    cells = torch.arange(side * side).view(side, side)[y1:y2, x1:x2].reshape(-1)
    boxes = maps.boxes[0].reshape(-1, 4)[cells]
    wanted = torch.tensor(target, dtype=boxes.dtype).expand_as(boxes)
    iou, giou = overlaps(boxes, wanted)
    labels = torch.zeros(side * side, dtype=boxes.dtype)
    labels[cells] = iou.detach()
    count = max(len(cells), 1)
    score = functional.binary_cross_entropy_with_logits(maps.score[0].reshape(-1), labels, reduction="sum")
    return score / count, (1 - giou).sum() / count, cells


def overlaps(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union and its generalised form (Rezatofighi et al. 2019) of ``[N,4]`` corners."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    union = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - common
    hull = (torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])).prod(1)
    iou = common / union
    return iou, iou - (hull - union) / hull
