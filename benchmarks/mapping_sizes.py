"""What the official sizes need on a chip: cores, chips of all phases, time and energy of a frame, and what dominates.

    python benchmarks/mapping_sizes.py [--size NAME ...] [--target NAME] [--density SHARE] [--json]

Weights are drawn in the layer shapes of each configuration (docs/spiketrack.md): cores, words and hops depend on
shapes, times and dynamic energies on the assumed spike density. ``nano`` is the nano model's configuration. One frame
is in flight. Without --size all of them; the largest takes about a minute.
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
from spiketrack_deploy.mapping.whole import map_network  # noqa: E402

SIZES = ("nano", "s256_t1", "s256_t3", "b256_t1", "b256_t3", "b384_t1", "b384_t3")
BOARDS = ("kapoho_point", "hala_point")
MILLI = 1e3
NANO = 1e-9


def measure(size: str, target: str, density: float) -> dict[str, Any]:
    """Figures of one size on one target, and which boards hold all phases of it."""
    program = nano_program() if size == "nano" else official_program(size)
    goal = resolve_target(target)
    start = time.perf_counter()
    found = map_network(program, goal, density=density)
    whole = found.to_dict()
    seconds = time.perf_counter() - start
    mapping, report = found.report.mapping, found.report.to_dict()
    neurons, cost = report["neurons"], whole["cost"]
    packed = -(-neurons["neurons"] // mapping.limits.neurons)
    best = min((change for change in found.changes if change.alone), key=lambda change: change.cost.total.nominal)

    def millijoules(name: str) -> dict[str, float] | None:
        return {key: value * NANO * MILLI for key, value in cost[name].items()} if cost[name] else None

    return {
        "size": size,
        "neurons": neurons["neurons"],
        "relays": neurons.get("relay", 0),
        "matrix_entries": neurons.get("memory", 0),
        "chips_neurons_alone": mapping.limits.chips_for(packed),
        "cores": mapping.cores,
        "chips": mapping.chips,
        "answer": whole["answer"],
        "sharing": whole["sharing"],
        "chips_all_phases": whole["chips"],
        "chips_band": whole["chips_band"],
        "cores_by_rule": whole["cores_by_rule"],
        "core_level_breaches": sum(b["fatal"] and b["rule"] != "chips" for b in report["breaches"]),
        "total_mj_per_frame": millijoules("total_nj"),
        "dynamic_mj": millijoules("dynamic_nj"),
        "static_mj": millijoules("static_nj"),
        "input_mj": millijoules("input_nj"),
        "dominant": whole["dominant"],
        "on_chip_ms": {key: value * MILLI for key, value in cost["on_chip_s"].items()},
        "latency_ms": {key: value * MILLI for key, value in cost["latency_s"].items()},
        "elapsed_steps": report["closed_loop"]["elapsed_steps"],
        "best_change": {"change": best.what, "total_mj": best.cost.total.nominal * NANO * MILLI},
        "busiest_core_over_mean": report["balance"]["ratio"],
        "even_split": report["balance"]["even"],
        "saved_over_row_major": report["placement"]["saved_over_row_major"],
        "gap_to_lower_bound": report["placement"]["gap_to_lower_bound"],
        "fits": {board: whole["chips"] <= (resolve_target(board).profile.chips or 0) for board in BOARDS},
        "mapping_seconds": seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _line(row: dict[str, Any]) -> str:
    boards = ", ".join(name for name, fits in row["fits"].items() if fits) or "none of the boards"
    low, high = row["chips_band"]
    return (
        f"{row['size']:8} {row['neurons'] / 1e6:7.2f} M + {row['relays'] / 1e6:5.2f} M  cores {row['cores']:6}  "
        f"chips {row['chips']:4} ({row['chips_neurons_alone']} by neurons alone), all phases {row['chips_all_phases']} "
        f"[{low}..{high}] ({row['sharing']}; {row['answer']})  frame {row['total_mj_per_frame']['nominal']:8.1f} mJ, "
        f"{row['dynamic_mj']['nominal']:8.1f} dynamic  {row['on_chip_ms']['nominal']:6.1f} ms on the chip, "
        f"{row['latency_ms']['nominal']:6.1f} with the image ({row['elapsed_steps']} steps)  boards: {boards}  "
        f"[{row['mapping_seconds']:.0f} s, {row['peak_memory_gb']:.1f} GB]"
    )


def conclusion(rows: list[dict[str, Any]]) -> list[str]:
    """What dominates, and what would change it most, from the rows themselves."""
    return [
        f"{row['size']}: {100 * row['dominant']['share']:.0f} % of the total is {row['dominant']['name']}; "
        f"{row['best_change']['change']}: {row['best_change']['total_mj']:.1f} mJ in all."
        for row in rows
    ]


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
