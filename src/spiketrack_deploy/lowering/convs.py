"""Pass `fold`: every convolution of the network once, the image normalisation folded into those that see pixels.

This module decides which weights the program stores once: those of one operation name whose parameters agree in all
phases. Where they differ, every phase keeps its own. It must not choose integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.lowering.network import CONVS, FloatNetwork, FloatOp, Key, Shape
from spiketrack_deploy.program.ops.conv import taps
from spiketrack_deploy.program.types import AnyArray


@dataclass(frozen=True, slots=True)
class Conv:
    """Weights ``[1 or T,O,I,kh,kw]`` and bias ``[1 or T,O]`` of the operations ``uses`` (phase, name), for integers:
    spikes n/4, or raw pixels 0..255 with the bias a map ``[O,Ho,Wo]``.

    ``key``: the name under which the program stores them. ``op``: the first use. ``image``: (height, width) it sees.
    """

    key: str
    op: FloatOp
    uses: tuple[Key, ...]
    weight: AnyArray
    bias: AnyArray
    image: tuple[int, int]

    @property
    def pixels(self) -> bool:
        """Whether it reads raw pixels."""
        return self.op.kind == "image_conv"

    @property
    def spike_bits(self) -> int:
        """A spike is a count of quarters, a pixel is whole."""
        return 0 if self.pixels else 2


def fold(network: FloatNetwork) -> dict[str, Conv]:
    """Every convolution by its key, in order of first use."""
    uses: dict[str, list[tuple[str, FloatOp, Shape]]] = {}
    for phase, op in network.walk():
        if op.kind in CONVS:
            uses.setdefault(op.name, []).append((phase.name, op, network.shape(phase, op.inputs[0])))
    convs: dict[str, Conv] = {}
    for name, found in uses.items():
        shared = all(_same(found[0], other) for other in found[1:])
        for phase_name, op, seen in found[:1] if shared else found:
            key = name if shared else f"{phase_name}.{name}"
            where = tuple((p, name) for p, _, _ in found) if shared else ((phase_name, name),)
            convs[key] = _folded(key, op, where, (seen[2], seen[3]))
    return convs


def _same(a: tuple[str, FloatOp, Shape], b: tuple[str, FloatOp, Shape]) -> bool:
    """Whether two uses have the same parameters (and, in front of pixels, the same border)."""
    if a[1].kind != b[1].kind or (a[1].kind == "image_conv" and a[2][2:] != b[2][2:]):
        return False
    return all(np.array_equal(value, b[1].params[key]) for key, value in a[1].params.items())


def _folded(key: str, op: FloatOp, uses: tuple[Key, ...], image: tuple[int, int]) -> Conv:
    if op.kind != "image_conv":
        return Conv(key, op, uses, op.params["weight"], op.params["bias"], image)
    scale: AnyArray = 1.0 / op.params["std"]
    weight: AnyArray = op.params["weight"] * scale[None, None, :, None, None]
    return Conv(key, op, uses, weight, image_bias(op, weight, image), image)


def image_bias(op: FloatOp, weight: AnyArray, image: tuple[int, int]) -> AnyArray:
    """Bias map ``[O,Ho,Wo]``: the mean is subtracted only where a tap falls inside the image.

    Zero padding happens after the normalisation, so a border tap contributes 0 and not ``-mean``. ``weight``: for raw
    pixels, and at last as the program will hold it, so that its rounding error meets zero-mean pixels.
    """
    _, outputs, height, width = op.shape
    result = np.repeat(op.params["bias"][0].astype(np.float64), height * width).reshape(outputs, height, width)
    share = (weight[0] * op.params["mean"][None, :, None, None]).sum(axis=1)
    for ky, kx, rows, cols, _, _ in taps(
        image, (height, width), weight.shape[3:], op.params["stride"], op.params["padding"], op.params["dilation"]
    ):
        result[:, rows, cols] -= share[:, ky, kx, None, None]
    return result


def by_use(convs: Mapping[str, Conv]) -> dict[Key, Conv]:
    """Phase and operation -> its convolution."""
    return {use: conv for conv in convs.values() for use in conv.uses}


def dump_convs(convs: Mapping[str, Conv]) -> str:
    """One line a convolution, for golden text tests."""
    lines = []
    for key, conv in convs.items():
        weight, bias = (f"{list(a.shape)} sum |.| {float(np.abs(a).sum()):.6g}" for a in (conv.weight, conv.bias))
        lines.append(f"{key}: weight{weight}; bias{bias}; {', '.join(phase for phase, _ in conv.uses)}\n")
    return "".join(lines)
