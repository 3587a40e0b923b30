"""The real-valued network that a front end returns: phases of operations over named values, and states between them.

This module decides the data that enters the lowering, what is legal about it, and its textual dump. It must not know
which file it came from nor how numbers become integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.types import Cadence

Shape = tuple[int, ...]
Key = tuple[str, str]
"""Phase and operation."""


@dataclass(frozen=True, slots=True)
class FloatKind:
    """What a kind of operation reads (alternatives split by ``|``), writes, and its parameters: all and no other."""

    inputs: tuple[str, ...]
    output: str
    params: tuple[str, ...] = ()


_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups")
FLOAT_KINDS: Mapping[str, FloatKind] = {
    "image_conv": FloatKind(("image",), "stream", (*_CONV, "mean", "std")),
    "conv": FloatKind(("spikes",), "stream", _CONV),
    "head_out": FloatKind(("spikes",), "logits", _CONV),
    "add": FloatKind(("stream", "stream"), "stream"),
    "ni_lif": FloatKind(("stream|score",), "spikes", ("offset", "sigma")),
    "avg_pool": FloatKind(("stream",), "stream", ("kernel",)),
    "upsample": FloatKind(("stream",), "stream", ("factor",)),
    "key_value": FloatKind(("spikes", "spikes"), "memory", ("heads",)),
    "query": FloatKind(("spikes", "memory"), "score", ("heads", "gain")),
    "gate_transpose": FloatKind(("spikes",), "spikes"),
    "gate": FloatKind(("stream", "spikes"), "score"),
}
"""Values: ``image`` pixels; ``spikes`` n/4; ``stream``: a sum that others may join; ``score``: a product with a unit of
its own, which only a neuron can read; ``memory``: k^T v; ``logits``: leave for the host.

Parameters: ``weight`` ``[1 or T,O,I,kh,kw]``, ``bias`` ``[1 or T,O]``; ``stride``, ``padding``, ``dilation`` (height,
width); ``mean``, ``std`` three numbers each: the image is ``(pixel / 255 - mean) / std`` before any padding. ``offset``
of a neuron: the value's shape, or None; ``sigma`` ``[T-1]``. ``gain``: a number, or None for just 2 / sqrt(head dim).
"""
CONVS = ("conv", "image_conv", "head_out")


@dataclass(frozen=True, slots=True)
class FloatOp:
    """A real-valued operation: what it reads, the shape of its value (time steps first), its parameters (float64
    arrays, numbers), and ``origin``: the nodes or modules it came from, step by step.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    block: str
    shape: Shape
    params: Mapping[str, Any] = field(default_factory=dict)
    origin: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Time steps T of the value."""
        return self.shape[0]


@dataclass(frozen=True, slots=True)
class FloatInput:
    """What a phase is given from outside: its kind (``image``: uint8 pixels) and shape."""

    kind: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class FloatState:
    """A value that outlives a phase: kind (``memory``), shape, and the operation that writes it."""

    kind: str
    shape: Shape
    writer: Key


@dataclass(frozen=True, slots=True)
class FloatPhase:
    """Operations in execution order; ``outputs``: public name -> operation; how often it runs. States are read by name
    and are no inputs.
    """

    name: str
    inputs: Mapping[str, FloatInput]
    ops: tuple[FloatOp, ...]
    outputs: Mapping[str, str]
    cadence: Cadence = field(default_factory=Cadence)

    def op(self, name: str) -> FloatOp | None:
        """The operation of that name; None for inputs and states."""
        return next((op for op in self.ops if op.name == name), None)

    def readers(self, name: str) -> list[FloatOp]:
        """The operations that read a value."""
        return [op for op in self.ops if name in op.inputs]


@dataclass(frozen=True, slots=True)
class FloatNetwork:
    """Phases in the order in which they first run, and the states that they share."""

    phases: Mapping[str, FloatPhase]
    states: Mapping[str, FloatState] = field(default_factory=dict)

    def walk(self) -> Iterator[tuple[FloatPhase, FloatOp]]:
        """Every operation of every phase, in order."""
        for phase in self.phases.values():
            for op in phase.ops:
                yield phase, op

    def shape(self, phase: FloatPhase, name: str) -> Shape:
        """Shape of an input, a state or an operation's value as ``phase`` sees it."""
        if name in phase.inputs:
            return phase.inputs[name].shape
        op = phase.op(name)
        return self.states[name].shape if op is None else op.shape


def check_network(network: FloatNetwork) -> None:
    """Legality of this stage: InputError names the operation that reads what does not exist before it or is of another
    kind, repeats a name, is of an unknown kind, or has other parameters, shapes or numbers than its kind may have.
    """
    for phase in network.phases.values():
        known = {name: state.kind for name, state in network.states.items()}
        known |= {name: given.kind for name, given in phase.inputs.items()}
        for op in phase.ops:
            defect = _defect(op, known)
            if defect:
                raise InputError(f"{phase.name} phase: {op.name} ({', '.join(op.origin[:2]) or op.kind}) {defect}")
            known[op.name] = FLOAT_KINDS[op.kind].output
        lost = sorted(set(phase.outputs.values()) - known.keys())
        if lost:
            raise InputError(f"{phase.name} phase: it puts out {', '.join(lost)}, which nothing computes")
    for name, state in network.states.items():
        writer = next((op for phase, op in network.walk() if (phase.name, op.name) == state.writer), None)
        if writer is None or writer.shape != state.shape or FLOAT_KINDS[writer.kind].output != state.kind:
            raise InputError(f"state {name} ({state.kind} {state.shape}) is not what {' '.join(state.writer)} writes")


def _defect(op: FloatOp, known: Mapping[str, str]) -> str | None:
    lost = [name for name in op.inputs if name not in known]
    if lost or op.name in known:
        return f"reads {', '.join(lost) or 'its own name'} before it exists"
    kind = FLOAT_KINDS.get(op.kind)
    if kind is None:
        return f"is of unknown kind {op.kind!r}; known are {', '.join(FLOAT_KINDS)}"
    got = [known[name] for name in op.inputs]
    if len(got) != len(kind.inputs) or any(g not in want.split("|") for g, want in zip(got, kind.inputs, strict=True)):
        return f"reads {', '.join(got) or 'nothing'}; a {op.kind} reads {', '.join(kind.inputs)}"
    if set(op.params) != set(kind.params):
        return f"has parameters {sorted(op.params)}, a {op.kind} has {sorted(kind.params)}"
    if not op.shape or min(op.shape) < 1:
        return f"has shape {op.shape}"
    numbers = [key for key, value in op.params.items() if value is not None and not np.isfinite(value).all()]
    return f"has {', '.join(numbers)} that is not finite" if numbers else None


def dump(network: FloatNetwork) -> str:
    """One line an operation; stable, for golden text tests."""
    lines = [f"state {k}{list(s.shape)} {s.kind}, written by {' '.join(s.writer)}" for k, s in network.states.items()]
    for phase in network.phases.values():
        given = ", ".join(f"{name} {i.kind}{list(i.shape)}" for name, i in phase.inputs.items())
        often = "never again" if phase.cadence.every is None else f"every {phase.cadence.every}"
        lines.append(f"phase {phase.name}({given}) {'at the start, ' * phase.cadence.start}{often}")
        for op in phase.ops:
            text = "; ".join(f"{key}{_text(value)}" for key, value in sorted(op.params.items()) if value is not None)
            params = f" {{{text}}}" if text else ""
            lines.append(f"  {op.name}{list(op.shape)} = {op.kind}({', '.join(op.inputs)}){params}  [{op.block}]")
        lines.extend(f"  output {public} = {name}" for public, name in phase.outputs.items())
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{list(value.shape)} sum |.| {float(np.abs(value).sum()):.6g}"
    return f" {value}"
