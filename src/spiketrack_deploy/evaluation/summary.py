"""From records to the results file: scores by sequence, by attribute, their means with intervals, speed apart.

This module decides what a results file says. It must not know how records came about. The results hold nothing that a
second run would change; what a clock measured goes into another file.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.datasets.sequences import Dataset, VideoSequence
from spiketrack_deploy.energy.twins import as_dense
from spiketrack_deploy.evaluation import metrics
from spiketrack_deploy.evaluation.cost import Layers, cost_of, cost_of_layers
from spiketrack_deploy.evaluation.run import Failure, Record
from spiketrack_deploy.evaluation.store import SCHEMA
from spiketrack_deploy.evaluation.subjects import FLOAT, Subject
from spiketrack_deploy.evaluation.tally import Tally
from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.program.types import Program

PROTOCOL = {
    "kind": "one-pass evaluation from the true first box",
    "not_scored": "the first frame, and frames without the target",
    "success": "share of frames with overlap > threshold, 21 thresholds 0, 0.05 .. 1",
    "precision": "share of frames with a centre error of at most 20 px",
    "norm_precision": "mean over 51 thresholds 0, 0.01 .. 0.5 of the centre error over the true size",
    "mean": "over sequences, each with the same weight",
    "interval": f"95 %, bootstrap over sequences, {metrics.DRAWS} draws, seed {metrics.SEED}",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one subject's run left: records by sequence, failures, the program where it is one, and the layers of a
    dense tracker where their operations were counted."""

    subject: Subject
    records: Mapping[str, Record]
    failures: Sequence[Failure]
    program: Program | None
    layers: Layers | None


def summarise(dataset: Dataset, findings: Sequence[Findings], target: Target) -> dict[str, Any]:
    """The content of ``results.json``: deterministic, shares 0..1, energies in nanojoules."""
    trackers = {f.subject.label: _tracker(dataset, f, target) for f in findings}
    return {
        "schema": SCHEMA,
        "dataset": describe(dataset),
        "protocol": PROTOCOL,
        "trackers": with_differences(trackers),
    }


def describe(dataset: Dataset) -> dict[str, Any]:
    """The data set as results name it."""
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "digest": dataset.digest,
        "sequences": [s.name for s in dataset.sequences],
        "frames": sum(len(s.frames) for s in dataset.sequences),
        "problems": [{"sequence": p.name, "reason": p.reason} for p in dataset.problems],
    }


def _tracker(dataset: Dataset, found: Findings, target: Target) -> dict[str, Any]:
    rows, scored, unscored = {}, {}, []
    for sequence in dataset.sequences:
        record = found.records.get(sequence.name)
        if record is None:
            continue
        frames = metrics.frame_scores(record.array, sequence.boxes) if sequence.scorable else None
        if frames is None or not frames.overlap.size:
            unscored.append(sequence.name)
            continue
        scored[sequence.name] = frames
        rows[sequence.name] = _row(sequence, record, frames)
    tallies = {name: r.tally for name, r in found.records.items() if r.tally is not None}
    subject = found.subject
    return {
        "kind": subject.kind,
        "engine": subject.engine,
        "identity": dict(subject.identity),
        "sequences": rows,
        "unscored": unscored,
        "failed": [{"sequence": f.sequence, "reason": f.reason} for f in found.failures],
        **_means(rows, list(scored.values())),
        "attributes": _attributes(dataset.sequences, rows),
        "energy": _energy(found, tallies, target) if tallies else None,
    }


def _energy(found: Findings, tallies: Mapping[str, Tally], target: Target) -> dict[str, Any] | None:
    """Of a program on its chips; of a dense tracker by its operations, where the profile prices dense ones."""
    if found.program is not None:
        return cost_of(tallies, found.program, target, found.subject.way)
    dense = as_dense(target.profile) if found.subject.kind == FLOAT else None
    return cost_of_layers(tallies, found.layers, dense) if found.layers and dense else None


def _row(sequence: VideoSequence, record: Record, frames: metrics.FrameScores) -> dict[str, Any]:
    # A file keeps of a box that is not finite only that it is none, so the digest must not see more.
    known = np.where(np.isfinite(record.array), record.array, np.nan)
    boxes = hashlib.sha256(known.astype("<f8").tobytes()).hexdigest()
    return {
        "frames": int(frames.overlap.size),
        **metrics.scores(frames),
        "broken_boxes": frames.broken,
        "boxes_sha256": boxes,
    }


def mean_row(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = metrics.SCORES) -> dict[str, dict[str, float]]:
    """Score -> mean over sequences with its bootstrap interval."""
    found = {}
    for key in keys:
        values = [row[key] for row in rows]
        low, high = metrics.bootstrap(values)
        found[key] = {"mean": statistics.fmean(values), "low": low, "high": high}
    return found


def _means(rows: Mapping[str, Any], scored: Sequence[metrics.FrameScores]) -> dict[str, Any]:
    if not scored:
        return {"mean": None, "pooled": None, "curves": None}
    lines = metrics.mean_curves(scored)
    return {
        "mean": mean_row(list(rows.values())),
        "pooled": metrics.pooled(scored),
        "curves": {
            "success": lines.success.tolist(),
            "precision": lines.precision.tolist(),
            "norm_precision": lines.norm_precision.tolist(),
        },
    }


def _attributes(sequences: Sequence[VideoSequence], rows: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attribute in sorted({a for s in sequences for a in s.attributes}):
        members = [rows[s.name] for s in sequences if attribute in s.attributes and s.name in rows]
        if members:
            found[attribute] = {"sequences": len(members), **mean_row(members, ("auc", "precision", "norm_precision"))}
    return found


def with_differences(trackers: Mapping[str, Any]) -> dict[str, Any]:
    """Every tracker but the first gets ``against_first``: mean difference of AUC and precision over the sequences both
    finished, paired, with its interval; the sign test of AUC; and in how many the boxes are the same to the last
    bit."""
    labels = list(trackers)
    result = {label: {k: v for k, v in trackers[label].items() if k != "against_first"} for label in labels}
    for label in labels[1:]:
        first, other = result[labels[0]]["sequences"], result[label]["sequences"]
        common = [name for name in first if name in other]
        if common:
            pairs = [{k: other[n][k] - first[n][k] for k in ("auc", "precision")} for n in common]
            same = sum(first[n]["boxes_sha256"] == other[n]["boxes_sha256"] for n in common)
            result[label]["against_first"] = {
                "tracker": labels[0],
                "sequences": len(common),
                "same_boxes": same,
                "sign": metrics.sign_test([pair["auc"] for pair in pairs]),
                **mean_row(pairs, ("auc", "precision")),
            }
    return result


def speed(findings: Sequence[Findings]) -> dict[str, Any]:
    """The content of ``speed.json``: frames per second and milliseconds a frame, tracked frames only, decoding of
    images apart. It differs from run to run. The box that never moves has no speed worth a number."""
    return {f.subject.label: _speed(f) for f in findings if f.records and f.subject.source != "static"}


def _speed(found: Findings) -> dict[str, Any]:
    rows = {}
    for name, record in found.records.items():
        seconds, frames = sum(record.seconds[1:]), len(record.seconds) - 1
        rows[name] = {
            "frames": frames,
            "fps": frames / seconds if seconds > 0 else None,
            "crop_ms": 1e3 * record.crop_s / frames,
            "network_ms": 1e3 * record.network_s / frames,
            "rest_ms": 1e3 * max(seconds - record.crop_s - record.network_s, 0.0) / frames,
            "init_ms": 1e3 * record.seconds[0],
        }
    rates = [float(row["fps"]) for row in rows.values() if row["fps"] is not None]
    every = [t for record in found.records.values() for t in record.seconds[1:]]
    split = {
        key: statistics.fmean(row[key] or 0.0 for row in rows.values()) for key in ("crop_ms", "network_ms", "rest_ms")
    }
    return {
        "threads": found.subject.threads,
        "fps_mean": statistics.fmean(rates) if rates else None,
        "fps_median": statistics.median(rates) if rates else None,
        "frame_ms_median": 1e3 * statistics.median(every),
        **split,
        "sequences": rows,
    }
