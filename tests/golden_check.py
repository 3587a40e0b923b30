"""Compare this tracker with a folder of golden expectations, in float64.

    python tests/golden_check.py DIR [--config NAME] [--json]

DIR holds ``keys/``, ``bn/``, ``inputs/``, ``expect/``, ``fingerprints.json`` and, for the track and the crops,
``clip/``, ``track_settings.json`` and ``geometry.json``. Every configuration under ``expect/`` is checked unless NAME
picks one.
Exact: fingerprints, key tables, spike shapes, sums and hashes, memories, argmax, updates, crop hashes. Maps and
confidences within 1e-9, boxes within 1e-6. Exit status 0 only if everything agrees; missing files are differences.
A folder with ``configs.json`` is one of SPMTrack: what is compared then stands in ``_golden_spmtrack.py``.
This script decides what agreement is; it takes every size from DIR and runs no code from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

try:
    import spiketrack_deploy  # noqa: F401  (installed, or on PYTHONPATH)
except ImportError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

import _golden_spmtrack
import torch

from spiketrack_deploy.errors import SpiketrackError
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig
from spiketrack_deploy.trackers.spiketrack.draw import draw_state, fingerprint
from spiketrack_deploy.trackers.spiketrack.infer import infer_config
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.trackers.spiketrack.torch_network import TorchNetwork
from spiketrack_deploy.tracking.boxes import clip_box
from spiketrack_deploy.tracking.crop import crop_window, sample_target
from spiketrack_deploy.tracking.images import Image
from spiketrack_deploy.tracking.loop import HeadMaps, Tracker, decode
from spiketrack_deploy.tracking.video import open_frames

MAP_TOLERANCE = 1e-9
BOX_TOLERANCE = 1e-6
MEMORY_UNITS = 16
"""A memory is stored in sixteenths."""
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    SpiketrackError,
)
"""What a missing or malformed file of a set can raise."""


@dataclass(slots=True)
class Quantity:
    """One compared quantity of one configuration: how often, how far off at worst, and the first fault."""

    config: str
    quantity: str
    tolerance: float
    compared: int = 0
    differences: int = 0
    worst: float = 0.0
    first_fault: str = ""


class Report:
    """Collects comparisons; nothing compared counts as a difference."""

    def __init__(self) -> None:
        self.quantities: dict[tuple[str, str], Quantity] = {}

    def close(self, config: str, quantity: str, where: str, want: Any, got: Any, tolerance: float = 0.0) -> None:
        """Compare numbers or arrays of numbers; a wrong size counts as infinitely far."""
        a, b = np.asarray(want, dtype=np.float64), np.asarray(got, dtype=np.float64)
        if a.size != b.size or not np.isfinite(b).all():
            distance = float("inf")
        else:
            distance = float(np.abs(a.reshape(-1) - b.reshape(-1)).max(initial=0.0))
        self._add(config, quantity, where, distance, tolerance, f"{where}: off by {distance:.3g}")

    def equal(self, config: str, quantity: str, where: str, want: Any, got: Any) -> None:
        """Compare anything exactly; the distance is 0 or 1."""
        fault = f"{where}: expected {_short(want)}, got {_short(got)}"
        self._add(config, quantity, where, float(want != got), 0.0, fault)

    def fault(self, config: str, quantity: str, text: str) -> None:
        """Something that could not be compared at all."""
        self._add(config, quantity, "", float("inf"), 0.0, text)

    def _add(self, config: str, name: str, where: str, distance: float, tolerance: float, fault: str) -> None:
        entry = self.quantities.setdefault((config, name), Quantity(config, name, tolerance))
        entry.compared += 1
        entry.worst = max(entry.worst, distance)
        if not distance <= tolerance:
            entry.differences += 1
            entry.first_fault = entry.first_fault or fault

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing differs."""
        return bool(self.quantities) and not any(q.differences for q in self.quantities.values())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_json(path: Path) -> Any:
    """Content of a JSON file of the set."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_image(path: Path) -> Image:
    """RGB uint8 image of the set."""
    import cv2

    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(f"{path} is missing or no image")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def digest(array: np.ndarray[Any, Any]) -> str:
    """SHA-256 of the bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def check_set(root: Path, only: str | None, report: Report) -> None:
    """Every check of one folder."""
    names = sorted(p.name for p in (root / "expect").glob("*") if p.is_dir())
    if only is not None:
        names = [n for n in names if n == only]
    if not names:
        report.fault(only or "-", "expectations", f"{root / 'expect'} holds no folder{f' {only}' if only else ''}")
    for name in names:
        with guarded(report, name, "configuration"):
            check_config(root, name, report)
    geometry = root / "geometry.json"
    if geometry.exists() or (root / "clip").exists():
        with guarded(report, "-", "geometry"):
            check_geometry(root, read_json(geometry), report)


class guarded:
    """Turn a missing or malformed file into a difference, so that the other checks still run."""

    def __init__(self, report: Report, config: str, quantity: str) -> None:
        self._report, self._config, self._quantity = report, config, quantity

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, UNREADABLE):
            self._report.fault(self._config, self._quantity, f"{type(error).__name__}: {error}")
            return True
        return False


def check_config(root: Path, name: str, report: Report) -> None:
    """Weights, cases and track of one configuration."""
    table = read_json(root / "keys" / f"{name}.json")
    keys = {key: tuple(shape) for key, shape in table["keys"]}
    config = stated_config(name, table["config"], keys)
    with np.load(root / "bn" / f"{name}.npz") as norms:
        state = draw_state(name, keys, norms["bn"])
    report.equal(name, "fingerprint", "weights", read_json(root / "fingerprints.json").get(name), fingerprint(state))

    model = SpikeTrack(config)
    mine = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    report.equal(name, "state-dict keys", "missing or unexpected", [], sorted(keys.keys() ^ mine.keys())[:8])
    wrong = [key for key in keys.keys() & mine.keys() if keys[key] != mine[key]]
    report.equal(name, "state-dict shapes", "misshaped", [], sorted(wrong)[:8])
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in state.items()})
    network = TorchNetwork(model, config, torch.float64)

    cases = sorted((root / "expect" / name).glob("case_*.json"))
    if not cases:
        report.fault(name, "cases", f"{root / 'expect' / name} holds no case")
    for path in cases:
        with guarded(report, name, "cases"):
            check_case(root, read_json(path), np.load(path.with_name(path.stem + "_maps.npz")), network, report)
    with guarded(report, name, "track"):
        check_track(root, name, network, report)


def stated_config(name: str, stated: Mapping[str, Any], keys: Mapping[str, tuple[int, ...]]) -> TrackerConfig:
    """Layout from the stated sizes; what the set does not state (walk, expansions) is read off the shapes."""
    inferred = infer_config(keys, name, heads=int(stated.get("heads", 8)))
    renamed = {"r": "resolution", "T": "templates"}
    fields = inferred.to_dict()
    fields.update({renamed.get(key, key): value for key, value in stated.items() if renamed.get(key, key) in fields})
    return TrackerConfig.from_dict({**fields, "name": name})


def check_case(root: Path, want: Mapping[str, Any], maps: Any, network: TorchNetwork, report: Report) -> None:
    """Both branches on one pair of template and search crops."""
    config, case = network.config, want["case"]
    stem = root / "inputs" / f"crop{config.resolution}_{case}"
    crops = [read_image(Path(f"{stem}_t{t}.png")) for t in range(config.templates)]
    search = read_image(Path(f"{stem}_s.png"))
    with record_spikes(network.model) as template_spikes:
        network.set_templates(crops)
    with record_spikes(network.model) as search_spikes:
        got = network.search(search)
    for branch, spikes in (("template", template_spikes), ("search", search_spikes)):
        check_neurons(config.name, f"case {case} {branch}", want[branch]["neurons"], spikes, report)
        total = sum(int(n.sum(dtype=torch.int64)) for n in spikes.values())
        report.close(config.name, "total spikes", f"case {case} {branch}", want["totals"][branch], total)
    check_memories(config.name, f"case {case}", want["template"]["memories"], network.memories, report)
    for key in ("score", "size", "offset"):
        report.close(config.name, f"{key} map", f"case {case}", maps[key], getattr(got, key), MAP_TOLERANCE)
    best = decode(got)
    report.close(config.name, "decoded box", f"case {case}", want["pred_box"], best.box, BOX_TOLERANCE)
    report.close(config.name, "argmax", f"case {case}", want["argmax"], best.argmax)
    report.close(config.name, "argmax margin", f"case {case}", want["argmax_margin"], best.margin, MAP_TOLERANCE)


def check_neurons(
    config: str, where: str, want: Sequence[Mapping[str, Any]], spikes: Mapping[str, torch.Tensor], report: Report
) -> None:
    """Every call of every neuron, in execution order."""
    report.equal(config, "neuron order", where, [e["name"] for e in want], list(spikes))
    for entry in want:
        name = entry["name"]
        if name not in spikes:
            report.fault(config, "neuron order", f"{where} {name}: no such call")
            continue
        n = spikes[name]
        axes = [a for a in range(n.dim()) if a != entry["time_axis"]]
        report.equal(config, "spike shapes", f"{where} {name}", entry["shape"], list(n.shape))
        report.close(config, "spike sums", f"{where} {name}", entry["sums"], n.sum(axes, dtype=torch.int64).numpy())
        report.close(config, "full spikes", f"{where} {name}", entry["full"], (n == 4).sum(axes).numpy())
        report.equal(config, "spike hashes", f"{where} {name}", entry["sha256"], digest(n.contiguous().numpy()))


def check_memories(
    config: str, where: str, want: Sequence[Mapping[str, Any]], memories: Mapping[int, torch.Tensor], report: Report
) -> None:
    """Every memory as integers in sixteenths."""
    report.equal(config, "memory list", where, [m["index"] for m in want], sorted(memories))
    for entry in want:
        units = (memories[entry["index"]] * MEMORY_UNITS).numpy()
        integers = units.astype(np.int32)
        sums = integers.reshape(len(integers), -1).sum(1, dtype=np.int64)
        at = f"{where} memory {entry['index']}"
        report.equal(config, "memory shapes", at, entry["shape"], list(units.shape))
        report.close(config, "memory values", at, integers, units)
        report.close(config, "memory sums", at, entry["sums"], sums)
        report.close(config, "memory maximum", at, entry["max"], integers.max())
        report.equal(config, "memory hashes", at, entry["sha256"], digest(integers))


class CountingNetwork(TorchNetwork):
    """Counts the spikes of every search."""

    spikes = 0

    def search(self, crop: Image) -> HeadMaps:
        """As the parent, leaving the sum of all integer spikes in ``spikes``."""
        with record_spikes(self.model) as recorded:
            maps = super().search(crop)
        self.spikes = sum(int(n.sum(dtype=torch.int64)) for n in recorded.values())
        return maps


def check_track(root: Path, name: str, network: TorchNetwork, report: Report) -> None:
    """The loop on the clip. A set without clip, settings and track has none, which the report says."""
    path, settings = root / "expect" / name / "track.json", root / "track_settings.json"
    stated = read_json(settings) if settings.exists() else None
    expected = (root / "clip").exists() if stated is None else name in stated["threshold"]
    if not path.exists() and not expected:
        print(f"note: {name} states no track", file=sys.stderr)
        return
    want = read_json(path)
    if stated is None:
        raise FileNotFoundError(f"{settings} is missing")
    threshold = float(stated["threshold"][name])
    rule = replace(network.config, update_interval=stated["interval"], update_threshold=threshold)
    counting = CountingNetwork(network.model, rule, torch.float64)
    tracker, frames = Tracker(counting), iter(open_frames(root / "clip"))
    first = tracker.init(next(frames), want["init_box"])
    report.equal(name, "track crops", "initial template", want["init_template_crop_sha256"], digest(first))
    compared = 0
    for entry, frame in zip(want["frames"], frames):
        step, at, compared = tracker.track(frame), f"frame {entry['frame']}", compared + 1
        report.close(name, "track frame numbers", at, entry["frame"], step.frame)
        report.close(name, "track boxes", at, entry["box"], step.box, BOX_TOLERANCE)
        report.close(name, "track confidence", at, entry["conf_score"], step.confidence, MAP_TOLERANCE)
        report.close(name, "track margin", at, entry["margin"], step.margin, MAP_TOLERANCE)
        report.close(name, "track argmax", at, entry["argmax"], step.argmax)
        report.close(name, "track resize factor", at, entry["resize_factor"], tracker.resize_factor)
        report.close(name, "track search spikes", at, entry["search_spikes"], counting.spikes)
        report.equal(name, "track updates", at, entry["updated"], step.updated)
        report.equal(name, "track crops", at, entry["search_crop_sha256"], digest(tracker.search_crop))
        template = digest(tracker.templates[-1]) if step.updated else None
        report.equal(name, "track crops", f"{at} template", entry["template_crop_sha256"], template)
    report.equal(name, "track length", "frames", len(want["frames"]), compared)


def check_geometry(root: Path, want: Mapping[str, Any], report: Report) -> None:
    """Crops and clipping without a network."""
    frame = read_image(root / want["image"])
    height, width = frame.shape[:2]
    for index, case in enumerate(want["crops"]):
        at, window = f"crop {index}", crop_window(case["box"], want["factor"], width, height)
        crop, factor = sample_target(frame, case["box"], want["factor"], case["out"])
        pads = [window.left, window.right, window.top, window.bottom]
        expected = [case[f"pad_{side}"] for side in ("left", "right", "top", "bottom")]
        corner = [case["crop_side"], case["x1"], case["y1"]]
        report.close("-", "crop corners", at, corner, [window.side, window.x1, window.y1])
        report.close("-", "crop padding", at, expected, pads)
        report.close("-", "crop resize factor", at, case["resize_factor"], factor)
        report.close("-", "crop sums", at, case["sum"], crop.sum(dtype=np.int64))
        report.equal("-", "crop hashes", at, case["sha256"], digest(crop))
    clip = want["clip"]
    for index, case in enumerate(clip["cases"]):
        got = clip_box(case["box"], clip["W"], clip["H"], clip["margin"])
        report.close("-", "clipped boxes", f"clip {index}", case["result"], got, MAP_TOLERANCE)
    report.equal("-", "geometry", "has crop and clip cases", True, bool(want["crops"]) and bool(clip["cases"]))


def table(quantities: Sequence[Quantity]) -> Iterator[str]:
    """The report as lines of text."""
    yield f"{'config':<12} {'quantity':<22} {'compared':>8} {'different':>9} {'worst':>9} {'allowed':>8}"
    for q in quantities:
        yield f"{q.config:<12} {q.quantity:<22} {q.compared:>8} {q.differences:>9} {q.worst:>9.2g} {q.tolerance:>8.0e}"
        if q.first_fault:
            yield f"    first: {q.first_fault}"


def main(arguments: Sequence[str] | None = None, write: Callable[[str], object] = print) -> int:
    """Run the comparison; returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare the tracker with golden expectations in float64.")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--config", metavar="NAME", help="check this configuration only")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    report, start = Report(), time.perf_counter()
    if _golden_spmtrack.is_such_a_set(options.folder):
        _golden_spmtrack.Checker(options.folder, report).check(options.config)
    else:
        check_set(options.folder, options.config, report)
    seconds, quantities = time.perf_counter() - start, list(report.quantities.values())
    if options.json:
        # JSON knows no infinity: what could not be compared has no distance.
        rows = [{**asdict(q), "worst": q.worst if np.isfinite(q.worst) else None} for q in quantities]
        found = {"folder": str(options.folder), "ok": report.ok, "seconds": round(seconds, 3), "quantities": rows}
        write(json.dumps(found))
    else:
        for line in table(quantities):
            write(line)
        verdict, count = "all agree" if report.ok else "DIFFERENT", sum(q.compared for q in quantities)
        write(f"{verdict}: {count} comparisons in {seconds:.1f} s")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
