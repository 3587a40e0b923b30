"""SPMTrack on a processor: frames per second against a straight implementation; int8 and bfloat16 against float32.

    python benchmarks/spmtrack_speed.py [--size spmtrack_b] [--frames 3] [--threads 1] [--data DATASET]

Weights are drawn; the frames are noise, so boxes mean nothing and times do not depend on them. *Straight*: every
reference embedded in every frame, q, k, v and four experts one by one with their outputs added up, attention written
out, PyTorch's own products. Every variant follows the same frames through the loop, crops included; variants take turns
frame by frame in drawn order, and medians are printed. Memory is the largest resident set of the whole process.

Then what int8 and bfloat16 cost in accuracy, on the bundled spmtrack-micro, whose weights are trained: against float32
on the same crops and where each follows its own boxes through the bundled clip; with --data also the scores of
`spiketrack evaluate` on the sequences there (--eval-frames of each), with paired differences.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from spiketrack_deploy import api
from spiketrack_deploy.bundle.dense_parity import Beside
from spiketrack_deploy.cli.evaluate import summary
from spiketrack_deploy.inputs.sources import find_frames, find_source
from spiketrack_deploy.trackers.opening import open_dense
from spiketrack_deploy.trackers.spmtrack import counts
from spiketrack_deploy.trackers.spmtrack.checkpoint import draw_backbone
from spiketrack_deploy.trackers.spmtrack.config import SpmConfig
from spiketrack_deploy.trackers.spmtrack.fast import FastNetwork, bf16_product, float_product
from spiketrack_deploy.trackers.spmtrack.int8 import Ranges
from spiketrack_deploy.trackers.spmtrack.model import activation
from spiketrack_deploy.trackers.spmtrack.torch_network import SpmNetwork, box_maps, foreground_mask
from spiketrack_deploy.tracking import runs
from spiketrack_deploy.tracking.boxes import overlaps
from spiketrack_deploy.tracking.reference_loop import ReferenceTracker
from spiketrack_deploy.tracking.video import open_frames

MICRO = "spmtrack-micro"


class Straight(SpmNetwork):
    """As one would write the paper down."""

    def reference(self, crop: Any, cells: Any) -> Any:
        return crop, cells

    def search(self, crop: Any, references: Any, state: Any) -> Any:
        with torch.inference_mode():
            model = self.model
            tokens = []
            for template, cells in references:
                mask = foreground_mask(cells, self.config.template_grid)
                tokens.append(model.embed_template(self.image(template, self.config.template), mask))
            tokens.append(model.embed_search(self.image(crop, self.config.search)))
            x = torch.cat([model.query(state), *tokens], 1)
            for block in model.blocks:
                x = x + block.ls1(attention(block.attn, block.norm1(x)))
                mlp, y = block.mlp, block.norm2(x)
                inner = activation(layer(getattr(mlp, mlp.first), y), mlp.gated)
                x = x + block.ls2(layer(getattr(mlp, mlp.second), inner))
            return box_maps(model.decode(model.norm(x)))[0]


def layer(module: Any, x: Any) -> Any:
    """Frozen layer plus four experts, one after the other."""
    experts = module.tmoe
    gate, hidden = experts.expert_route(x).softmax(-1), x @ experts.compress_expert.mT
    mixed = sum(gate[..., i : i + 1] * functional.linear(hidden, b) for i, b in enumerate(experts.routed_experts))
    return module.linear(x) + experts.scale * mixed


def attention(module: Any, x: Any) -> Any:
    q, k, v = (layer(module.qkv[n], x).unflatten(-1, (module.heads, -1)).transpose(1, 2) for n in "qkv")
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return layer(module.proj, (weights @ v).transpose(1, 2).flatten(2))


class Timed:
    """Adds up the seconds of products, of the expert layers alone."""

    def __init__(self, make: Any) -> None:
        self._make, self.seconds = make, 0.0

    def product(self, name: str, weight: Any, bias: Any) -> Any:
        run = self._make(name, weight, bias)

        def timed(x: Any) -> Any:
            begin = time.perf_counter()
            made = run(x)
            self.seconds += time.perf_counter() - begin
            return made

        return timed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="spmtrack_b")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--eval-frames", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = SpmConfig.official(options.size)
    model, generator = draw_backbone(config, 1), np.random.default_rng(1)
    frames = [generator.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(options.frames + 2)]
    ranges = Ranges()
    observed = FastNetwork(model, ranges.observe)
    follow(observed, frames[:3])
    del observed
    clocks = {"float32": Timed(float_product), "bf16": Timed(bf16_product), "int8": Timed(ranges.product)}
    networks: dict[str, Any] = {"straight": Straight(model, torch.float32)}
    networks |= {name: FastNetwork(model, clock.product) for name, clock in clocks.items()}
    trackers = {name: ReferenceTracker(network) for name, network in networks.items()}
    for tracker in trackers.values():
        tracker.init(frames[0], (300, 200, 60, 50))
        tracker.track(frames[1])
    seconds: dict[str, list[float]] = {name: [] for name in trackers}
    linear: dict[str, list[float]] = {name: [] for name in clocks}
    order = random.Random(1)
    for frame in frames[2:]:
        for name in order.sample(list(trackers), len(trackers)):
            for clock in clocks.values():
                clock.seconds = 0.0
            begin = time.perf_counter()
            trackers[name].track(frame)
            seconds[name].append(time.perf_counter() - begin)
            if name in clocks:
                linear[name].append(clocks[name].seconds)
    report(config, seconds, linear)
    del trackers, networks, model
    accuracy(options.data, options.eval_frames)


def report(config: SpmConfig, seconds: dict[str, list[float]], linear: dict[str, list[float]]) -> None:
    macs = sum(one.macs for one in counts.frame_layers(config))
    base = statistics.median(seconds["straight"])
    print(f"{config.name}: {macs / 1e9:.1f} GMAC a frame, {torch.get_num_threads()} thread(s)")
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:10s} {median:7.3f} s a frame  {1 / median:6.3f} frames/s  {base / median:5.2f} x straight")
    products = {name: statistics.median(times) for name, times in linear.items()}
    for name in ("bf16", "int8"):
        times = f"float32 {products['float32']:.3f} s, {name} {products[name]:.3f} s"
        print(f"linear layers alone: {times}: {products['float32'] / products[name]:.2f} x")
    print(
        f"largest resident set {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, all variants held"
    )


def accuracy(data: Path | None, frames: int | None) -> None:
    """Other precisions against float32, on the bundled model."""
    model, clip = open_dense(find_source(MICRO).path), find_frames(None, None, None)

    def boxes(network: Any) -> list[Any]:
        return [one.box for one in runs.follow(network, open_frames(clip.path), clip.init, "", None)]

    own = {engine: boxes(model.network(engine)) for engine in ("float", "bf16", "int8")}
    for engine in ("bf16", "int8"):
        pair = Beside(model.network(), model.network(engine))
        boxes(pair)
        found, apart = pair.found(), overlaps(own["float"], own[engine])
        score, overlap = (100 * found[f"same_crops_{key}"] for key in ("score", "overlap"))
        print(
            f"{MICRO}, {len(apart)} frames, {engine} against float32: scores {score:.2f} % of their spread apart, boxes"
        )
        print(f"overlap by {overlap:.2f} % on the same crops, by {100 * apart.mean():.1f} % where each follows its own")
    if data is not None:
        names = [f"{MICRO}@{engine}" for engine in own]
        with tempfile.TemporaryDirectory() as folder:
            summary(api.evaluate(names, data, max_frames=frames, profile="cmos45_int8", out=Path(folder) / "scores"))


def follow(network: Any, frames: Any) -> None:
    tracker = ReferenceTracker(network)
    tracker.init(frames[0], (300, 200, 60, 50))
    for frame in frames[1:]:
        tracker.track(frame)


if __name__ == "__main__":
    main()
