"""Small drawn networks for the tests of nir_graph: every stage kind, two or three steps, few channels."""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.nir_graph.graph import Cut, Graph, Node
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state

WALK = (
    "downsample1_1",
    "ConvBlock1_1.0",
    "downsample1_2",
    "mrm.0",
    "downsample2",
    "downsample3",
    "mrm.2",
    "block3.0",
)
TINY = TrackerConfig("tiny", (8, 8, 16, 16), 32, 2, 8, heads=4, walk=WALK, sep_expansion=1, mlp_expansion=2)
SINGLE = TrackerConfig("single", (8, 8, 16, 16), 32, 1, 8, heads=4, walk=WALK[:-1], value_ratio=2, attention_gain=3.0)
THREE = TrackerConfig("three", (16, 16, 16, 32), 64, 3, 16, heads=8)


def state_of(config: TrackerConfig) -> dict[str, np.ndarray]:
    """Drawn weights of ``config`` (norms are the identity), keyed as the tracker's state dict."""
    from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

    shapes = {key: tuple(value.shape) for key, value in SpikeTrack(config).state_dict().items()}
    return draw_state(config.name, shapes)


def graph_of(config: TrackerConfig) -> tuple[Graph, list[Cut]]:
    return build_graph(state_of(config), config)


def with_node(graph: Graph, name: str, **params: object) -> Graph:
    """The graph with some parameters of one node replaced."""
    old = graph.nodes[name]
    node = Node(old.kind, {**old.params, **params})
    return Graph({**graph.nodes, name: node}, list(graph.edges), dict(graph.metadata))


def images(config: TrackerConfig, steps: int, seed: int) -> np.ndarray:
    """uint8 [steps,3,r,r] of blocky noise, so that neighbouring pixels are related."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (steps, 3, config.resolution // 4, config.resolution // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)
