"""In which order a flat graph runs, and which of its edges carry the value of the step before.

Decides both from names and edges alone, so that the same graph always reads the same. NIR has no order; the rule:

1. Walk the graph depth first from its Input nodes in order of name, along edges in the order of the file. An edge to a
   node that is still open on the way closes a cycle.
2. That edge is moved back to the nearest neurons or Delays of the cycle, as long as no node in between has a further
   reader: so ``lif -> w -> lif`` costs one step between ``lif`` and ``w``, and a bias of ``w`` acts from step 0.
3. A cycle without a neuron or Delay is an algebraic loop and refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from spiketrack_deploy.frontends.nir.network import STATEFUL

Edges = Sequence[tuple[str, str]]


class AlgebraicLoop(Exception):
    """A cycle without memory; ``args[0]``: its nodes."""


def order(kinds: Mapping[str, str], edges: Edges) -> tuple[list[str], set[tuple[str, str]]]:
    """Names in execution order, and the edges that are back. ``kinds``: node -> kind. Raises AlgebraicLoop."""
    _refuse_loops(kinds, edges)
    back = back_edges(kinds, edges)
    needs: dict[str, list[str]] = {name: [] for name in sorted(kinds)}
    for source, target in edges:
        if (source, target) not in back:
            needs[target].append(source)
    try:
        return list(TopologicalSorter(needs).static_order()), back
    except CycleError as error:  # the walk closes every cycle it meets: this would be a bug
        raise AssertionError(f"a cycle was left open: {error.args[1]}") from error


def _refuse_loops(kinds: Mapping[str, str], edges: Edges) -> None:
    needs: dict[str, list[str]] = {name: [] for name in kinds}
    for source, target in edges:
        if kinds[source] not in STATEFUL and kinds[target] not in STATEFUL:
            needs[target].append(source)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise AlgebraicLoop(error.args[1][::-1]) from None


def back_edges(kinds: Mapping[str, str], edges: Edges) -> set[tuple[str, str]]:
    """The edges that rule 1 and 2 of this module's text choose."""
    into: dict[str, list[str]] = {name: [] for name in kinds}
    out: dict[str, list[str]] = {name: [] for name in kinds}
    for source, target in edges:
        into[target].append(source)
        out[source].append(target)
    closing = _closing(kinds, out)
    back: set[tuple[str, str]] = set()
    for source, target in closing:
        back |= _pulled(source, target, kinds, into, out)
    return back


def _closing(kinds: Mapping[str, str], out: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Edges to a node that is open on the way of the walk (without recursion: a network may be deep)."""
    found: list[tuple[str, str]] = []
    state: dict[str, int] = {}
    roots = [name for name in sorted(kinds) if kinds[name] == "Input"]
    for root in [*roots, *sorted(kinds)]:
        if root in state:
            continue
        state[root] = 1
        trail = [(root, iter(out[root]))]
        while trail:
            name, rest = trail[-1]
            for target in rest:
                if state.get(target) == 1:
                    found.append((name, target))
                elif target not in state:
                    state[target] = 1
                    trail.append((target, iter(out[target])))
                    break
            else:
                state[name] = 2
                trail.pop()
    return found


def _pulled(
    source: str,
    target: str,
    kinds: Mapping[str, str],
    into: Mapping[str, Sequence[str]],
    out: Mapping[str, Sequence[str]],
) -> set[tuple[str, str]]:
    """The closing edge moved against its direction, through nodes without state whose only reader it is, to the edges
    of its cycles that leave neurons or Delays; itself where that is not possible."""
    cycle = _reached(target, out)
    ends, seen, waiting = set[tuple[str, str]](), {source}, [(source, target)]
    while waiting:
        name, reader = waiting.pop()
        if kinds[name] in STATEFUL:
            ends.add((name, reader))
            continue
        if len(out[name]) != 1:
            return {(source, target)}
        for before in into[name]:
            if before in cycle and (before not in seen or kinds[before] in STATEFUL):
                seen.add(before)
                waiting.append((before, name))
    return ends


def _reached(start: str, out: Mapping[str, Sequence[str]]) -> set[str]:
    seen, waiting = {start}, [start]
    while waiting:
        for target in out[waiting.pop()]:
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen
