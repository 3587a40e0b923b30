"""The tables of a model card, in Markdown, from folders that ``spiketrack evaluate`` wrote.

    python benchmarks/card_tables.py FOLDER [FOLDER ...] [--layers TRACKER]

Trackers of all folders in one table of results and one of sequences; ``--layers`` adds spikes and synaptic operations
of a program, block by block. Later folders win where two score the same tracker.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Trackers = Mapping[str, Mapping[str, Any]]


def read(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Trackers by name; a folder without results ends the program with one sentence."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        try:
            found |= json.loads((folder / "results.json").read_text(encoding="utf-8"))["trackers"]
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"error: {folder} holds no evaluation: {error}")
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _percent(interval: Mapping[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _millijoules(band: Mapping[str, float]) -> str:
    nominal, low, high = (f"{band[key] / 1e6:.3g}" for key in ("nominal", "low", "high"))
    return f"{nominal} [{low}, {high}]"


def results(trackers: Trackers) -> str:
    """Accuracy with intervals; synaptic operations of a main phase's run; energy of a frame, in all and dynamic."""
    head = ("tracker", "success AUC, % [95 %]", "P@20, %", "normalised P, %", "M synops", "mJ a frame [low, high]",
            "of it dynamic")  # fmt: skip
    rows = []
    for name, tracker in trackers.items():
        accuracy = [_percent(tracker["mean"][key]) for key in ("auc", "precision", "norm_precision")]
        energy, cost = tracker.get("energy"), ["-", "-", "-"]
        if energy:
            synops = energy["phases"][energy["main"]]["counts"].get("synops", 0) / 1e6
            cost = [
                f"{synops:.2f}" if synops else "-",
                _millijoules(energy["per_frame_nj"]),
                _millijoules(energy["dynamic_nj"]),
            ]
        rows.append([name, *accuracy, *cost])
    return table(head, rows)


def by_sequence(trackers: Trackers) -> str:
    """Success AUC of every sequence in percent."""
    names = sorted({name for tracker in trackers.values() for name in tracker["sequences"]}, key=str.lower)
    rows = []
    for name in names:
        scores = [tracker["sequences"].get(name) for tracker in trackers.values()]
        rows.append([name, *("-" if score is None else f"{100 * score['auc']:.1f}" for score in scores)])
    return table(["success AUC, %", *trackers], rows)


def by_block(tracker: Mapping[str, Any]) -> str:
    """Neurons, share that fires, mean level and synaptic operations of a run of the main phase."""
    sums: dict[str, dict[str, float]] = {}
    energy = tracker["energy"]
    for layer in (row for row in energy["layers"] if row["phase"] == energy["main"]):
        block, counts = sums.setdefault(layer["block"], {}), dict(layer["counts"])
        if layer["kind"] != "ni_lif":
            counts.pop("output_sum", None)
        for key, value in counts.items():
            block[key] = block.get(key, 0) + value
    rows = []
    for name, counts in sums.items():
        neurons = counts.get("neuron_updates", 0)
        share, level = (counts.get(key, 0) / max(neurons, 1) for key in ("neuron_spiking", "output_sum"))
        rows.append([name, f"{neurons:,.0f}", f"{share:.3f}", f"{level:.3f}", f"{counts.get('synops', 0) / 1e6:.2f}"])
    return table(("block", "neurons", "share that fire", "mean level 0..4", "M synops"), rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--layers", metavar="TRACKER")
    options = parser.parse_args()
    trackers = read(options.folders)
    parts = [results(trackers), by_sequence(trackers)]
    if options.layers:
        if not trackers.get(options.layers, {}).get("energy"):
            sys.exit(f"error: no program called {options.layers} there; known are {', '.join(trackers)}")
        parts.append(by_block(trackers[options.layers]))
    print("\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
