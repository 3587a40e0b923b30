"""How well a half-trained network does on clips that are held out of training: one step at a time, and in the loop.

This module decides the validation figures (docs/training.md). It never sees test sequences. It must
not know optimisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spiketrack_deploy.datasets.catalogue import Floats, FrameStore
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.boxes import overlaps, success_curve, visible
from spiketrack_deploy.tracking.crop import hann_window
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import Network, Tracker
from spiketrack_deploy.tracking.rule import LoopRule
from spiketrack_deploy.training.joint import branch_pass, normalised
from spiketrack_deploy.training.losses import best_boxes, overlap
from spiketrack_deploy.training.views import cut, jittered, view_around

_PAIRS_PER_CLIP = 60
_SHIFT, _SCALE = 0.35, 0.15
_BATCH = 60
_SEED = 2024


@dataclass(frozen=True, slots=True)
class Validation:
    """``pair_iou``: mean IoU one step from a jittered search region (Hann window). ``size_slope``: slope of log
    predicted on log true size (0: the size head is constant), ``size_bias`` its mean error. ``near``: share of centres
    within a quarter of the target. ``loop_auc``: success AUC in the configuration's loop, mean over clips; ``clips`` by
    name."""

    pair_iou: float
    size_slope: float
    size_bias: float
    near: float
    loop_auc: float
    clips: dict[str, float]


def loop_auc(network: Network, clip: VideoSequence, store: FrameStore, rule: LoopRule | None = None) -> float:
    """Success AUC in the loop from the first visible frame of a clip; ``rule``: by default the configuration's."""
    start = int(clip.usable()[0])
    tracker = Tracker(network, rule)
    tracker.init(store.read(clip.frame(start)), clip.boxes[start].tolist())
    boxes = [tracker.track(store.read(clip.frame(i))).box for i in range(start + 1, len(clip.frames))]
    truth = clip.boxes[start + 1 :]
    return float(success_curve(overlaps(boxes, truth)[visible(truth)]).mean())


def pair_iou(model: SpikeTrack, clips: Sequence[VideoSequence], store: FrameStore) -> float:
    """:attr:`Validation.pair_iou` alone, of any module with a tracker's branches."""
    pairs = [_pair_figures(model, clip, store, np.random.default_rng([_SEED, i])) for i, clip in enumerate(clips)]
    return float(np.concatenate([pair[0] for pair in pairs]).mean())


def validate(model: SpikeTrack, clips: Sequence[VideoSequence], store: FrameStore) -> Validation:
    """All figures of an evaluation-mode model on held-out clips; the drawn pairs are the same in every call."""
    network = TorchNetwork(model, dtype=torch.float32)
    pairs = [_pair_figures(model, clip, store, np.random.default_rng([_SEED, i])) for i, clip in enumerate(clips)]
    iou, off, found, true = (np.concatenate([p[k] for p in pairs]) for k in range(4))
    slope = float(np.polyfit(true, found, 1)[0]) if np.ptp(true) > 0 else 0.0
    loops = {clip.name: loop_auc(network, clip, store) for clip in clips}
    return Validation(
        float(iou.mean()),
        slope,
        float((found - true).mean()),
        float((off < 0.25).mean()),
        float(np.mean(list(loops.values()))),
        loops,
    )


def _pair_figures(
    model: SpikeTrack, clip: VideoSequence, store: FrameStore, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, Floats]:
    """Per pair: IoU, centre error in target sizes, log predicted and log true size (crop fractions)."""
    config, usable = model.config, clip.usable()
    templates, searches, placed = [], [], []
    for _ in range(_PAIRS_PER_CLIP):
        first, second = (int(i) for i in rng.choice(usable, 2, replace=False))
        box = clip.boxes[second]
        size = float(np.sqrt(box[2] * box[3]))
        shift = rng.normal(0, _SHIFT * size, 2)
        view = jittered(view_around(box, config.search_factor), (shift[0], shift[1]), float(rng.normal(0, _SCALE)), 0.0)
        template = view_around(clip.boxes[first], config.template_factor)
        templates.append(cut(store.read(clip.frame(first)), template, config.resolution))
        searches.append(cut(store.read(clip.frame(second)), view, config.resolution))
        placed.append(view.place(box))
    truth = torch.tensor(placed, dtype=torch.float32)
    answered = torch.cat(
        [_answers(model, templates[i : i + _BATCH], searches[i : i + _BATCH]) for i in range(0, len(placed), _BATCH)]
    )
    iou = overlap(answered, truth)[0].numpy().astype(np.float64)
    size_true = truth[:, 2:].prod(1).sqrt()
    off = ((answered - truth)[:, :2].norm(dim=1) / size_true).numpy().astype(np.float64)
    logs = [(0.5 * torch.log(b[:, 2:].prod(1))).numpy().astype(np.float64) for b in (answered, truth)]
    return iou, off, logs[0], logs[1]


def _answers(model: SpikeTrack, templates: list[Image], searches: list[Image]) -> torch.Tensor:
    device = next(model.parameters()).device
    with torch.inference_mode():
        t, s = (
            normalised(torch.from_numpy(np.stack(crops)).to(device), model.config.normalisation)
            for crops in (templates, searches)
        )
        maps = branch_pass(model, t.unsqueeze(0).expand(model.config.templates, -1, -1, -1, -1), s, 1)
        window = torch.from_numpy(hann_window(model.config.grid)).to(device)
        return best_boxes(maps, window).cpu()
