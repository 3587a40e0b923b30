"""Several runs of one recipe that differ in their seed: each one's success AUC, median, spread, and against CSRT.

    python benchmarks/seeds.py RUN [RUN ...] --data test_public.zip -o FOLDER [--engine sim] [--against csrt] [--jobs 2]

RUN is a run folder of ``spiketrack train``, or a model file. All are scored together with the tracker that they are
compared with, on the same sequences; FOLDER keeps the evaluation and is gone on with. The median run is the one to
ship.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spiketrack_deploy import api
from spiketrack_deploy.errors import SpiketrackError


def seed_of(run: Path) -> str:
    """The seed of a run's recipe; - where the folder states none."""
    try:
        return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["recipe"]["seed"])
    except (OSError, ValueError, KeyError, TypeError):
        return "-"


def table(trackers: Mapping[str, Mapping[str, Any]], seeds: Sequence[str]) -> str:
    """Markdown: the rows of ``results.json`` of the runs, which follow the tracker they are compared with."""
    (first, reference), *runs = trackers.items()
    lines = [f"| run | seed | AUC, % [95 %] | minus {first}, points [95 %] | higher : lower, p |", "|" + " --- |" * 5]
    for (name, run), seed in zip(runs, seeds):
        against = run["against_first"]
        sign = "{higher} : {lower}, {p:.2g}".format(**against["sign"])
        lines.append(f"| {name} | {seed} | {_percent(run['mean']['auc'])} | {_percent(against['auc'], '+')} | {sign} |")
    lines.append(f"| {first} | - | {_percent(reference['mean']['auc'])} | - | - |")
    found = sorted((100 * run["mean"]["auc"]["mean"], name) for name, run in runs)
    middle, values = found[(len(found) - 1) // 2], [value for value, _ in found]
    deviation = f", standard deviation {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    lines.append(
        f"\n{len(values)} runs: median {middle[0]:.1f} ({middle[1]}), {values[0]:.1f} to {values[-1]:.1f}, "
        f"spread {values[-1] - values[0]:.1f} points{deviation}"
    )
    return "\n".join(lines)


def _percent(row: Mapping[str, float], sign: str = "") -> str:
    return f"{100 * row['mean']:{sign}.1f} [{100 * row['low']:{sign}.1f}, {100 * row['high']:{sign}.1f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--engine", default="sim")
    parser.add_argument("--against", default="csrt")
    parser.add_argument("--sequences", default="", help="comma-separated names; all where none is given")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    names = [f"{run}@{options.engine}" for run in options.runs]
    sequences = [name for name in options.sequences.split(",") if name]
    try:
        found = api.evaluate(
            [options.against, *names], options.data, sequences=sequences, jobs=options.jobs, out=options.out,
            tell=lambda what, done, total: print(what, file=sys.stderr),
        )  # fmt: skip
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(found["trackers"], [seed_of(run) for run in options.runs]))
    return int(found["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
