"""Networks of lava-dl as whole bundles: through the commands, with every engine that can, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spiketrack_deploy import api
from spiketrack_deploy.bundle.contents import read_alone
from spiketrack_deploy.bundle.recorded import recorded_counts
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.errors import InputError, UsageError
from spiketrack_deploy.frontends.netx.given import drawn, read_input
from spiketrack_deploy.frontends.netx.lower import lower_netx
from spiketrack_deploy.frontends.netx.network import Layer, NetxNetwork, Neuron
from spiketrack_deploy.frontends.netx.write import write_netx

from _cli import many, succeed  # isort: skip
from test_netx import SHAPE, network  # isort: skip

SDNN, CUBA, INPUT = "a.net", "b.net", "in.npz"


def run(given: NetxNetwork, values: np.ndarray, width: int) -> list[np.ndarray]:
    """Outputs by the definition of the lowering, without a bundle."""
    with ReferenceEngine(lower_netx(given, "aligned", width=width)) as engine:
        session = engine.session()
        return [session.step("step", {"input": x[None]}).outputs["output"][0] for x in values]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A sigma-delta network on a drawn picture by the command, a CUBA one on a file by the function."""
    folder = tmp_path_factory.mktemp("netx")
    write_netx(network("sdnn"), folder / SDNN)
    write_netx(network("cuba"), folder / CUBA)
    np.savez(folder / INPUT, anything=np.random.default_rng(1).integers(-40, 60, (12, *SHAPE)))
    wide = succeed(folder, "export", SDNN, "--steps", 6, "--seed", 3, "-o", "wide")
    request = api.NetworkRequest(path=folder / CUBA, input=folder / INPUT, steps=9, out=folder / "narrow")
    return folder, wide, json.loads(json.dumps(api.export_network(request)))


def test_the_integers_are_the_source(made: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    folder, wide, narrow = made
    picture = drawn(network("sdnn"), 6, None, 3)
    file = np.load(folder / INPUT)["anything"][:9]
    for found, name, values, width in ((wide, "sdnn", picture.values, 32), (narrow, "cuba", file, 24)):
        bundle = folder / Path(found["bundle"]).name
        want = run(network(name), values, width)
        assert np.array_equal(np.load(bundle / "outputs.npz")["output"], np.stack(want)) and np.any(want)
        assert np.array_equal(np.load(bundle / "input.npz")["input"], values)
        assert (bundle / "network.net").read_bytes() == (folder / found["network"]).read_bytes()
        assert read_alone(bundle).width == width
        assert any("Nothing was rounded" in sentence for sentence in found["verdict"])
        page = (bundle / "report.html").read_text("utf-8")
        assert "no float network to compare with" in page and "float64" not in page
    # What a neuron's own port has alone leaves: no membrane is read, so every CUBA neuron is the chip's own.
    assert list(narrow["outputs"]) == ["output"]
    verdicts = api.map(folder / "narrow")["detail"]["verdicts"]["count"]
    assert set(verdicts) == {"native"}


def test_who_runs_it_and_why(made: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    _, wide, narrow = made
    assert (wide["engine"], [row["engine"] for row in wide["engines"]]) == ("reference", ["reference"])
    said = {one["code"]: one["text"] for one in wide["diagnostics"]}
    assert "32 bits" in said["engine"] and "seed 3" in said["drawn-input"]
    assert "program.onnx" not in wide["files"] and "program.onnx" in narrow["files"]
    assert narrow["engine"] == "sim" and {"sim"} <= {row["engine"] for row in narrow["engines"]} <= {"sim", "onnx"}
    assert all(row["differing"] == 0 and row["runs"] == 9 for row in narrow["engines"])
    assert narrow["diagnostics"] == []
    sent = {layer["name"]: layer["messages"] for layer in narrow["layers"]}
    assert sent["2.dense" if "2.dense" in sent else "3.dense"] == narrow["outputs"]["output"]["nonzero"] > 0


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_stages_take_the_bundle(made: tuple[Path, dict[str, Any], dict[str, Any]], name: str, tmp_path: Path) -> None:
    folder, wide, narrow = made
    found, bundle = (wide if name == "wide" else narrow), folder / name
    checked = api.verify(bundle)
    assert checked["ok"] and checked["program_hash"] == found["program_hash"]
    again = api.simulate_network(bundle)
    assert (again["engine"], again["frames"], again["boxes"]) == (found["engine"], found["steps"], [])
    recorded = {m.name: m.means() for m in recorded_counts(bundle / "energy.json").counts["step"]}
    assert {row["name"]: row["counts"] for row in again["layers"]} == recorded
    assert api.map(bundle)["fits"] and api.energy(bundle, ("loihi2",))["result"] == "step"
    inspected = api.inspect_netx(bundle)
    assert inspected["changed_files"] == []
    assert [n["shape"] for n in inspected["layers"]] == [[2, 7, 5], [4, 3, 5], [3 if name == "wide" else 6, 1, 1]]
    api.netx(bundle, tmp_path / "back.net")
    back = api.inspect_netx(tmp_path / "back.net")
    assert [n["shape"] for n in back["layers"]] == [n["shape"] for n in inspected["layers"]]


def test_a_network_without_input_neurons_takes_spikes() -> None:
    bare = NetxNetwork(
        "bare", (3, 1, 1), (Layer("0.dense", "dense", (2, 1, 1), Neuron("cuba", 5), np.ones((2, 3, 1, 1), int)),)
    )
    found = drawn(bare, 40, 0.5, 0)
    assert set(np.unique(found.values)) == {0, 1} and 0.3 < found.values.mean() < 0.7 and "0.5" in found.source
    with pytest.raises(UsageError, match="--rate is of drawn spikes"):
        drawn(network("sdnn"), 4, 0.5, 0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.full((2, *SHAPE), 40000), "runs from 40000 to 40000"),
        (np.full((2, *SHAPE), 0.5), "no integers"),
        (np.full((2, *SHAPE), np.nan), "no integers"),
        (np.zeros((2, 3, 3), int), r"takes \(steps, \(2, 7, 5\)\)"),
        (np.zeros((0, *SHAPE), int), "holds no step"),
        (np.zeros((1, *SHAPE), int), "2 are asked for"),
    ],
)
def test_inputs_that_a_network_cannot_take(values: np.ndarray, sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=values)
    with pytest.raises(InputError, match=sentence) as caught:
        read_input(tmp_path / "x.npz", network("cuba"), 2)
    assert "x.npz" in str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    """One sentence, the documented exit code, and nothing written."""
    work, log = tmp_path / "work", tmp_path / "log"
    work.mkdir(), log.mkdir()
    write_netx(network("cuba"), work / "good.net")
    (work / "cut.net").write_bytes((work / "good.net").read_bytes()[:3000])
    for name, (place, value) in {
        "pool.net": ("layer/1/type", np.array([b"pool"], dtype="S10")),
        "link.net": ("layer/1/weight", h5py.ExternalLink("/etc/passwd", "x")),
    }.items():
        (work / name).write_bytes((work / "good.net").read_bytes())
        with h5py.File(work / name, "a") as file:
            del file[place]
            file[place] = value
    with h5py.File(work / "huge.net", "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = np.array([b"input"]), np.array([3, 1 << 20, 1 << 20])
    before = {path.name for path in work.iterdir()}
    cases = {
        ("cut.net",): (3, "not a readable HDF5 file"),
        ("pool.net",): (3, "netx has no Process for it"),
        ("link.net",): (3, "external link"),
        ("huge.net",): (3, "layer 0"),
        ("none.net",): (3, "there is no such .net file"),
        ("good.net", "--steps", "0"): (2, "--steps"),
        ("good.net", "--steps", "999999"): (3, "run fewer steps"),
        ("good.net", "--input", "good.net"): (3, "not an array archive"),
        ("good.net", "--input", "x.npz", "--seed", "1"): (2, "--rate and --seed are for drawn input"),
        ("good.net", "--rate", "0.5"): (2, "--rate is of drawn spikes"),
        ("good.net", "--weight-bits", "8"): (2, "holds integers already"),
        ("good.net", "--video", "x.mp4"): (2, "runs on --input"),
    }
    done = many(work, log, [["export", *case, "-o", "out"] for case in cases])
    for (code, out, err), (case, (wanted, words)) in zip(done, cases.items(), strict=True):
        assert (code, words in err, err.count("\n"), out) == (wanted, True, 1, ""), (case, code, err)
    assert {path.name for path in work.iterdir()} == before
