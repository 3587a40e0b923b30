"""A network of stock Lava Processes as data: nodes, what they send, edges, and the files that say so.

This module decides the data and the form of ``network.json``. It must not know operations, nor Lava.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.program.types import AnyArray

CONNECTIONS = ("Conv", "Dense", "Sparse", "DelaySparse")
"""Processes that take a step."""


@dataclass
class Node:
    """A Process. ``ops``: what it computes; ``reason``: why it is an own one; ``shape``: CHW of its output."""

    name: str
    process: str
    ops: tuple[str, ...]
    shape: tuple[int, ...]
    params: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    reason: str = ""

    @property
    def delay(self) -> int:
        """Steps from input to output."""
        return int(self.process in CONNECTIONS)


@dataclass(frozen=True)
class End:
    """What a Process sends, through reshapes. ``back``: steps that it is older than the reader's other inputs."""

    node: str
    shape: tuple[int, ...]
    out: str = ""
    views: tuple[tuple[int, ...], ...] = ()
    back: int = 0


@dataclass
class Edge:
    """From an end (or, ``node`` empty, the input ``out``) to a port of a Process."""

    end: End
    target: str
    port: str


@dataclass(frozen=True)
class StockPlan:
    """``values``: value of the program -> what adds up to it; only these can be seen. ``latency``: its steps."""

    phase: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    values: Mapping[str, tuple[End, ...]]
    latency: Mapping[str, int]
    static: bool
    depth: Mapping[str, int]

    def visible(self) -> list[str]:
        """Values that can be read: whose parts leave their Processes at one step. What is summed in its reader's port
        from ways of different length exists there alone."""
        found = []
        for name, ends in self.values.items():
            steps = {self.out(e) for e in ends if e.node and self.nodes[e.node].process != "RingBuffer"}
            if ends and all(e.node for e in ends) and (self.static or (len(steps) == 1 and self.latency[name] >= 0)):
                found.append(name)
        return found

    def out(self, end: End) -> int:
        """Steps after the input at which an end has its value."""
        return self.depth[end.node] + self.nodes[end.node].delay - end.back

    def rows(self) -> list[dict[str, str]]:
        """Table of the report: operations, Process, reason of an own one."""
        return [
            {"operations": ", ".join(n.ops) or n.name, "process": n.process, "reason": n.reason}
            for n in self.nodes.values()
        ]

    def to_files(self) -> tuple[dict[str, Any], dict[str, AnyArray]]:
        """``network.json`` and the arrays beside it."""
        arrays: dict[str, AnyArray] = {}
        nodes = []
        for node in self.nodes.values():
            keys = {role: f"{node.name}:{role}" for role in node.arrays}
            arrays.update({keys[role]: array for role, array in node.arrays.items()})
            nodes.append({"name": node.name, "process": node.process, "params": node.params, "arrays": keys,
                          "operations": list(node.ops), "reason": node.reason})  # fmt: skip
        inner = [self._edge(e) | {"target": e.target, "port": e.port} for e in self.edges if e.end.node]
        inputs: dict[str, list[dict[str, Any]]] = {}
        for e in self.edges:
            if not e.end.node:
                inputs.setdefault(e.end.out, []).append(
                    {"target": e.target, "port": e.port, "views": [list(v) for v in e.end.views]}
                )
        values = {
            name: [self._edge(Edge(end, "", "")) for end in ends]
            for name, ends in self.values.items()
            if all(e.node for e in ends)
        }
        document = {"schema": "spiketrack-lava/1", "phase": self.phase, "nodes": nodes, "edges": inner,
                    "inputs": inputs,
                    "values": values, "latency": dict(self.latency)}  # fmt: skip
        return document, arrays

    @staticmethod
    def _edge(edge: Edge) -> dict[str, Any]:
        return {
            "source": edge.end.node,
            "out": edge.end.out,
            "shape": list(edge.end.shape),
            "views": [list(v) for v in edge.end.views],
        }


def maps(views: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(v for v in views if len(v) == 3)


class LoopError(EngineError):
    """A loop holds more connections than steps; ``connections``: which."""

    def __init__(self, connections: list[str]) -> None:
        super().__init__(
            f"lava, stock Processes: the loop through {', '.join(connections)} takes more steps than the program's"
        )
        self.connections = connections
