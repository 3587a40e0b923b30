"""How a NIR file becomes a flat network: shapes, nested graphs, older files, order, and what one step does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.build import Read, build
from spiketrack_deploy.frontends.nir.conformance import write_suite
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.drawn_graphs import GRAPHS, chain, neuron, node, weights
from spiketrack_deploy.frontends.nir.inputs import read_inputs
from spiketrack_deploy.frontends.nir.network import Network
from spiketrack_deploy.frontends.nir.operations import respond
from spiketrack_deploy.frontends.nir.order import order
from spiketrack_deploy.frontends.nir.reference import outputs, simulate
from spiketrack_deploy.frontends.nir.tables import STANDING
from spiketrack_deploy.nir_graph.data import read_data
from spiketrack_deploy.nir_graph.tree import PRIMITIVES, Record, Tree, read_tree
from spiketrack_deploy.nir_graph.tree_writer import write_tree

HERE = Path("x.nir")


def around(name: str, record: Record, given: tuple[int, ...], made: tuple[int, ...]) -> Tree:
    """The node between an Input and an IF."""
    lif = Record("IF", {"r": np.ones(made), "v_threshold": np.ones(made)})
    return chain(
        ("input", Record("Input", {"shape": given})), (name, record), ("if", lif), ("output", Record("Output", {}))
    )


def codes(read: Read) -> list[str]:
    return sorted({found.code for found in read.diagnostics})


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "kernel"),
    [((1, 2), (1, 0), (2, 1), 2, (3, 2)), ((2, 1), (0, 2), (1, 1), 1, (1, 5)), ((1, 1), "same", (2, 1), 4, (2, 3)),
     ((3, 2), "valid", (1, 2), 1, (2, 2)), (2, 1, 1, 2, (3, 3))],
)  # fmt: skip
def test_convolutions_are_torch_s(
    stride: Any, padding: Any, dilation: Any, groups: int, kernel: tuple[int, int]
) -> None:
    """Shapes and values, H != W; integers that stand for both axes as well."""
    weight, x = weights((4, 4 // groups, *kernel), 1), weights((4, 9, 8), 2)
    bias = weights((4,), 3)
    record = node("Conv2d", weight=weight, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias)
    tensors = (torch.from_numpy(a) for a in (x, weight, bias))
    want = functional.conv2d(*tensors, stride, padding, dilation, groups).numpy()  # type: ignore[call-overload]
    network = build(around("conv", record, (4, 9, 8), want.shape), HERE).network
    np.testing.assert_allclose(respond(network.nodes["conv"], x), want, atol=1e-12)


@pytest.mark.parametrize("kind", ["SumPool2d", "AvgPool2d"])
def test_pools_are_torch_s(kind: str) -> None:
    x = weights((2, 7, 9), 4)
    record = node(kind, kernel_size=(2, 3), stride=(2, 1), padding=(1, 0))
    mean = functional.avg_pool2d(torch.from_numpy(x), (2, 3), (2, 1), (1, 0)).numpy()
    network = build(around("pool", record, (2, 7, 9), mean.shape), HERE).network
    np.testing.assert_allclose(respond(network.nodes["pool"], x), mean * (6 if kind == "SumPool2d" else 1), atol=1e-12)


def test_one_dimension_and_leading_axes() -> None:
    x, weight = weights((4, 11), 5), weights((6, 2, 3), 6)
    record = node("Conv1d", weight=weight, stride=2, padding=1, dilation=2, groups=2)
    want = functional.conv1d(torch.from_numpy(x), torch.from_numpy(weight), None, 2, 1, 2, 2).numpy()
    network = build(around("conv", record, (4, 11), want.shape), HERE).network
    np.testing.assert_allclose(respond(network.nodes["conv"], x), want, atol=1e-12)
    weight = weights((3, 2, 5, 4), 7)
    network = build(around("fc", node("Linear", weight=weight), (3, 2, 4), (3, 2, 5)), HERE).network
    x = weights((3, 2, 4), 8)
    np.testing.assert_allclose(respond(network.nodes["fc"], x), np.einsum("abij,abj->abi", weight, x))


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_survives_its_file(name: str, tmp_path: Path) -> None:
    """Written and read through the guard's code, a graph is the network that it was."""
    tree = GRAPHS[name][1]()
    write_tree(tree, tmp_path / "net.nir")
    one, two = (build(t, HERE).network for t in (tree, read_tree(tmp_path / "net.nir", isolate=False)))
    assert list(one.nodes) == list(two.nodes) and one.outputs == two.outputs
    assert {(e.source, e.target, e.back) for e in one.edges} == {(e.source, e.target, e.back) for e in two.edges}
    for node_, other in zip(one.nodes.values(), two.nodes.values()):
        assert (node_.kind, node_.shape, node_.in_shape) == (other.kind, other.shape, other.in_shape)
        for key, value in node_.params.items():
            np.testing.assert_array_equal(value, other.params[key])


def test_stock_nir_reads_what_is_written(tmp_path: Path) -> None:
    """With its type check, but for what that refuses although it is right: groups, and stored batch axes."""
    import nir

    for name, (_, make) in GRAPHS.items():
        write_tree(make(), tmp_path / f"{name}.nir")
        graph = nir.read(tmp_path / f"{name}.nir", type_check=name not in ("conv2d", "old_file"))
        assert set(graph.nodes) == set(make().nodes)
    with pytest.raises(ValueError, match="type"):
        nir.read(tmp_path / "conv2d.nir")


def test_what_nir_writes_is_read(tmp_path: Path) -> None:
    import nir

    neuron_ = nir.CubaLIF(*(np.full(3, v) for v in (0.01, 0.02, 1.0, 0.0, 1.0)), w_in=np.full(3, 2.0))
    convolution = nir.Conv2d((5, 6), weights((3, 2, 2, 2), 1), 1, "same", 1, 1, np.zeros(3))
    parts = [nir.Input({"input": np.array([2, 5, 6])}), convolution, nir.Flatten({"input": np.array([3, 5, 6])}, 0, -1)]
    parts += [nir.Linear(weights((3, 90), 2)), neuron_, nir.Output({"output": np.array([3])})]
    nir.write(tmp_path / "net.nir", nir.NIRGraph.from_list(*parts, type_check=False))
    network = build(read_tree(tmp_path / "net.nir", isolate=False), HERE).network
    assert [n.kind for n in network.nodes.values()] == ["Input", "Conv2d", "Flatten", "Linear", "CubaLIF", "Output"]
    assert network.nodes["conv2d"].ints("padding") == (0, 1, 0, 1)


def test_older_files_and_small_parameters_are_said() -> None:
    read = build(GRAPHS["old_file"][1](), HERE)
    assert codes(read) == ["batch-axis", "field-filled"]
    assert read.network.nodes["input"].shape == (6,) and not read.network.nodes["lif"].array("v_reset").any()
    lif = Record("LIF", {**neuron("LIF", (4,), 1).fields, "tau": np.array(0.01), "r": np.array([2.0])})
    read = build(
        chain(("i", Record("Input", {"shape": (4,)})), ("lif", lif), ("o", Record("Output", {"shape": (5,)}))), HERE
    )
    assert codes(read) == ["size-1", "stored-shape"] and read.network.nodes["lif"].array("tau").shape == (4,)


def test_a_node_that_nothing_reads_is_left_out_and_said() -> None:
    tree = GRAPHS["dense_lif"][1]()
    tree = Tree({**tree.nodes, "probe": node("Linear", weight=np.ones((2, 4)))}, (*tree.edges, ("neuron", "probe")))
    read = build(tree, HERE)
    assert codes(read) == ["unread"] and "probe" not in read.network.nodes


def test_nested_graphs_are_inlined() -> None:
    """The nested graph does what the flat one does; dotted ends name its inner nodes; three levels."""
    flat, nested = (build(GRAPHS[name][1](), HERE).network for name in ("recurrent", "nested"))
    assert set(nested.nodes) == {"input", "fc", "layer.lif", "layer.w_rec", "output"}
    x = (np.random.default_rng(0).random((30, 6)) < 0.4).astype(float)
    one, two = (outputs(net, PRESETS["norse"], {"input": x})["output"] for net in (flat, nested))
    np.testing.assert_array_equal(one, two)
    assert one.any()
    given, made = Record("Input", {"shape": (4,)}), Record("Output", {"shape": (4,)})
    parts = {"a": given, "b": given, "lif": neuron("LIF", (4,), 1), "o": made}
    inner = Tree(parts, (("a", "lif"), ("b", "lif"), ("lif", "o")))
    ends: dict[str, Record | Tree] = {"x": given, "y": given, "out": Record("Output", {"shape": (4,)}), "s": inner}
    read = build(Tree(ends, (("x", "s.a"), ("y", "s.b"), ("s", "out"))), HERE)
    assert sorted(e.source for e in read.network.into("s.lif")) == ["x", "y"]
    with pytest.raises(InputError, match="'s': an edge ends at this nested graph, which has 2 Input nodes"):
        build(Tree(ends, (("x", "s"), ("y", "s.b"), ("s", "out"))), HERE)
    # Both inner inputs fed by one node: the value counts twice, so a junction has to stay.
    del ends["y"]
    network = build(Tree(ends, (("x", "s.a"), ("x", "s.b"), ("s", "out"))), HERE).network
    assert sum(e.source == "x" for e in network.edges) == 2 and len(network.into("s.lif")) == 2


def back(kinds: dict[str, str], *edges: tuple[str, str]) -> set[tuple[str, str]]:
    return order(kinds, edges)[1]


def test_which_edge_goes_back() -> None:
    base = {"i": "Input", "f": "Linear", "n": "LIF", "w": "Affine", "m": "LIF", "g": "Linear", "o": "Output"}
    forward = [("i", "f"), ("f", "n"), ("n", "g"), ("g", "m"), ("m", "o")]
    assert back(base, *forward, ("n", "w"), ("w", "n")) == {("n", "w")}, "own recurrence: between spikes and weights"
    assert back(base, *forward, ("m", "w"), ("w", "n")) == {("m", "w")}, "feedback: not the forward weights"
    assert back(base, *forward, ("n", "n")) == {("n", "n")}
    assert back(base, *forward, ("m", "w"), ("n", "w"), ("w", "n")) == {("m", "w"), ("n", "w")}
    # The weights also feed a layer ahead, which must not wait: their own value goes back instead.
    assert back(base, ("i", "n"), ("n", "w"), ("w", "m"), ("w", "n"), ("m", "o")) == {("w", "n")}
    # A second source of the weights that is outside of the cycle stays in its step.
    assert back(base, ("i", "m"), ("m", "w"), ("i", "n"), ("n", "w"), ("w", "n"), ("n", "o")) == {("n", "w")}
    for seed in range(20):  # the order of nodes in a file is lost: it must not matter
        names = list(base)
        np.random.default_rng(seed).shuffle(names)
        shuffled = {name: base[name] for name in names}
        assert order(shuffled, [*forward, ("m", "w"), ("w", "n")]) == order(base, [*forward, ("m", "w"), ("w", "n")])


def run(network: Network, convention: Convention, x: np.ndarray, name: str) -> list[float]:  # type: ignore[type-arg]
    moments = simulate(network, convention, {network.inputs[0]: x.astype(float)[:, None]})
    return [float(moment.values[name].flat[0]) for moment in moments]


def test_a_recurrent_bias_acts_from_step_0_and_weights_a_step_later() -> None:
    loop = node("Affine", weight=np.array([[2.0]]), bias=np.array([0.25]))
    one = Record("IF", {"r": np.ones(1), "v_threshold": np.array([1.0])})
    tree = chain(
        ("i", Record("Input", {"shape": (1,)})), ("n", one), ("o", Record("Output", {})), more=(("n", "w"), ("w", "n"))
    )
    network = build(Tree({**tree.nodes, "w": loop}, tree.edges), HERE).network
    convention = Convention(if_unit="one")
    moments = list(simulate(network, convention, {"i": np.array([[0.0], [1.0], [0.0], [0.0]])}))
    assert [float(m.membranes["n"][0]) for m in moments] == [0.25, 1.5, 2.25, 2.25]
    assert [float(m.values["n"][0]) for m in moments] == [0, 1, 1, 1]


def test_delays_hold_whole_steps_and_a_back_edge_is_one_of_them() -> None:
    delay = node("Delay", delay=np.array([0.0, 0.001, 0.003]))
    tree = chain(
        ("i", Record("Input", {"shape": (3,)})), ("d", delay), ("n", neuron("I", (3,), 1)), ("o", Record("Output", {}))
    )
    network = build(tree, HERE).network
    x = np.zeros((6, 3))
    x[1] = 1
    moments = list(simulate(network, Convention(dt=1e-3), {"i": x}))
    assert np.stack([m.values["d"] for m in moments]).T.tolist() == [
        [0, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
    ]
    one = Record("IF", {"r": np.ones(1), "v_threshold": np.array([0.5])})
    d = node("Delay", delay=np.array([0.002]))
    ring = chain(
        ("i", Record("Input", {"shape": (1,)})), ("n", one), ("o", Record("Output", {})), more=(("n", "d"), ("d", "n"))
    )
    network = build(Tree({**ring.nodes, "d": d}, ring.edges), HERE).network
    assert [(e.source, e.target) for e in network.back_edges] == [("d", "n")]
    assert run(network, Convention(dt=1e-3, if_unit="one"), np.array([1, 0, 0, 0, 0, 0]), "n") == [1, 0, 1, 0, 1, 0]


def test_several_spikes_and_late_resets() -> None:
    one = Record("IF", {"r": np.ones(1), "v_threshold": np.array([0.5])})
    network = build(
        chain(("i", Record("Input", {"shape": (1,)})), ("n", one), ("o", Record("Output", {}))), HERE
    ).network
    x = np.array([1.0, 0.0, 1.2, 0.0])
    several = Convention(if_unit="one", reset="subtract", several=True)
    assert run(network, replace(several, compare="ge"), x, "n") == [2, 0, 2, 0]
    assert run(network, several, x, "n") == [1, 0, 3, 0]
    late = run(network, Convention(if_unit="one", reset="subtract", late="reset"), x, "n")
    assert late == [1, 0, 1, 1] and run(network, Convention(if_unit="one", reset="subtract", late="spike"), x, "n") == [
        0,
        1,
        0,
        1,
    ]


def test_recordings_of_nir_are_inputs(tmp_path: Path) -> None:
    """Time-gridded data and events, as ``nir.write_data`` writes them."""
    import nir

    network = build(GRAPHS["feedback"][1](), HERE).network
    grid = np.random.default_rng(3).random((1, 20, 4)) < 0.3
    idx, time = np.array([[0, 2, 2, -1]]), np.array([[0.0, 0.0101, 0.0109, np.inf]])
    left = nir.NIRNodeData({"spikes": nir.TimeGriddedData(grid, 1e-3)})
    right = nir.NIRNodeData({"spikes": nir.EventData(idx, time, 3, 0.02)})
    nir.write_data(tmp_path / "in.h5", nir.NIRGraphData({"left": left, "right": right}))
    given = read_inputs(tmp_path / "in.h5", network, None, 1e-3)
    np.testing.assert_array_equal(given.values["left"], grid[0])
    assert given.values["right"][0].tolist() == [1, 0, 0] and given.values["right"][10].tolist() == [0, 0, 2]
    assert given.values["right"].sum() == 3 and given.steps == 20 and given.is_spikes("right")


def test_the_conformance_suite_says_what_the_reference_says(tmp_path: Path) -> None:
    """Expected values follow from graph, input and convention; nir reads what is NIR's."""
    import nir

    found = write_suite(tmp_path, "SUITE.json")
    assert found["graphs"] == len(GRAPHS) and found["answers"] > 100
    kinds = {n.kind for _, make in GRAPHS.values() for n in build(make(), HERE).network.nodes.values()}
    assert kinds == set(PRIMITIVES), "the suite shows every primitive"
    network = build(read_tree(tmp_path / "feedback.nir", isolate=False), HERE).network
    given = read_inputs(tmp_path / "feedback.input.h5", network, None, 1e-3)
    want = outputs(network, replace(PRESETS["spikingjelly"], dt=1e-3), given.values)
    held = read_data(tmp_path / "feedback.spikingjelly.h5", isolate=False)
    for name in network.outputs:
        np.testing.assert_array_equal(held[name]["value"].gridded(1e-3)[0], want[name])
    stock = nir.read_data(str(tmp_path / "feedback.spikingjelly.h5"))
    np.testing.assert_array_equal(stock.nodes["spikes"].observables["value"].data[0], want["spikes"])


def test_the_tables_cover_nir() -> None:
    import nir

    stock = {
        name
        for name in dir(nir.ir)
        if isinstance(getattr(nir.ir, name), type) and issubclass(getattr(nir.ir, name), nir.ir.NIRNode)
    }
    assert set(PRIMITIVES) | {"NIRGraph", "NIRNode"} == stock and set(STANDING) == set(PRIMITIVES)


def fuzz(files: int, *more: str) -> dict[str, Any]:
    script = Path(__file__).parents[1] / "benchmarks" / "nir_fuzz.py"
    command = [sys.executable, str(script), "--files", str(files), "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_damaged_files_are_networks_or_one_sentence() -> None:
    """Ten of each way of damage; the whole ten thousand: python benchmarks/nir_fuzz.py."""
    found = fuzz(170, "--whole-every", "85", "--seed", "100000")
    assert not found["findings"] and found["processes_left"] == 0 and len(found["ways"]) == 17
    assert sum(way.get("refused", 0) for way in found["ways"].values()) > 100


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_many_damaged_files_are_networks_or_one_sentence() -> None:
    assert not fuzz(2000, "--seed", "200000")["findings"]
