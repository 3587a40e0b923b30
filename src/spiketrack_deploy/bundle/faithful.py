"""How true a program is to its tracker and to its definition: the content of ``parity.json``.

This module decides which comparisons an export must state: layer by layer against the float tracker, box by box against
it, and integer by integer between engines. It must not know files of a bundle or how a report shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spiketrack_deploy.bundle.answers import Checked
from spiketrack_deploy.engines.base import Engine
from spiketrack_deploy.engines.float_parity import LayerParity, Recording, layer_parity
from spiketrack_deploy.lowering.lower import LoweringResult
from spiketrack_deploy.program.describe import describe_ranges
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.tracking.boxes import overlaps
from spiketrack_deploy.tracking.loop import TrackedFrame
from spiketrack_deploy.tracking.runs import FloatRun, Sample

SCHEMA = "spiketrack-parity/1"


def compare_boxes(program: Sequence[TrackedFrame], tracker: Sequence[TrackedFrame]) -> dict[str, Any]:
    """Overlap, largest coordinate difference in pixels and agreement of the best cell over the frames both tracked."""
    pairs = list(zip(program, tracker))
    shares = overlaps([a.box for a, _ in pairs], [b.box for _, b in pairs]).tolist()
    differences = [max(abs(p - q) for p, q in zip(a.box, b.box)) for a, b in pairs]
    return {
        "frames": len(pairs),
        "mean_iou": math.fsum(shares) / len(pairs),
        "least_iou": min(shares),
        "largest_difference_px": max(differences),
        "same_cell": sum(a.argmax == b.argmax for a, b in pairs),
        "largest_confidence_difference": max(abs(a.confidence - b.confidence) for a, b in pairs),
    }


def compare_layers(program: Program, engine: Engine, run: FloatRun) -> list[dict[str, Any]]:
    """Every NI-LIF population on the held-out frames, teacher-forced and free-running: one row each, JSON-ready.

    Teacher-forced search frames read the float tracker's memories, free-running ones those that the program makes from
    the same templates.
    """
    has_memory = "template" in program.phases
    template = [Recording("template", {"image": run.templates}, run.template_spikes)] if has_memory else []
    forced = template + [_recording(sample, sample.memories) for sample in run.held_out]
    free = template + [_recording(sample, _memories(engine, sample) if has_memory else {}) for sample in run.held_out]
    blocks = {(b.name, op.name): op.block for b in program.phases.values() for op in b.ops}
    rows = zip(layer_parity(engine, forced, teacher_forced=True), layer_parity(engine, free, teacher_forced=False))
    return [_row(a, b, blocks[(a.phase, a.name)]) for a, b in rows]


def _recording(sample: Sample, memories: Mapping[str, Any]) -> Recording:
    return Recording("search", {"image": sample.image, **memories}, sample.spikes)


def _memories(engine: Engine, sample: Sample) -> Mapping[str, Any]:
    return engine.run("template", {"image": sample.templates}, count=False).outputs


def _row(forced: LayerParity, free: LayerParity, block: str) -> dict[str, Any]:
    return {
        "phase": forced.phase,
        "name": forced.name,
        "block": block,
        "spikes": forced.neurons,
        "forced_mismatches": forced.mismatches,
        "forced_sqnr_db": forced.sqnr_db,
        "free_mismatches": free.mismatches,
        "free_sqnr_db": free.sqnr_db,
        "saturated": free.saturated,
    }


def parity(
    lowered: LoweringResult,
    run: FloatRun,
    layers: Sequence[Mapping[str, Any]],
    steps: Sequence[TrackedFrame],
    engine: str,
    checked: Checked,
) -> dict[str, Any]:
    """The content of ``parity.json``."""
    return {
        "schema": SCHEMA,
        "calibration_frames": [sample.frame for sample in run.calibration],
        "compared_frames": [sample.frame for sample in run.held_out],
        "layers": list(layers),
        "convolutions": [asdict(conv) for conv in lowered.convolutions],
        "boxes": compare_boxes(steps, run.steps),
        "engines": {
            "engine": engine,
            "against": "reference",
            "runs": checked.runs,
            "operations": checked.operations,
            "integers": checked.integers,
            "differing": checked.differing,
        },
        "requantised": list(lowered.requantised),
        "ranges": describe_ranges(lowered.ranges),
    }
