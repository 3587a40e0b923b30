"""Time of one search frame: the exact simulator with counts against the float32 PyTorch tracker, in one run.

    python benchmarks/sim_vs_float.py --config NAME [--threads N] [--frames N] [--json]

Builds the seeded model of an official configuration, writes it as a NIR graph in memory, lowers that to a program
(without calibration frames, which change exponents and not speed) and runs both on the same crops, frame by frame in
turn, so that a busy machine slows both. Medians, their ratio, the share of counting and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from spiketrack_deploy.engines.sim import SimEngine  # noqa: E402
from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.compile import compile  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.make_untrained import dead_leaves, make_untrained  # noqa: E402
from spiketrack_deploy.tracking.crop import normalise  # noqa: E402

WARM = 3


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    call()
    return perf_counter() - start


def measure(name: str, threads: int, frames: int) -> dict[str, object]:
    """Figures of one configuration."""
    torch.set_num_threads(threads)
    config = TrackerConfig.official(name)
    model = make_untrained(config)
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
        times: dict[str, list[float]] = {"float32": [], "sim": [], "sim_uncounted": []}
        for index in range(WARM + frames):
            i = index % len(crops)
            inputs = {"image": images[i], **memories}
            spent = {
                "float32": timed(lambda i=i: model.search_branch(normal[i], float_memories)),
                "sim": timed(lambda inputs=inputs: engine.run("search", inputs)),
                "sim_uncounted": timed(lambda inputs=inputs: engine.run("search", inputs, count=False)),
            }
            if index >= WARM:
                for key, seconds in spent.items():
                    times[key].append(seconds)
        update = {
            "float32": median(timed(lambda: model.template_branch(normal_templates)) for _ in range(WARM)),
            "sim": median(timed(lambda: engine.run("template", {"image": templates})) for _ in range(WARM)),
        }
    medians = {key: median(values) for key, values in times.items()}
    return {
        "config": name,
        "threads": threads,
        "frames": frames,
        "int8_kernels": engine.int8,
        "search_ms": {key: 1e3 * value for key, value in medians.items()},
        "search_least_ms": {key: 1e3 * min(values) for key, values in times.items()},
        "ratio": medians["sim"] / medians["float32"],
        "counting_share": 1 - medians["sim_uncounted"] / medians["sim"],
        "template_ms": {key: 1e3 * value for key, value in update.items()},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="NAME", help="official configuration, for example s256_t1")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads of both (default 1)")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="frames after the warm-up (default 20)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.threads < 1 or given.frames < 1:
        parser.error("--threads and --frames must be 1 or more")
    try:
        found = measure(given.config, given.threads, given.frames)
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if given.json:
        print(json.dumps(found, sort_keys=True))
        return 0
    print(f"{found['config']}, {found['threads']} threads, medians of {found['frames']} frames")
    for label, key in (("float32 tracker", "float32"), ("sim, counted", "sim"), ("sim, not counted", "sim_uncounted")):
        print(f"  {label:<18}{found['search_ms'][key]:9.2f} ms   least {found['search_least_ms'][key]:9.2f} ms")
    print(f"  ratio {found['ratio']:.3f}; counting {100 * found['counting_share']:.1f} % of the frame")
    print(
        f"  template update: float32 {found['template_ms']['float32']:.1f} ms, sim {found['template_ms']['sim']:.1f} ms"
    )
    print(f"  peak memory {found['peak_memory_mb']:.0f} MB (both, and the export)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
