"""The default engine: exact integers at the speed of library kernels.

This module compiles a program once into a list of steps (one kernel per operation, or one for a convolution and the
NI-LIF behind it) and runs them, with counts beside them. It must not know how a kernel computes (``sim_kernels``) or
how events are added up (``sim_census``, ``sim_counts``). PyTorch is imported when an engine is made, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from spiketrack_deploy.engines.base import BaseEngine
from spiketrack_deploy.engines.proof import Proof
from spiketrack_deploy.engines.sim_threads import threads
from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.run import PhaseResult, Watch
from spiketrack_deploy.program.types import SPIKE_MAX, AnyArray, IntArray, Op, Phase, Program

if TYPE_CHECKING:
    from torch import Tensor

    from spiketrack_deploy.engines.sim_census import Census
    from spiketrack_deploy.engines.sim_conv import Kernel
    from spiketrack_deploy.engines.sim_counts import Counter, Finish
    from spiketrack_deploy.engines.sim_tensors import Held

KERNEL_CHOICES = ("auto", "float32")
FEW_LEVELS = ("ni_lif", "key_value", "query", "gate_transpose", "gate")
"""Kinds whose kernels and sums are made for the spikes of a NI-LIF neuron, at most :data:`SPIKE_MAX`."""
SMALL_MACS = 10**9
"""Dense multiply-accumulates of a phase, below which one thread is faster than several: spiketrack-nano has 0.07 of
these units in a search frame, s256_t1 3.5."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: its kernel on its own, its counter, and whether its sum may overwrite its second input."""

    op: Op
    kernel: Kernel
    counter: Counter
    in_place: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, or two (convolution or query, NI-LIF) with their fused kernel; and the values that end here."""

    nodes: tuple[Node, ...]
    fused: Kernel | None
    ending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled phase. ``counted``: values that the census takes, ``by_class``: those whose sums by class are kept.
    ``finish``: how each operation's counts are made,
    in the order of the phase."""

    phase: Phase
    held: Mapping[str, Held]
    steps: tuple[Step, ...]
    census: Census
    counted: frozenset[str]
    by_class: frozenset[str]
    finish: Mapping[str, Finish]


def _in_place(phase: Phase, index: int, held: Mapping[str, Held], readers: Mapping[str, int]) -> bool:
    """Whether an addition may write into its second operand: a fresh value of its shape and unit that ends here."""
    op = phase.ops[index]
    if op.kind != "add" or op.inputs[0] == op.inputs[1]:
        return False
    first, second, out = held[op.inputs[0]], held[op.inputs[1]], held[op.name]
    one_unit = np.array_equal(first.bits, out.bits) and np.array_equal(second.bits, out.bits)
    fresh = next((o.kind for o in phase.ops if o.name == op.inputs[1]), "") in ("conv", "requantise", "upsample")
    return one_unit and fresh and readers[op.inputs[1]] == 1 and second.spec.shape == out.spec.shape


def _compile_phase(program: Program, phase: Phase, int8: bool) -> Plan:
    from spiketrack_deploy.engines.sim_census import Census
    from spiketrack_deploy.engines.sim_counts import BY_CLASS, COUNTERS
    from spiketrack_deploy.engines.sim_kernels import KERNELS
    from spiketrack_deploy.engines.sim_tensors import hold

    held = {name: hold(phase.spec(name), program.arrays) for name in (*phase.inputs, *(op.name for op in phase.ops))}
    readers = dict.fromkeys(held, 0)
    for name in [*(i for op in phase.ops for i in op.inputs), *phase.outputs.values()]:
        readers[name] += 1
    nodes = []
    for index, op in enumerate(phase.ops):
        if op.kind not in KERNELS:
            raise EngineError(
                f"the sim engine has no kernel for operation kind {op.kind!r} of {op.name}; use --engine reference"
            )
        arrays = program.op_arrays(op)
        inputs = [held[i] for i in op.inputs]
        kernel = KERNELS[op.kind](op, arrays, inputs, held[op.name], int8)
        counter = COUNTERS[op.kind](op, inputs, held[op.name], arrays)
        nodes.append(Node(op, kernel, counter, _in_place(phase, index, held, readers)))

    pairs = _fused_pairs(program, phase, held, readers, int8)
    steps = _steps(phase, nodes, pairs)
    counted = [name for name, one in held.items() if one.spec.kind in ("image", "spikes")]
    by_class = frozenset(op.inputs[0] for op in phase.ops if op.kind in BY_CLASS)
    finish = {node.op.name: node.counter.finish for node in nodes}
    return Plan(phase, held, steps, Census(program, phase, counted), frozenset(counted), by_class, finish)


def _fused_pairs(
    program: Program, phase: Phase, held: Mapping[str, Held], readers: Mapping[str, int], int8: bool
) -> dict[int, tuple[int, Kernel]]:
    """Place of a convolution or query -> place of its only reader, a stateless NI-LIF, and one kernel for both."""
    from spiketrack_deploy.engines.sim_kernels import fused_kernel

    pairs: dict[int, tuple[int, Kernel]] = {}
    where = {op.name: index for index, op in enumerate(phase.ops)}
    for index, op in enumerate(phase.ops):
        source = where.get(op.inputs[0], -1)
        if op.kind != "ni_lif" or source < 0 or readers[op.inputs[0]] != 1:
            continue
        first = phase.ops[source]
        ends = held[first.inputs[0]], held[first.name]
        fused = fused_kernel(first, program.op_arrays(first), *ends, op, program.op_arrays(op), int8)
        if fused is not None:
            pairs[source] = (index, fused)
    return pairs


def _steps(phase: Phase, nodes: Sequence[Node], pairs: Mapping[int, tuple[int, Kernel]]) -> tuple[Step, ...]:
    """Steps in execution order; a fused NI-LIF runs where its convolution stood."""
    second = {index for index, _ in pairs.values()}
    groups: list[tuple[tuple[Node, ...], Kernel | None]] = []
    for index, node in enumerate(nodes):
        if index in pairs:
            neuron, kernel = pairs[index]
            groups.append(((node, nodes[neuron]), kernel))
        elif index not in second:
            groups.append(((node,), None))
    last: dict[str, int] = {}
    for number, (members, _) in enumerate(groups):
        for node in members:
            last.update(dict.fromkeys((*node.op.inputs, node.op.name), number))
    ending: list[list[str]] = [[] for _ in groups]
    for name, number in last.items():
        if name not in phase.outputs.values():
            ending[number].append(name)
    return tuple(Step(members, kernel, tuple(ends)) for (members, kernel), ends in zip(groups, ending, strict=True))


def _is_small(program: Program) -> bool:
    """Whether no phase has enough to do for threads to pay for waiting for one another."""
    for phase in program.phases.values():
        weighted = ((program.arrays[op.arrays["weight"]], op) for op in phase.ops if "weight" in op.arrays)
        if sum(prod(weight.shape[2:]) * phase.values[op.name].size for weight, op in weighted) >= SMALL_MACS:
            return False
    return True


class SimEngine(BaseEngine):
    """Runs a program exactly and fast.

    ``threads``: PyTorch threads while a phase runs; ``None``: one for a small program, else PyTorch's own. Results do
    not depend on it.
    ``kernels``: ``auto`` takes int8 convolutions where a probe finds them equal to float32 ones, ``float32`` never.
    VerificationError where the range proof fails, EngineError for an operation without a kernel.
    """

    name = "sim"
    can_replace = True

    def __init__(self, program: Program, threads: int | None = None, kernels: str = "auto") -> None:
        if threads is not None and threads < 1:
            raise InputError(f"sim engine: threads must be 1 or more, is {threads}")
        if kernels not in KERNEL_CHOICES:
            raise InputError(f"sim engine: kernels must be one of {', '.join(KERNEL_CHOICES)}, is {kernels!r}")
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise EngineError(
                f"the sim engine needs PyTorch ({error}); install torch or use --engine reference"
            ) from None
        from spiketrack_deploy.engines.sim_conv import int8_available

        super().__init__(program)
        self.proof = Proof(program)
        for phase in program.phases.values():
            for op in phase.ops:
                wide = [n for n in (*op.inputs, op.name) if phase.spec(n).top > SPIKE_MAX and op.kind in FEW_LEVELS]
                if wide and phase.spec(wide[0]).kind == "spikes":
                    raise EngineError(
                        f"the sim engine adds up spikes of at most {SPIKE_MAX}, {wide[0]} has "
                        f"{phase.spec(wide[0]).top}; use --engine reference"
                    )
        self.threads = 1 if threads is None and _is_small(program) else threads
        self.int8 = kernels == "auto" and int8_available()
        self._plans: dict[str, Plan] = {}

    def run(
        self, phase: str, inputs: Mapping[str, AnyArray], *, count: bool = True, watch: Watch | None = None
    ) -> PhaseResult:
        """See :class:`~spiketrack_deploy.engines.base.Engine`.

        With ``watch`` a fused pair runs twice: apart, for the stream in between, and fused, for the real spikes.
        """
        import torch

        with threads(self.threads), torch.inference_mode():
            given = self.proof.inputs(self.program.phases[phase], inputs)
            return _Run(self.plan(phase), given, count, watch).result()

    def plan(self, phase: str) -> Plan:
        """The compiled phase; it is compiled on first use."""
        if phase not in self._plans:
            self._plans[phase] = _compile_phase(self.program, self.program.phases[phase], self.int8)
        return self._plans[phase]

    def close(self) -> None:
        """Drop the compiled phases; the next run compiles again."""
        self._plans.clear()


class _Run:
    """One execution of a plan: live values, and what their counters saw."""

    def __init__(self, plan: Plan, inputs: Mapping[str, AnyArray], count: bool, watch: Watch | None) -> None:
        from spiketrack_deploy.engines.sim_tensors import to_tensor

        self.plan = plan
        self.watch = watch
        self.count = count
        self.seen: dict[str, Any] = {}
        self.table = plan.census.table()
        self.by_class: dict[str, AnyArray] = {}
        self.emitted: dict[str, tuple[int, int]] = {}
        self.shown: dict[str, IntArray] = {}
        self.values: dict[str, Tensor] = {}
        for name, array in inputs.items():
            self._keep(name, to_tensor(array, plan.held[name]))

    def result(self) -> PhaseResult:
        """Run every step; outputs as int64."""
        for step in self.plan.steps:
            if self.watch is not None:
                self._watched(step, self.watch)
            elif step.fused is not None:
                self._fused(step, step.fused)
            else:
                self._single(step.nodes[0])
            for name in step.ending:
                self.values.pop(name, None)
        outputs = {
            public: self.shown.get(name, self._integers(name)) for public, name in self.plan.phase.outputs.items()
        }
        return PhaseResult(outputs, self._counts() if self.count else {})

    def _integers(self, name: str) -> IntArray:
        from spiketrack_deploy.engines.sim_tensors import to_integers

        return to_integers(self.values[name], self.plan.held[name])

    def _arguments(self, node: Node) -> list[Tensor]:
        return [self.values[name] for name in node.op.inputs]

    def _keep(self, name: str, value: Tensor) -> None:
        self.values[name] = value
        if self.count and name in self.plan.counted:
            found = self.plan.census.take(name, value, self.table)
            if name in self.plan.by_class:
                self.by_class[name] = found

    def _observe(self, node: Node, arguments: Sequence[Tensor]) -> None:
        if self.count and node.counter.observe is not None:
            self.seen[node.op.name] = node.counter.observe(arguments, self.by_class)

    def _single(self, node: Node) -> None:
        arguments = self._arguments(node)
        # Even in place: what is overwritten is the second operand of an addition, and its counter reads the first.
        result = arguments[1].add_(arguments[0]) if node.in_place else node.kernel(*arguments)
        self._observe(node, arguments)
        self._keep(node.op.name, result)

    def _fused(self, step: Step, kernel: Kernel) -> None:
        first, neuron = step.nodes
        arguments = self._arguments(first)
        result = kernel(*arguments)
        self._observe(first, arguments)
        self._keep(neuron.op.name, result)

    def _watched(self, step: Step, watch: Watch) -> None:
        forced = False
        for node in step.nodes:
            arguments = self._arguments(node)
            if step.fused is not None and node is step.nodes[1] and not forced:
                value = step.fused(*self._arguments(step.nodes[0]))
            else:
                value = node.kernel(*arguments)
            self._observe(node, arguments)
            replacement = self._show(node.op, value, watch)
            forced = replacement is not None
            if replacement is not None and node.op.kind in ("ni_lif", "fire"):
                self.emitted[node.op.name] = int(np.count_nonzero(value.numpy())), int(value.sum())
            self._keep(node.op.name, value if replacement is None else replacement)

    def _show(self, op: Op, value: Tensor, watch: Watch) -> Tensor | None:
        """Hand a value to ``watch``; what it returns, if anything, is used from here on. Outputs stay as computed."""
        from spiketrack_deploy.engines.sim_tensors import to_integers, to_tensor

        held = self.plan.held[op.name]
        computed = to_integers(value, held)
        if op.name in self.plan.phase.outputs.values():
            self.shown[op.name] = computed
        replacement = watch(op, computed)
        return None if replacement is None else to_tensor(replacement, held)

    def _counts(self) -> dict[str, OpCounts]:
        """In the order of the phase. Where a watch replaced spikes, what the neurons emitted themselves is counted."""
        sums = self.plan.census.sums(self.table)
        counts = {name: finish(self.seen.get(name), sums) for name, finish in self.plan.finish.items()}
        for name, (spiking, total) in self.emitted.items():
            counts[name] = replace(counts[name], neuron_spiking=spiking, output_sum=total)
        return counts
