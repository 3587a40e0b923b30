"""A NIR network as plain data: for ``spiketrack inspect``, the bundle and a drawing.

Decides what is said of a network. Must not know terminals, pages or integers.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from spiketrack_deploy.frontends.nir.build import Read
from spiketrack_deploy.frontends.nir.network import SYNAPTIC, Node
from spiketrack_deploy.frontends.nir.suggest import marks

MAX_LISTED = 2000


def outline(read: Read) -> dict[str, Any]:
    """JSON-ready: counts, nodes in execution order with shapes and parameter ranges, edges, which are back, remarks."""
    network = read.network
    nodes = list(network.nodes.values())
    return {
        "version": network.metadata.get("nir", ""),
        "kinds": dict(sorted(Counter(node.kind for node in nodes).items())),
        "inputs": {name: list(network.nodes[name].shape) for name in network.inputs},
        "outputs": {name: list(network.nodes[name].shape) for name in network.outputs},
        "neurons": sum(math.prod(network.nodes[name].shape) for name in network.neurons),
        "weights": sum(node.array("weight").size for node in nodes if "weight" in node.params),
        "synapses": sum(synapses(node) for node in nodes),
        "nodes": [describe_node(node) for node in nodes[:MAX_LISTED]],
        "edges": [[edge.source, edge.target] for edge in network.edges],
        "back_edges": [[edge.source, edge.target] for edge in network.back_edges],
        "suggests": [{"convention": mark.preset, "why": mark.why} for mark in marks(network)],
        "diagnostics": [one.to_dict() for one in read.diagnostics],
        "metadata": {key: value for key, value in network.metadata.items() if key != "nir"},
    }


def synapses(node: Node) -> int:
    """Connections of a node as a dense layer: outputs times inputs of each (borders not subtracted)."""
    if node.kind not in SYNAPTIC:
        return 0
    weight = node.array("weight")
    return weight.size * (math.prod(node.shape[1:]) if node.kind.startswith("Conv") else 1)


def describe_node(node: Node) -> dict[str, Any]:
    """Name, kind, shapes, and the range of every parameter."""
    said: dict[str, Any] = {"name": node.name, "kind": node.kind, "in": list(node.in_shape), "out": list(node.shape)}
    for key, value in node.params.items():
        if isinstance(value, np.ndarray):
            low, high = float(value.min()), float(value.max())
            said[key] = low if low == high else [low, high]
        else:
            said[key] = list(value) if isinstance(value, tuple) else value
    return said
