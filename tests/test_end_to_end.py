"""The real command in an empty folder: every file of the bundle is what it says, and comes out the same again."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import h5py
import nir
import numpy as np
import onnx
import pytest
from _cli import contents, spiketrack, succeed

from spiketrack_deploy.bundle import layout as bundles
from spiketrack_deploy.program.store import content_hash, load_program

FRAMES = 4
FILES = {
    "model.nir", "model.cuts.json", "program/program.json", "program/arrays.npz", "program/vectors.npz",
    "program/expected.json", "program.onnx", "energy.json", "parity.json", "layers.csv", "tracked.mp4", "boxes.csv",
    "report.html", "provenance.json", "MANIFEST.json", "lava/README.md", "lava/stock_network.py", "lava/search.json",
    "lava/stock_processes.py",
    "lava/search.npz", "lava/search.answers.npz",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def result(place: Path) -> dict:
    """The bundled model on the bundled clip, by the command alone."""
    return succeed(place, "export", "--max-frames", FRAMES, "-o", "demo")


@pytest.fixture(scope="module")
def demo(place: Path, result: dict) -> Path:
    """The bundle."""
    return place / "demo"


def test_the_whole_bundle_and_nothing_else(place: Path, demo: Path, result: dict) -> None:
    assert {name for name, data in contents(demo).items() if data} == FILES
    assert sorted(FILES) == result["files"]
    assert [p.name for p in place.iterdir()] == ["demo"]


def test_verdict_says_what_must_be_said(result: dict) -> None:
    words = " ".join(result["verdict"] + result["remarks"])
    for needed in ("estimate", "0 of ", "no price", "[", "Not answered here"):
        assert needed in words, f"{needed!r} is missing in {words}"


def test_untrained_weights_are_called_so_and_rounding_them_changes_spikes(place: Path, result: dict) -> None:
    drawn = succeed(place, "export", "spiketrack-untrained", "--max-frames", 3, "-o", "drawn")
    assert "untrained" in " ".join(drawn["verdict"] + drawn["remarks"])
    assert "untrained" not in " ".join(result["verdict"] + result["remarks"])
    layers = json.loads((place / "drawn" / "parity.json").read_text())["layers"]
    forced = sum(r["forced_mismatches"] for r in layers) / sum(r["spikes"] for r in layers)
    shutil.rmtree(place / "drawn")
    assert 0 < forced < 0.02, f"fed with the tracker's spikes, layers change {forced:.1%} of them"


def test_manifest_and_hashes(demo: Path, result: dict) -> None:
    manifest = bundles.check_bundle(demo)
    assert manifest.content_hash == result["content_hash"]
    assert manifest.program_hash == result["program_hash"] == content_hash(load_program(demo / "program"))
    outside = json.loads((demo / "MANIFEST.json").read_text())["outside_content_hash"]
    assert set(outside) == {"provenance.json", "tracked.mp4", "report.html", "parity.json"}


def test_energy_is_banded_split_and_adds_up(demo: Path) -> None:
    data = json.loads((demo / "energy.json").read_text())
    search, template = data["phases"]["search"], data["phases"]["template"]
    assert search["runs"] == FRAMES - 1 and data["profile"]["name"] == "loihi2"
    frame = search["unamortised_nj"]
    assert 0 < frame["low"] < frame["nominal"] < frame["high"]
    rows = [row for row in data["layers"] if row["phase"] == "search"]
    structures, beside = search["structures_nj"], search["of_no_layer_nj"].values()
    assert frame["nominal"] == structures["operations"]["nominal"] and set(structures) == {"operations", "words"}
    for end, widest in (("low", min), ("nominal", lambda found: found[0]), ("high", max)):
        assert frame[end] == widest([found[end] for found in structures.values()])
        summed = sum(row["energy_nj"][end] for row in rows) + sum(part[end] for part in beside)
        assert summed == pytest.approx(structures["operations"][end], rel=1e-12)
        assert sum(c[end] for c in search["by_cause_nj"].values()) == pytest.approx(summed, rel=1e-12)
    assert template["runs"] == 1 and data["unpriced"] and data["assumptions"]
    assert template["per_result"] == 0 and data["per_result"]["dynamic_nj"] == frame, "no update, no charge"
    assert template["unamortised_nj"]["nominal"] > 0 == template["amortised_nj"]["nominal"]
    program = load_program(demo / "program")
    assert [row["name"] for row in rows] == [op.name for op in program.phases["search"].ops]


def test_layers_csv_agrees_with_energy_json(demo: Path) -> None:
    data = json.loads((demo / "energy.json").read_text())
    with (demo / "layers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["phase"], r["name"]) for r in rows] == [(r["phase"], r["name"]) for r in data["layers"]]
    assert [float(r["energy_nj"]) for r in rows] == [r["energy_nj"]["nominal"] for r in data["layers"]]


def test_boxes_and_video_have_every_frame(demo: Path) -> None:
    with (demo / "boxes.csv").open(encoding="ascii", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["frame"]) for r in rows] == list(range(FRAMES))
    assert [float(rows[0][k]) for k in "xywh"] == [74.0, 70.0, 37.0, 80.0]
    cost = np.mean([float(r["energy_nj"]) for r in rows[1:]])
    data = json.loads((demo / "energy.json").read_text())
    assert cost == pytest.approx(data["per_result"]["total_nj"]["nominal"]), "every frame with all that it costs"
    start = data["placed"]["results"]["start"]
    assert float(rows[0]["energy_nj"]) == pytest.approx(start["total_nj"]["nominal"]), "frame 0 is what the start costs"
    assert {float(r["latency_s"]) for r in rows[1:]} == {data["placed"]["cost"]["latency_s"]["nominal"]}
    video = cv2.VideoCapture(str(demo / "tracked.mp4"))
    count = 0
    while video.read()[0]:
        count += 1
    video.release()
    assert count == FRAMES


def test_graph_and_onnx_open_in_stock_readers(demo: Path) -> None:
    graph = nir.read(str(demo / "model.nir"), type_check=False)
    with h5py.File(demo / "model.nir") as file:
        assert len(graph.nodes) == len(file["node"]["nodes"])
    onnx.checker.check_model(onnx.load(str(demo / "program.onnx")))


def test_parity_states_both_comparisons(demo: Path) -> None:
    data = json.loads((demo / "parity.json").read_text())
    assert data["engines"]["differing"] == 0 and data["engines"]["integers"] > 800_000
    assert not set(data["calibration_frames"]) & set(data["compared_frames"])
    spikes = sum(r["spikes"] for r in data["layers"])
    forced = sum(r["forced_mismatches"] for r in data["layers"]) / spikes
    # The bundled model was trained in the program's arithmetic, so 0 is a legal answer here.
    assert spikes > 10_000 and forced < 0.02, f"fed with the tracker's spikes, layers change {forced:.1%} of them"
    assert all(r["forced_mismatches"] <= r["spikes"] for r in data["layers"])


def test_report_is_self_contained(demo: Path) -> None:
    page = (demo / "report.html").read_text(encoding="utf-8")
    loads = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", page)
    loads += re.findall(r"url\(([^#)][^)]*)\)", page)
    assert all(target.startswith("data:") for target in loads), [t[:80] for t in loads if not t.startswith("data:")]
    assert page.count("<svg") >= 5 and page.count("<img") == 3


def test_provenance_has_inputs_and_command(demo: Path) -> None:
    data = json.loads((demo / "provenance.json").read_text())
    assert data["command"] == f"spiketrack export --max-frames {FRAMES} -o demo --json"
    assert set(data["inputs"]) == {"model", "clip"} and all(len(i["sha256"]) == 64 for i in data["inputs"].values())


def test_verify_simulate_energy_inspect_track(place: Path, demo: Path, result: dict) -> None:
    assert succeed(place, "verify", "demo")["content_hash"] == result["content_hash"]
    ran = succeed(place, "simulate", "demo", "--max-frames", FRAMES)
    priced = succeed(place, "energy", "demo", "--profile", "loihi2", "--profile", "cmos45_int8")
    recorded = json.loads((demo / "energy.json").read_text())
    assert ran["counts"] == {name: phase["counts"] for name, phase in recorded["phases"].items()}
    assert [p["profile"]["name"] for p in priced["profiles"]] == ["loihi2", "cmos45_int8"]
    again = priced["profiles"][0]
    for name, phase in recorded["phases"].items():
        phase["uncertainty"]["over_runs"] = None  # a file holds sums: single frames are not known any more
        assert again["phases"][name] == phase, "pricing again changes nothing"
    assert again["per_result"] == recorded["per_result"] and again["profile"] == recorded["profile"]
    seen = succeed(place, "inspect", "demo")
    assert seen["changed_files"] == [] and seen["nir"]["nodes"]["Threshold"] > 0
    tracked = succeed(place, "track", "demo", "--max-frames", FRAMES, "-o", "boxes")
    assert (
        tracked["frames"] == FRAMES
        and (place / "boxes" / "boxes.csv").read_bytes() == (demo / "boxes.csv").read_bytes()
    )


def test_same_content_for_any_threads_and_engine(tmp_path: Path, exported: Path, tiny_checkpoint: Path) -> None:
    hashes = set()
    for threads in (1, 2):
        env = {"OMP_NUM_THREADS": str(threads)}
        args = ("export", tiny_checkpoint, "--max-frames", 3, "--threads", threads, "-o", f"t{threads}")
        hashes.add(succeed(tmp_path, *args, env=env)["content_hash"])
    args = ("export", tiny_checkpoint, "--max-frames", 3, "--engine", "reference", "-o", "reference")
    hashes.add(succeed(tmp_path, *args)["content_hash"])
    assert hashes == {bundles.read_manifest(exported).content_hash}


def test_float_tracker_from_a_checkpoint(tmp_path: Path, tiny_checkpoint: Path) -> None:
    found = succeed(tmp_path, "track", tiny_checkpoint, "--max-frames", 3, "-o", "boxes")
    assert found["engine"] == "float" and (tmp_path / "boxes" / "tracked.mp4").stat().st_size > 0


def test_quiet_and_plain_output(tmp_path: Path, tiny_checkpoint: Path) -> None:
    done = spiketrack(tmp_path, "export", tiny_checkpoint, "--max-frames", 2, "--target", "cpu", "-o", "out", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = spiketrack(tmp_path, "export", tiny_checkpoint, "--max-frames", 2, "--target", "cpu", "-o", "out", "--force")
    assert "A frame costs" in done.stdout and "too short" in done.stdout and done.stderr == ""
