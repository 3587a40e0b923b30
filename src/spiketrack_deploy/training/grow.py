"""A network of other crops or other blocks from a trained one of the same widths.

This module decides which weights carry over and how everything new begins. It must not know how they are trained
further. Convolutions do not depend on the crop size, and every block is residual: so little is lost that a
network grown from a trained one needs a fraction of the crops of one trained from nothing; one that leaves blocks out
starts from what the others made of their stream.
"""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.tracking.pixels import Normalisation, pixel_units

_MAY_DIFFER = frozenset(
    {
        "name",
        "resolution",
        "walk",
        "search_factor",
        "template_factor",
        "attention_gain",
        "update_interval",
        "update_threshold",
        "loop",
        "normalisation",
    }
)
_FIRST = "encoder.downsample1_1."
LAST_NORMS = (".pwconv2.1", ".bn2", ".proj_conv.1", ".mlp.fc2_bn")
"""The norm through which each residual path of a block, a transformer block or a retriever joins the stream."""


def grown(model: SpikeTrack, config: TrackerConfig, fresh: SpikeTrack) -> SpikeTrack:
    """The network of ``config`` that starts from ``model``; whatever ``model`` lacks comes from ``fresh``.

    Positional embeddings ``[1,C,P*P]`` are resampled bilinearly onto the new grid; the residual paths of added blocks
    begin at zero, so that they pass the stream on unchanged, and those left out add nothing to it any more; a first
    convolution of another stride (without ``downsample1_2``, or with it again) begins afresh. Only a
    resolution, pixels, loop settings and blocks may differ: :class:`InputError` names another difference
    (``downsample4`` too, which changes the width of everything behind it).
    """
    _check(model.config, config)
    known = model.state_dict()
    added = [stage for stage in config.walk if stage not in model.config.walk]
    state = {key: _carried(key, value, known) for key, value in fresh.state_dict().items()}
    for key in state:
        stem, _, leaf = key.rpartition(".")
        new = any(key.startswith(f"encoder.{stage}.") for stage in added)
        if new and stem.endswith(LAST_NORMS) and leaf in ("weight", "bias"):
            state[key] = torch.zeros_like(state[key])
    out = SpikeTrack(config)
    out.load_state_dict(state)
    return out.eval()


def renormalised(model: SpikeTrack, before: Normalisation | None) -> SpikeTrack:
    """``model``, trained on pixels that were normalised as ``before`` says, for those of its configuration, in place.

    What reaches the first neurons stays the same but at the border of a crop, where zero padding now stands for another
    grey.
    """
    if model.config.normalisation == before:
        return model
    (old_mean, old_std), (mean, std) = (pixel_units(n) for n in (before, model.config.normalisation))
    state = {key: value.double() for key, value in model.state_dict().items()}
    raw = state[f"{_FIRST}encode_conv.weight"] / torch.from_numpy(old_std)[:, None, None]
    state[f"{_FIRST}encode_conv.weight"] = raw * torch.from_numpy(std)[:, None, None]
    state[f"{_FIRST}encode_bn.running_mean"] += raw.sum((2, 3)) @ torch.from_numpy(old_mean - mean)
    model.load_state_dict(state)
    return model


def _check(own: TrackerConfig, wanted: TrackerConfig) -> None:
    for field in fields(TrackerConfig):
        found, asked = getattr(own, field.name), getattr(wanted, field.name)
        if field.name == "dims" and "downsample4" not in (*own.walk, *wanted.walk):
            found, asked = found[:3], asked[:3]  # the last width is not read
        if found != asked and field.name not in _MAY_DIFFER:
            raise InputError(
                f"{wanted.name} cannot grow from {own.name}: {field.name} is {asked} and not {found}; "
                "only the crop size, the pixels' normalisation, the loop settings and blocks may differ"
            )
    if ("downsample4" in wanted.walk) != ("downsample4" in own.walk):
        raise InputError(f"{wanted.name} cannot grow from {own.name}: downsample4 changes every width behind it")


def _carried(key: str, fresh: Tensor, known: dict[str, Tensor]) -> Tensor:
    old = known.get(key)
    if old is not None and old.shape == fresh.shape:
        return old.clone()
    if old is not None and "pos_embed" in key:
        before, after = round(old.shape[2] ** 0.5), round(fresh.shape[2] ** 0.5)
        grid = old.unflatten(2, (before, before))
        return F.interpolate(grid, size=(after, after), mode="bilinear", align_corners=False).flatten(2)
    return fresh.clone()
