"""Is an exported dense step the tracker? Compared with PyTorch when it is exported, recorded, and checked anywhere.

This module decides what is compared, how far it may be off, and what of it travels with a bundle: a few frames' inputs
with the maps that PyTorch made of them (``answers.npz``). Verification takes ONNX Runtime and NumPy alone. It must not
know which dense tracker it is.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.bundle import layout
from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.inputs.progress import Tell
from spiketrack_deploy.inputs.untrusted import Arrays, Entry
from spiketrack_deploy.inputs.whole_file import write_whole
from spiketrack_deploy.tracking.aligned_crop import Alignment, clipped
from spiketrack_deploy.tracking.boxes import Box, overlaps
from spiketrack_deploy.tracking.loop import tracker_over
from spiketrack_deploy.tracking.reference_loop import BoxMaps, decode, sigmoid

SCHEMA = "spiketrack-dense-parity/2"
PARITY_FRAMES, MAP_BOUND, BOX_BOUND = 10, 1e-4, 0.1
"""Frames that ONNX Runtime is compared on; largest difference of a map that boxes are made from (scores behind their
sigmoid, corners in sides of the crop) and, over the largest of them, of the logits; largest of a box in pixels."""
RECORDED = (1, PARITY_FRAMES)
"""Frames whose inputs and maps travel with the bundle."""
_MAPS = ("score", "boxes")
_AGAIN = layout.AGAIN


class Beside:
    """Two networks on the same crops, each with its own state; the loop follows the first."""

    def __init__(self, first: Any, second: Any) -> None:
        self._pair, self.config, self.loop = (first, second), first.config, first.loop
        self._score: list[float] = []
        self._overlap: list[float] = []

    def start(self) -> Any:
        return [one.start() for one in self._pair]

    def reference(self, crop: Any, cells: Any) -> Any:
        return [one.reference(crop, cells) for one in self._pair]

    def search(self, crop: Any, references: Any, state: Any) -> Any:
        a, b = (one.search(crop, [ready[i] for ready in references], state[i]) for i, one in enumerate(self._pair))
        self._score.append(float(np.sqrt(((a.score - b.score) ** 2).mean()) / max(float(a.score.std()), 1e-12)))
        cell = int(a.score.argmax())
        first, second = (maps.boxes.reshape(-1, 4)[cell] for maps in (a, b))
        first, second = (np.concatenate([box[:2], box[2:] - box[:2]]) for box in (first, second))
        self._overlap.append(float(overlaps(first, second)[0]))
        return replace(a, state=[a.state, b.state])

    def found(self) -> dict[str, float]:
        """Means over frames of the same crops: rms difference of the scores over their spread, and how much the boxes
        of the best cell overlap."""
        return {"same_crops_score": float(np.mean(self._score)), "same_crops_overlap": float(np.mean(self._overlap))}


def compare_onnx(model: Any, folder: Path, init: Box, frames: Any) -> dict[str, Any]:
    """PyTorch's literal step and that of ``folder`` in ONNX Runtime, each in its own loop over the first frames, and
    how experts were used meanwhile. Writes ``answers.npz``.

    VerificationError: a map or box is further off than the bounds."""
    from spiketrack_deploy.trackers.opening import onnx_network

    networks = {"torch": model.network(literal=True), "onnx": onnx_network(folder / layout.DENSE_ONNX)}
    trackers: dict[str, Any] = {name: tracker_over(network) for name, network in networks.items()}
    rows: list[dict[str, Any]] = []
    answers: dict[str, Any] = {}
    recorded: list[dict[str, Any]] = []
    with model.watching_experts() as experts:
        for index, frame in enumerate(frames):
            if index > PARITY_FRAMES:
                break
            if index == 0:
                for tracker in trackers.values():
                    tracker.init(frame, init)
                continue
            first, second = (tracker.track(frame) for tracker in trackers.values())
            maps = trackers["torch"].maps
            apart = _apart(maps, trackers["onnx"].maps)
            off = float(np.abs(np.subtract(first.box, second.box)).max())
            rows.append({"frame": index, **apart, "box_pixels": off, "same_cell": first.argmax == second.argmax})
            if index in RECORDED:
                given = networks["onnx"].given
                answers |= {f"{index}.{name}": value for name, value in given.items()}
                answers |= {f"{index}.{name}": getattr(maps, name).astype(np.float32) for name in _MAPS}
                recorded.append(_placed(index, frame, trackers["onnx"].alignment))
    worst = _worst(rows)
    _demand(worst, layout.DENSE_ONNX, "PyTorch", all(row["same_cell"] for row in rows), "report it with both versions")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **answers)
    write_whole(folder / layout.ANSWERS, buffer.getvalue())
    onnx = {
        "opset": model.opset,
        "frames": len(rows),
        "bound_maps": MAP_BOUND,
        "bound_pixels": BOX_BOUND,
        "worst": worst,
        "rows": rows,
        "recorded": recorded,
    }
    return {"schema": SCHEMA, "onnx": onnx, "experts": experts()}


def _apart(first: BoxMaps, second: BoxMaps) -> dict[str, float]:
    """Largest differences: of the scores, of their logits, of the logits over the largest (a sum in float32 is as exact
    as its largest terms allow), and of the map of boxes."""
    logits = float(np.abs(first.score - second.score).max())
    return {
        "score": float(np.abs(sigmoid(first.score) - sigmoid(second.score)).max()),
        "logits": logits,
        "logits_share": logits / max(1.0, float(np.abs(first.score).max())),
        "boxes_map": float(np.abs(first.boxes - second.boxes).max()),
    }


def _placed(index: int, frame: Any, at: Alignment) -> dict[str, Any]:
    """How a box of the recorded crop goes back to its frame."""
    return {"frame": index, "size": [frame.shape[1], frame.shape[0]], "scale": list(at.scale), "shift": list(at.shift)}


def _worst(rows: list[dict[str, Any]]) -> dict[str, float]:
    keys = ("score", "logits", "logits_share", "boxes_map", "box_pixels")
    return {key: max(row[key] for row in rows) for key in keys}


def _demand(worst: Mapping[str, float], place: object, other: str, same: bool, remedy: str) -> None:
    bad = max(worst[key] for key in ("score", "logits_share", "boxes_map")) > MAP_BOUND
    if bad or worst["box_pixels"] > BOX_BOUND or not same:
        raise VerificationError(
            f"{place}: ONNX Runtime differs from {other} by {worst['score']:.2g} in a score ({worst['logits']:.2g} in "
            f"its logit), {worst['boxes_map']:.2g} in a box map and {worst['box_pixels']:.2g} pixels in a box, more "
            f"than {MAP_BOUND:g} and {BOX_BOUND:g} px, or has its best score elsewhere; {remedy}"
        )


def verify_dense(folder: Path, tell: Tell | None = None) -> dict[str, Any]:
    """Check a dense tracker's bundle: digests of every file, then the recorded frames in ONNX Runtime, maps against
    those of PyTorch and boxes against ``boxes.csv``. What was covered; VerificationError names what differs."""
    from spiketrack_deploy.trackers.opening import onnx_network

    manifest = layout.check_bundle(folder)
    network = onnx_network(folder / layout.DENSE_ONNX)
    if layout.read_json(folder / layout.DENSE)["config"].table() != network.config.to_dict():
        raise VerificationError(
            f"{folder / layout.DENSE}: its configuration is not that of {layout.DENSE_ONNX}; {_AGAIN}"
        )
    boxes, rows = _recorded_boxes(folder / layout.BOXES), []
    places = layout.read_json(folder / layout.PARITY)["onnx"]["recorded"].each(len(RECORDED))
    with Arrays(folder / layout.ANSWERS, packed=True, remedy=_AGAIN) as archive:
        for index, place in enumerate(places):
            if tell:
                tell("known answers", index, len(RECORDED))
            rows.append(_verified(network, archive, place, boxes))
    if not rows:
        raise InputError(f"{folder / layout.PARITY}: names no recorded frame; {_AGAIN}")
    worst = _worst(rows)
    _demand(worst, folder / layout.DENSE_ONNX, "the record", all(row["same_cell"] for row in rows), _AGAIN)
    return {
        "bundle": str(folder),
        "ok": True,
        "content_hash": manifest.content_hash,
        "program_hash": manifest.program_hash,
        "files": len(manifest.files),
        "frames": len(rows),
        "values": network.config.grid**2 * 5 * len(rows),
        "worst": worst,
        "without_torch": "torch" not in sys.modules,
    }


def _verified(network: Any, archive: Arrays, place: Entry, boxes: Mapping[int, tuple[Box, int]]) -> dict[str, Any]:
    """One recorded frame: how far ONNX Runtime is from the record."""
    frame, grid = place["frame"].integer(1), network.config.grid
    given = {name: archive.read(f"{frame}.{name}", shape) for name, shape in network.shapes.items()}
    shapes = {"score": (grid, grid), "boxes": (grid, grid, 4)}
    wanted = [archive.read(f"{frame}.{name}", shapes[name]).astype(np.float64) for name in _MAPS]
    if frame not in boxes:
        raise InputError(f"{archive.path}: frame {frame} has no row in {layout.BOXES}; {_AGAIN}")
    maps = network.step({name: value.astype(np.float32) for name, value in given.items()})
    cell, _, _, found = decode(maps, network.config)
    (width, height), scale, shift = (_pair(place[key]) for key in ("size", "scale", "shift"))
    if min(scale) <= 0:
        raise place["scale"].fault("above 0")
    at = Alignment(network.config.search, (0, 0, 0, 0), (0, 0, 0, 0), scale, shift, 0.0, shift)
    x1, y1, x2, y2 = clipped(at.back(found), width, height)
    box, recorded = boxes[frame]
    off = float(np.abs(np.subtract((x1, y1, x2 - x1, y2 - y1), box)).max())
    return {**_apart(BoxMaps(wanted[0], wanted[1], None), maps), "box_pixels": off, "same_cell": cell == recorded}


def _pair(entry: Entry) -> tuple[float, float]:
    first, second = (one.number() for one in entry.each(2))
    return first, second


def _recorded_boxes(path: Path) -> dict[int, tuple[Box, int]]:
    """Box and cell of every tracked frame of a ``boxes.csv``."""
    try:
        return dict(_rows(path))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: is no table of boxes ({error}); {_AGAIN}") from None


def _rows(path: Path) -> Iterator[tuple[int, tuple[Box, int]]]:
    with path.open(encoding="ascii", newline="") as file:
        for row in csv.DictReader(file):
            if row["cell"]:
                x, y, w, h = (float(row[key]) for key in "xywh")
                yield int(row["frame"]), ((x, y, w, h), int(row["cell"]))
