"""What int8 costs, layer by layer: each layer is fed the float64 tracker's spikes and compared with them.

    python benchmarks/teacher_forced.py DIR [--config NAME] [--json]

DIR: a folder in the layout of the golden sets (tests/golden is one). Calibrates on the set's own crops, as an export
does on its first frames. Prints the mean and worst mismatch rate over layers, teacher-forced and free-running.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from _golden import GoldenSet, set_names  # noqa: E402
from _models import calibration_of, record_runs  # noqa: E402

from spiketrack_deploy.engines.base import ReferenceEngine  # noqa: E402
from spiketrack_deploy.engines.float_parity import layer_parity, summary  # noqa: E402
from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.compile import Options, compile  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource  # noqa: E402
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack  # noqa: E402

WORST, MEAN = 0.02, 0.005
"""Limits of the project for T = 1."""


def measure(folder: Path, name: str) -> dict[str, object]:
    """Figures of one golden set."""
    golden = GoldenSet(folder, name)
    model = SpikeTrack(golden.config)
    model.load_state_dict({key: torch.as_tensor(value) for key, value in golden.state_dict().items()})
    model = model.double().eval()
    cases = golden.cases()
    runs = record_runs(model, [golden.templates(c) for c in cases], [golden.crop(c, "s")[None] for c in cases])
    result = compile(SpikeTrackSource(model), Options(calibration=calibration_of(runs))).report
    engine = ReferenceEngine(result.program)
    forced = layer_parity(engine, runs, teacher_forced=True)
    figures = summary(forced)
    measured = [c.sqnr_db for c in result.convolutions if c.sqnr_db is not None]
    return {
        "config": name,
        "templates": golden.config.templates,
        "teacher_forced": figures,
        "free_running": summary(layer_parity(engine, runs, teacher_forced=False)),
        "sqnr_db": {"lowest": min(measured), "median": float(np.median(measured))},
        "requantised": list(result.requantised),
        "worst_layers": [layer.to_dict() for layer in sorted(forced, key=lambda x: -x.rate)[:5]],
        "within_limits": bool(figures["worst_rate"] <= WORST and figures["mean_rate"] <= MEAN),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "tests" / "golden")
    parser.add_argument("--config")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        names = [options.config] if options.config else set_names(options.folder)
        results = [measure(options.folder, name) for name in names]
    except SpiketrackError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps({"limits": {"worst": WORST, "mean": MEAN}, "sets": results}))
    else:
        print(f"{'set':10s} {'mean':>8s} {'worst':>8s}  {'free mean':>9s}  worst layer")
        for r in results:
            forced, free = r["teacher_forced"], r["free_running"]
            print(
                f"{r['config']:10s} {forced['mean_rate']:8.3%} {forced['worst_rate']:8.3%}  "
                f"{free['mean_rate']:9.2%}  {forced['worst_layer']}"
            )
    bounded = [r for r in results if r["templates"] == 1]
    return 0 if bounded and all(r["within_limits"] for r in bounded) else 1


if __name__ == "__main__":
    sys.exit(main())
