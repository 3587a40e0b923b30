"""Which Lava Processes a program becomes, and which channels join them.

This module decides the cut of a program into Processes: one per block of the network, serving every phase in which the
block occurs, and one per state. It must not know Lava, nor how an operation computes. Within one step (one phase) the
graph of Processes has no cycle, since no Process delays. A block that would close one is cut into consecutive segments
``block#1``, ``block#2``. A state, written in one phase and read in another, joins their modes. Where a phase reads and
writes it, it sends what it holds before it takes the new content: that loop runs through the state, never within a
step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import Op, Phase, Program

SOURCE, SINK = "source", "sink"
CHANNEL_SIZE = 2
"""Messages that a channel holds (Lava's default, 64, fills /dev/shm); a zero-latency step never has more than one."""
REPORT = "now:"
"""Prefix of the port on which a state tells the sink what it holds since it was rewritten."""
LOAD = "load"
"""Mode in which the source hands the states over: the caller reads another content than the one written last."""


@dataclass(frozen=True, slots=True)
class Port:
    """One message per step of one mode (a phase, or :data:`LOAD`): a value of the program, whole."""

    mode: str
    value: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A channel from one Process to another."""

    source: str
    target: str
    port: Port


@dataclass(frozen=True, slots=True)
class Plan:
    """Modes in their numbering, segments (name -> phase -> operations), states (name -> shape), channels."""

    modes: tuple[str, ...]
    segments: Mapping[str, Mapping[str, tuple[Op, ...]]]
    states: Mapping[str, tuple[int, ...]]
    wires: tuple[Wire, ...]

    @property
    def processes(self) -> tuple[str, ...]:
        """Names of all Processes: source, segments in execution order, states, sink."""
        return (SOURCE, *self.segments, *self.states, SINK)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of all channels: int32 values, in whole pages of 4 KiB."""
        return sum(-(-prod(w.port.shape) * 4 * CHANNEL_SIZE // 4096) * 4096 for w in self.wires)

    def inputs(self, process: str) -> tuple[Port, ...]:
        """Ports on which a Process receives, each once."""
        return tuple(dict.fromkeys(w.port for w in self.wires if w.target == process))

    def outputs(self, process: str) -> tuple[Port, ...]:
        """Ports on which a Process sends, each once (one port may feed several channels)."""
        return tuple(dict.fromkeys(w.port for w in self.wires if w.source == process))


def cyclic(edges: Iterable[tuple[str, str]]) -> set[str]:
    """Nodes on a cycle, or between two cycles, of a directed graph; empty where there is none."""
    left = set(edges)
    while True:
        sources, targets = {a for a, _ in left}, {b for _, b in left}
        kept = {(a, b) for a, b in left if a in targets and b in sources}
        if kept == left:
            return sources
        left = kept


def _block_edges(phase: Phase, place: Mapping[str, str]) -> set[tuple[str, str]]:
    pairs = ((place[i], place[op.name]) for op in phase.ops for i in op.inputs if i in place)
    return {(a, b) for a, b in pairs if a != b}


def segment_names(program: Program) -> dict[str, dict[str, str]]:
    """Phase -> operation -> name of its Process; names are shared by the phases.

    A block cut in one phase is numbered in all. EngineError where a cycle is left.
    """
    blocks = {b.name: {op.name: op.block for op in b.ops} for b in program.phases.values()}
    cut = {name for b in program.phases.values() for name in cyclic(_block_edges(b, blocks[b.name]))}
    reserved = {SOURCE, SINK, *(i for b in program.phases.values() for i in b.inputs)}
    result: dict[str, dict[str, str]] = {}
    for phase in program.phases.values():
        runs: dict[str, int] = {}
        previous, place = "", {}
        for op in phase.ops:
            if op.block != previous:
                runs[op.block] = runs.get(op.block, 0) + 1
            previous = op.block
            if op.block in cut:
                place[op.name] = f"{op.block}#{runs[op.block]}"
            else:
                place[op.name] = f"{op.block}#1" if op.block in reserved else op.block
        stuck = cyclic(_block_edges(phase, place))
        if stuck:
            raise EngineError(
                f"lava: Processes {sorted(stuck)} of the {phase.name} phase wait for one another; use the sim engine"
            )
        result[phase.name] = place
    return result


def _phase_wires(phase: Phase, place: Mapping[str, str], states: Mapping[str, tuple[int, ...]]) -> Iterable[Wire]:
    for op in phase.ops:
        for name in op.inputs:
            origin = place.get(name, name if name in states else SOURCE)
            if origin != place[op.name]:
                yield Wire(origin, place[op.name], Port(phase.name, name, tuple(phase.spec(name).shape)))
    for public, value in phase.outputs.items():
        port = Port(phase.name, value, tuple(phase.spec(value).shape))
        if public in states:
            yield Wire(place[value], public, port)
            yield Wire(public, SINK, Port(phase.name, REPORT + public, port.shape))
        else:
            yield Wire(place[value], SINK, port)


def make_plan(program: Program) -> Plan:
    """The Processes and channels of a program; EngineError where it cannot run as a network without delays."""
    places = segment_names(program)
    states = {name: state.spec.shape for name, state in program.states.items()}
    segments: dict[str, dict[str, tuple[Op, ...]]] = {}
    # The longest phase visits almost every block: its order is the order of the network.
    for phase in sorted(program.phases.values(), key=lambda b: -len(b.ops)):
        for op in phase.ops:
            work = segments.setdefault(places[phase.name][op.name], {})
            work[phase.name] = (*work.get(phase.name, ()), op)
    wires = [Wire(SOURCE, name, Port(LOAD, name, shape)) for name, shape in states.items()]
    for phase in program.phases.values():
        wires += _phase_wires(phase, places[phase.name], states)
    return Plan((LOAD, *program.phases), segments, states, tuple(dict.fromkeys(wires)))
