"""Membranes and gates over several templates in the integer program's arithmetic, trainable straight through.

    v[0] = x[0]    v[t] = trunc0(D (v[t-1] - n[t-1] R) / 2^12) + x[t]    n[t] = levels that v[t] + o[t] reaches

In units of the stream that drives the neuron: D a decay in 1/4096, R a quarter of the real unit, o the positional
embeddings accumulated with the real decays. This module decides how a neuron and a gate of several steps compute; it
must not know which units are chosen (:mod:`units`) nor weights (:mod:`integer_model`). Gradients are those of the real
membrane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spiketrack_deploy.program.types import DECAY_BITS, SPIKE_MAX, Program
from spiketrack_deploy.trackers.spiketrack.retriever import Gate
from spiketrack_deploy.training.surrogate import LearningNILIF, spike, straight_through

_ROW = 3
"""Numbers of a channel before its thresholds: bits, shift, reset."""


@dataclass(frozen=True, slots=True)
class Steps:
    """One call of a neuron: ``rows`` int64 ``[C,3 + levels]`` (fraction bits of the stream, of them a query's left
    shift, reset, thresholds) and the factor ``scale`` of its unit."""

    rows: Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class GateUnits:
    """``numbers`` int64 ``[2]``: fraction bits of the logits, and the shift into ``table`` float64."""

    numbers: Tensor
    table: Tensor


def membranes_of(program: Program) -> dict[str, list[Steps]]:
    """Neuron path -> its calls of several steps, in order."""
    found: dict[str, list[Steps]] = {}
    for phase in program.phases.values():
        kinds = {op.name: op for op in phase.ops}
        for op in phase.ops:
            if op.kind != "ni_lif" or op.attrs["steps"] == 1:
                continue
            spec, arrays = phase.spec(op.inputs[0]), program.op_arrays(op)
            source = kinds[op.inputs[0]]
            bits = torch.from_numpy(program.arrays[str(spec.unit)].astype("int64"))
            shift = source.attrs["shift"] if source.kind == "query" else 0
            reset, thresholds = (torch.from_numpy(arrays[key].astype("int64")) for key in ("reset", "thresholds"))
            count = len(bits)
            columns = (bits[:, None], torch.full((count, 1), shift), reset[:, None].expand(count, 1))
            rows = torch.cat([*columns, thresholds.expand(count, -1)], 1)
            found.setdefault(op.name.partition("#")[0], []).append(Steps(rows, spec.scale))
    return found


def gates_of(program: Program) -> dict[str, GateUnits]:
    """Gate path -> its units."""
    found = {}
    for phase in program.phases.values():
        for op in phase.ops:
            if op.kind == "gate":
                bits = program.arrays[str(phase.spec(op.inputs[0]).unit)].astype("int64")
                table = torch.from_numpy(program.op_arrays(op)["table"].astype("float64"))
                numbers = torch.tensor([int(bits[0]), op.attrs["shift"]])
                found[op.name.rpartition(".")[0]] = GateUnits(numbers, table)
    return found


class ProgramNILIF(LearningNILIF):
    """A neuron of several steps as the program computes it; one step fires as before.

    ``units``: those of the calls to come, and embeddings ``[T,C,N]`` that the stream leaves out, real.
    """

    units: tuple[list[Steps], Tensor | None] = ([], None)

    def _steps(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            return spike(x)
        units, offsets = self.units[0].pop(0), self.units[1]
        columns = units.rows.to(x.device).double().reshape(-1, units.rows.shape[1], *(1,) * (x.dim() - 3))
        bits, shift, reset, levels = columns[:, 0], columns[:, 1], columns[:, 2], columns[:, _ROW:]
        unit = units.scale * torch.exp2(-bits)
        drive = torch.round(x.detach().double() / (unit * torch.exp2(shift))) * torch.exp2(shift)
        real = torch.sigmoid(self.decay.double())
        decay = torch.round(real.detach() * 2.0**DECAY_BITS)
        keep = straight_through(real, decay / 2.0**DECAY_BITS).to(x.dtype)
        over = None if offsets is None else self._accumulated(offsets, real).unflatten(2, x.shape[3:]).unsqueeze(1)
        held, count, membrane = drive[0], torch.zeros_like(drive[0]), x[0]
        spikes: list[Tensor] = []
        for t in range(x.shape[0]):
            if t:
                held = torch.trunc((held - count * reset) * decay[t - 1] / 2.0**DECAY_BITS) + drive[t]
                leaked = (membrane - spikes[-1]) * keep[t - 1] + x[t]
                membrane = straight_through(leaked, (held * unit).to(x.dtype))
            level = held if over is None else held + torch.round(over[t].detach().double() / unit)
            count = torch.stack([level >= levels[:, k] for k in range(levels.shape[1])]).sum(0).double()
            soft = spike(membrane if over is None else membrane + over[t].to(x.dtype))
            spikes.append(straight_through(soft, (count / SPIKE_MAX).to(x.dtype)))
        return torch.stack(spikes)

    @staticmethod
    def _accumulated(offsets: Tensor, keep: Tensor) -> Tensor:
        """``o[t] = p[t] + o[t-1] decay[t-1]``, float64 ``[T,C,N]``, of the real decays."""
        total: list[Tensor] = []
        for t, embedding in enumerate(offsets.double()):
            total.append(embedding if not t else embedding + keep[t - 1] * total[-1])
        return torch.stack(total)


class ProgramGate(Gate):
    """The gate with the program's table in place of the exponential, and its comparison with one half."""

    units: GateUnits | None = None

    def forward(self, y: Tensor) -> Tensor:
        """See :class:`Gate`; the value lies on the program's side of 1/2."""
        steps, batch, channels = y.shape[:3]
        logits: Tensor = self.mlp(y.flatten(3).permute(1, 2, 3, 0).flatten(0, 1)).reshape(batch, channels, steps)
        weights = logits.softmax(-1).permute(2, 0, 1)
        real = (weights[..., None, None] * y).sum(0, keepdim=True)
        if self.units is None:
            return real
        bits, shift = self.units.numbers.tolist()
        table = self.units.table.to(y.device)
        level = torch.round(logits.detach().double() * 2.0**bits)
        index = torch.floor((level.amax(-1, keepdim=True) - level) * 2.0**-shift).clamp_max(len(table) - 1).long()
        share = table[index].permute(2, 0, 1)[..., None, None]
        above = (share * (y.detach().double() * SPIKE_MAX - SPIKE_MAX // 2)).sum(0, keepdim=True) > 0
        # Any value on the right side gives the spike; the real one, where it can stay, keeps its gradient.
        fixed = torch.where(above, real.detach().clamp_min(0.51), real.detach().clamp_max(0.49))
        return straight_through(real, fixed)


def over_time(model: nn.Module) -> None:
    """Turn the learning neurons and the gates of a network of several templates into the program's."""
    for module in model.modules():
        if type(module) is LearningNILIF:
            module.__class__ = ProgramNILIF
        elif type(module) is Gate:
            module.__class__ = ProgramGate


def arrange(
    model: nn.Module,
    membranes: Mapping[str, list[Steps]],
    gates: Mapping[str, GateUnits],
    offsets: Mapping[str, Tensor],
) -> None:
    """Hand every neuron and gate what its next pass needs; empty mappings take everything back."""
    for path, module in model.named_modules():
        if isinstance(module, ProgramNILIF):
            module.units = list(membranes.get(path, [])), offsets.get(path)
        elif isinstance(module, ProgramGate):
            module.units = gates.get(path)
