"""What the verbs do with a dense tracker, which has no integer program: its exported step runs in ONNX Runtime.

This module decides defaults and what a verb returns. It must not print, nor know which dense tracker it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spiketrack_deploy.api.results import DenseFitResult, SimulateResult
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.inputs.progress import Tell

if TYPE_CHECKING:
    from spiketrack_deploy.hardware.targets import Target
    from spiketrack_deploy.inputs.sources import ClipSource, ModelSource
    from spiketrack_deploy.tracking.loop import TrackedFrame
    from spiketrack_deploy.tracking.video import FrameSource

ONNX = "onnx"


def dense_fit(source: ModelSource, target: Target) -> DenseFitResult:
    """What of a dense tracker ``target`` could hold, layer by layer; nothing is written."""
    from spiketrack_deploy.mapping.dense import dense_verdict
    from spiketrack_deploy.trackers.opening import frame_layers

    return cast(DenseFitResult, {"subject": source.name, **dense_verdict(frame_layers(source.path), target)})


def demand_onnx(folder: Path, engine: str | None) -> None:
    """UsageError where a dense tracker's bundle is asked to run on anything but ONNX Runtime."""
    if engine not in (None, ONNX):
        raise UsageError(
            f"{folder}: is a dense tracker's bundle without an integer program, so there is nothing for the {engine} "
            f"engine; its step runs in ONNX Runtime: drop --engine, or say {ONNX}"
        )


def follow_step(
    folder: Path, frames: FrameSource, clip: ClipSource, threads: int | None, tell: Tell | None
) -> list[TrackedFrame]:
    """The exported step through a clip."""
    from spiketrack_deploy.trackers.opening import onnx_network
    from spiketrack_deploy.tracking.runs import follow

    return follow(onnx_network(folder / layout.DENSE_ONNX, threads or 1), frames, clip.init, "ONNX Runtime", tell)


def track_step(
    folder: Path, frames: FrameSource, clip: ClipSource, threads: int | None, tell: Tell | None
) -> tuple[Any, Any, None]:
    """Boxes, what each frame costs under the bundle's prices, and no remark."""
    from spiketrack_deploy.bundle.recorded import recorded_counts, reprice
    from spiketrack_deploy.energy.frames import STEADY, result_cost
    from spiketrack_deploy.hardware.targets import Target

    recorded = recorded_counts(folder / layout.ENERGY)
    steps = follow_step(folder, frames, clip, threads, tell)
    target = Target(recorded.profile.name, recorded.profile)
    cost = result_cost(STEADY, [reprice(recorded, None, target).main.run], target.profile, 0)
    return steps, [cost] * (len(steps) + 1), None


def simulate_step(
    folder: Path, frames: FrameSource, clip: ClipSource, threads: int | None, tell: Tell | None
) -> SimulateResult:
    """The exported step through a clip: what every frame counts, boxes, time."""
    import time

    from spiketrack_deploy.bundle.dense import counted, read_layers
    from spiketrack_deploy.energy.layers import whole

    layers, begin = counted(read_layers(folder), 1), time.perf_counter()
    steps = follow_step(folder, frames, clip, threads, tell)
    return {
        "bundle": str(folder),
        "engine": ONNX,
        "frames": len(steps),
        "runs": {"frame": len(steps)},
        "seconds_per_frame": (time.perf_counter() - begin) / len(steps),
        "counts": {"frame": whole(layers).means()},
        "layers": [
            {"phase": "frame", "name": m.name, "kind": m.kind, "block": m.block, "counts": m.means()} for m in layers
        ],
        "boxes": [[s.frame, *s.box, s.confidence] for s in steps],
    }
