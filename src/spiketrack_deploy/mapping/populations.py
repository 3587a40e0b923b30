"""Integer program -> populations of neurons and the synapses between them.

This module decides which values of a program need neurons of their own, and how unrolled time steps, residual streams,
matrices of other phases and host operations appear on a chip. It must not know limits, cores or prices.

A stream that one population alone reads is summed in that population's neurons: a convolution is synapses, not neurons.
A stream that several operations read (a residual stream), that a pool, an upsampling or the host reads, or that is
rounded before it is added to another, needs a population of its own, whose neurons accumulate it and pass it on as a
graded message: a residual stream is a chain of accumulator populations. Where streams are ``summed``, the outputs of a
convolution that several neurons or sums read are summed in each of them instead: the same integers, no population and
one level less, but the convolution's synapses once for every reader. Where they are ``merged``, the first NI-LIF neuron
that reads nothing but an accumulator is that accumulator: its program sums the stream, fires, and sends the sum as a
second message to whoever else reads it. Time steps are unrolled in space, as in the NIR graph; a membrane is handed to
the next step's neurons by one synapse each.

A neuron with a membrane is one population whatever its operations: ``fire`` (or a read-out's ``integrate``) has it, its
integrators and its reset lie inside. What a phase reads of the step before and writes itself is no input: membranes and
delay lines have no population of their own, spikes come back from their population over recurrent synapses.

Every kind of operation is in one of two tables, :data:`VALUES` (it always has a population, or is wiring) or
:data:`STREAMS` (its stream may be summed in its reader's neurons); another kind is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.mapping.types import Population, PopulationGraph, Synapses
from spiketrack_deploy.program.describe import has_neurons
from spiketrack_deploy.program.types import Op, Phase, Program

UPSAMPLE_BITS = 7
"""Bits of a bilinear weight: products of odd numbers below twice the factor, at most 49 for the largest factor 4."""


INSIDE = ("fire", "reset", "integrate", "change", "told")
"""What reads an integrator in its own neuron."""


RELAYED, SUMMED, MERGED = "relayed", "summed", "merged"
SHARED_STREAMS = (RELAYED, SUMMED, MERGED)
"""What becomes of streams that several neurons or sums read."""


def populations(program: Program, phase: str, streams: str = RELAYED) -> PopulationGraph:
    """One phase as populations and synapses; ``streams``: one of :data:`SHARED_STREAMS`.

    Every NI-LIF output is a neuron, every time step apart. Raises InputError for an unknown phase or an operation that
    neither table has.
    """
    if phase not in program.phases:
        raise InputError(f"the program has no phase {phase!r}; it has {', '.join(program.phases)}")
    builder = _Builder(program.phases[phase], program, streams)
    builder.build()
    network = with_levels(phase, builder.populations, builder.synapses)
    return replace(network, synapses=(*network.synapses, *builder.recurrent()))


def with_levels(phase: str, found: Sequence[Population], synapses: Sequence[Synapses]) -> PopulationGraph:
    """Longest distance from the inputs, one step per population; messages of a shorter way wait. What comes back from
    the step before is no way."""
    level = [0] * len(found)
    for s in synapses:  # synapses are listed by target, targets in execution order
        level[s.target] = max(level[s.target], level[s.source] + 1)
    delayed = tuple(replace(s, delay=level[s.target] - level[s.source] - 1) for s in synapses)
    return PopulationGraph(phase, tuple(found), delayed, max(level, default=0), tuple(level))


@dataclass
class _Builder:
    phase: Phase
    program: Program
    streams: str = RELAYED
    populations: list[Population] = field(default_factory=list)
    synapses: list[Synapses] = field(default_factory=list)
    index: dict[tuple[str, int], int] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tokenwise: set[str] = field(default_factory=set)
    """values ``[T, positions, 1, channels]`` behind a transposition, until the gate"""
    back: list[tuple[Op, str, str, int, dict[str, object]]] = field(default_factory=list)
    """arguments of :meth:`_connect` for what comes from the step before: its population may not be there yet"""

    def __post_init__(self) -> None:
        self.own = {n: value for n, value in self.phase.outputs.items() if n in self.phase.inputs}
        self.by_name = {op.name: op for op in self.phase.ops}
        self.readers: dict[str, list[Op]] = {}
        for op in self.phase.ops:
            for name in op.inputs:
                self.readers.setdefault(name, []).append(op)

    def steps(self, name: str) -> int:
        return self.phase.spec(name).shape[0]

    def build(self) -> None:
        for name, spec in self.phase.inputs.items():
            if name in self.own:
                continue
            steps, *rest = spec.shape
            matrix = spec.kind == "memory"  # one row of a head is one channel
            shape = (rest[0] * rest[1], 1, rest[2]) if matrix else (rest[0], rest[1], rest[2])
            for t in range(steps):
                self._new(name, name, "", "image" if spec.kind == "image" else "input", shape, t)
        for op in self.phase.ops:
            if op.kind in ("conv", "ni_lif") and op.inputs[0] in self.tokenwise:
                self.tokenwise.add(op.name)
            if op.kind in VALUES:
                VALUES[op.kind](self, op)
            elif op.kind not in STREAMS:
                raise InputError(f"operation {op.name} of kind {op.kind} has no mapping to a chip")
            elif not self._fused(op):
                self._stream_population(op)

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

    def _neurons(self, op: Op) -> None:
        if (op.name, 0) in self.index:
            return  # the population that sums its stream
        for t in range(self.steps(op.name)):
            target = self._new(op.name, op.name, op.block, "neurons", self._shape(op), t)
            self._stream(op, op.inputs[0], t, target)
            if t:
                self._connect(op, "identity", op.name, t - 1, target)

    def _stream_population(self, op: Op) -> None:
        if (reader := self._merging(op)) is not None:
            index = self._new(reader.name, reader.name, reader.block, "neurons", self._shape(op), 0)
            self.populations[index] = replace(self.populations[index], keeps=op.name)
            self.index[op.name, 0] = index
            self._expand(op, 0, index)
            return
        for t in range(self.steps(op.name)):
            kind = "neurons" if has_neurons(op) else "relay"
            self._expand(op, t, self._new(op.name, op.name, op.block, kind, self._shape(op), t))

    def _merging(self, op: Op) -> Op | None:
        """The neuron whose program can sum this stream and pass it on as well: one without a membrane over steps."""
        if self.streams != MERGED or self.steps(op.name) > 1 or {op.name, *op.inputs} & self.tokenwise:
            return None
        if op.name in self.phase.outputs.values() or has_neurons(op):
            return None
        return next((r for r in self.readers.get(op.name, ()) if r.kind == "ni_lif" and self.steps(r.name) == 1), None)

    def recurrent(self) -> list[Synapses]:
        """Synapses from the populations that wrote what this step reads of the step before."""
        first, waiting, self.back = len(self.synapses), self.back, []
        for op, form, source, target, geometry in waiting:
            self._connect(op, form, self.own[source], 0, target, **geometry)
        return self.synapses[first:]

    def _inside(self, op: Op) -> None:
        """Part of a neuron, or of the way of its messages: no population."""

    def _wire(self, op: Op) -> None:
        """What a delay line hands out is what was put in, later: the same population where there is one."""
        line = next(o for o in self.phase.ops if o.name == op.inputs[0])
        source = line.inputs[1]
        if (source, 0) in self.index:
            self.index[op.name, 0] = self.index[source, 0]
        else:
            self._connect(
                line, "identity", source, 0, self._new(op.name, op.name, op.block, "relay", self._shape(op), 0)
            )

    def _reorder(self, op: Op) -> None:
        target = self._new(op.name, op.name, op.block, "relay", self._shape(op), 0)
        self._connect(op, "identity", op.inputs[0], 0, target)

    def _transpose(self, op: Op) -> None:
        self.alias[op.name] = op.inputs[0]
        self.tokenwise.add(op.name)

    def _matrix(self, op: Op) -> None:
        steps, heads, d, dv = self.phase.values[op.name].shape
        for t in range(steps):
            target = self._new(op.name, op.name, op.block, "memory", (heads * d, 1, dv), t)
            for name in op.inputs:
                self._connect(op, "product", name, t, target, groups=heads)

    def _host(self, op: Op) -> None:
        target = self._new(op.name, op.name, op.block, "host", self._shape(op), 0)
        for name in op.inputs:
            for t in range(self.steps(name)):
                self._connect(op, "host", name, t, target)

    def _in_neuron(self, op: Op) -> bool:
        """Whether a current, membrane or reset, or a shift between two of them, is seen by its own neuron alone."""
        first = self.by_name.get(op.inputs[0], op) if op.kind == "rescale" else op
        if first.kind not in ("integrate", "reset") or first.block != op.block or has_neurons(first):
            return False
        readers = self.readers.get(op.name, ())
        return all(
            r.block == op.block and (r.kind in ("fire", "reset", "integrate") or self._in_neuron(r)) for r in readers
        )

    def _fused(self, op: Op) -> bool:
        """Whether the one reader's neurons, or those of all readers, can sum this stream."""
        if op.kind in ("integrate", "reset") or self._in_neuron(op):
            return self._in_neuron(op)
        readers = self.readers.get(op.name, [])
        shared = self.streams == SUMMED and op.kind in ("conv", "graded_conv")
        if not readers or (len(readers) > 1 and not shared) or op.name in self.phase.outputs.values():
            return False
        if any(self.steps(op.name) != self.steps(reader.name) for reader in readers):
            return False
        summing = ("ni_lif", "requantise", "add", "fire", "integrate", "change")
        return all(r.kind in (summing if op.kind != "requantise" else ("ni_lif",)) for r in readers)

    def _stream(self, reader: Op, value: str, step: int, target: int) -> None:
        """Synapses that bring ``value`` into ``target``: one to one from its own population, or those that sum it."""
        t = step if self.steps(value) > 1 else 0
        op = self.by_name.get(value, reader)
        if (value, t) in self.index or value in self.own:
            self._connect(reader, "host" if op.kind == "gate" else "identity", value, t, target)
        else:
            self._expand(op, t, target)

    def _expand(self, op: Op, step: int, target: int) -> None:
        """Synapses of the operation itself, ending in ``target``."""
        STREAMS[op.kind](self, op, step, target)

    def _drive(self, op: Op, step: int, target: int) -> None:
        self._stream(op, op.inputs[1], step, target)

    def _hold(self, op: Op, step: int, target: int) -> None:
        self._stream(op, op.inputs[0], step, target)

    def _weigh(self, op: Op, step: int, target: int) -> None:
        if self._in_neuron(op):
            self._hold(op, step, target)
            return
        factors = self.program.arrays[op.arrays["factor"]]
        bits = int(abs(factors.astype("int64")).max()).bit_length() + 1
        self._connect(op, "identity", op.inputs[0], step, target, bits=bits)

    def _sum(self, op: Op, step: int, target: int) -> None:
        for name in op.inputs:
            self._stream(op, name, step, target)

    def _pool(self, op: Op, step: int, target: int) -> None:
        k = op.attrs["kernel"]
        channels = self.phase.values[op.name].shape[1]
        self._connect(op, "pool", op.inputs[0], step, target, kernel=(k, k), stride=(k, k), groups=channels, bits=1)

    def _upsample(self, op: Op, step: int, target: int) -> None:
        f = op.attrs["factor"]
        self._connect(op, "upsample", op.inputs[0], step, target, kernel=(2 * f, 2 * f), stride=(f, f),
                      groups=self.phase.values[op.name].shape[1], bits=UPSAMPLE_BITS)  # fmt: skip

    def _query(self, op: Op, step: int, target: int) -> None:
        q, memory = op.inputs
        heads = op.attrs["heads"]
        if memory in self.phase.inputs:
            self._connect(op, "matrix", q, step, target, groups=heads, bits=self._entry_bits(memory))
            self._connect(op, "host", memory, step, target, groups=heads)
        else:
            self._connect(op, "product", q, step, target, groups=heads)
            self._connect(op, "product", memory, step, target, groups=heads)

    def _entry_bits(self, state: str) -> int:
        """Signed bits of a stored matrix's entries: sums of products of spikes over the tokens that wrote it."""
        writer = self.program.phases[self.program.writers(state)[0]]
        op = next(op for op in writer.ops if op.name == writer.outputs[state])
        k, v = (writer.spec(name) for name in op.inputs)
        return (k.top * v.top * k.shape[2] * k.shape[3]).bit_length() + 1

    def _conv(self, op: Op, step: int, target: int) -> None:
        a = op.attrs
        source = self.alias.get(op.inputs[0], op.inputs[0])
        weight = self.program.arrays[op.arrays["weight"]]
        steps = weight.shape[0]
        self._connect(
            op,
            "conv",
            source,
            step if self.steps(op.inputs[0]) > 1 else 0,
            target,
            kernel=weight.shape[3:],
            stride=(a["stride_h"], a["stride_w"]),
            padding=(a["padding_h"], a["padding_w"]),
            dilation=(a["dilation_h"], a["dilation_w"]),
            groups=a["groups"],
            bits=8 if weight.dtype == "int8" else int(abs(weight.astype("int64")).max()).bit_length() + 1,
            weight=op.arrays["weight"],
            shared=step if steps > 1 else 0,
            transposed=op.inputs[0] in self.alias,
        )

    def _connect(self, op: Op, form: str, source: str, step: int, target: int, **geometry: object) -> None:
        if form in ("identity", "host") and "groups" not in geometry:
            geometry["groups"] = self.populations[target].channels
        if form == "identity":
            geometry.setdefault("bits", 1)
        if source in self.own:
            self.back.append((op, form, source, target, geometry))
            return
        start = self.index[source, step if self.steps(source) > 1 else 0]
        name = f"{self.populations[start].name} -> {self.populations[target].name}"
        self.synapses.append(Synapses(name, op.name, form, start, target, **geometry))  # type: ignore[arg-type]


VALUES: dict[str, Callable[[_Builder, Op], None]] = {
    "ni_lif": _Builder._neurons,
    "key_value": _Builder._matrix,
    "gate": _Builder._host,
    "gate_transpose": _Builder._transpose,
    "fire": _Builder._neurons,
    "change": _Builder._neurons,
    "told": _Builder._inside,
    "remember": _Builder._inside,
    "delayed": _Builder._wire,
    "reshape": _Builder._reorder,
}
"""Kind of operation -> what adds its populations and their synapses."""

STREAMS: dict[str, Callable[[_Builder, Op, int, int], None]] = {
    "image_conv": _Builder._conv,
    "conv": _Builder._conv,
    "head_out": _Builder._conv,
    "add": _Builder._sum,
    "requantise": _Builder._sum,
    "avg_pool": _Builder._pool,
    "upsample": _Builder._upsample,
    "query": _Builder._query,
    "integrate": _Builder._drive,
    "reset": _Builder._hold,
    "graded_conv": _Builder._conv,
    "rescale": _Builder._weigh,
}
"""Kind of operation -> what adds the synapses that end in the population of one step."""
