"""Integer program -> populations of neurons and the synapses between them.

This module decides which values of a program need neurons of their own, and how unrolled time steps, residual streams,
template memories and host operations appear on a chip. It must not know limits, cores or prices.

A stream that one population alone reads is summed in that population's neurons: a convolution is synapses, not neurons.
A stream that several operations read (a residual stream), that a pool, an upsampling or the host reads, or that is
rounded before it is added to another, needs a population of its own, whose neurons accumulate it and pass it on as a
graded message: a residual stream is a chain of accumulator populations. Time steps are unrolled in space,
as in the NIR graph; a membrane is handed to the next step's neurons by one synapse each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.mapping.types import Network, Population, Synapses
from spiketrack_deploy.program.types import SPIKE_MAX, Op, Phase, Program

_CONVS = ("conv", "image_conv", "head_out")
UPSAMPLE_BITS = 7
"""Bits of a bilinear weight: products of odd numbers below twice the factor, at most 49 for the largest factor 4."""


def populations(program: Program, phase: str) -> Network:
    """The network of one phase (``search`` or ``template``) as populations and synapses.

    Every NI-LIF output is a neuron, every time step apart (docs/spiketrack.md has the official sizes). Raises
    InputError for an unknown phase or an operation that this module does not know.
    """
    if phase not in program.phases:
        raise InputError(f"the program has no phase {phase!r}; it has {', '.join(program.phases)}")
    builder = _Builder(program.phases[phase], program)
    builder.build()
    return _with_delays(phase, builder.populations, builder.synapses)


def _with_delays(phase: str, found: list[Population], synapses: list[Synapses]) -> Network:
    """Longest distance from the inputs, one step per population; messages of a shorter way wait."""
    level = [0] * len(found)
    for s in synapses:  # synapses are listed by target, targets in execution order
        level[s.target] = max(level[s.target], level[s.source] + 1)
    delayed = tuple(replace(s, delay=level[s.target] - level[s.source] - 1) for s in synapses)
    return Network(phase, tuple(found), delayed, max(level, default=0))


@dataclass
class _Builder:
    phase: Phase
    program: Program
    populations: list[Population] = field(default_factory=list)
    synapses: list[Synapses] = field(default_factory=list)
    index: dict[tuple[str, int], int] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tokenwise: set[str] = field(default_factory=set)
    """values ``[T, positions, 1, channels]`` behind a transposition, until the gate"""

    def __post_init__(self) -> None:
        self.by_name = {op.name: op for op in self.phase.ops}
        self.readers: dict[str, list[Op]] = {}
        for op in self.phase.ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)

    def steps(self, name: str) -> int:
        return self.phase.spec(name).shape[0]

    def build(self) -> None:
        for name, spec in self.phase.inputs.items():
            shape = (
                spec.shape if spec.kind == "image" else (spec.shape[0], spec.shape[1] * spec.shape[2], 1, spec.shape[3])
            )
            for t in range(shape[0]):
                self._new(name, name, "", "input", (shape[1], shape[2], shape[3]), t)
        for op in self.phase.ops:
            self._op(op)

    def _new(self, value: str, op: str, block: str, kind: str, shape: tuple[int, int, int], step: int) -> int:
        name = value if self.steps(value) == 1 else f"{value}[{step}]"
        self.index[value, step] = len(self.populations)
        self.populations.append(Population(name, op, self.phase.name, block, kind, *shape, step))
        return self.index[value, step]

    def _shape(self, op: Op) -> tuple[int, int, int]:
        """``(channels, height, width)``. Behind a transposition every source channel is a row of its own: the positions
        of one channel are mixed, channels never, so cores that hold whole rows exchange the least."""
        _, channels, height, width = self.phase.values[op.name].shape
        return (channels, width, height) if op.name in self.tokenwise else (channels, height, width)

    def _op(self, op: Op) -> None:
        spec = self.phase.values[op.name]
        if op.kind in ("conv", "ni_lif") and op.inputs[0] in self.tokenwise:
            self.tokenwise.add(op.name)
        if op.kind == "gate_transpose":
            self.alias[op.name] = op.inputs[0]
            self.tokenwise.add(op.name)
        elif op.kind == "key_value":
            heads, d, dv = spec.shape[1:]
            for t in range(spec.shape[0]):
                target = self._new(op.name, op.name, op.block, "memory", (heads * d, 1, dv), t)
                for name in op.inputs:
                    self._connect(op, "product", name, t, target, groups=heads)
        elif op.kind == "gate":
            target = self._new(op.name, op.name, op.block, "host", self._shape(op), 0)
            for name in op.inputs:
                for t in range(self.steps(name)):
                    self._connect(op, "host", name, t, target)
        elif op.kind == "ni_lif" or not self._fused(op):
            kind = "neurons" if op.kind == "ni_lif" else "relay"
            for t in range(spec.shape[0]):
                target = self._new(op.name, op.name, op.block, kind, self._shape(op), t)
                if op.kind == "ni_lif":
                    self._stream(op, op.inputs[0], t, target)
                    if t:
                        self._connect(op, "identity", op.name, t - 1, target)
                else:
                    self._expand(op, t, target)

    def _fused(self, op: Op) -> bool:
        """Whether the one reader's neurons can sum this stream."""
        readers = self.readers.get(op.name, [])
        if len(readers) != 1 or op.name in self.phase.outputs.values():
            return False
        reader = readers[0]
        if self.steps(op.name) != self.steps(reader.name):
            return False
        if op.kind == "requantise":
            return reader.kind == "ni_lif"
        return reader.kind in ("ni_lif", "requantise") or (reader.kind == "add" and op.kind != "gate")

    def _stream(self, reader: Op, value: str, step: int, target: int) -> None:
        """Synapses that bring ``value`` into ``target``: one to one from its own population, or those that sum it."""
        t = step if self.steps(value) > 1 else 0
        op = self.by_name[value]
        if (value, t) in self.index:
            self._connect(reader, "host" if op.kind == "gate" else "identity", value, t, target)
        else:
            self._expand(op, t, target)

    def _expand(self, op: Op, step: int, target: int) -> None:
        """Synapses of the operation itself, ending in ``target``."""
        if op.kind in _CONVS:
            self._conv(op, step, target)
        elif op.kind == "add":
            for name in op.inputs:
                self._stream(op, name, step, target)
        elif op.kind == "requantise":
            self._stream(op, op.inputs[0], step, target)
        elif op.kind == "avg_pool":
            k = op.attrs["kernel"]
            channels = self.phase.values[op.name].shape[1]
            self._connect(op, "pool", op.inputs[0], step, target, kernel=(k, k), stride=(k, k), groups=channels, bits=1)
        elif op.kind == "upsample":
            f = op.attrs["factor"]
            self._connect(op, "upsample", op.inputs[0], step, target, kernel=(2 * f, 2 * f), stride=(f, f),
                          groups=self.phase.values[op.name].shape[1], bits=UPSAMPLE_BITS)  # fmt: skip
        elif op.kind == "query":
            self._query(op, step, target)
        else:
            raise InputError(f"operation {op.name} of kind {op.kind} has no mapping to a chip")

    def _query(self, op: Op, step: int, target: int) -> None:
        q, memory = op.inputs
        heads = op.attrs["heads"]
        if memory in self.phase.inputs:
            spec = self.phase.spec(q)
            bits = (SPIKE_MAX**2 * spec.shape[2] * spec.shape[3]).bit_length() + 1
            self._connect(op, "matrix", q, step, target, groups=heads, bits=bits)
            self._connect(op, "host", memory, step, target, groups=heads)
        else:
            self._connect(op, "product", q, step, target, groups=heads)
            self._connect(op, "product", memory, step, target, groups=heads)

    def _conv(self, op: Op, step: int, target: int) -> None:
        a = op.attrs
        source = self.alias.get(op.inputs[0], op.inputs[0])
        steps = self.program.arrays[op.arrays["weight"]].shape[0]
        self._connect(
            op,
            "conv",
            source,
            step if self.steps(op.inputs[0]) > 1 else 0,
            target,
            kernel=self.program.arrays[op.arrays["weight"]].shape[3:],
            stride=(a["stride_h"], a["stride_w"]),
            padding=(a["padding_h"], a["padding_w"]),
            dilation=(a["dilation_h"], a["dilation_w"]),
            groups=a["groups"],
            bits=8,
            weight=op.arrays["weight"],
            shared=step if steps > 1 else 0,
            transposed=op.inputs[0] in self.alias,
        )

    def _connect(self, op: Op, form: str, source: str, step: int, target: int, **geometry: object) -> None:
        if form in ("identity", "host") and "groups" not in geometry:
            geometry["groups"] = self.populations[target].channels
        if form == "identity":
            geometry["bits"] = 1
        start = self.index[source, step if self.steps(source) > 1 else 0]
        name = f"{self.populations[start].name} -> {self.populations[target].name}"
        self.synapses.append(Synapses(name, op.name, form, start, target, **geometry))  # type: ignore[arg-type]
