"""Which integers the lowering would choose for a network: exponents, stream units, and where each is used.

This module decides nothing itself: it lowers the network and reads exponents and units off the program, so that
quantisation-aware training cannot drift from deployment. It must not know optimisers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from spiketrack_deploy.frontends.compile import Options, compile
from spiketrack_deploy.frontends.spiketrack.source import ObservedTracker, SpikeTrackSource
from spiketrack_deploy.lowering.calibrate import Calibration
from spiketrack_deploy.program.types import AnyArray, Program
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.training.membranes import GateUnits, Steps, gates_of, membranes_of
from spiketrack_deploy.training.pairs import Sample

_STEP = re.compile(r"(\.seg_responder_(?:dw|pw))\.(\d+)$")
_SPIKE_BITS = 2
"""A spike is a count of quarters."""


@dataclass(frozen=True, slots=True)
class ConvUnits:
    """Per output channel: weights are integers times 2^-exponent, the bias an integer times 2^-bits (int64 ``[O]``)."""

    exponent: Tensor
    bits: Tensor


@dataclass(frozen=True, slots=True)
class Units:
    """``convs``: convolution module path -> units. ``offsets``: positional embedding key -> bits ``[C]``. ``membranes``
    and ``gates``: of what takes several steps."""

    convs: Mapping[str, ConvUnits]
    offsets: Mapping[str, Tensor]
    membranes: Mapping[str, list[Steps]]
    gates: Mapping[str, GateUnits]


def calibration(model: SpikeTrack, samples: Sequence[Sample]) -> Calibration:
    """The float64 tracker's spikes on drawn samples (first search crop of each), as the lowering wants them."""
    network = ObservedTracker(model)
    runs: dict[str, list[dict[str, AnyArray]]] = {"template": [], "search": []}
    for sample in samples:
        with network.observing() as written:
            network.set_templates(list(sample.templates))
        runs["template"].append({"image": sample.templates.transpose(0, 3, 1, 2), **written})
        with network.observing() as read:
            network.search(sample.searches[0])
        runs["search"].append({"image": sample.searches[:1].transpose(0, 3, 1, 2), **read})
    return runs


def lowered(model: SpikeTrack, samples: Sequence[Sample] = ()) -> Program:
    """The integer program of an evaluation-mode network; exponents tuned on ``samples`` where given."""
    double = model.double()
    options = Options(calibration=calibration(double, samples) if samples else None)
    return compile(SpikeTrackSource(double), options).program


def operation_of(path: str) -> tuple[str, int | None]:
    """Module path of a convolution -> (name of its operation in the program, time step where it has its own
    weights)."""
    stem = path[:-2] if path.endswith(".0") and ".gate." not in path else path
    match = _STEP.search(stem)
    return (stem[: match.start()] + match[1], int(match[2])) if match else (stem, None)


def units_of(program: Program, model: nn.Module) -> Units:
    """Units of every convolution and positional embedding of a tracker that occur in its program."""
    found = {op.name: (phase, op) for phase in program.phases.values() for op in phase.ops}
    convs: dict[str, ConvUnits] = {}
    for path, module in model.named_modules():
        name, step = operation_of(path)
        if not isinstance(module, (nn.Conv1d, nn.Conv2d)) or name not in found:
            continue
        phase, op = found[name]
        bits = program.arrays[str(phase.values[name].unit)].astype(np.int64)
        shift = program.arrays[op.arrays["shift"]].astype(np.int64)
        spike_bits = 0 if op.kind == "image_conv" else _SPIKE_BITS
        exponent = bits - shift[step if step is not None and len(shift) > 1 else 0] - spike_bits
        convs[path] = ConvUnits(torch.from_numpy(exponent), torch.from_numpy(bits))
    return Units(convs, _offsets(program), membranes_of(program), gates_of(program))


def _offsets(program: Program) -> dict[str, Tensor]:
    offsets: dict[str, Tensor] = {}
    for phase in program.phases.values():
        for op in phase.ops:
            if op.kind != "ni_lif" or "offset" not in op.arrays:
                continue
            bits = torch.from_numpy(program.arrays[str(phase.spec(op.inputs[0]).unit)].astype(np.int64))
            owner = op.name.rsplit(".", 1)[0]
            if phase.name == "search":
                offsets[f"{owner}.s_pos_embed"] = bits
            else:
                offsets.update({f"{owner}.t_pos_embeds.{t}": bits for t in range(op.attrs["steps"])})
    return offsets
