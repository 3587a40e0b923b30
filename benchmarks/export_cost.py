"""Wall time and memory of the whole `spiketrack-export`, as a user runs it, stage by stage.

    python benchmarks/export_cost.py [--config NAME]... [--frames N] [--json]

NAME is an official configuration: its seeded (untrained) checkpoint, in the form of the published files ({'net': ...}),
on the first frames of the bundled clip. Or `demo`: the bundled model on the whole bundled clip, as `make demo` runs it.
Or `spmtrack_b` (`_l`, `_g`): the dense tracker with drawn weights, exported for a processor on at least eleven frames,
ten of which ONNX Runtime is compared on; the largest differences are printed.
The command runs in a process of its own; peak memory is that of the largest process, child processes included. Stages
are those of `provenance.json`; what is left is start-up and imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.make_untrained import make_untrained  # noqa: E402
from spiketrack_deploy.trackers.spmtrack.checkpoint import draw_backbone, save_spmtrack  # noqa: E402
from spiketrack_deploy.trackers.spmtrack.config import OFFICIAL_CONFIGS as DENSE_CONFIGS  # noqa: E402
from spiketrack_deploy.trackers.spmtrack.config import SpmConfig  # noqa: E402

LIMITS = {"demo": (15.0, 1.5), "s256_t1": (60.0, 4.0), "b384_t3": (360.0, 14.0), "spmtrack_b": (600.0, 3.0)}
"""Seconds and GB that the project allows on two cores: three frames, the demo's clip, a dense tracker's eleven."""
DENSE_FRAMES = 11


def command_for(name: str, frames: int, folder: Path) -> list[str]:
    """The export of one configuration into ``folder/NAME.bundle``."""
    command, target = [sys.executable, "-m", "spiketrack_deploy", "export"], "loihi2"
    if name == "demo":
        command.append("spiketrack-nano")
    elif name in DENSE_CONFIGS:
        checkpoint, target = folder / f"{name}.safetensors", "cpu"
        save_spmtrack(draw_backbone(SpmConfig.official(name), 1), checkpoint)
        command += [str(checkpoint), "--max-frames", str(max(frames, DENSE_FRAMES))]
    else:
        checkpoint = folder / f"{name}.pth"
        torch.save({"net": make_untrained(TrackerConfig.official(name)).float().state_dict()}, checkpoint)
        command += [str(checkpoint), "--max-frames", str(frames)]
    return [*command, "--target", target, "-o", str(folder / f"{name}.bundle"), "--json", "--quiet"]


def measure(name: str, frames: int, folder: Path) -> dict[str, object]:
    """Export one configuration; seconds, GB, exit code."""
    command = command_for(name, frames, folder)
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    start, before = perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    bundle, limit = folder / f"{name}.bundle", LIMITS.get(name)
    parity = bundle / "parity.json"
    stages = {} if done.returncode else json.loads((bundle / "provenance.json").read_text(encoding="utf-8"))["seconds"]
    return {
        "config": name,
        "frames": None if name == "demo" else frames,
        "exit_code": done.returncode,
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "stages": stages | {"start-up and imports": seconds - sum(stages.values())},
        "peak_gb": after.ru_maxrss / 1e6,
        "bundle_mb": sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file()) / 1e6,
        "onnx": json.loads(parity.read_text())["onnx"]["worst"] if name in DENSE_CONFIGS and parity.exists() else None,
        "limit": {"seconds": limit[0], "gb": limit[1]} if limit else None,
        "within_limit": done.returncode == 0
        and (limit is None or (seconds <= limit[0] and after.ru_maxrss / 1e6 <= limit[1])),
        "message": done.stderr.strip().splitlines()[-1:] if done.returncode else [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", action="append", help="official name or demo; may be repeated; default s256_t1")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    try:
        # RUSAGE_CHILDREN is a running maximum, so smaller configurations go first.
        for name in options.config or ["s256_t1"]:
            with tempfile.TemporaryDirectory() as folder:
                results.append(measure(name, options.frames, Path(folder)))
    except SpiketrackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(results))
    else:
        for r in results:
            print(
                f"{r['config']}: {r['seconds']:.1f} s ({r['cpu_seconds']:.1f} s of processor time), "
                f"peak {r['peak_gb']:.2f} GB, bundle {r['bundle_mb']:.0f} MB, exit {r['exit_code']}, "
                f"limit {r['limit']}: {'within' if r['within_limit'] else 'NOT within'}"
            )
            for stage, seconds in r["stages"].items():
                print(f"  {stage:<28}{seconds:8.2f} s")
            if r["onnx"]:
                print("  ONNX Runtime off PyTorch by at most", {key: f"{v:.2g}" for key, v in r["onnx"].items()})
            print(*r["message"], sep="\n", end="\n" if r["message"] else "")
    return 0 if all(r["within_limit"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
