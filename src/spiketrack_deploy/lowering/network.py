"""The lowering's own form of the network: real-valued operations with the time steps rolled up.

This module decides the data between the passes and its textual dump. It must not know how NIR spells an operation
(``recognise``) nor how numbers become integers (``quantise``, ``units``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.types import AnyArray

LEVELS = (0.5, float(np.nextafter(1.5, -np.inf)), 2.5, float(np.nextafter(3.5, -np.inf)))
"""Strict thresholds of round-half-even(clamp(v, 0, 4)): a tie rounds to the even neighbour."""


@dataclass(frozen=True, slots=True)
class FloatOp:
    """A real-valued operation: what it reads, its shape ``[T,C,H,W]`` and its parameters (float64 arrays, numbers).

    Parameters by kind: ``conv``, ``image_conv``, ``head_out``: weight ``[1 or T,O,I,kh,kw]``, bias ``[1 or T,O]``,
    stride, padding, dilation, groups. ``ni_lif``: offset ``[T,C,H,W]`` or None, sigma ``[T-1]``. ``avg_pool``: kernel.
    ``upsample``: factor. ``key_value``, ``query``: heads, gain (None: exactly 2 / sqrt(head dim)).
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    block: str
    shape: tuple[int, ...]
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Time steps T of the output."""
        return self.shape[0]


@dataclass(frozen=True, slots=True)
class FloatPhase:
    """Operations in execution order; ``inputs``: name -> shape; ``outputs``: public name -> operation."""

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    ops: tuple[FloatOp, ...]
    outputs: Mapping[str, str]

    def readers(self) -> dict[str, list[FloatOp]]:
        """Value -> the operations that read it."""
        result: dict[str, list[FloatOp]] = {}
        for op in self.ops:
            for name in op.inputs:
                result.setdefault(name, []).append(op)
        return result


@dataclass(frozen=True, slots=True)
class FloatNetwork:
    """Both phases, the constants of the image normalisation, and the tracker configuration they came from."""

    phases: Mapping[str, FloatPhase]
    mean: AnyArray
    std: AnyArray
    config: Mapping[str, Any]


def check_network(network: FloatNetwork) -> None:
    """Legality of this stage: every input exists before it is read, names are unique, shapes are 4-D and positive."""
    for phase in network.phases.values():
        known = set(phase.inputs)
        for op in phase.ops:
            lost = [i for i in op.inputs if i not in known]
            if lost or op.name in known:
                raise InputError(
                    f"{phase.name} phase: {op.name} reads {lost or 'its own name'} before it exists; the NIR "
                    "graph is not a SpikeTrack export"
                )
            if len(op.shape) != 4 or min(op.shape) < 1:
                raise InputError(
                    f"{phase.name} phase: {op.name} has shape {op.shape}; the NIR graph is not a SpikeTrack export"
                )
            known.add(op.name)


def dump(network: FloatNetwork) -> str:
    """One line an operation; stable, for golden text tests."""
    lines = []
    for phase in network.phases.values():
        lines.append(f"phase {phase.name}({', '.join(f'{k}{list(s)}' for k, s in phase.inputs.items())})")
        for op in phase.ops:
            lines.append(
                f"  {op.name}{list(op.shape)} = {op.kind}({', '.join(op.inputs)}){_param_text(op)}  [{op.block}]"
            )
        lines.extend(f"  output {public} = {name}" for public, name in phase.outputs.items())
    return "\n".join(lines) + "\n"


def _param_text(op: FloatOp) -> str:
    parts = []
    for key, value in sorted(op.params.items()):
        if isinstance(value, np.ndarray):
            parts.append(f"{key}{list(value.shape)} sum |.| {float(np.abs(value).sum()):.6g}")
        elif value is not None:
            parts.append(f"{key} {value}")
    return " {" + "; ".join(parts) + "}" if parts else ""
