"""A tiny data set on disk (moving textured squares, pictures with polygons) and a tiny tracker, for tests of
training."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import torch

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.norm import freeze_norms, thaw_norms
from spiketrack_deploy.training.integer_model import IntegerModel
from spiketrack_deploy.training.joint import joint_pass, normalised
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.trainer import new_model
from spiketrack_deploy.training.workers import Crew

WALK = (
    "downsample1_1",
    "downsample1_2",
    "ConvBlock1_2.0",
    "downsample2",
    "downsample3",
    "mrm.2",
    "block3.0",
    "mrm.3",
)


def small_config(**changes: object) -> TrackerConfig:
    """32-pixel crops, eight channels a head group: a training step takes milliseconds."""
    base = {
        "name": "small",
        "dims": (8, 8, 16, 16),
        "resolution": 32,
        "templates": 1,
        "head_width": 16,
        "walk": WALK,
        "conv_expansion": 2,
        "mlp_expansion": 2,
        "search_factor": 3.0,
        "template_factor": 2.0,
        "attention_gain": 3.0,
    }
    return TrackerConfig.from_dict(base | changes)


def noise(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A blotchy picture uint8 [H,W,3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def write_clip(
    home: Path, frames: int = 6, truth: str = "groundtruth_rect.txt", inside: str = "img", sep: str = ","
) -> None:
    """A bright square of 20 pixels that moves 2 pixels a frame."""
    (home / inside).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(frames):
        frame = noise(1)
        x, y = 15 + 2 * i, 20
        frame[y : y + 20, x : x + 20] = (250, 30 * i % 200, 40)
        cv2.imwrite(str(home / inside / f"{i + 1:04d}.jpg"), frame)
        lines.append(sep.join(str(v) for v in (x, y, 20, 20)))
    (home / truth).write_text("\n".join(lines) + "\n")


def write_pictures(folder: Path, count: int = 4) -> None:
    """COCO layout: one outlined and one plain box a picture."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        picture = noise(10 + i)
        picture[10:40, 20:50] = (20, 220, 20 * i)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 60})
        ring = [20, 10, 50, 10, 50, 40, 20, 40]
        annotations.append({"image_id": i, "bbox": [20, 10, 30, 30], "segmentation": [ring], "iscrowd": 0})
        annotations.append({"image_id": i, "bbox": [2, 2, 17, 17], "iscrowd": 0})
    (folder / "annotations.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def write_data(folder: Path) -> Path:
    """Two OTB clips (``left``, ``right``) and four pictures."""
    write_clip(folder / "left")
    write_clip(folder / "right", frames=5)
    write_pictures(folder)
    return folder


SIDE = 32


def crew_work(crew: Crew, how: str) -> list[tuple[list[float], float]]:
    """What a worker does in the tests of :mod:`training.workers`; the leader's gradients and what it was told."""
    if how == "refuse" and not crew.leads:
        raise InputError("frame 7 of the follower is no image")
    layers = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(5))]
    seen = []
    for step in range(3):
        if how == "die" and not crew.leads and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        layers[0].grad = torch.arange(6.0).reshape(2, 3) * (crew.rank + 1) + step
        told = crew.average(layers, 10.0 * step + crew.rank)
        seen.append((layers[0].grad.flatten().tolist(), told))
        if crew.average((), 1.0) != 1.0:
            raise AssertionError("a meeting without gradients")
    return seen


def sample(seed: int) -> Sample:
    template = noise(seed, SIDE, SIDE)[None]
    searches = np.stack([noise(seed + 50, SIDE, SIDE), noise(seed + 51, SIDE, SIDE)])
    return Sample(template, searches, np.full((2, 4), 0.4, dtype=np.float32))


def materialised(trained: IntegerModel) -> SpikeTrack:
    """A network of raw pixels that holds the program's numbers as parameters: what ``IntegerModel.forward`` runs."""
    net = copy.deepcopy(trained.net)
    for key, value in trained.effective().items():
        owner, _, leaf = key.rpartition(".")
        setattr(net.get_submodule(owner), leaf, torch.nn.Parameter(value.detach().float()))
    return net.eval()


def lively_model(**changes: object) -> SpikeTrack:
    """Drawn weights whose norms have seen pictures and whose offsets are not zero, so that every layer fires."""
    model = new_model(small_config(**changes), 3)
    generator = torch.Generator().manual_seed(1)
    thaw_norms(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or parameter.shape[0] == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            if name.endswith((".1.bias", "bn.bias")):
                parameter.add_(0.8)
    model.train()
    samples = [sample(10 * i) for i in range(6)]
    templates = normalised(torch.from_numpy(np.concatenate([s.templates for s in samples])))
    searches = normalised(torch.from_numpy(np.concatenate([s.searches for s in samples])))
    with torch.no_grad():
        for _ in range(20):
            joint_pass(model, templates, searches, 2)
    freeze_norms(model)
    return model.eval()
