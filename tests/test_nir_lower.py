"""NIR networks as integer programs: every engine alike, close to the float reference, refused in a sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from _lava import requires_lava
from _nir_exact import BITS, Case, agreement, drawn_case, integers_compared, spike_share

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.errors import FitError, InputError
from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.lower import InputKind, LowerOptions, lower_network
from spiketrack_deploy.frontends.nir.network import KINDS, Edge, Network, Node
from spiketrack_deploy.frontends.nir.reference import simulate
from spiketrack_deploy.program.bounds import prove_ranges
from spiketrack_deploy.program.store import content_hash

FILES = Path(__file__).with_name("nir_frameworks")
DT = 1e-3
QUICK = (*range(20), 21, 36, 59)
"""Networks that hold every primitive between them."""


def chain(*nodes: Node) -> Network:
    edges = tuple(Edge(a.name, b.name) for a, b in pairwise(nodes))
    return Network("chain", {node.name: node for node in nodes}, edges, (nodes[0].name,), (nodes[-1].name,))


def ends(shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[Node, Node]:
    return Node("in", "Input", {}, shape, shape), Node("out", "Output", {}, out, out)


def neuron(kind: str, shape: tuple[int, ...], **params: float) -> Node:
    return Node("n", kind, {key: np.full(shape, value) for key, value in params.items()}, shape, shape)


def test_drawn_networks_hold_every_primitive() -> None:
    cases = [drawn_case(seed, 1) for seed in QUICK]
    kinds = {node.kind for case in cases for node in case.network.nodes.values()}
    assert kinds == set(KINDS)
    assert any(case.network.back_edges for case in cases) and any(len(case.network.inputs) > 1 for case in cases)
    assert len({case.convention for case in cases}) > 10


@pytest.mark.parametrize("seed", QUICK)
def test_engines_agree_on_drawn_networks(seed: int) -> None:
    compared, refused = agreement(seed, ("sim", "onnx"), 6)
    assert compared > 100 or refused


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(500))
def test_engines_agree_on_500_drawn_networks(seed: int) -> None:
    compared, refused = agreement(seed, ("sim", "onnx"), 50)
    assert compared > 1000 or refused.startswith("node '")


@pytest.mark.parametrize("seed", [4, pytest.param(6, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", [pytest.param("lava", marks=requires_lava())])
def test_lava_agrees_on_drawn_networks(engine: str, seed: int) -> None:
    compared, refused = agreement(seed, (engine,), 12)
    assert compared > 100, refused


@pytest.mark.parametrize("name", ["snntorch_recurrent", "spikingjelly_conv", "norse_current", "sinabs_dense"])
def test_exports_of_frameworks_come_closer_with_more_bits(name: str) -> None:
    """With 16-bit weights the integers fire as the framework did; engines agree on all of it."""
    network = read_network(FILES / f"{name}.nir", isolate=False).network
    (source,) = network.inputs
    x = np.load(FILES / f"{name}.npz")["input"].astype(np.float64)
    x = x.reshape(len(x), *network.nodes[source].shape)
    case = Case(network, PRESETS[name.split("_")[0]], {source: InputKind(int(x.max()))}, {source: x})
    shares = [spike_share(case, bits) for bits in BITS]
    assert shares[0].share < 0.15 and shares[1].share <= shares[0].share
    assert shares[2].differing == 0 and not shares[2].clipped
    lowered = case.lowered(12)
    assert integers_compared(lowered.program, [case.encoded(lowered, t) for t in range(10)], ("sim", "onnx"))


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_what_integers_can_say_is_said_exactly(reset: str, compare: str) -> None:
    """Weights, decays and thresholds that are whole fractions: no spike and no voltage differs, ties of `>` and `>=`
    included."""
    rng = np.random.default_rng(3)
    first, last = ends((6,), (5,))
    weights = Node("w", "Linear", {"weight": rng.integers(-4, 9, (5, 6)) / 8}, (6,), (5,))
    cell = neuron("IF", (5,), r=1.0, v_threshold=1.0, v_reset=0.25)
    convention = Convention(dt=1.0, reset=reset, compare=compare, if_unit="one")  # type: ignore[arg-type]
    network = chain(first, weights, cell, last)
    lowered = lower_network(network, convention)
    x = (rng.random((80, 6)) < 0.5).astype(np.float64)
    session, ties = ReferenceEngine(lowered.program).session(), 0
    for step, moment in enumerate(simulate(network, convention, {"in": x})):
        seen: dict[str, np.ndarray] = {}
        given = {"in": lowered.encode("in", x[step])}
        outputs = session.step("step", given, watch=lambda op, v, into=seen: into.update({op.name: v})).outputs
        voltage = lowered.voltages["n"]
        assert np.array_equal(lowered.decode("out", outputs["out"]), moment.values["out"])
        assert np.allclose(seen[voltage.value].reshape(5) * voltage.factor, moment.membranes["n"], rtol=0, atol=1e-12)
        ties += int((moment.membranes["n"] == 1.0).sum())
    assert ties > 3


def test_a_bias_alone_drives_a_neuron() -> None:
    """Weights of zero say nothing about the unit; the bias does."""
    first, last = ends((2,), (3,))
    weights = Node("w", "Affine", {"weight": np.zeros((3, 2)), "bias": np.array([0.013, 0.3, 0.0])}, (2,), (3,))
    cell = neuron("IF", (3,), r=1.0, v_threshold=1.0, v_reset=0.0)
    network, convention = chain(first, weights, cell, last), Convention(dt=DT, if_unit="one")
    case = Case(network, convention, {"in": InputKind()}, {"in": np.ones((200, 2))})
    assert spike_share(case, 8).differing == 0
    assert sum(moment.values["n"] for moment in simulate(network, convention, case.inputs)).tolist() == [2, 50, 0]


def test_a_read_out_is_as_exact_as_its_bits() -> None:
    first, last = ends((4,), (3,))
    rng = np.random.default_rng(0)
    weights = Node("w", "Affine", {"weight": rng.normal(size=(3, 4)), "bias": rng.normal(size=3)}, (4,), (3,))
    cell = neuron("LI", (3,), tau=5 * DT, r=2.0, v_leak=-0.1)
    network, convention = chain(first, weights, cell, last), Convention(dt=DT)
    x = rng.uniform(-1, 1, (40, 4))
    case = Case(network, convention, {"in": InputKind(limit=1.0)}, {"in": x})
    worst = []
    for bits in BITS:
        lowered = case.lowered(bits)
        session = ReferenceEngine(lowered.program).session()
        errors = []
        for step, moment in enumerate(simulate(network, convention, {"in": x})):
            out = session.step("step", case.encoded(lowered, step)).outputs["out"]
            errors.append(np.abs(lowered.decode("out", out) - moment.values["out"]).max())
        worst.append(max(errors))
    assert worst[0] < 0.03 and worst[1] < worst[0] / 4, worst


def test_scales_and_means_cost_nothing() -> None:
    """A Scale, a Flatten and a Delay of no step are no operations; a mean is a sum counted in another unit."""
    first, last = ends((2, 4, 3), (8,))
    pool = Node(
        "p", "AvgPool2d", {"kernel_size": (2, 2), "stride": (2, 1), "padding": (0, 0, 0, 0)}, (2, 4, 3), (2, 2, 2)
    )
    scale = Node("s", "Scale", {"scale": np.linspace(0.5, 2, 8).reshape(2, 2, 2)}, (2, 2, 2), (2, 2, 2))
    wait = Node("d", "Delay", {"delay": np.zeros((2, 2, 2))}, (2, 2, 2), (2, 2, 2))
    flat = Node("f", "Flatten", {}, (2, 2, 2), (8,))
    cell = neuron("LIF", (8,), tau=4 * DT, r=2.0, v_leak=0.0, v_threshold=0.7, v_reset=0.0)
    lowered = lower_network(chain(first, pool, scale, wait, flat, cell, last), Convention(dt=DT))
    assert [op.kind for op in lowered.program.phases["step"].ops] == ["conv", "integrate", "fire", "reset"]


def test_the_same_network_has_the_same_hash_and_a_proof() -> None:
    case = drawn_case(4, 1)
    one, other = case.lowered(8), case.lowered(8)
    assert content_hash(one.program) == content_hash(other.program)
    assert all(entry.fits for entry in prove_ranges(one.program)["step"])
    assert all(op in {o.name for o in one.program.phases["step"].ops} for op in one.clipped)


def test_a_membrane_without_leak_is_clipped_and_counted() -> None:
    """An I that only grows: its clips are counts, and its value stays where the accumulators end."""
    first, last = ends((2,), (2,))
    network = chain(first, neuron("I", (2,), r=1.0), last)
    lowered = lower_network(network, Convention(dt=DT, if_unit="one"), LowerOptions(width=12, observed={"n.v": 1.0}))
    assert lowered.clipped == ("n",)
    session, clipped = ReferenceEngine(lowered.program).session(), 0
    for _ in range(200):
        result = session.step("step", {"in": lowered.encode("in", np.ones(2))})
        clipped += sum(one.saturated for one in result.counts.values())
    assert clipped > 0 and int(result.outputs["out"].max()) == 2**11 - 1


def test_what_no_accumulator_holds_is_refused_by_name() -> None:
    first, last = ends((4000,), (2,))
    weights = Node("dense", "Linear", {"weight": np.ones((2, 4000))}, (4000,), (2,))
    cell = neuron("IF", (2,), r=1.0, v_threshold=1.0, v_reset=0.0)
    network = chain(first, weights, cell, last)
    lower_network(network, Convention(dt=DT))
    with pytest.raises(FitError, match=r"^node 'dense': .*accumulators of 12 bits"):
        lower_network(network, Convention(dt=DT), LowerOptions(width=12))
    with pytest.raises(InputError, match="weights of 1 bits; 2 to 16 are possible"):
        lower_network(network, Convention(dt=DT), LowerOptions(weight_bits=1))
    slow = Node("wait", "Delay", {"delay": np.full(2, 9.0)}, (2,), (2,))
    with pytest.raises(FitError, match="node 'wait': a delay of 9000 steps; 4096 are possible"):
        lower_network(chain(ends((2,), (2,))[0], slow, cell, last), Convention(dt=DT))


def test_a_million_synapses_lower_in_seconds() -> None:
    first, last = ends((1000,), (1000,))
    weights = Node("w", "Linear", {"weight": np.random.default_rng(0).normal(0, 0.3, (1000, 1000))}, (1000,), (1000,))
    cell = neuron("LIF", (1000,), tau=0.01, r=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0)
    start = perf_counter()
    lowered = lower_network(chain(first, weights, cell, last), Convention(dt=DT))
    assert perf_counter() - start < 20
    assert lowered.program.arrays["w.weight"].size == 10**6
