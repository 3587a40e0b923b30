"""Three ways to adapt a deployed tracker to a scene: experts, low-rank matrices of as many numbers, every weight.

    python benchmarks/adaptation.py VIDEOS --scene sky=sky_drone_001,sky_bird_012 --scene street=street_car18 \
        --test test_public.zip -o WORK [--model spiketrack-nano] [--steps 200] [--own]

VIDEOS: a folder or zip of sequences with boxes in every frame. The first 70 % of every sequence of a scene adapt, the
rest is held out; with ``--own`` the first box alone is told and the tracker labels the rest itself. Scored, of the
program on the ``sim`` engine: success AUC in the loop on the held-out parts (gain) and on the test sequences
(forgetting), each against the program before, paired by sequence. Pair IoU is one step without the loop, on the
held-out parts: adapted with live routing, merged, as integers. Rows that WORK has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy import api
from spiketrack_deploy.datasets.catalogue import FrameStore
from spiketrack_deploy.datasets.files import open_tree
from spiketrack_deploy.datasets.sequences import VideoSequence, open_dataset
from spiketrack_deploy.inputs.sources import find_source
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.training.experts import METHODS
from spiketrack_deploy.training.validate import pair_iou

HOLD_OUT = 0.3
WAYS = ("routed", "merged")
HEAD = (
    "scene", "method", "numbers trained", "pair IoU before the merge", "after", "as integers", "held-out AUC, %",
    "gain", "test AUC, %", "gain", "CPU s", "boxes",
)  # fmt: skip


def write_parts(clips: Sequence[VideoSequence], folder: Path) -> None:
    """``given``: all frames with their boxes; ``own``: the part that adapts, with one box; ``last``: the rest."""
    if (folder / "last").exists():
        return
    for clip in clips:
        cut = len(clip.frames) - round(HOLD_OUT * len(clip.frames))
        count = len(clip.frames)
        ends = {"given": (0, count, count), "own": (0, cut, 1), "last": (cut, count, count - cut)}
        with open_tree(clip.root, listed=False) as tree:
            for part, (start, stop, lines) in ends.items():
                place = folder / f"{part}.tmp" / clip.name
                (place / "img").mkdir(parents=True)
                for index in range(start, stop):
                    name = f"{index + 1:04d}{Path(clip.frames[index]).suffix}"
                    (place / "img" / name).write_bytes(tree.read(clip.frames[index]))
                np.savetxt(place / "groundtruth_rect.txt", clip.boxes[start : start + lines], "%.3f", ",")
    for part in ("given", "own", "last"):
        (folder / f"{part}.tmp").rename(folder / part)


def scored(model: str, data: Path, out: Path) -> dict[str, float]:
    """Success AUC of the program by sequence; ``out`` keeps what a stopped evaluation had."""
    (tracker,) = api.evaluate([model], data, engines=["sim"], out=out)["trackers"].values()
    return {name: row["auc"] for name, row in tracker["sequences"].items()}


def measured(model: str, method: str, labels: str, folder: Path, test: Path, steps: int) -> dict[str, Any]:
    """One row: adapt, score; kept in a file."""
    file = folder / f"{method}-{labels}.json"
    if not file.exists():
        out, share = folder / f"{method}-{labels}", 0.0 if labels == "own" else HOLD_OUT
        cpu = time.process_time()
        found = api.adapt(
            model, [folder / labels], out, method=method, hold_out=share, entries={"steps": steps}, tell=say
        )
        row = {key: found[key] for key in ("trained", "parameters", "seconds", "threads", "scenes", "scores")}
        row["cpu"] = time.process_time() - cpu
        done = found["scores"].get("quantised")
        row["pairs"] = done["pair_iou"] if done else pairs_of(out, folder / "last")
        row["held"] = scored(str(out), folder / "last", folder / f"{out.name}-held")
        row["test"] = scored(str(out), test, folder / f"{out.name}-test")
        file.write_text(json.dumps(row, indent=1))
    return dict(json.loads(file.read_text()))


def before(model: str, folder: Path, test: Path) -> dict[str, Any]:
    """The same of the program as it is."""
    file = folder / "before.json"
    if not file.exists():
        row: dict[str, Any] = {"held": scored(model, folder / "last", folder / "before-held")}
        row["pairs"] = pairs_of(find_source(model).path, folder / "last")
        row["test"] = scored(model, test, folder.parent / "before-test")
        file.write_text(json.dumps(row, indent=1))
    return dict(json.loads(file.read_text()))


def say(what: str, done: int, total: int) -> None:
    """Progress on stderr."""
    print(f"  {what}", file=sys.stderr, flush=True)


def pairs_of(model: Path, data: Path) -> float:
    """Pair IoU of a model's float tracker on the held-out parts."""
    with closing(FrameStore()) as store:
        return pair_iou(load_checkpoint(model)[0].float(), open_dataset(data).sequences, store)


def difference(after: Mapping[str, float], before: Mapping[str, float]) -> str:
    """Mean paired difference in points, its 95 % bootstrap interval over sequences."""
    gains = 100 * np.array([after[name] - before[name] for name in before])
    drawn = np.random.default_rng(0).choice(gains, (4000, len(gains))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{gains.mean():+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--scene", action="append", required=True, metavar="NAME=SEQUENCE,...")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--model", default="spiketrack-nano")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--own", action="store_true", help="the first box of every sequence is all that is told")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    labels, sequences = (
        "own" if given.own else "given",
        {clip.name: clip for clip in open_dataset(given.videos).sequences},
    )
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for scene in given.scene:
        name, _, names = scene.partition("=")
        folder = given.out / name
        write_parts([sequences[one] for one in names.split(",")], folder)
        first = before(given.model, folder, given.test)
        cells = ["as it is", "0", *_pairs(first), _mean(first["held"]), "", _mean(first["test"]), "", "", ""]
        print("| " + " | ".join([f"{name} ({len(first['held'])} videos)", *cells]) + " |", flush=True)
        for method in given.methods.split(","):
            row = measured(given.model, method, labels, folder, given.test, given.steps)
            kept, of = (sum(scene[key] for scene in row["scenes"]) for key in ("kept", "frames"))
            cells = [
                method,
                f"{row['trained']:,}",
                *_pairs(row),
                _mean(row["held"]),
                difference(row["held"], first["held"]),
            ]
            cells += [_mean(row["test"]), difference(row["test"], first["test"]), f"{row['cpu']:.0f}"]
            print("| " + " | ".join([name, *cells, f"{kept} of {of}"]) + " |", flush=True)


def _mean(aucs: Mapping[str, float]) -> str:
    return f"{100 * np.mean(list(aucs.values())):.1f}"


def _pairs(row: Mapping[str, Any]) -> list[str]:
    """Pair IoU before the merge, after it, as integers."""
    scores = row.get("scores") or {}
    return [f"{scores[way]['pair_iou']:.3f}" if way in scores else "-" for way in WAYS] + [f"{row['pairs']:.3f}"]


if __name__ == "__main__":
    main()
