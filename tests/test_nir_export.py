"""``spiketrack-export net.nir`` and its neighbours on the command line: what works, what bad input is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from _cli import contents, many, succeed

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import PRESETS
from spiketrack_deploy.frontends.nir.drawn_graphs import GRAPHS, chain, neuron, node, weights
from spiketrack_deploy.frontends.nir.reference import outputs
from spiketrack_deploy.frontends.nir.suggest import check
from spiketrack_deploy.nir_graph.data import write_data
from spiketrack_deploy.nir_graph.tree import Record, Tree
from spiketrack_deploy.nir_graph.tree_writer import write_tree


def ends(given: int, made: int) -> tuple[tuple[str, Record], tuple[str, Record]]:
    return ("input", Record("Input", {"shape": (given,)})), ("output", Record("Output", {"shape": (made,)}))


def dense(**changes: Any) -> Tree:
    """Input, Affine 4 x 6, LIF, Output; ``changes``: fields of the LIF."""
    first, last = ends(6, 4)
    lif = neuron("LIF", (4,), 3)
    fields = {**lif.fields, **{key: np.full(4, value) for key, value in changes.items()}}
    return chain(
        first, ("fc", node("Affine", weight=weights((4, 6), 1), bias=np.zeros(4))), ("lif", Record("LIF", fields)), last
    )


def with_nodes(tree: Tree, nodes: dict[str, Record], edges: list[tuple[str, str]]) -> Tree:
    return Tree({**tree.nodes, **nodes}, (*tree.edges, *edges))


def edit(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        write_tree(dense(), path)
        with h5py.File(path, "r+") as file:
            change(file)

    return apply


def replaced(place: str, value: Any) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[place]
        file[place] = value

    return edit(change)


def write(tree: Tree) -> Callable[[Path], None]:
    return lambda path: write_tree(tree, path)


def cycle(file: h5py.File) -> None:
    file["node/nodes/again"] = file["node"]


def deep(file: h5py.File) -> None:
    group = file["node/nodes"]
    for _ in range(60):
        group = group.create_group("deep")
        group["type"] = "NIRGraph"
        group.create_dataset("edges", shape=(0, 2), dtype=h5py.string_dtype())
        group = group.create_group("nodes")


@dataclass(frozen=True)
class Bad:
    """A file or an option, the exit code and words of the sentence."""

    make: Callable[[Path], object]
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    code: int = 3


GOOD = write(dense())
LOOP = [("lif", "loop"), ("loop", "loop"), ("loop", "lif")]
SELF = with_nodes(dense(), {"loop": node("Linear", weight=np.eye(4))}, LOOP)


def huge(shape: tuple[int, ...]) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file["node/nodes/lif/tau"]
        file["node/nodes/lif"].create_dataset("tau", shape, "<f8")

    return edit(change)


def truncated(path: Path) -> None:
    write_tree(dense(), path)
    path.write_bytes(path.read_bytes()[:2000])


def delayed(seconds: float) -> Callable[[Path], None]:
    first, last = ends(4, 4)
    return write(chain(first, ("d", node("Delay", delay=np.full(4, seconds))), ("lif", neuron("LIF", (4,), 1)), last))


def without(name: str) -> Callable[[Path], None]:
    tree = dense()
    nodes = {key: value for key, value in tree.nodes.items() if key != name}
    return write(Tree(nodes, tuple(edge for edge in tree.edges if name not in edge)))


TWO = with_nodes(dense(tau=-1.0), {"fc2": node("Linear", weight=np.ones((4, 9)))}, [("input", "fc2"), ("fc2", "lif")])
ONLY_WEIGHTS = chain(ends(6, 4)[0], ("fc", node("Linear", weight=np.ones((4, 6)))), ends(6, 4)[1])
BAD: dict[str, Bad] = {
    "empty": Bad(lambda path: path.write_bytes(b""), ("not a readable HDF5 file",)),
    "text": Bad(lambda path: path.write_text("hello"), ("not a readable HDF5 file",)),
    "truncated": Bad(truncated, ("HDF5",)),
    "missing": Bad(lambda path: None, ("no such NIR file",)),
    "external link": Bad(
        replaced("node/nodes/lif/tau", h5py.ExternalLink("/etc/hostname", "x")), ("lif", "'tau'", "link")
    ),
    "hard-link cycle": Bad(edit(cycle), ("again", "linked twice")),
    "deep nesting": Bad(edit(deep), ("nested deeper than 32",)),
    "huge": Bad(huge((10**11,)), ("lif", "'tau'", "declares 100000000000 elements")),
    "fill value": Bad(huge((1 << 28,)), ("lif", "'tau'", "elements")),
    "unknown type": Bad(replaced("node/nodes/lif/type", "Softmax"), ("lif", "'Softmax'", "no primitive")),
    "type no text": Bad(replaced("node/nodes/lif/type", 3), ("lif", "not one text")),
    "extra field": Bad(
        edit(lambda f: f["node/nodes/lif"].create_dataset("beta", data=1.0)), ("lif", "unknown fields ['beta']")
    ),
    "missing field": Bad(edit(lambda f: f["node/nodes/lif"].__delitem__("tau")), ("lif", "missing fields ['tau']")),
    "nan tau": Bad(write(dense(tau=np.nan)), ("lif", "'tau'", "not finite")),
    "zero tau": Bad(write(dense(tau=0.0)), ("lif", "'tau'", "must be positive")),
    "negative tau": Bad(write(dense(tau=-1.0)), ("lif", "'tau'", "must be positive")),
    "complex weights": Bad(replaced("node/nodes/fc/weight", np.ones((4, 6), complex)), ("fc", "'weight'", "complex")),
    "infinite bias": Bad(replaced("node/nodes/fc/bias", np.full(4, np.inf)), ("fc", "'bias'", "not finite")),
    "bias length": Bad(replaced("node/nodes/fc/bias", np.ones(5)), ("fc", "'bias' has shape (5,)")),
    "negative delay": Bad(delayed(-1.0), ("'d'", "'delay'", "negative")),
    "huge delay": Bad(delayed(1e9), ("'d'", "more than can be held")),
    "dangling edge": Bad(write(with_nodes(dense(), {}, [("lif", "nowhere")])), ("no node 'nowhere'",)),
    "duplicate edge": Bad(write(with_nodes(dense(), {}, [("fc", "lif")])), ("'fc' -> 'lif'", "listed twice")),
    "algebraic loop": Bad(write(SELF), ("cycle loop -> loop", "no neuron and no Delay")),
    "no input": Bad(without("input"), ("no Input node", "'fc'")),
    "no output": Bad(without("output"), ("no Output node",)),
    "no neuron": Bad(write(ONLY_WEIGHTS), ("no neuron",)),
    "two wrong nodes": Bad(write(TWO), ("node 'lif'", "node 'fc2'", "takes values of shape (9,)")),
    "dt above tau": Bad(GOOD, ("lif", "'tau'", "less than the step"), ("--dt", "1")),
    "reset contradicts": Bad(
        write(dense(v_reset=-0.5)), ("lif", "'v_reset' is -0.5", "contradicts"), ("--reset", "subtract")
    ),
    "several without threshold": Bad(
        write(dense(v_threshold=0.0)), ("lif", "'v_threshold' is not above 0"), ("--several-spikes",)
    ),
    "strict": Bad(GOOD, ("--strict", "[convention-assumed]", "[dt-assumed]"), ("--strict",)),
    "no steps": Bad(GOOD, ("--steps", "0"), ("--steps", "0"), 2),
    "dt zero": Bad(GOOD, ("--dt",), ("--dt", "0"), 2),
    "late without subtract": Bad(GOOD, ("--late", "--reset subtract"), ("--late", "reset"), 2),
    "trace of nothing": Bad(GOOD, ("--trace fc", "no neuron"), ("--trace", "fc"), 2),
    "video": Bad(GOOD, ("--video", "is a network"), ("--video", "x.mp4"), 2),
    "rate and input": Bad(GOOD, ("--rate",), ("--rate", "0.5", "--input", "good.npz"), 2),
    "input missing": Bad(GOOD, ("nowhere.npz",), ("--input", "nowhere.npz")),
    "input shape": Bad(GOOD, ("'input' has shape (5, 7)", "(6,)"), ("--input", "shape.npz")),
    "input nan": Bad(GOOD, ("'input'", "not finite", "step 2"), ("--input", "nan.npz")),
    "input name": Bad(GOOD, ("arrays other", "input"), ("--input", "other.npz")),
    "input empty": Bad(GOOD, ("holds no step",), ("--input", "empty.npz")),
    "input too short": Bad(GOOD, ("holds 5 steps", "9"), ("--input", "good.npz", "--steps", "9")),
    "input no archive": Bad(GOOD, ("not an array archive",), ("--input", "text.npz")),
    "input pickled": Bad(GOOD, ("array input", "damaged"), ("--input", "pickled.npz")),
    "data of another step": Bad(GOOD, ("steps of 0.01 s", "--dt 0.01"), ("--input", "slow.h5")),
    "data without the node": Bad(GOOD, ("no recording of Input 'input'",), ("--input", "else.h5")),
}  # fmt: skip


def inputs_in(folder: Path) -> None:
    """The files that ``--input`` names in :data:`BAD`."""
    good = (np.random.default_rng(0).random((5, 6)) < 0.5).astype(np.float64)
    np.savez(folder / "good.npz", input=good)
    np.savez(folder / "shape.npz", input=np.zeros((5, 7)))
    np.savez(folder / "nan.npz", input=np.where(np.arange(5)[:, None] == 2, np.nan, good))
    np.savez(folder / "other.npz", other=good)
    np.savez(folder / "empty.npz", input=np.zeros((0, 6)))
    np.savez(folder / "pickled.npz", input=np.array([{}], dtype=object))
    (folder / "text.npz").write_text("hello")
    write_data(folder / "slow.h5", {"input": {"spikes": good}}, 0.01)
    write_data(folder / "else.h5", {"elsewhere": {"spikes": good}}, 1e-4)


def refusals(folder: Path, log: Path, cases: list[str]) -> dict[str, tuple[int, str, str]]:
    """Every case through the command line; nothing may be left behind."""
    inputs_in(folder)
    commands = []
    for name in cases:
        BAD[name].make(folder / f"{name}.nir")
        commands.append(["export", f"{name}.nir", "-o", "out", *BAD[name].options])
    before = contents(folder)
    found = many(folder, log, commands)
    assert contents(folder).keys() == before.keys(), "something was left behind"
    return dict(zip(cases, found))


def judge(name: str, code: int, out: str, err: str) -> None:
    case = BAD[name]
    assert code == case.code, err
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    missing = [word for word in case.words if word not in err]
    assert not missing, f"{missing} not in {err}"
    if case.code == 3 and "--input" not in case.options:
        assert f"{name}.nir" in err


SAMPLE = ("two wrong nodes", "strict", "no steps", "input nan", "data of another step")


def test_bad_input_is_one_sentence(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name, found in refusals(tmp_path, tmp_path_factory.mktemp("log"), list(SAMPLE)).items():
        judge(name, *found)


@pytest.mark.slow
def test_all_bad_input_is_one_sentence(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name, found in refusals(tmp_path, tmp_path_factory.mktemp("log"), list(BAD)).items():
        judge(name, *found)


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if not case.options and name != "missing"])
def test_a_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """The same files in this process, without the guard's child."""
    path = tmp_path / f"{name}.nir"
    BAD[name].make(path)
    with pytest.raises(InputError) as caught:
        network = read_network(path, isolate=False).network
        check(network, PRESETS["euler"])
    assert all(word in str(caught.value) for word in (path.name, *BAD[name].words)), caught.value


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two inputs (spikes of one, real values of the other), two outputs, a back edge through a Delay, traced."""
    folder = tmp_path_factory.mktemp("export")
    write_tree(GRAPHS["feedback"][1](), folder / "net.nir")
    rng = np.random.default_rng(1)
    np.savez(folder / "in.npz", left=rng.integers(0, 3, (25, 4)), right=rng.normal(0, 1, (25, 3)))
    arguments = ("--convention", "norse", "--input", "in.npz", "--trace", "first", "-o", "bundle", "--weight-bits", 12)
    return folder, succeed(folder, "export", "net.nir", *arguments)


def test_an_export_says_what_it_did(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, result = exported
    assert result["back_edges"] == [["delay", "back"]] and result["steps"] == 25
    assert {row["engine"] for row in result["engines"]} >= {"sim"} and all(
        r["differing"] == 0 for r in result["engines"]
    )
    assert "dt-assumed" in [found["code"] for found in result["diagnostics"]]
    assert set(result["outputs"]) == {"spikes", "hidden"} and result["spike_error"] < 0.2
    parity = json.loads((folder / "bundle" / "parity.json").read_text())
    rows = {row["node"]: row for row in parity["nodes"]}
    assert {p["parameter"] for p in rows["a"]["parameters"]} == {"weight"}
    assert rows["first"]["agreement"]["values"] == 25 * 5
    page = (folder / "bundle" / "report.html").read_text()
    assert "Membrane of first" in page and "delay -&gt; back" in page
    assert 'src="http' not in page and 'href="http' not in page
    assert (folder / "bundle" / "model.nir").read_bytes() == (folder / "net.nir").read_bytes()


def test_outputs_hold_both_runs(exported: tuple[Path, dict[str, Any]]) -> None:
    """The float64 arrays are the reference's own; the integers differ where the result says so, and nowhere else."""
    folder, result = exported
    network = read_network(folder / "net.nir", isolate=False).network
    given = {name: array.astype(np.float64) for name, array in np.load(folder / "in.npz").items()}
    want = outputs(network, PRESETS["norse"], given)
    with np.load(folder / "bundle" / "outputs.npz") as held:
        assert set(held) == {f"{n}{s}" for n in ("spikes", "hidden", "first") for s in ("", ".float")} | {
            "first.v",
            "first.v.float",
        }
        for name, array in want.items():
            np.testing.assert_array_equal(held[f"{name}.float"], array)
            assert int((held[name] != array).sum()) == result["outputs"][name]["differing"]
        assert held["first.v"].shape == (25, 5)
        assert np.abs(held["first.v"] - held["first.v.float"]).mean() < 0.2 * np.abs(held["first.v.float"]).mean()


def test_a_bundle_verifies_maps_and_is_priced(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, result = exported
    codes = many(folder, folder / "bundle" / "..", [["verify", "bundle", "--json"], ["energy", "bundle", "--json"],
                 ["map", "bundle", "--json"], ["inspect", "bundle", "--json"]])  # fmt: skip
    assert [code for code, _, _ in codes] == [0, 0, 0, 0], codes
    assert json.loads(codes[0][1])["content_hash"] == result["content_hash"]
    assert json.loads(codes[3][1])["back_edges"] == [["delay", "back"]]


@pytest.mark.slow
def test_the_same_export_twice_is_the_same(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, result = exported
    again = succeed(folder, "export", "net.nir", "--convention", "norse", "--input", "in.npz", "--trace", "first", "-o",
                    tmp_path / "again", "--weight-bits", 12, "--engine", "reference")  # fmt: skip
    assert again["content_hash"] == result["content_hash"]


def test_a_budget_of_spikes(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = exported
    (tmp_path / "log").mkdir()
    run = ["export", "net.nir", "--convention", "norse", "--input", "in.npz", "--weight-bits", "3", "--max-spike-error"]
    code, _, err = many(folder, tmp_path / "log", [[*run, "0", "-o", "tight"]])[0]
    assert code == 5 and "% of the spikes differ" in err and not (folder / "tight").exists()


def test_inspect_draws(tmp_path: Path) -> None:
    write_tree(GRAPHS["nested"][1](), tmp_path / "net.nir")
    (tmp_path / "log").mkdir()
    run = ["inspect", "net.nir"]
    found = many(tmp_path, tmp_path / "log", [[*run, "--svg", "net.svg", "--json"], run, [*run, "--svg", "no/net.svg"]])
    assert [code for code, _, _ in found] == [0, 0, 2]
    assert json.loads(found[0][1])["back_edges"] == [["layer.lif", "layer.w_rec"]]
    assert "layer.lif -> layer.w_rec" in found[1][1]
    picture = (tmp_path / "net.svg").read_text()
    assert picture.startswith("<svg") and "layer.w_rec" in picture and "stroke-dasharray" in picture
