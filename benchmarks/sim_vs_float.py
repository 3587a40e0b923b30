"""Time of one search frame: the exact simulator against the same network in float32, by PyTorch and by ONNX Runtime.

    python benchmarks/sim_vs_float.py --config NAME [--threads N] [--frames N] [--clock wall|cpu] [--json]

Builds the seeded model of an official configuration, writes it as a NIR graph in memory, lowers that to a program
(without calibration frames, which change exponents and not speed) and runs everything on the same crops, frame by frame
in drawn turns, so that a busy machine slows all alike and nobody always finds the caches as the same other left them.
ONNX Runtime runs the float32 network as PyTorch exports it, once. The floor is the program's convolutions alone, with
the kernels and the spikes that the simulator gives them: what a frame would take if nothing else cost anything.
Medians, ratios, the share of counting and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from spiketrack_deploy.engines.sim import SimEngine  # noqa: E402
from spiketrack_deploy.engines.sim_tensors import to_tensor  # noqa: E402
from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.compile import compile  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.make_untrained import dead_leaves, make_untrained  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack  # noqa: E402
from spiketrack_deploy.tracking.pixels import normalise  # noqa: E402

WARM = 3
LABELS = {
    "float32": "float32, PyTorch",
    "onnx_float32": "float32, ONNX Runtime",
    "sim": "sim, counted",
    "sim_uncounted": "sim, not counted",
    "int8_convolutions": "its convolutions alone",
}


CLOCKS = {"wall": perf_counter, "cpu": process_time}


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    start = clock()
    call()
    return clock() - start


class _Search(torch.nn.Module):
    """The search branch as a module of positional tensors, which is what ONNX can say."""

    def __init__(self, model: SpikeTrack, memories: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self.model, self.keys = model, list(memories)

    def forward(self, image: torch.Tensor, *memories: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.model.search_branch(image, dict(zip(self.keys, memories)))
        return maps.ctr_logits, maps.offset, maps.size_logits


def onnx_search(
    model: SpikeTrack, image: torch.Tensor, memories: Mapping[int, torch.Tensor], threads: int
) -> Callable[[torch.Tensor], list[Any]]:
    """The float32 search branch on ONNX Runtime; its logits are looked at before it is timed."""
    names = ["image", *(f"memory.{key}" for key in memories)]
    held = [image.clone(), *(value.clone() for value in memories.values())]
    file = io.BytesIO()
    search = _Search(model, memories).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # shapes are constants here, which is what the tracer warns about
        torch.onnx.export(search, tuple(held), file, opset_version=18, dynamo=False, input_names=names)
        expected = [value.numpy() for value in search(*held)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    feed = dict(zip(names, (value.numpy() for value in held)))
    for found, value in zip(session.run(None, feed), expected):
        # Another order of summation flips single spikes, which drawn weights amplify: only the size can be compared.
        if found.shape != value.shape or not 0.8 < found.std() / value.std() < 1.25:
            raise SystemExit("ONNX Runtime's logits are not of the size of PyTorch's; its time would mean nothing")
    return lambda crop: session.run(None, feed | {"image": crop.numpy()})


def convolutions(engine: SimEngine, inputs: Mapping[str, np.ndarray]) -> Callable[[], None]:
    """Every convolution of the search phase on the spikes of one frame, as the engine runs it (its neuron fused)."""
    plan = engine.plan("search")
    seen = dict(inputs)

    def watch(op: Any, value: np.ndarray) -> None:
        seen[op.name] = value

    engine.run("search", inputs, count=False, watch=watch)
    calls = []
    for step in plan.steps:
        first = step.nodes[0]
        if "weight" in first.op.arrays:
            source = first.op.inputs[0]
            calls.append((step.fused or first.kernel, to_tensor(seen[source], plan.held[source])))

    def run() -> None:
        for kernel, value in calls:
            kernel(value)

    return run


def measure(name: str, threads: int, frames: int, clock: Callable[[], float]) -> dict[str, object]:
    """Figures of one configuration."""
    torch.set_num_threads(threads)
    config = TrackerConfig.official(name)
    model = make_untrained(config).eval()
    result = compile(SpikeTrackSource(model))
    side = config.resolution
    templates = np.stack([dead_leaves(f"template {t}", side).transpose(2, 0, 1) for t in range(config.templates)])
    crops = [dead_leaves(f"frame {i}", side) for i in range(min(frames, 8))]
    images = [np.ascontiguousarray(crop.transpose(2, 0, 1)[None]) for crop in crops]
    normal = [torch.from_numpy(normalise(crop)).float()[None, None] for crop in crops]
    normal_templates = torch.from_numpy(np.stack([normalise(t.transpose(1, 2, 0)) for t in templates])).float()[:, None]
    with SimEngine(result.program, threads) as engine, torch.inference_mode():
        memories = engine.run("template", {"image": templates}).outputs
        float_memories = model.template_branch(normal_templates)
        portable = onnx_search(model, normal[0], float_memories, threads)
        floor = convolutions(engine, {"image": images[0], **memories})
        times: dict[str, list[float]] = {key: [] for key in LABELS}
        turns = np.random.default_rng(0)
        for index in range(WARM + frames):
            i = index % len(crops)
            inputs = {"image": images[i], **memories}
            calls: dict[str, Callable[[], object]] = {
                "float32": lambda i=i: model.search_branch(normal[i], float_memories),
                "onnx_float32": lambda i=i: portable(normal[i]),
                "sim": lambda inputs=inputs: engine.run("search", inputs),
                "sim_uncounted": lambda inputs=inputs: engine.run("search", inputs, count=False),
                "int8_convolutions": floor,
            }
            for key in turns.permutation(list(calls)):
                seconds = timed(calls[key], clock)
                if index >= WARM:
                    times[key].append(seconds)
        update = {
            "float32": median(timed(lambda: model.template_branch(normal_templates), clock) for _ in range(WARM)),
            "sim": median(timed(lambda: engine.run("template", {"image": templates}), clock) for _ in range(WARM)),
        }
    return _figures(name, threads, frames, engine.int8, times, update)


def _figures(
    name: str, threads: int, frames: int, int8: bool, times: Mapping[str, list[float]], update: Mapping[str, float]
) -> dict[str, object]:
    kinds = {"median": median, "least": min}
    found = {kind: {key: 1e3 * f(values) for key, values in times.items()} for kind, f in kinds.items()}
    return {
        "config": name,
        "threads": threads,
        "frames": frames,
        "int8_kernels": int8,
        "search_ms": found,
        "to_pytorch": {kind: ms["sim"] / ms["float32"] for kind, ms in found.items()},
        "to_onnx_runtime": {kind: ms["sim"] / ms["onnx_float32"] for kind, ms in found.items()},
        "counting_share": {kind: 1 - ms["sim_uncounted"] / ms["sim"] for kind, ms in found.items()},
        "template_ms": {key: 1e3 * value for key, value in update.items()},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="NAME", help="official configuration, for example s256_t1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each (default 1)")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="frames after the warm-up (default 20)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, on a busy machine")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.threads < 1 or given.frames < 1:
        parser.error("--threads and --frames must be 1 or more")
    try:
        found = measure(given.config, given.threads, given.frames, CLOCKS[given.clock])
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(found, sort_keys=True))
        return 0
    print(f"{found['config']}, {found['threads']} threads, {found['frames']} frames")
    for key, label in LABELS.items():
        ms = [found["search_ms"][kind][key] for kind in ("median", "least")]
        print(f"  {label:<24}median {ms[0]:8.2f} ms   least {ms[1]:8.2f} ms")
    for label, key in (("counted to PyTorch", "to_pytorch"), ("counted to ONNX Runtime", "to_onnx_runtime")):
        print(f"  {label:<24}       {found[key]['median']:8.3f}            {found[key]['least']:8.3f}")
    shares = [100 * found["counting_share"][kind] for kind in ("median", "least")]
    print(f"  {'counting':<24}       {shares[0]:8.1f} %          {shares[1]:8.1f} % of the frame")
    print(
        f"  template update: float32 {found['template_ms']['float32']:.1f} ms, sim {found['template_ms']['sim']:.1f} ms"
    )
    print(f"  peak memory {found['peak_memory_mb']:.0f} MB (all of them, and the export)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
