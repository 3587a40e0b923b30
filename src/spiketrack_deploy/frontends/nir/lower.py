"""A NIR network and a convention of time to an integer program of one phase, ``step``.

Decides the order in which nodes become operations, what crosses from step to step, and what is reported of it. Must not
know files. Every value of the program is ``integer * factor``; factors (gains, scales, means) travel with the value and
end in the next weights or thresholds, so that a Scale or the mean of a pool costs no operation and loses nothing.

    neuron, Threshold   its inputs' weights are put in units of which its threshold is a whole number
    Delay               a ring of states
    back edge           a state: the value of the step before
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from spiketrack_deploy.errors import FitError, InputError
from spiketrack_deploy.frontends.nir.conventions import Convention, delay_steps
from spiketrack_deploy.frontends.nir.emit import PHASE, Emitter, Value, canonical
from spiketrack_deploy.frontends.nir.network import NEURONS, SPIKING, SYNAPTIC, FloatArray, Network, Node
from spiketrack_deploy.frontends.nir.neurons import Neurons
from spiketrack_deploy.frontends.nir.observe import observe
from spiketrack_deploy.frontends.nir.scales import Loss, least
from spiketrack_deploy.frontends.nir.synapses import Part, Synapse, Synapses, parts_shape, resized, sums_of
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import AnyArray, Op, Program

REAL_TOP = 2**15 - 1
"""Largest integer of a real-valued input: 16 bits."""
WEIGHT_BITS = (2, 16)
MOST_DELAY = 4096
"""Steps of the longest delay."""
MEMBRANES = ("integrate", "reset")
"""Operations that may be clipped where no bound is found."""
_AGAIN = 4


@dataclass(frozen=True, slots=True)
class InputKind:
    """What an Input node gets. ``limit`` None: spikes or counts 0..``top`` as they are; else real numbers, clipped at
    plus and minus ``limit``, as integers of ``bits`` bits."""

    top: int = 1
    limit: float | None = None
    bits: int = 16

    @property
    def most(self) -> int:
        """Largest integer of a real number."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """Real value of one integer."""
        return 1.0 if self.limit is None else self.limit / self.most


@dataclass(frozen=True, slots=True)
class LowerOptions:
    """``weight_bits``: signed bits of weights and factors, 2 to 16. ``width``: of accumulators. ``kinds``: by Input
    node (spikes where none is given). ``observed``: largest magnitude that a float run saw of a node's value
    (``NODE``) and of a neuron's membrane (``NODE.v``); None: the float reference is run on drawn input."""

    weight_bits: int = 8
    width: int = 24
    kinds: Mapping[str, InputKind] = field(default_factory=dict)
    observed: Mapping[str, float] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """A value of the program (an operation or, for what is sent late, a state) and the real value of its integers,
    an array of the node's shape."""

    value: str
    factor: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """The program and what it says of the network. ``values``: what every node sends; ``voltages``: membranes before
    their reset; ``layers``: what rounding lost. ``clipped``: operations with a limit, whose clips are counted."""

    program: Program
    values: Mapping[str, Traced]
    voltages: Mapping[str, Traced]
    outputs: Mapping[str, Traced]
    kinds: Mapping[str, InputKind]
    layers: tuple[Loss, ...]
    clipped: tuple[str, ...]

    def encode(self, name: str, array: AnyArray) -> AnyArray:
        """One step of an Input node as the program's integers."""
        kind, shape = self.kinds[name], self.program.phases[PHASE].inputs[name].shape
        if kind.limit is None:
            return np.asarray(array, dtype=np.int64).reshape(shape)
        whole = np.rint(np.clip(array, -kind.limit, kind.limit) / kind.step)
        return np.asarray(whole, dtype=np.int64).reshape(shape)

    def decode(self, name: str, integers: AnyArray) -> FloatArray:
        """One step of an Output node in real units."""
        factor = self.outputs[name].factor
        return np.asarray(integers.reshape(factor.shape) * factor)


def lower_network(network: Network, convention: Convention, options: LowerOptions | None = None) -> Lowered:
    """The program of a network. FitError: a node that no accumulators of this width hold. InputError: an option."""
    options = options or LowerOptions()
    if not WEIGHT_BITS[0] <= options.weight_bits <= WEIGHT_BITS[1]:
        raise InputError(f"weights of {options.weight_bits} bits; {WEIGHT_BITS[0]} to {WEIGHT_BITS[1]} are possible")
    kinds = {name: options.kinds.get(name, InputKind()) for name in network.inputs}
    seen = options.observed
    if seen is None:
        seen = observe(network, convention, {n: (k.top, k.limit) for n, k in kinds.items()})
    return _Lowering(network, convention, replace(options, kinds=kinds, observed=seen)).run()


class _Lowering:
    def __init__(self, network: Network, convention: Convention, options: LowerOptions) -> None:
        self.network, self.convention, self.options = network, convention, options
        self.seen = options.observed or {}
        self.emit = Emitter(options.width, set(network.nodes))
        self.synapses = Synapses(self.emit, options.weight_bits)
        self.neurons = Neurons(self.emit, self.synapses, convention, self.seen)
        self.have: dict[str, Value] = {}
        self.waiting: dict[str, Synapse] = {}
        self.membranes: dict[str, Value] = {}
        self.back: dict[str, Value] = {}
        self.shown: dict[str, Value] = {}

    def run(self) -> Lowered:
        for edge in self.network.back_edges:
            if edge.source not in self.back:
                self.back[edge.source] = self._before(self.network.nodes[edge.source], edge.initial)
        for node in self.network.nodes.values():
            if node.kind == "Output":
                self.shown[node.name] = self._shown(node)
            else:
                self._node(node)
            if node.name in self.back:
                self._remembered(node)
        program = self.emit.program({name: value.name for name, value in self.shown.items()})
        program, clipped = _proved(replace(program, meta=dict(self.options.meta)))
        check_program(program)
        return Lowered(
            program,
            {name: self._traced(name, value) for name, value in self.have.items()},
            {name: self._traced(name, value) for name, value in self.membranes.items()},
            {name: self._traced(name, value) for name, value in self.shown.items()},
            self.options.kinds,
            tuple(self.synapses.losses),
            clipped,
        )

    def _traced(self, name: str, value: Value) -> Traced:
        return Traced(value.name, value.full_factor().reshape(self.network.nodes[name].shape))

    def _node(self, node: Node) -> None:
        name = node.name
        if node.kind == "Input":
            kind = self.options.kinds[name]
            what, top = ("spikes", kind.top) if kind.limit is None else ("stream", kind.most)
            self.have[name] = self.emit.input(name, canonical(node.shape), what, top, kind.step)
        elif node.kind in NEURONS:
            cell = self.neurons.put(node, self._parts(node))
            self.have[name], self.membranes[name] = cell.sent, cell.membrane
        elif node.kind in SYNAPTIC:
            synapse = self.synapses.prepare(node, self._summed(node))
            if self._waits(node):
                self.waiting[name] = synapse
            else:
                self.have[name] = self._alone(synapse)
        elif node.kind in ("SumPool2d", "AvgPool2d"):
            self.have[name] = self.synapses.put(self.synapses.prepare(node, self._summed(node)), np.ones(1))
        elif node.kind == "Threshold":
            self.have[name] = self._threshold(node)
        elif node.kind == "Delay":
            self.have[name] = self._delay(node, self._summed(node))
        elif node.kind == "Scale":
            x = self._summed(node)
            self.have[name] = replace(x, factor=x.factor * node.array("scale").reshape(x.shape))
        else:  # Flatten: the same values in the same order
            self.have[name] = self._summed(node)

    def _waits(self, node: Node) -> bool:
        """Whether weights can take the unit of the one node that they feed."""
        readers = self.network.out_of(node.name)
        if len(readers) != 1 or readers[0].back:
            return False
        target = self.network.nodes[readers[0].target]
        return target.kind in (*NEURONS, "Threshold") or len(self.network.into(target.name)) > 1

    def _parts(self, node: Node) -> list[Part]:
        """What feeds a node: weights that wait for a unit, or values."""
        found: list[Part] = []
        for edge in self.network.into(node.name):
            if edge.back:
                found.append(self.back[edge.source])
            elif edge.source in self.waiting:
                found.append(self.waiting[edge.source])
            else:
                found.append(self.have[edge.source])
        # Waiting weights first: the map of a sum is that of its first part, and theirs has one unit a channel.
        return sorted(found, key=lambda part: isinstance(part, Value))

    def _summed(self, node: Node) -> Value:
        parts = self._parts(node)
        if len(parts) == 1 and isinstance(parts[0], Value):
            return parts[0]
        return self.synapses.total(parts, self._unit(parts), node.name)

    def _alone(self, part: Synapse) -> Value:
        return self.synapses.put(part, self._unit([part])[:, 0, 0])

    def _unit(self, parts: list[Part]) -> FloatArray:
        """The finest unit of the parts that the accumulators hold, ``[C, 1, 1]``."""
        channels = parts_shape(parts)[0]
        sums = np.sum([resized(sums_of(part), channels) for part in parts], axis=0)
        fine = np.minimum.reduce([resized(self.synapses.natural(part), channels) for part in parts])
        unit = np.maximum(np.where(np.isfinite(fine), fine, 1.0), least(sums, self.emit.most))
        return self.synapses.fitted(parts, self.synapses.best(parts, unit, None), 0).reshape(-1, 1, 1)

    def _threshold(self, node: Node) -> Value:
        """NIR's Threshold is strict under every convention."""
        x = self._summed(node)
        if (x.factor <= 0).any():
            x = self.synapses.scaled(x, np.where(x.factor == 0, 1.0, np.abs(x.factor)), node.name)
        level = np.broadcast_to(node.array("threshold"), node.shape).reshape(x.shape) / x.factor
        near = np.rint(level)
        level = np.where(np.abs(level - near) <= 1e-9 * np.maximum(np.abs(near), 1), near, level)
        first = np.clip(np.floor(level) + 1, -(2.0**30), 2.0**30).astype(np.int32)
        arrays = {"first": first, "step": np.ones((1, 1, 1), np.int32)}
        return self.emit.op(self.emit.own(node.name), "fire", [x], node.name, np.ones((1, 1, 1)), {"most": 1}, arrays)

    def _delay(self, node: Node, x: Value) -> Value:
        steps = np.broadcast_to(delay_steps(self.network, node, self.convention.dt), node.shape).reshape(x.shape)
        longest = int(steps.max())
        if longest == 0:
            return x
        if longest > MOST_DELAY or (longest + 1) * prod(x.shape) > 2**26:
            raise FitError(f"node '{node.name}': a delay of {longest} steps; {MOST_DELAY} are possible")
        ring = self.emit.state(f"{node.name}:ring", _with_zero(x), length=longest + 1)
        line = self.emit.op(f"{node.name}:line", "remember", [ring, x], node.name, x.factor)
        self.emit.write(ring, line)
        arrays = {"steps": steps.astype(np.int32)}
        return self.emit.op(self.emit.own(node.name), "delayed", [line], node.name, x.factor, {}, arrays)

    def _before(self, source: Node, initial: FloatArray | None) -> Value:
        """The state of a back edge. Spikes are known beforehand; a graded value gets 16 bits over what was seen."""
        shape, one = canonical(source.shape), np.ones((1, 1, 1))
        start = np.zeros(shape) if initial is None else np.broadcast_to(initial, source.shape).reshape(shape)
        if source.kind in SPIKING or source.kind == "Threshold":
            top = self.neurons.top(source.name) if source.kind in SPIKING else 1
            ends = np.zeros(shape[0], dtype=np.int64), np.full(shape[0], top)
            like = Value("", shape, "spikes", top, one, *ends)
        else:
            limit = max(4 * self.seen.get(source.name, 1.0), float(np.abs(start).max(initial=0)), 1e-9)
            ends = np.full(shape[0], -REAL_TOP), np.full(shape[0], REAL_TOP)
            like = Value("", shape, "stream", 0, one * limit / REAL_TOP, *ends)
        return self.emit.state(f"{source.name}:before", like, np.rint(start / like.factor).astype(np.int64))

    def _remembered(self, node: Node) -> None:
        """What a back edge will carry in the next step."""
        state, value = self.back[node.name], self.have.get(node.name)
        if value is None:
            self.have[node.name] = value = self._alone(self.waiting[node.name])
        value = self.synapses.shaped(value, state.shape, node.name)
        if state.kind == "stream":
            value = self.synapses.scaled(value, state.factor, node.name, REAL_TOP)
        self.emit.write(state, self._made(value, f"{node.name}:again"))

    def _made(self, value: Value, name: str) -> Value:
        """A value that an operation makes: inputs and states are none."""
        if value.name in self.emit.values:
            return value
        attrs = dict(zip(("channels", "height", "width"), value.shape))
        return self.emit.op(name, "reshape", [value], name.split(":")[0], value.factor, attrs)

    def _shown(self, node: Node) -> Value:
        value = self._summed(node)
        if value.name in {v.name for v in self.shown.values()} or value.name not in self.emit.values:
            attrs = dict(zip(("channels", "height", "width"), value.shape))
            return self.emit.op(f"{node.name}:out", "reshape", [value], node.name, value.factor, attrs)
        return value


def _with_zero(x: Value) -> Value:
    return replace(x, low=np.minimum(x.low, 0), high=np.maximum(x.high, 0))


def _proved(program: Program) -> tuple[Program, tuple[str, ...]]:
    """The program with a limit wherever the proof finds a membrane beyond the accumulators, and which have one."""
    for _ in range(_AGAIN):
        phase = program.phases[PHASE]
        failed = {entry.op for entry in prove_ranges(program)[PHASE] if not entry.fits}
        if not failed:
            return program, tuple(op.name for op in phase.ops if op.attrs.get("limit"))
        limits = {op.name for op in phase.ops if op.name in failed and op.kind in MEMBRANES and not op.attrs["limit"]}
        if not limits:
            first = next(op for op in phase.ops if op.name in failed)
            raise FitError(
                f"node '{first.block}': its sums may leave accumulators of {program.width} bits whatever its scale "
                f"({first.kind} {first.name}); use fewer inputs, smaller weights or wider accumulators"
            )
        ops = tuple(_limited(op, program.limits[1]) if op.name in limits else op for op in phase.ops)
        program = replace(program, phases={PHASE: replace(phase, ops=ops)})
    raise FitError(f"node '{first_block(program, failed)}': its membrane has no bound that {program.width} bits hold")


def first_block(program: Program, names: set[str]) -> str:
    """Node of the first of some operations."""
    return next(op.block for op in program.phases[PHASE].ops if op.name in names)


def _limited(op: Op, most: int) -> Op:
    return replace(op, attrs={**op.attrs, "limit": most})
