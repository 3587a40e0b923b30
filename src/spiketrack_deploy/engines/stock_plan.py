"""A phase of a program as Processes that Lava ships, and as few others as possible: which, how joined, how late.

This module decides which operations become which Process and the steps between them. It must not know Lava
(``lava_worker.stock`` builds what stands in the plan), nor run anything. A stock Process is used where its fixed-point
rule gives the operation's integers for every input that the range proof allows; else ``Own``, with the reason.

Time: a connection (Conv, Dense, Sparse) takes a step, everything else none. A value that exists ``k`` steps after its
input is compared k steps later; where two ways meet, the shorter one waits in a one-to-one DelaySparse. What an
operation reads of the step before is one step old already, so a loop with one connection costs nothing more; a loop
with more of them cannot keep its time in stock Processes, and its further connections are Own ones without delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from spiketrack_deploy.engines.stock_neurons import levels_of, lif_of
from spiketrack_deploy.engines.stock_nodes import Edge, End, LoopError, Node, StockPlan
from spiketrack_deploy.engines.stock_parts import EARLY, Answer, Part, memory_of, synapse_of
from spiketrack_deploy.engines.stock_time import Wiring
from spiketrack_deploy.engines.stock_unroll import NEURON, split, steps_of, unroll
from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.bounds import RangeEntry, demand_ranges
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program

OWN_KINDS = {*NEURON, "rescale", "requantise", "ni_lif", "key_value", "query", "conv", "graded_conv", "head_out",
             "image_conv", "leak", "gate"}  # fmt: skip
LOOP = "a loop of one step has a further connection"
LARGEST_MEMORY = 1 << 21
"""Three matrices of seven bits each."""


def stock_plan(
    program: Program,
    phase: str,
    ops: Iterable[str] | None = None,
    memories: Mapping[str, IntArray] | None = None,
) -> StockPlan:
    """The Processes of a phase; ``ops``: of these operations alone, whatever else they read being inputs.
    ``memories``: content of states that become weights. Step t of a value of several steps is ``name@t``.
    EngineError: an operation has no Process, stock or own.
    """
    ranges = demand_ranges(program, "stock Lava Processes keep signed 24 bits", 24)
    part, bounds = program.phases[phase], {e.op: e for e in ranges[phase]}
    wanted = {op.name for op in part.ops} if ops is None else set(ops)
    if steps_of(part) > 1:
        memories = split(part, memories or {})
        program, part, bounds, origin = unroll(program, part, bounds)
        wanted = {name for name, source in origin.items() if source in wanted}
    zero: set[str] = set()
    while True:
        builder = _Builder(program, part, bounds, wanted, zero, memories or {})
        for op in part.ops:
            if op.name in wanted:
                builder.place(op)
        try:
            return builder.finish(phase)
        except LoopError as loop:
            found = [name for node in loop.connections for name in builder.nodes[node].ops if name not in zero]
            if not found:
                raise
            zero = zero | {found[0]}


class _Builder(Wiring):
    def __init__(
        self, program: Program, phase: Phase, ranges: Mapping[str, RangeEntry], wanted: set[str], zero: set[str],
        memories: Mapping[str, IntArray],
    ) -> None:  # fmt: skip
        ops = [op for op in phase.ops if op.name in wanted]
        static = not any(op.kind in NEURON or op.kind == "remember" for op in ops)
        super().__init__(static, {public: value for public, value in phase.outputs.items() if public in program.states})
        self.program, self.phase, self.ranges, self.wanted = program, phase, ranges, wanted
        self.zero, self.memories = zero, memories
        self.inside: set[str] = set()
        self.by_name = {op.name: op for op in phase.ops}

    # Values and their ends.

    def ends(self, name: str) -> list[End]:
        """Ends of a value, of a state (older by a step), or of an input."""
        if name in self.values:
            return self.values[name]
        shape = tuple(self.phase.spec(name).shape[1:])
        if name in self.writers and self.writers[name] in self.wanted:
            return [End("", shape, f"state:{name}", back=1)]
        return [End("", shape, name)]

    def link(self, value: str, target: str, port: str = "", views: tuple[tuple[int, ...], ...] = ()) -> None:
        """Everything that adds up to ``value`` into a port."""
        for end in self.ends(value):
            self.edges.append(Edge(End(end.node, end.shape, end.out, (*end.views, *views), end.back), target, port))

    # Operations.

    def place(self, op: Op) -> None:
        if op.name in self.inside:
            return
        if op.kind == "reshape":
            sizes = (op.attrs["channels"], op.attrs["height"], op.attrs["width"])
            self.values[op.name] = [
                End(e.node, e.shape, e.out, (*e.views, sizes), e.back) for e in self.ends(op.inputs[0])
            ]
        elif op.kind == "add":
            self.values[op.name] = [end for name in op.inputs for end in self.ends(name)]
            if len(self.values[op.name]) > 4:
                self._relay(op)
        elif op.kind == "remember":
            self.inside.add(op.name)
        elif op.kind == "delayed":
            self._delay(op)
        elif op.kind in NEURON:
            self._neuron(op)
        else:
            self._synapse(op)

    def _relay(self, op: Op) -> None:
        """Many terms of a residual stream, added up once."""
        shape = tuple(self.phase.values[op.name].shape[1:])
        self.add(Node(op.name, "GradedVec", (op.name,), shape, {"shape": list(shape[::-1])}))
        self.edges += [Edge(end, op.name, "a_in") for end in self.values[op.name]]
        self.values[op.name] = [End(op.name, shape)]

    def _constant(self, name: str, value: AnyArray, shape: tuple[int, ...]) -> End:
        self.add(Node(name, "RingBuffer", (), shape, {"shape": list(shape[::-1])}, {"value": value}))
        return End(name, shape, "s_out")

    def _synapse(self, op: Op) -> None:
        """Weights, and what is added to every sum; or a neuron without memory."""
        found = self._stock(op) if op.name not in self.zero else LOOP
        if not isinstance(found, str) and found.bias is not None and self._has_delays():
            found = EARLY
        if isinstance(found, str):
            self._own((op,), found)
            return
        shape = tuple(self.phase.values[op.name].shape[1:])
        given, made = self.ends(op.inputs[0]), dict[int, End]()
        ends = [self._part(op, part, given, shape, made) for part in found.parts]
        if found.bias is not None:
            ends.append(self._constant(f"{op.name}.bias", found.bias, shape))
        self.values[op.name] = ends

    def _part(self, op: Op, part: Part, given: list[End], shape: tuple[int, ...], made: dict[int, End]) -> End:
        """A Process behind its fronts; a front that several share is there once."""
        if id(part) not in made:
            name, size = op.name + part.suffix, tuple(self.phase.spec(op.inputs[0]).shape[1:])
            ends = [self._part(op, front, given, size, made) for front in part.fronts] or given
            self.add(Node(name, part.process, (op.name,), shape, part.params, part.arrays))
            ends = ends + [self._constant(f"{name}.plus", value, size) for value in part.before]
            views = ((prod(size),),) if part.flat else ()
            self.edges += [Edge(End(e.node, e.shape, e.out, (*e.views, *views), e.back), name, part.port) for e in ends]
            made[id(part)] = End(name, shape, part.out)
        return made[id(part)]

    def _stock(self, op: Op) -> Answer | str:
        arrays = self.program.op_arrays(op)
        if op.kind in ("ni_lif", "fire"):
            return levels_of(op, arrays, self.program, self.phase, self.ranges, self._has_delays())
        if op.kind == "query" and op.inputs[1] in self.memories:
            memory = self.memories[op.inputs[1]].astype(np.int64)
            if memory.min() < 0 or memory.max() >= LARGEST_MEMORY:
                raise EngineError(
                    f"lava, stock Processes: {op.inputs[1]} runs from {memory.min()} to {memory.max()}; "
                    f"chained eight-bit weights hold 0 to {LARGEST_MEMORY - 1}"
                )
            return memory_of(memory, op, *self.phase.spec(op.inputs[0]).shape[2:])
        return synapse_of(op, arrays, self.program, self.phase, self.ranges)

    def _delay(self, op: Op) -> None:
        """A delay line: one to one, each with its steps. What is read of the line before this step is a step older."""
        line = op.inputs[0]
        writer = self.by_name.get(self.writers.get(line, line))
        if writer is None or writer.kind != "remember":
            raise EngineError(f"lava, stock Processes: {op.name} reads {line}, which is no delay line")
        shape = tuple(self.phase.values[op.name].shape[1:])
        steps = np.broadcast_to(self.program.op_arrays(op)["steps"].astype(np.int64), shape) + (line in self.writers)
        if not steps.any():
            self.values[op.name] = list(self.ends(writer.inputs[1]))
            return
        if int(steps.max()) > 63:
            raise EngineError(
                f"lava, stock Processes: {op.name} holds values for {steps.max()} steps; DelaySparse holds 63"
            )
        # The connection itself is one of the steps where all wait at least one.
        own_step = int(steps.min() > 0)
        self.add(Node(op.name, "DelaySparse", (op.name,), shape, {}, {"steps": steps - own_step}))
        for end in self.ends(writer.inputs[1]):
            views = (*end.views, (prod(shape),))
            self.edges.append(Edge(End(end.node, end.shape, end.out, views, end.back + own_step), op.name, "s_in"))
        self.values[op.name] = [End(op.name, shape, "a_out")]

    def _neuron(self, op: Op) -> None:
        """A neuron: all its operations in one Process."""
        group = self._group(op)
        self.inside |= {o.name for o in group}
        if [o.kind for o in group] == ["fire"]:
            self._synapse(op)
            return
        answer = lif_of(group, self.program, self.phase, self.ranges, self._has_delays())
        if isinstance(answer, str):
            self._own(tuple(group), answer)
            return
        shape = tuple(self.phase.values[answer.spikes].shape[1:])
        name = answer.spikes
        process = "LIFReset" if answer.biased else "LIF"
        params = {"shape": list(shape[::-1]), **answer.params}
        self.add(Node(name, process, tuple(o.name for o in group), shape, params, answer.arrays))
        self.link(answer.drive, name, "a_in")
        self.values[name] = [End(name, shape, "s_out")]

    def _has_delays(self) -> bool:
        return any(op.kind == "remember" for op in self.phase.ops if op.name in self.wanted)

    def _group(self, op: Op) -> list[Op]:
        """Operations of one neuron: joined by its membrane, its current, its spikes and the states that they write."""
        found, waiting = {op.name}, [op]
        while waiting:
            here = waiting.pop()
            for other in self.phase.ops:
                if (
                    other.name in self.wanted
                    and other.name not in found
                    and other.kind in NEURON
                    and (self._joined(here, other) or self._joined(other, here))
                ):
                    found.add(other.name)
                    waiting.append(other)
        return [o for o in self.phase.ops if o.name in found]

    def _joined(self, first: Op, second: Op) -> bool:
        """Whether ``second`` needs what ``first`` gives within the neuron."""
        names = {first.name} | {public for public, value in self.writers.items() if value == first.name}
        if second.kind == "integrate" and first.kind == "integrate" and second.inputs[1] in names:
            return not first.attrs["readout"] and second.inputs[1] == first.name
        if second.kind == "integrate":
            return second.inputs[0] in names
        if second.kind in ("fire",):
            return second.inputs[0] in names and first.kind in ("integrate", "reset")
        return bool(names & set(second.inputs))

    def _own(self, group: tuple[Op, ...], reason: str) -> None:
        """One own Process for these operations, with the states that they write."""
        for op in group:
            if op.kind not in OWN_KINDS:
                raise EngineError(f"lava, stock Processes: operation {op.name} ({op.kind}) has none")
        made = {op.name for op in group}
        states = {s: v for s, v in self.writers.items() if v in made and any(s in o.inputs for o in group)}
        inputs = list(dict.fromkeys(n for o in group for n in o.inputs if n not in made and n not in states))
        read = {n for o in self.phase.ops if o.name not in made for n in o.inputs}
        read |= {v for s, v in self.writers.items() if s in read} | set(self.phase.outputs.values())
        outputs = [o.name for o in group if o.name in read and o.kind not in ("reset", "told")] or [group[-1].name]
        name = group[0].name if len(group) == 1 else outputs[0]
        node = Node(name, "Own", tuple(op.name for op in group), (), reason=reason)
        lava = [list(self.phase.spec(n).shape[1:][::-1]) for n in inputs]
        node.params = {
            "inputs": inputs, "outputs": outputs, "in_shapes": lava, "first": 1,
            "out_shapes": [list(self.phase.values[n].shape[1:][::-1]) for n in outputs],
            "written": states,
            "states": {s: [list(self.program.states[s].spec.shape), self._start(node, s)] for s in states},
            "ops": [{"name": o.name, "kind": o.kind, "inputs": list(o.inputs), "attrs": dict(o.attrs),
                     "arrays": {r: f"{o.name}.{r}" for r in o.arrays}} for o in group],
        }  # fmt: skip
        node.arrays |= {f"{o.name}.{r}": self.program.arrays[k] for o in group for r, k in o.arrays.items()}
        self.add(node)
        for index, name in enumerate(inputs):
            self.link(name, node.name, f"in_{index}")
        for index, name in enumerate(outputs):
            self.values[name] = [End(node.name, tuple(self.phase.values[name].shape[1:]), f"out_{index}")]

    def _start(self, node: Node, state: str) -> int | str:
        start = self.program.states[state].initial
        if isinstance(start, str):
            node.arrays[f"initial.{state}"] = self.program.arrays[start]
            return f"initial.{state}"
        return start or 0
