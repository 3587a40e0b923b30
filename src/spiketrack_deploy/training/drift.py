"""Samples that the network itself has spoilt: crops where its own last answer put them, and frames where it got lost.

This module decides how far a sample follows the network and what counts as lost. It must not know losses nor the order
of a step. Both are functions of the weights and of (seed, step, index), so a resumed run sees them again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.sequences import VideoSequence
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.boxes import Box, overlaps
from spiketrack_deploy.tracking.loop import Tracker
from spiketrack_deploy.training.pairs import Failure, Sample, Sampler
from spiketrack_deploy.training.runs import write_json
from spiketrack_deploy.training.views import View

Answer = Callable[[Tensor, Tensor], Tensor]
"""uint8 templates ``[T,N,r,r,3]`` and one search crop each ``[N,r,r,3]`` -> boxes ``[N,4]`` in fractions."""
LOST = 0.3
"""IoU below which a frame counts as lost."""
PATIENCE = 5
"""Lost frames in a row behind which the tracker begins anew."""
CLIP_FRAMES = 150
"""Of a clip that are followed, from a start of their own in each pass."""


def rolled(sampler: Sampler, step: int, indices: Sequence[int], answer: Answer, config: TrackerConfig) -> list[Sample]:
    """The samples of a step; in those that :meth:`Sampler.looped` names each search crop lies where ``answer`` put the
    target one frame before, as in a loop whose first crop is a drawn one."""
    samples = {index: sampler.draw(step, index) for index in indices}
    loops = [index for index in indices if sampler.looped(step, index)]
    for k in range(len(samples[indices[0]].searches) - 1 if loops else 0):
        chosen = [samples[index] for index in loops]
        templates = torch.from_numpy(np.stack([s.templates for s in chosen], 1))
        boxes = answer(templates, torch.from_numpy(np.stack([s.searches[k] for s in chosen]))).tolist()
        for index, sample, box in zip(loops, chosen, boxes):
            follow = _follow(sample.views[k], box, config)
            around = (*sample.around, *(None,) * (k + 1 - len(sample.around)), follow)
            samples[index] = sampler.draw(step, index, around)
    return [samples[index] for index in indices]


def _follow(view: View, found: Sequence[float], config: TrackerConfig) -> Box:
    """The box that the next crop is cut around, of the size that the configuration's loop takes over."""
    x, y, w, h = view.frame_box(found)
    last = math.sqrt(view.width * view.height) / config.search_factor
    rate = 1 + config.loop.size_rate * (math.sqrt(max(w * h, 1.0)) / last - 1)
    side = max(last * rate, 1.0)
    return x + 0.5 * w - 0.5 * side, y + 0.5 * h - 0.5 * side, side, side


def failures(
    model: SpikeTrack, clips: Iterable[tuple[str, VideoSequence]], store: FrameStore, seed: int
) -> list[Failure]:
    """Every followed frame of named clips on which an evaluation-mode model was lost, with the box it had searched
    around."""
    network = TorchNetwork(model, dtype=torch.float32)
    rng = np.random.default_rng(seed)
    return [failure for name, clip in clips for failure in _of_clip(network, name, clip, store, rng)]


def _of_clip(
    network: TorchNetwork, name: str, clip: VideoSequence, store: FrameStore, rng: np.random.Generator
) -> Iterable[Failure]:
    usable = clip.usable()
    start = int(rng.integers(max(len(usable) - CLIP_FRAMES, 0) + 1))
    tracker, first, last, lost = Tracker(network), -1, (0.0, 0.0, 0.0, 0.0), 0
    for index in usable[start : start + CLIP_FRAMES].tolist():
        frame, truth = store.read(clip.frame(index)), clip.boxes[index]
        if first < 0:
            tracker.init(frame, truth.tolist())
            first, last, lost = index, tuple(truth.tolist()), 0
            continue
        found = tracker.track(frame).box
        if overlaps([found], truth[None])[0] < LOST:
            lost += 1
            yield Failure(name, first, index, last)
        else:
            lost = 0
        last, first = found, -1 if lost >= PATIENCE else first


def put_failures(folder: Path, step: int, rank: int, found: Sequence[Failure]) -> None:
    """Keep what one worker found before ``step`` in the run's folder."""
    write_json(_file(folder, step, rank), [asdict(one) for one in found])


def get_failures(folder: Path, step: int) -> tuple[Failure, ...]:
    """What all workers found before ``step``, in an order that does not depend on their number."""
    rows: list[dict[str, Any]] = []
    for file in folder.glob(_file(folder, step, "*").name):
        rows += json.loads(file.read_text(encoding="utf-8"))
    found = (Failure(**{**row, "box": tuple(row["box"])}) for row in rows)
    return tuple(sorted(found, key=lambda one: (one.clip, one.first, one.at)))


def _file(folder: Path, step: int, rank: int | str) -> Path:
    return folder / f"failures-{step}-{rank}.json"
