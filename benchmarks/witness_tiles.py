"""Tiles of golden layers for independent witnesses: real spikes, real weights, small enough to replay one by one.

This module decides which layers and which windows. It must not know who replays them. A tile is a crop of a layer's
input, taken as a small image of its own (the layer's padding applies at the crop's edges), towards some of its output
channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _golden import GoldenSet
from _models import calibration_of, record_runs
from numpy.typing import NDArray

from spiketrack_deploy.frontends.compile import Options, compile
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.conv import conv_counts, conv_size
from spiketrack_deploy.program.run import iterate
from spiketrack_deploy.program.types import IntArray, Op, Program
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

SIDE, MAX_NEURONS = 6, 1000
"""Rows and columns of a crop; neurons that one core of the witness takes, inputs and targets apart."""


@dataclass(frozen=True, slots=True)
class Tile:
    """``spikes`` int64 ``[C, h, w]`` of 0..4; ``weight`` int8 ``[O, C/groups, kh, kw]``; ``op`` with its geometry."""

    name: str
    op: Op
    spikes: IntArray
    weight: NDArray[np.int8]

    @property
    def out(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the tile's targets."""
        a = self.op.attrs
        size = conv_size(
            (self.spikes.shape[1], self.spikes.shape[2]),
            (self.weight.shape[2], self.weight.shape[3]),
            (a["stride_h"], a["stride_w"]),
            (a["padding_h"], a["padding_w"]),
            (a["dilation_h"], a["dilation_w"]),
        )
        return (self.weight.shape[0], *size)

    def counts(self) -> OpCounts:
        """Counts of the tile by the rule that counts the tracker."""
        out = np.zeros((1, *self.out), dtype=np.int64)
        return conv_counts(self.op, {"weight": self.weight[None]}, [self.spikes[None]], out)

    def edges(self) -> list[tuple[int, int]]:
        """Every non-zero synapse as (input, target), counted by walking targets and taps: no code of ``program``."""
        a, found = self.op.attrs, []
        _, height, width = self.spikes.shape
        outputs, rows, columns = self.out
        per_group, fan_in = outputs // a["groups"], self.weight.shape[1]
        for o, c, ky, kx in np.argwhere(self.weight):
            source = (o // per_group) * fan_in + c
            for i in range(rows):
                y = i * a["stride_h"] + ky * a["dilation_h"] - a["padding_h"]
                for j in range(columns):
                    x = j * a["stride_w"] + kx * a["dilation_w"] - a["padding_w"]
                    if 0 <= y < height and 0 <= x < width:
                        found.append((int((source * height + y) * width + x), int((o * rows + i) * columns + j)))
        return found


def golden_program(folder: Path, name: str) -> tuple[Program, list[tuple[Op, IntArray]]]:
    """The lowered golden tracker, and every convolution of one search frame with its input ``[T, C, H, W]``."""
    import torch

    golden = GoldenSet(folder, name)
    model = SpikeTrack(golden.config)
    model.load_state_dict({key: torch.as_tensor(value) for key, value in golden.state_dict().items()})
    model = model.double().eval()
    case = golden.cases()[0]
    runs = record_runs(model, [golden.templates(case)], [golden.crop(case, "s")[None]])
    program = compile(SpikeTrackSource(model), Options(calibration=calibration_of(runs))).program
    search = next(run for run in runs if run.phase == "search")
    phase = program.phases["search"]
    return program, [(op, args[0]) for op, args, _ in iterate(program, phase, search.inputs) if op.kind == "conv"]


def _crop(x: IntArray, side: int) -> IntArray:
    """The window with the most non-zero spikes."""
    active = (x != 0).sum(axis=0)
    best, at = -1, (0, 0)
    for y in range(x.shape[1] - side + 1):
        for z in range(x.shape[2] - side + 1):
            spikes = int(active[y : y + side, z : z + side].sum())
            if spikes > best:
                best, at = spikes, (y, z)
    return np.ascontiguousarray(x[:, at[0] : at[0] + side, at[1] : at[1] + side])


def _tile(label: str, op: Op, x: IntArray, weight: NDArray[np.int8], side: int) -> Tile | None:
    side = min(side, x.shape[1], x.shape[2])
    crop = _crop(x, side)
    groups = op.attrs["groups"]
    # Whole groups only: a group's outputs read that group's inputs.
    keep = groups
    while keep > 1 and crop.shape[0] // groups * keep * side * side > MAX_NEURONS:
        keep -= 1
    crop = crop[: crop.shape[0] // groups * keep]
    outputs = weight.shape[0] // groups
    if keep == 1:
        size = Tile(label, op, crop, weight[:1]).out
        outputs = min(outputs, MAX_NEURONS // (size[1] * size[2]))
    found = Tile(
        label, Op(op.name, op.kind, op.inputs, op.block, {**op.attrs, "groups": keep}), crop, weight[: outputs * keep]
    )
    fits = crop.size <= MAX_NEURONS and int(np.prod(found.out)) <= MAX_NEURONS
    return found if fits and crop.any() else None


def tiles(folder: Path, name: str) -> Iterator[Tile]:
    """One tile per kind of layer: spatial convolution, depthwise, 1x1, and a 1x1 on one position (a dense layer)."""
    program, layers = golden_program(folder, name)
    wanted = {"convolution": SIDE, "depthwise": SIDE, "1x1": SIDE, "dense": 1}
    for label, side in wanted.items():
        for op, x in layers:
            weight = program.arrays[op.arrays["weight"]][0]
            spatial, grouped = weight.shape[2] * weight.shape[3] > 1, op.attrs["groups"] > 1
            if (spatial, grouped) != {"convolution": (True, False), "depthwise": (True, True)}.get(
                label, (False, False)
            ):
                continue
            found = _tile(label, op, x[0], weight, side)
            if found is not None and found.counts().synops > 0:
                yield found
                break
