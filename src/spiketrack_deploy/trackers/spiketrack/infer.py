"""The configuration of a state dict, read off its keys and shapes.

This module decides which network a set of tensors belongs to. It must not read values: gain, head count, crop factors
and loop settings leave no trace in shapes and are taken as official. Every size is the one that most tensors agree on,
so that a single misshaped tensor is reported as such instead of changing the network.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, OFFICIAL_WALK, TrackerConfig

Shapes = Mapping[str, tuple[int, ...]]

_DOWNSAMPLES = ("downsample1_2", "downsample2", "downsample3", "downsample4")
_PER_CHANNEL = (
    "encode_conv.weight",
    "encode_conv.bias",
    "encode_bn.weight",
    "encode_bn.bias",
    "encode_bn.running_mean",
)
_RESPONDER = re.compile(r"encoder\.mrm\.(\d+)\.retriever\.seg_responder_(?:dw|pw)\.(\d{1,4})\.")


def infer_config(shapes: Shapes, source: str, heads: int = 8) -> TrackerConfig:
    """The configuration whose keys and shapes fit ``shapes`` best; ``source`` names the file in messages.

    Its name is the official one where everything agrees, else ``custom``. Raises :class:`InputError` where the keys are
    no SpikeTrack's or leave the resolution open (a network without attention and retrievers).
    """
    walk = tuple(stage for stage in OFFICIAL_WALK if any(key.startswith(f"encoder.{stage}.") for key in shapes))
    if not walk or not any(key.startswith("decoder.") for key in shapes):
        raise InputError(
            f"checkpoint {source} is no SpikeTrack: it needs keys that begin with 'encoder.' and 'decoder.'"
        )
    first = _DOWNSAMPLES[0] if _DOWNSAMPLES[0] in walk else "downsample1_1"  # which then has stride 4
    widths = [_vote(_downsample_widths(shapes, stage)) for stage in (first, *_DOWNSAMPLES[1:])]
    lacking = [stage for stage, width in zip((first, *_DOWNSAMPLES[1:3]), widths) if width is None]
    if lacking:
        raise InputError(f"checkpoint {source} lacks every tensor of {', '.join(lacking)}, which all networks have")
    dims = tuple(w for w in widths if w is not None)
    cells = _vote(s[2] for k, s in shapes.items() if "pos_embed" in k and len(s) == 3)
    grid = math.isqrt(cells or 0)
    if not cells or grid * grid != cells:
        raise InputError(
            f"checkpoint {source} does not tell its resolution (no square positional embeddings); give a configuration"
        )
    head_width = _vote(s[0] for k, s in shapes.items() if k.startswith("decoder.conv1_") and ".0." in k and s)
    config = TrackerConfig(
        name="custom",
        dims=dims if len(dims) == 4 else (*dims, dims[-1]),
        resolution=16 * grid,
        templates=template_count(shapes) or 1,
        head_width=head_width or 8,
        heads=heads,
        walk=walk,
        sep_expansion=_ratio(shapes, ("pwconv1.0.weight",), 2),
        conv_expansion=_ratio(shapes, (".0.conv1.weight",), 4),
        mlp_expansion=_ratio(shapes, ("mlp.fc1_conv.weight",), 4),
        value_ratio=_ratio(shapes, ("v_conv.0.weight",), 4),
    )
    return config.renamed(official_name(config) or "custom")


def official_name(config: TrackerConfig) -> str | None:
    """Name of the official layout that equals ``config`` in all but its name, None where there is none."""
    same = (name for name, official in OFFICIAL_CONFIGS.items() if replace(config, name=name) == official)
    return next(same, None)


def template_count(shapes: Shapes) -> int | None:
    """T, from the per-step responders of the retrievers; None where there is no retriever."""
    steps: dict[str, int] = {}
    for key in shapes:
        if found := _RESPONDER.match(key):
            steps[found.group(1)] = max(steps.get(found.group(1), 0), int(found.group(2)) + 1)
    return _vote(steps.values())


def _downsample_widths(shapes: Shapes, stage: str) -> list[int]:
    found = (shapes.get(f"encoder.{stage}.{leaf}") for leaf in _PER_CHANNEL)
    return [shape[0] for shape in found if shape]


def _ratio(shapes: Shapes, endings: tuple[str, ...], otherwise: int) -> int:
    pairs = (s for k, s in shapes.items() if k.endswith(endings) and len(s) >= 2 and s[1])
    return _vote(s[0] // s[1] for s in pairs) or otherwise


def _vote(values: Iterable[int]) -> int | None:
    """The most frequent value, the first seen where several are."""
    counts = Counter(values).most_common(1)
    return counts[0][0] if counts else None
