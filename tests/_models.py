"""Small trackers with drawn weights and what they did on drawn pictures, for tests of the lowering and behind it."""

from __future__ import annotations

import functools

import numpy as np
import torch

from spiketrack_deploy.engines.float_parity import Recording
from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.frontends.spiketrack.source import ObservedTracker
from spiketrack_deploy.lowering.calibrate import Calibration
from spiketrack_deploy.lowering.lower import LoweringResult, lower
from spiketrack_deploy.nir_graph.graph import Cut, Graph
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

FULL_WALK = TrackerConfig.official("s256_t1").walk
SHORT_WALK = (
    "downsample1_1",
    "ConvBlock1_1.0",
    "downsample1_2",
    "mrm.0",
    "downsample2",
    "downsample3",
    "mrm.2",
    "block3.0",
)


def tiny_config(templates: int = 1, walk: tuple[str, ...] = SHORT_WALK, **changes: object) -> TrackerConfig:
    """A tracker of 48-pixel crops with the smallest widths that eight heads allow."""
    base = TrackerConfig.official("s256_t1").to_dict()
    base |= {
        "name": f"tiny_t{templates}",
        "dims": (8, 16, 16, 24),
        "resolution": 48,
        "templates": templates,
        "head_width": 16,
        "walk": walk,
    }
    return TrackerConfig.from_dict(base | changes)


def picture(seed: int, side: int) -> np.ndarray:
    """A smooth colour picture uint8 [3, side, side] with a full range of values."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(3, side // 8 + 2, side // 8 + 2))
    image = np.kron(coarse, np.ones((8, 8)))[:, :side, :side] + 0.4 * rng.normal(size=(3, side, side))
    low, high = image.min(), image.max()
    return np.rint(255 * (image - low) / (high - low)).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def tiny_model(config: TrackerConfig) -> SpikeTrack:
    """Drawn weights; batch norms get the statistics of drawn pictures, so that every layer fires."""
    torch.manual_seed(0)
    model = SpikeTrack(config)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.as_tensor(value) for key, value in draw_state(config.name, shapes).items()})
    return model.double().eval()


@functools.lru_cache(maxsize=8)
def tiny_graph(config: TrackerConfig):
    state = {key: value.numpy() for key, value in tiny_model(config).state_dict().items()}
    return build_graph(state, config)


def record_runs(model: SpikeTrack, templates: list[np.ndarray], searches: list[np.ndarray]) -> list[Recording]:
    """The float64 tracker on template crops uint8 [T,3,r,r] and search crops uint8 [1,3,r,r], pair by pair."""
    network = ObservedTracker(model)
    runs = []
    for template, search in zip(templates, searches, strict=True):
        with network.observing() as spikes:
            network.set_templates([crop.transpose(1, 2, 0) for crop in template])
        runs.append(Recording("template", {"image": template}, spikes))
        with network.observing() as spikes:
            network.search(search[0].transpose(1, 2, 0))
        runs.append(Recording("search", {"image": search, **network.states()}, spikes))
    return runs


def calibration_of(runs: list[Recording]) -> Calibration:
    """The same runs as the lowering takes them."""
    return {
        phase: [{"image": r.inputs["image"], **r.spikes} for r in runs if r.phase == phase]
        for phase in ("template", "search")
    }


def lower_graph(graph: Graph, cuts: list[Cut], calibration: Calibration | None = None) -> LoweringResult:
    """Graph and cuts all the way to integers."""
    return lower(recognise(graph, cuts)[0], calibration)


def tiny_runs(config: TrackerConfig, count: int = 2) -> list[Recording]:
    """``count`` pairs of template and search pictures through the float64 tracker."""
    side = config.resolution
    templates = [np.stack([picture(10 * i + t, side) for t in range(config.templates)]) for i in range(count)]
    searches = [picture(100 + i, side)[None] for i in range(count)]
    return record_runs(tiny_model(config), templates, searches)
