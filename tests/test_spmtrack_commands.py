"""Every command on a dense tracker, through the command line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _cli import contents
from _evaluation import dataset

from spiketrack_deploy.api.results import DenseVerifyResult, SimulateResult
from spiketrack_deploy.bundle import layout
from spiketrack_deploy.cli.commands import export_command, group
from spiketrack_deploy.cli.main import run

MODEL = "spmtrack-micro"
Say = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command line with ``--json``: exit code, object, stderr."""

    def command(*arguments: object, export: bool = False) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        words = [*map(str, arguments), "--json"]
        code = run(export_command, "spiketrack-export", words) if export else run(group, "spiketrack", words)
        told = capsys.readouterr()
        return code, json.loads(told.out) if told.out.strip() else {}, told.err

    return command


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export for a processor."""
    out = tmp_path_factory.mktemp("dense") / "bundle"
    words = [MODEL, "--target", "cpu", "--max-frames", "12", "-o", str(out), "--quiet"]
    assert run(export_command, "spiketrack-export", words) == 0
    return out


def test_an_export_holds_what_it_says(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {
        "MANIFEST.json", "model.onnx", "answers.npz", "dense.json", "energy.json", "layers.csv", "parity.json",
        "boxes.csv", "tracked.mp4", "report.html", "provenance.json",
    }  # fmt: skip
    dense, parity = (json.loads((bundle / name).read_text()) for name in ("dense.json", "parity.json"))
    energy = json.loads((bundle / "energy.json").read_text())
    assert dense["macs"] == sum(dense["macs_by_part"].values()) == sum(row["macs"] for row in dense["layers"])
    assert energy["per_result"]["dynamic_nj"]["nominal"] == pytest.approx(dense["macs"] * 4.6e-3)
    convention = energy["phases"]["frame"]["published_convention"]
    assert convention["published_nj"] == convention["exact_nj"], (
        "a layer without spikes is multiply-accumulates in both"
    )
    assert parity["onnx"]["frames"] == 10
    assert parity["onnx"]["opset"] == 20
    worst = parity["onnx"]["worst"]
    assert max(worst["score"], worst["logits"], worst["boxes_map"]) < 1e-4
    assert worst["box_pixels"] < 0.1
    assert [row["frame"] for row in parity["onnx"]["recorded"]] == [1, 10]
    assert 0.5 < parity["int8"]["same_crops_overlap"] <= 1
    assert 0 < parity["int8"]["same_crops_score"] < 0.5
    experts = dense["experts"]
    assert len(experts) == 6 * dense["config"]["depth"]
    assert all(np.isclose(sum(one["share"]), 1) and 0 < one["entropy"] <= np.log(4) + 1e-9 for one in experts)
    report = (bundle / "report.html").read_text()
    assert "How the experts are used" in report
    assert "edge_tpu" in report
    with (bundle / "boxes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12


def test_a_second_export_has_the_same_content(bundle: Path, tmp_path: Path, say: Say) -> None:
    out = tmp_path / "again"
    code, found, _ = say(MODEL, "--target", "cpu", "--max-frames", 12, "-o", out, export=True)
    assert code == 0
    assert found["content_hash"] == json.loads((bundle / "MANIFEST.json").read_text())["content_hash"]


def test_a_chip_of_spikes_gets_a_whole_table_and_exit_code_4(tmp_path: Path, say: Say, bundle: Path) -> None:
    code, found, said = say(MODEL, "-o", tmp_path / "out", export=True)
    assert code == 4
    assert "does not fit loihi2" in said
    assert not (tmp_path / "out").exists()
    verdicts = {row["kind"]: row["verdict"] for row in found["kinds"]}
    assert verdicts == {
        "linear": "native", "live_product": "host", "softmax": "host", "layer_norm": "host", "activation": "microcode",
        "scaling": "microcode",
    }  # fmt: skip
    assert {row["name"] for row in found["layers"]} >= {
        "blocks.0.attn.qk",
        "blocks.3.mlp.fc2.tmoe.B",
        "patch_embed.proj",
    }
    assert found["chips_for_weights"] == 1
    mapped = say("map", bundle)
    assert mapped[0] == 4
    assert {**mapped[1], "subject": ""} == {**found, "subject": ""}
    assert {row["verdict"] for row in say("map", MODEL, "--target", "loihi1")[1]["layers"]} == {"host"}


def test_track_model_and_bundle(bundle: Path, tmp_path: Path, say: Say) -> None:
    code, found, _ = say("track", MODEL, "--max-frames", 12, "-o", tmp_path / "model")
    assert code == 0
    assert found["frames"] == 12
    code, packed, _ = say("track", bundle, "--max-frames", 12, "-o", tmp_path / "bundle")
    assert code == 0
    assert packed["last_box"] == pytest.approx(found["last_box"], abs=0.1)


def test_inspect_energy_and_audit(bundle: Path, say: Say) -> None:
    model, packed = say("inspect", MODEL)[1], say("inspect", bundle)[1]
    assert model["macs_by_part"] == packed["macs_by_part"]
    assert packed["changed_files"] == []
    code, priced, _ = say("energy", bundle)
    assert code == 0
    energies = {row["profile"]: row["dynamic_nj"]["nominal"] for row in priced["comparison"]["profiles"]}
    assert energies["cmos45_int8"] == pytest.approx(model["macs"] * 0.23e-3)
    assert energies["edge_tpu"] == pytest.approx(model["macs"] * 4.09e-3)
    assert "loihi2" not in energies
    code, _, said = say("energy", bundle, "--profile", "loihi2")
    assert code == 2
    assert "loihi2 prices no multiply-accumulate of a dense network; choose one of cmos45_fp32" in said
    code, audit, _ = say("audit", bundle)
    assert code == 0
    assert audit["cases"][0]["dense_macs"] == model["macs"]


def test_evaluate_beside_others(bundle: Path, tmp_path: Path, say: Say) -> None:
    data = dataset(tmp_path / "data")
    code, found, said = say(
        "evaluate", "--compare", MODEL, f"{MODEL}@int8", bundle, "static", data, "--profile", "cmos45_fp32",
        "--max-frames", 4, "-o", tmp_path / "scores",
    )  # fmt: skip
    assert code == 0, said
    energy = {label: tracker["energy"] for label, tracker in found["trackers"].items()}
    assert energy["static"] is None
    dense = energy[f"{MODEL}@float"]
    assert dense["main"] == "frame"
    assert dense["per_frame_nj"]["nominal"] == pytest.approx(say("inspect", MODEL)[1]["macs"] * 4.6e-3)
    assert "accuracy_energy.svg" in found["pictures"]
    assert energy[f"{bundle.name}@onnx"] == dense
    rows = [found["trackers"][label] for label in (f"{MODEL}@float", f"{bundle.name}@onnx")]
    aucs = [row["mean"]["auc"]["mean"] for row in rows]
    assert aucs[0] == pytest.approx(aucs[1], abs=0.02)
    line = ("evaluate", MODEL, data, "--sequence", "a1", "--max-frames", 3, "-o", tmp_path / "priced")
    code, found, _ = say(*line)
    assert (code, found["trackers"][f"{MODEL}@float"]["energy"]["profile"]) == (0, "cmos45_int8")
    code, found, _ = say(*line, "--profile", "loihi2")
    assert code == 0
    assert found["trackers"][f"{MODEL}@float"]["energy"] is None, "no chip of spikes runs it"


def test_sequences_stepped_together_score_as_each_by_itself(tmp_path: Path, say: Say) -> None:
    """Four sequences of two lengths in passes of two, in bfloat16 too; one ends in a damaged frame and stays alone."""
    data = dataset(tmp_path / "data", ("a", "b"), frames=4)
    dataset(data, ("c", "d"), frames=6)
    (data / "c" / "img" / "5.png").write_bytes(b"nothing")
    line = ("evaluate", "--compare", MODEL, f"{MODEL}@bf16", "static", data)
    code, alone, _ = say(*line, "-o", tmp_path / "alone")
    assert code == 3, "a frame is damaged"
    code, together, _ = say(*line, "--batch", 2, "-o", tmp_path / "together")
    assert code == 3
    for label, tracker in alone["trackers"].items():
        assert sorted(tracker["sequences"]) == ["a", "b", "d"]
        assert together["trackers"][label]["failed"] == tracker["failed"]
        assert together["trackers"][label]["energy"] == tracker["energy"]
        aucs = [one["trackers"][label]["mean"]["auc"]["mean"] for one in (alone, together)]
        assert aucs[0] == pytest.approx(aucs[1], abs=0.02)
    assert together["speed"][f"{MODEL}@bf16"]["fps_mean"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("model", [MODEL, "spiketrack-nano"])
def test_a_gpu_that_is_not_there_is_one_sentence(model: str, tmp_path: Path, say: Say) -> None:
    out, data = tmp_path / "out", dataset(tmp_path / "data")
    for line in (("track", model), ("evaluate", model, data)):
        code, _, said = say(*line, "--device", "cuda", "-o", out)
        assert (code, said.count("\n"), out.exists()) == (6, 1, False), said
        assert "--device cuda: PyTorch finds no GPU here; leave it out, or say auto" in said
    code, found, _ = say("track", model, "--device", "auto", "--max-frames", 3, "-o", out)
    assert (code, found["engine"]) == (0, "float")


def test_track_a_model_in_other_precisions(tmp_path: Path, say: Say) -> None:
    boxes = {}
    for engine in ("float", "bf16", "int8"):
        code, found, _ = say("track", MODEL, "--engine", engine, "--max-frames", 3, "-o", tmp_path / engine)
        assert (code, found["engine"], found["frames"]) == (0, engine, 3)
        boxes[engine] = tuple(found["last_box"])
    assert len(set(boxes.values())) == 3, "the same computation under three names"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("evaluate", f"{MODEL}@sim", "DATA"), 2, "is a dense tracker without an integer program"),
        (("budget", MODEL), 2, "is a dense tracker without an integer program"),
        (("export", MODEL, "--target", "cpu", "--engine", "onnx"), 2, "there is nothing for the onnx engine"),
        (("export", MODEL, "--target", "cpu", "--profile", "loihi2"), 2, "loihi2 prices no multiply-accumulate"),
        (("targets", "compare", MODEL), 2, "is a dense tracker without an integer program"),
        (("evaluate", "spiketrack-nano@int8", "DATA"), 2, "is a spiking tracker"),
        (("track", "spiketrack-nano", "--engine", "bf16"), 2, "is a spiking tracker"),
        (("evaluate", f"{MODEL}@int8", "DATA", "--device", "cuda"), 2, "int8 layers run on a processor"),
        (
            ("evaluate", MODEL, "DATA", "--batch", "2", "--jobs", "2"),
            2,
            "--batch steps sequences together in one process",
        ),
        (("track", "BUNDLE", "--device", "cuda"), 2, "is for a model's float tracker"),
        (("track", "BUNDLE", "--engine", "bf16"), 2, "its step runs in ONNX Runtime"),
        (("simulate", "BUNDLE", "--engine", "sim"), 2, "its step runs in ONNX Runtime: drop --engine, or say onnx"),
        (("simulate", "BUNDLE", "--engine", "lava", "--granularity", "stock"), 3, "without an integer program"),
        (("track", "BUNDLE", "--engine", "lava"), 2, "there is nothing for the lava engine"),
        (("evaluate", "BUNDLE@sim", "DATA"), 3, "is a dense tracker's bundle without an integer program"),
        (("map", MODEL, "--target", "cpu"), 3, "no family"),
    ],
)
def test_what_a_dense_tracker_cannot_do_is_one_sentence(
    arguments: tuple[str, ...], code: int, words: str, bundle: Path, tmp_path: Path, say: Say
) -> None:
    data = dataset(tmp_path / "data")
    out = () if arguments[0] in ("simulate", "verify", "budget", "targets", "map") else ("-o", tmp_path / "out")
    places = {"DATA": data, "BUNDLE": bundle, "BUNDLE@sim": f"{bundle}@sim"}
    found = say(*(places.get(word, word) for word in arguments), *out)
    assert not (tmp_path / "out").exists()
    assert found[0] == code, found
    assert words in found[2]
    assert found[2].count("\n") == 1


def test_verify_and_simulate_run_the_exported_step(bundle: Path, tmp_path: Path, say: Say) -> None:
    code, found, said = say("verify", bundle)
    assert code == 0, said
    assert set(found) == set(DenseVerifyResult.__annotations__)
    assert found["frames"] == 2
    assert found["worst"]["box_pixels"] < 0.1
    done = subprocess.run(
        [sys.executable, "-m", "spiketrack_deploy", "verify", str(bundle), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["without_torch"]
    code, found, _ = say("simulate", bundle, "--max-frames", 5)
    assert (code, found["engine"], found["runs"]) == (0, "onnx", {"frame": 4})
    assert set(found) == set(SimulateResult.__annotations__)
    assert found["counts"]["frame"]["macs"] == say("inspect", MODEL)[1]["macs"]
    with (bundle / "boxes.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert found["boxes"][0][1:5] == pytest.approx([float(row[key]) for key in "xywh"], abs=0.1)


def weights(folder: Path) -> None:
    """Another network's step, of the same configuration."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    tensor = next(one for one in model.graph.initializer if one.name == "patch_embed.weight")
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * 1.5).tobytes()
    onnx.save(model, folder / "model.onnx")


def boxes(folder: Path) -> None:
    """A box that was moved by a pixel."""
    lines = (folder / "boxes.csv").read_text().splitlines()
    row = lines[2].split(",")
    lines[2] = ",".join([row[0], str(float(row[1]) + 1), *row[2:]])
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")


def in_json(name: str, *path: Any, value: Any) -> Callable[[Path], None]:
    """Another value at ``path`` of a JSON file."""

    def edit(folder: Path) -> None:
        data = place = json.loads((folder / name).read_text())
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (folder / name).write_text(json.dumps(data))

    return edit


def answers(folder: Path) -> None:
    """Recorded crops of another size."""
    with np.load(folder / "answers.npz") as held:
        arrays = dict(held)
    arrays["1.search"] = arrays["1.search"][..., :-1]
    np.savez_compressed(folder / "answers.npz", **arrays)


CHANGES: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "weights": (weights, 5, "ONNX Runtime differs from the record"),
    "boxes": (boxes, 5, "1 pixels in a box"),
    "configuration": (in_json("dense.json", "config", "window_weight", value=0.1), 5, "is not that of model.onnx"),
    "crops": (answers, 3, "array 1.search is damaged"),
    "no frames": (in_json("parity.json", "onnx", "recorded", value=[]), 3, "names no recorded frame"),
    "no scale": (in_json("parity.json", "onnx", "recorded", 0, "scale", value=[0, 1]), 3, "must be above 0"),
    "no row": (in_json("parity.json", "onnx", "recorded", 0, "frame", value=11), 3, "11.templates is missing"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_verify_finds_what_digests_do_not(what: str, bundle: Path, tmp_path: Path, say: Say) -> None:
    """Changed, and every digest made to fit again."""
    edit, code, words = CHANGES[what]
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    edit(copy)
    layout.write_manifest(copy, "0" * 64)
    found, _, said = say("verify", copy)
    assert (found, said.count("\n")) == (code, 1), said
    assert words in said


def test_a_changed_bundle_is_refused(bundle: Path, tmp_path: Path, say: Say) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    data = json.loads((copy / "dense.json").read_text())
    data["layers"][3]["macs"] += 1
    (copy / "dense.json").write_text(json.dumps(data))
    before = contents(copy)
    for verb in ("map", "verify", "simulate"):
        code, _, said = say(verb, copy)
        assert code == 5
        assert "dense.json" in said
    assert contents(copy) == before
