"""Wall time and memory of the whole `spiketrack-export` of an official configuration, as a user runs it.

    python benchmarks/export_cost.py [--config NAME]... [--frames N] [--json]

Makes the seeded (untrained) checkpoint of the configuration in the form of the published files ({'net': ...}), then
runs the command in a process of its own on the bundled clip. Peak memory is that of the largest process, child
processes included.
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

LIMITS = {"s256_t1": (60.0, 4.0), "b384_t3": (360.0, 14.0)}
"""Seconds and GB that the project allows on two cores with three frames."""


def measure(name: str, frames: int, folder: Path) -> dict[str, object]:
    """Export one configuration; seconds, GB, exit code."""
    checkpoint = folder / f"{name}.pth"
    torch.save({"net": make_untrained(TrackerConfig.official(name)).float().state_dict()}, checkpoint)
    command = [sys.executable, "-m", "spiketrack_deploy", "export", str(checkpoint), "--target", "loihi2"]
    command += ["--max-frames", str(frames), "-o", str(folder / f"{name}.bundle"), "--json", "--quiet"]
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    start = perf_counter()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    limit = LIMITS.get(name)
    return {
        "config": name,
        "frames": frames,
        "exit_code": done.returncode,
        "seconds": seconds,
        "peak_gb": peak,
        "bundle_mb": sum(f.stat().st_size for f in (folder / f"{name}.bundle").rglob("*") if f.is_file()) / 1e6,
        "limit": {"seconds": limit[0], "gb": limit[1]} if limit else None,
        "within_limit": done.returncode == 0 and (limit is None or (seconds <= limit[0] and peak <= limit[1])),
        "message": done.stderr.strip().splitlines()[-1:] if done.returncode else [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", action="append", help="official name; may be repeated; default s256_t1")
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
                f"{r['config']}: {r['seconds']:.1f} s, peak {r['peak_gb']:.2f} GB, bundle {r['bundle_mb']:.0f} MB, "
                f"exit {r['exit_code']}, limit {r['limit']}: {'within' if r['within_limit'] else 'NOT within'}"
            )
            print(*r["message"], sep="\n", end="\n" if r["message"] else "")
    return 0 if all(r["within_limit"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
