"""The dequantised twin: the program's integers written back into the float64 tracker.

At T = 1 the twin emits the same spikes as the program in every layer, because every value is a dyadic rational that
float64 holds exactly; a lowering bug shows as a difference. This module decides where each integer array goes. It must
not know how the program was made. Membranes (T > 1) are rounded to 12-bit decays in the program, so there the twin is
only close.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.types import AnyArray, Op, Phase, Program
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

_CONVS = ("conv", "head_out", "image_conv")


class _PixelConv(nn.Module):
    """The first convolution on raw pixels, with the bias map that carries normalisation and borders."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias_map: Tensor) -> None:
        super().__init__()
        self.stride, self.padding = conv.stride, conv.padding
        self.weight, self.bias_map = nn.Parameter(weight), nn.Parameter(bias_map)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, self.stride, self.padding) + self.bias_map


def real_weights(program: Program, op: Op) -> tuple[AnyArray, AnyArray]:
    """``(weight [G,O,I,kh,kw], bias)`` in the tracker's units (spikes n/4; the image convolution: raw pixels)."""
    arrays = program.op_arrays(op)
    phase = next(b for b in program.phases.values() if op.name in b.values)
    unit = program.real_unit(phase.values[op.name])
    per_spike = 1.0 if op.kind == "image_conv" else 4.0
    scale = unit[None] * per_spike * 2.0 ** arrays["shift"].astype(np.float64)
    bias = arrays["bias"].astype(np.float64)
    return arrays["weight"] * scale[:, :, None, None, None], bias * (
        unit[:, None, None] if bias.ndim == 3 else unit[None]
    )


def _norm_name(path: str) -> str | None:
    """Attribute of the norm behind a convolution that is not the first member of a Sequential."""
    parent, _, leaf = path.rpartition(".")
    if leaf == "encode_conv":
        return f"{parent}.encode_bn"
    if leaf in ("fc1_conv", "fc2_conv"):
        return f"{parent}.{leaf[:3]}_bn"
    if leaf in ("conv1", "conv2"):
        return f"{parent}.bn{leaf[-1]}"
    return None


def _set_child(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _write_conv(twin: SpikeTrack, program: Program, op: Op) -> None:
    weight, bias = (torch.from_numpy(np.ascontiguousarray(a)) for a in real_weights(program, op))
    path = f"{op.name}.0" if ".seg_responder_" in op.name else op.name
    module = twin.get_submodule(path)
    conv = module[0] if isinstance(module, nn.Sequential) else module
    if not isinstance(conv, (nn.Conv1d, nn.Conv2d)):
        raise InputError(f"{op.name} is not a convolution of this tracker; the program belongs to another network")
    norm = f"{path}.1" if isinstance(module, nn.Sequential) else _norm_name(path)
    if norm is not None:
        _set_child(twin, norm, nn.Identity())
    if op.kind == "image_conv":
        _set_child(twin, path, _PixelConv(conv, weight[0], bias))  # type: ignore[arg-type]
        return
    conv.weight = nn.Parameter(weight[0].reshape(conv.weight.shape))
    conv.bias = nn.Parameter(bias[0])


def _write_offset(twin: SpikeTrack, program: Program, phase: Phase, op: Op) -> None:
    source = phase.spec(op.inputs[0])
    offset = program.arrays[op.arrays["offset"]].astype(np.float64) * program.real_unit(source)[None, :, None, None]
    owner = twin.get_submodule(op.name.rpartition(".")[0])
    key = "s_pos_embed" if phase.name == "search" else "t_pos_embeds.0"
    embedding = owner.get_parameter(key)
    with torch.no_grad():
        embedding.copy_(torch.from_numpy(offset).reshape(embedding.shape))


def _write_requantise(twin: SpikeTrack, program: Program, phase: Phase, op: Op) -> None:
    step = torch.from_numpy(program.real_unit(phase.values[op.name]))[None, None, :, None, None]

    def rounded(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return torch.floor(output / step + 0.5) * step

    twin.get_submodule(op.name.rpartition(".upsample")[0]).register_forward_hook(rounded)


def dequantised_twin(model: SpikeTrack, program: Program) -> SpikeTrack:
    """A float64 copy of ``model`` (T = 1) that runs the program's rounded weights, biases, offsets and requantisations.

    It takes raw pixels 0..255 as float64 where the tracker takes normalised images. InputError for T > 1.
    """
    if model.config.templates != 1:
        raise InputError("the dequantised twin is exact for T = 1 only")
    twin = copy.deepcopy(model).double().eval()
    written: set[str] = set()
    with torch.no_grad():
        for phase in program.phases.values():
            for op in phase.ops:
                if op.kind in _CONVS and op.name not in written:
                    _write_conv(twin, program, op)
                    written.add(op.name)
                elif op.kind == "ni_lif" and "offset" in op.arrays:
                    _write_offset(twin, program, phase, op)
                elif op.kind == "requantise":
                    _write_requantise(twin, program, phase, op)
    return twin
