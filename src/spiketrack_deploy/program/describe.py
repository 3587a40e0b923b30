"""What a program consists of, as plain numbers.

This module decides what is counted for ``spiketrack inspect`` and the report's first section. It must not run anything,
and needs NumPy alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from spiketrack_deploy.program.bounds import RangeEntry, prove_ranges
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.types import Op, Phase, Program


def has_neurons(op: Op) -> bool:
    """Whether an operation's output is one neuron an element: it fires, or it is a membrane that is read out."""
    return op.kind in ("ni_lif", "fire", "change") or (op.kind == "integrate" and bool(op.attrs["readout"]))


def describe_phase(program: Program, phase: Phase) -> dict[str, Any]:
    """Operations by kind, blocks in order, neurons (elements that fire or are read out, all time steps), memory words
    read or written."""
    neurons = sum(phase.values[op.name].size for op in phase.ops if has_neurons(op))
    return {
        "operations": len(phase.ops),
        "by_kind": dict(sorted(Counter(op.kind for op in phase.ops).items())),
        "blocks": list(dict.fromkeys(op.block for op in phase.ops)),
        "links": links(phase),
        "neurons": neurons,
        "memory_words_in": sum(spec.size for name, spec in phase.inputs.items() if name in program.states),
        "memory_words_out": sum(phase.spec(v).size for k, v in phase.outputs.items() if k in program.states),
        "inputs": {name: list(spec.shape) for name, spec in phase.inputs.items()},
        "outputs": {name: list(phase.spec(value).shape) for name, value in phase.outputs.items()},
    }


def links(phase: Phase) -> list[dict[str, Any]]:
    """Which block reads of which: ``from`` (a block, or the name of an input), ``to``, and ``reads``: pairs of the
    operation that reads and the kind of value. In execution order; within a block nothing is listed."""
    block = {op.name: op.block for op in phase.ops}
    found: dict[tuple[str, str], list[list[str]]] = {}
    for op in phase.ops:
        for name in op.inputs:
            source = block.get(name, name)
            if source != op.block:
                found.setdefault((source, op.block), []).append([op.name, phase.spec(name).kind])
    return [{"from": source, "to": target, "reads": reads} for (source, target), reads in found.items()]


def describe_weights(program: Program) -> dict[str, int]:
    """Weights of the whole program, shared ones once: how many, how many of them zero."""
    keys = {op.arrays["weight"] for phase in program.phases.values() for op in phase.ops if OP_TABLE[op.kind].weighted}
    return {
        "weights": sum(int(program.arrays[key].size) for key in keys),
        "zero_weights": sum(int((program.arrays[key] == 0).sum()) for key in keys),
        "weight_arrays": len(keys),
    }


def describe_program(program: Program) -> dict[str, Any]:
    """The whole program: phases, weights, tracker configuration."""
    return {
        "phases": {name: describe_phase(program, phase) for name, phase in program.phases.items()},
        **describe_weights(program),
        "config": program.meta["workload"]["tracker"] if "workload" in program.meta else None,
    }


def describe_ranges(ranges: Mapping[str, Sequence[RangeEntry]]) -> dict[str, list[dict[str, Any]]]:
    """Worst case and headroom in bits of every operation, as JSON data."""
    return {
        phase: [{"op": e.op, "low": e.low, "high": e.high, "margin_bits": round(e.margin_bits, 3)} for e in entries]
        for phase, entries in ranges.items()
    }


def range_margins(program: Program) -> dict[str, list[dict[str, Any]]]:
    """:func:`describe_ranges` of a fresh range proof."""
    return describe_ranges(prove_ranges(program))


def tightest(ranges: Mapping[str, Sequence[Mapping[str, Any]]], count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """The ``count`` operations with the least headroom: (phase, entry)."""
    found = [(phase, entry) for phase, entries in ranges.items() for entry in entries]
    return sorted(found, key=lambda item: (item[1]["margin_bits"], item[0], item[1]["op"]))[:count]
