"""Steps between stock Processes: where two ways meet, what waits, when a value is right.

This module decides delays. It must not know operations, nor Lava. A connection takes a step, everything else none.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from spiketrack_deploy.engines.stock_nodes import Edge, End, LoopError, Node, StockPlan, maps
from spiketrack_deploy.errors import EngineError


class Wiring:
    """Nodes, edges and values so far. ``static``: nothing is remembered, so that an input is held still.
    ``writers``: state -> the value that it holds a step later."""

    def __init__(self, static: bool, writers: Mapping[str, str]) -> None:
        self.static, self.writers = static, writers
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.values: dict[str, list[End]] = {}

    def add(self, node: Node) -> Node:
        """Take up a Process."""
        self.nodes[node.name] = node
        return node

    def finish(self, phase: str) -> StockPlan:
        """States resolved, delays matched."""
        self.edges = [e for edge in self.edges for e in self._resolved(edge)]
        self.values = {n: [x for end in ends for x in self._sources(end)] for n, ends in self.values.items()}
        depth = dict.fromkeys(self.nodes, 0)
        if not self.static:
            depth = self._depths()
            self._pad(depth)
        latency = {
            name: max(
                (depth[e.node] + self.nodes[e.node].delay - e.back for e in ends if e.node and self._timed(e.node)),
                default=0,
            )
            for name, ends in self.values.items()
        }
        if self.static:
            latency = self._settled()
        for node in self.nodes.values():
            if node.process == "LIFReset":
                node.params["start"] = depth[node.name] + 1
            if node.process == "Own":
                node.params["first"] = depth[node.name] + 1 if not self.static else 1
        values = {name: tuple(ends) for name, ends in self.values.items()}
        return StockPlan(phase, self.nodes, tuple(self.edges), values, latency, self.static, depth)

    def _sources(self, end: End) -> list[End]:
        """The ends of the value that a state holds."""
        if not end.out.startswith("state:"):
            return [end]
        value = self.writers[end.out.removeprefix("state:")]
        found = self.values.get(value)
        if found is None:
            raise EngineError(f"lava, stock Processes: {value}, read one step later, lies inside another Process")
        return [
            End(e.node, e.shape, e.out, (*e.views, *end.views), e.back + end.back)
            for e in found
            for e in self._sources(e)
        ]

    def _resolved(self, edge: Edge) -> list[Edge]:
        return [Edge(end, edge.target, edge.port) for end in self._sources(edge.end)]

    def _timed(self, node: str) -> bool:
        """A constant is the same at every step."""
        return self.nodes[node].process != "RingBuffer"

    def _length(self, edge: Edge) -> int:
        return (self.nodes[edge.end.node].delay if edge.end.node else 0) - edge.end.back

    def _depths(self) -> dict[str, int]:
        """Steps after which a Process has its inputs together: the longest way."""
        # A connection that reads the step before answers within the step.
        depth = {name: -node.delay for name, node in self.nodes.items()}
        timed = [e for e in self.edges if not e.end.node or self._timed(e.end.node)]
        for _ in range(len(self.nodes) + 1):
            grown = None
            for edge in timed:
                least = (depth[edge.end.node] if edge.end.node else 0) + self._length(edge)
                if least > depth[edge.target]:
                    depth[edge.target], grown = least, edge
            if grown is None:
                return depth
        assert grown is not None
        raise LoopError(self._loop(timed, depth))

    def _loop(self, timed: list[Edge], depth: Mapping[str, int]) -> list[str]:
        """Connections on a loop that gains time."""
        highest = max(depth, key=lambda n: depth[n])
        seen: list[str] = []
        while highest not in seen:
            seen.append(highest)
            into = [e for e in timed if e.target == highest and e.end.node]
            highest = max(into, key=lambda e: depth[e.end.node] + self._length(e)).end.node
        return [n for n in seen[seen.index(highest) :] if self.nodes[n].delay]

    def _pad(self, depth: Mapping[str, int]) -> None:
        """One-to-one delays on the shorter ways."""
        edges, made = [], dict[tuple[Any, ...], End]()
        for edge in self.edges:
            end = edge.end
            slack = (
                depth[edge.target] - ((depth[end.node] if end.node else 0) + self._length(edge))
                if not end.node or self._timed(end.node)
                else 0
            )
            if slack:
                shape = (
                    *(s for s in end.views[-1:] if len(s) == 3),
                    *(v for v in end.views[-2:-1] if len(v) == 3),
                    end.shape,
                )[0]
                key = (end, slack)
                if key not in made:
                    made[key] = self._waiting(end, shape, slack, depth)
                    edges.append(
                        Edge(
                            End(end.node, end.shape, end.out, (*maps(end.views), (prod(shape),)), end.back),
                            made[key].node,
                            "s_in",
                        )
                    )
                tail = tuple(v for v in end.views[-1:] if len(v) == 1)
                edge = Edge(End(made[key].node, shape, "a_out", tail), edge.target, edge.port)
            edges.append(edge)
        self.edges = edges

    def _waiting(self, end: End, shape: tuple[int, ...], slack: int, depth: Mapping[str, int]) -> End:
        if slack > 63:
            raise EngineError(
                f"lava, stock Processes: a value of {end.node or end.out} waits {slack} steps; DelaySparse holds 63"
            )
        name = f"wait{slack}.{end.node or end.out}.{len(self.nodes)}"
        steps = np.full(shape, slack - 1, dtype=np.int64)
        self.add(Node(name, "DelaySparse", (), shape, {}, {"steps": steps}))
        return End(name, shape, "a_out")

    def _settled(self) -> dict[str, int]:
        """Steps after which a still input has reached everything, by value."""
        depth = dict.fromkeys(self.nodes, 0)
        grown = True
        while grown:
            grown = False
            for edge in self.edges:
                least = depth[edge.end.node] + self.nodes[edge.end.node].delay if edge.end.node else 0
                if least > depth[edge.target]:
                    depth[edge.target], grown = least, True
        return {
            n: max((depth[e.node] + self.nodes[e.node].delay for e in ends if e.node), default=0)
            for n, ends in self.values.items()
        }
