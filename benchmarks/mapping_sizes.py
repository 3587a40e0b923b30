"""What the official sizes need on a chip: cores, chips, static power, time of a step, and what dominates.

    python benchmarks/mapping_sizes.py [--size NAME ...] [--target NAME] [--density SHARE] [--json]

Weights are drawn in the layer shapes of each configuration (docs/spiketrack.md): cores, words and hops depend on
shapes, times and dynamic energies on the assumed spike density. ``nano`` is the nano model's configuration. Without
--size all of them; the largest takes about half a minute.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from _mapping import nano_program, official_program  # noqa: E402

from spiketrack_deploy.errors import SpiketrackError, UsageError  # noqa: E402
from spiketrack_deploy.hardware.targets import resolve_target  # noqa: E402
from spiketrack_deploy.mapping.activity import ASSUMED_DENSITY  # noqa: E402
from spiketrack_deploy.mapping.populations import populations  # noqa: E402
from spiketrack_deploy.mapping.report import map_phase  # noqa: E402
from spiketrack_deploy.mapping.split import split  # noqa: E402

SIZES = ("nano", "s256_t1", "s256_t3", "b256_t1", "b256_t3", "b384_t1", "b384_t3")
BOARDS = ("kapoho_point", "hala_point")
MILLI = 1e3
NANO = 1e-9


def measure(size: str, target: str, density: float) -> dict[str, Any]:
    """Figures of one size on one target, and which boards hold it."""
    program = nano_program() if size == "nano" else official_program(size)
    goal = resolve_target(target)
    start = time.perf_counter()
    found = map_phase(program, "search", goal, density=density)
    seconds = time.perf_counter() - start
    mapping, report, profile = found.mapping, found.to_dict(), goal.profile
    limits = mapping.limits
    vendor = split(populations(program, "search"), limits, "power_of_two").cores
    neurons = report["neurons"]
    packed = -(-neurons["neurons"] // limits.neurons)
    power = profile.price("static_power")
    return {
        "size": size,
        "neurons": neurons["neurons"],
        "relays": neurons.get("relay", 0),
        "matrix_entries": neurons.get("memory", 0),
        "chips_neurons_alone": -(-packed // limits.cores_per_chip),
        "cores": mapping.cores,
        "chips": mapping.chips,
        "chips_power_of_two_tiling": -(-vendor // limits.cores_per_chip),
        "core_level_breaches": sum(b["fatal"] and b["rule"] != "chips" for b in report["breaches"]),
        "template_phase_cores": found.other_phases[0].cores,
        "static_power_w": power.nominal * mapping.chips if power else None,
        "static_mj_per_camera_frame": power.nominal * mapping.chips / 30 * MILLI if power else None,
        "dynamic_mj": {key: value * NANO * MILLI for key, value in report["energy"]["dynamic_nj"].items()},
        "dominant": report["energy"]["dominant_at_camera_rate"],
        "step_ms": {key: value * MILLI for key, value in report["latency"]["step_s"].items()},
        "bottleneck": report["latency"]["bottleneck"]["cause"],
        "depth_steps": report["latency"]["depth_steps"],
        "busiest_core_over_mean": report["balance"]["ratio"],
        "even_split": report["balance"]["even"],
        "saved_over_row_major": report["placement"]["saved_over_row_major"],
        "gap_to_lower_bound": report["placement"]["gap_to_lower_bound"],
        "fits": {board: mapping.chips <= (resolve_target(board).profile.chips or 0) for board in BOARDS},
        "mapping_seconds": seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _line(row: dict[str, Any]) -> str:
    static = (
        f"{row['static_power_w']:6.1f} W {row['static_mj_per_camera_frame']:7.0f} mJ" if row["static_power_w"] else "-"
    )
    boards = ", ".join(name for name, fits in row["fits"].items() if fits) or "none of the boards"
    dynamic, step = row["dynamic_mj"]["nominal"], row["step_ms"]["nominal"]
    return (
        f"{row['size']:8} {row['neurons'] / 1e6:7.2f} M + {row['relays'] / 1e6:5.2f} M  cores {row['cores']:6}  "
        f"chips {row['chips']:4} ({row['chips_neurons_alone']} by neurons alone, {row['chips_power_of_two_tiling']} in "
        f"powers of two)  static {static} a camera frame  dynamic {dynamic:6.1f} mJ  step {step:5.2f} ms "
        f"({row['bottleneck']}) x {row['depth_steps']}  largest: {row['dominant']}  fits {boards}  "
        f"[{row['mapping_seconds']:.0f} s, {row['peak_memory_gb']:.1f} GB]"
    )


def conclusion(rows: list[dict[str, Any]]) -> list[str]:
    """What dominates, and what would change it, from the rows themselves."""
    lines = []
    for row in rows:
        if not row["static_mj_per_camera_frame"]:
            continue
        ratio = row["static_mj_per_camera_frame"] / row["dynamic_mj"]["nominal"]
        busy = row["step_ms"]["nominal"] / (MILLI / 30)
        lines.append(
            f"{row['size']}: static power over a camera frame is {ratio:.1f} times the dynamic energy, and chips work "
            f"{100 * busy:.0f} % of it when frames are pipelined: fewer chips (smaller crop, fewer channels), more "
            "frames a second or chips switched off between frames would change it, cheaper synapses would not."
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", action="append", choices=SIZES, help="repeat for several; default all")
    parser.add_argument("--target", default="loihi2", help="a chip or a board")
    parser.add_argument("--density", type=float, default=ASSUMED_DENSITY, help="assumed share of spiking neurons")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    try:
        if not 0 <= arguments.density <= 1:
            raise UsageError(f"--density is {arguments.density}, must be between 0 and 1")
        rows = []
        for size in arguments.size or SIZES:
            rows.append(measure(size, arguments.target, arguments.density))
            if not arguments.json:
                print(_line(rows[-1]), flush=True)
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps({"target": arguments.target, "density": arguments.density, "sizes": rows}, indent=1))
    else:
        print("\n".join(conclusion(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
