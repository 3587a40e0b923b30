"""Makes the bundled untrained network: drawn weights, batch norms fitted so that every neuron fires.

    python -m spiketrack_deploy.trackers.spiketrack.make_untrained FOLDER

This module decides the seed, the pictures the norms are fitted on and the card. It must not be mistaken for training:
the result tracks nothing. It exists so that every stage can run, and be tested, without a trained checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.checkpoint import CONFIG_FILE, MODEL_FILE, save_model
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state, uniform
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.norm import ThawedNorm, freeze_norms, thaw_norms
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.pixels import normalise

UNTRAINED = TrackerConfig(
    "spiketrack-untrained",
    (8, 16, 16, 32),
    resolution=128,
    templates=3,
    head_width=32,
    # Lower than the official 25 and 0.7, which drawn weights never reach: template updates shall happen.
    update_interval=10,
    update_threshold=0.2,
)
PICTURES = 4
LEAVES = 400
RESIDUAL_ENDS = ("pwconv2.1", "bn2", "proj_conv.1", "fc2_bn")
"""Norms whose output is added to the residual stream; they are kept smaller, so that the stream does not grow."""


def dead_leaves(label: str, side: int) -> Image:
    """A drawn picture with the edges and scales of natural images: opaque discs, radius density ~ radius^-3.

    RGB uint8 ``[side, side, 3]``, from ``label`` alone.
    """
    values = 0.5 + 0.5 * uniform(label, 6 * LEAVES).reshape(LEAVES, 6)
    smallest, largest = side / 40, side / 2
    low, high = largest**-2, smallest**-2
    radius = (low + values[:, 0] * (high - low)) ** -0.5
    centre = (values[:, 1:3] * 1.2 - 0.1) * side
    colour = np.floor(values[:, 3:6] * 256).astype(np.uint8)
    rows, columns = np.mgrid[0:side, 0:side]
    picture = np.full((side, side, 3), 128, dtype=np.uint8)
    for (x, y), r, rgb in zip(centre, radius, colour):
        picture[(columns - x) ** 2 + (rows - y) ** 2 <= r * r] = rgb
    return picture


def make_untrained(config: TrackerConfig = UNTRAINED) -> SpikeTrack:
    """The drawn network of ``config`` (float32, evaluation mode), a function of its name and sizes alone."""
    model = SpikeTrack(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    drawn = draw_state(config.name, shapes)
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in drawn.items()})
    _draw_affine(model, config.name)
    # Fitted in float64, because float32 rounding differs between machines and one flipped spike changes what follows.
    model.double()
    _fit_norms(model)
    return model.float().eval()


def _draw_affine(model: nn.Module, name: str) -> None:
    for path, norm in model.named_modules():
        if not hasattr(norm, "running_mean"):
            continue
        scale, shift = (0.5, 0.0) if path.endswith(RESIDUAL_ENDS) else (1.0, 0.2)
        count = norm.running_mean.numel()
        weight = scale * (1 + 0.2 * uniform(f"{name}|{path}|scale", count))
        bias = shift + 0.2 * uniform(f"{name}|{path}|shift", count)
        with torch.no_grad():
            norm.weight.copy_(torch.from_numpy(weight))
            norm.bias.copy_(torch.from_numpy(bias))


def _fit_norms(model: SpikeTrack) -> None:
    """Set every norm's statistics to the mean over the two branches on drawn pictures."""
    thaw_norms(model)
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, ThawedNorm))]
    kept = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the calls
    model.train()
    config = model.config
    with torch.no_grad():
        model(_pictures(config, "template", config.templates), _pictures(config, "search", 1))
    for norm, momentum in kept:
        norm.momentum = momentum
    freeze_norms(model)


def _pictures(config: TrackerConfig, what: str, steps: int) -> Tensor:
    """Normalised drawn pictures ``[steps, PICTURES, 3, r, r]`` float64."""
    labels = [[f"{config.name}|{what}|{t}|{b}" for b in range(PICTURES)] for t in range(steps)]
    images = [[normalise(dead_leaves(label, config.resolution)) for label in row] for row in labels]
    return torch.from_numpy(np.stack([np.stack(row) for row in images]))


def model_card(config: TrackerConfig, model: SpikeTrack) -> str:
    """MODEL.md: what the file is, in the first line what it is not."""
    parameters = sum(p.numel() for p in model.parameters())
    return f"""UNTRAINED: this network tracks nothing. Its weights are drawn from a seed.

# {config.name}

| | |
|---|---|
| purpose | runs and tests every stage (export, verification, simulation, energy) without a trained checkpoint |
| do not | report accuracy, spike rates or energy of this network as those of SpikeTrack |
| layout | widths {", ".join(map(str, config.dims))}; {config.resolution} px crops; {config.templates} templates; \
head width {config.head_width}; {config.heads} heads; all official blocks and retrievers |
| parameters | {parameters:,} |
| weights | SplitMix64 keyed by the tensor's name (`trackers/spiketrack/draw.py`), the law of the golden sets |
| batch norms | fitted in one pass over {PICTURES * (config.templates + 1)} drawn dead-leaves pictures, so that \
every neuron fires; no photograph was used |
| files | `{MODEL_FILE}` (float32, published state-dict keys, configuration in its metadata), `{CONFIG_FILE}` |
| made by | `python -m spiketrack_deploy.trackers.spiketrack.make_untrained FOLDER` |
| licence | that of this repository |
"""


def write_untrained(folder: Path, config: TrackerConfig = UNTRAINED) -> None:
    """Write model, configuration and card into ``folder``, creating it."""
    model = make_untrained(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_model(model, config, folder / MODEL_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
        (folder / "MODEL.md").write_text(model_card(config, model), encoding="utf-8")
    except OSError as error:
        raise InputError(f"folder {folder} cannot be written: {error.strerror or error}") from error


def main(arguments: Sequence[str]) -> int:
    """``FOLDER`` -> the three files in it."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m spiketrack_deploy.trackers.spiketrack.make_untrained FOLDER\n")
        return 2
    write_untrained(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
