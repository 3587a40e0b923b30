"""The graph in memory: exact thresholds, names, digests, the node table, export and shapes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))

from _nir import SINGLE, THREE, TINY, graph_of, state_of, with_node

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.builder import LEVELS
from spiketrack_deploy.frontends.spiketrack.export import build_graph
from spiketrack_deploy.frontends.spiketrack.fold import STRICT_THRESHOLDS, Weights, shifted_threshold
from spiketrack_deploy.nir_graph.graph import (
    Graph,
    Node,
    array_digest,
    compact,
    constant,
    constant_value,
    graph_digest,
    split_name,
    valid_name,
)
from spiketrack_deploy.nir_graph.kinds import KINDS, OTHER_NIR_KINDS
from spiketrack_deploy.nir_graph.order import execution_order, infer_shapes
from spiketrack_deploy.nir_graph.summary import summary
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig

FLOATS = st.floats(-8, 8, allow_nan=False)


@given(FLOATS)
def test_the_bank_counts_as_round_half_to_even(value: float) -> None:
    for v in (value, np.nextafter(value, -9), np.nextafter(value, 9)):
        assert sum(v > theta for theta in STRICT_THRESHOLDS) == np.rint(np.clip(v, 0, 4))


@pytest.mark.parametrize("tie", [0.5, 1.5, 2.5, 3.5, 4.5, -0.5, 0.0])
def test_the_bank_is_exact_at_and_beside_ties(tie: float) -> None:
    for v in (tie, np.nextafter(tie, -9), np.nextafter(tie, 9)):
        assert sum(v > theta for theta in STRICT_THRESHOLDS) == np.rint(np.clip(v, 0, 4))


@given(FLOATS, FLOATS)
def test_a_shifted_threshold_says_what_the_rounded_sum_says(offset: float, value: float) -> None:
    for theta in STRICT_THRESHOLDS:
        shifted = float(shifted_threshold(theta, np.array([offset]))[0])
        assert shifted + offset <= theta < np.nextafter(shifted, np.inf) + offset
        for v in (value, shifted, np.nextafter(shifted, -99), np.nextafter(shifted, 99)):
            assert (v > shifted) == (v + offset > theta)


def test_shifted_thresholds_where_the_difference_cancels() -> None:
    offsets = np.array([0.5, 0.5 - 1e-13, 0.5 + 1e-13, -0.0, 0.0, 1e-300, 2.5, 1e9, -1e9]).reshape(3, 3)
    shifted = shifted_threshold(0.5, offsets)
    assert shifted.shape == offsets.shape
    assert (shifted + offsets <= 0.5).all() and (np.nextafter(shifted, np.inf) + offsets > 0.5).all()


def test_names() -> None:
    name = "search.encoder.mrm.2.retriever.q_spike#2@t1.k3"
    assert valid_name(name) and split_name(name) == ("search", "encoder.mrm.2.retriever.q_spike#2", 1, "k3")
    assert split_name("template.image@t0") == ("template", "image", 0, "")
    for bad in ("", "a/b", "a b", ".x", "x" * 201, "cut:x", "ä"):
        assert not valid_name(bad)
    for bad in (".x@t0", "search.", "search.x", "search@t0", "search.x@t", "search.@t0"):
        with pytest.raises(ValueError, match="form"):
            split_name(bad)


def test_digests_depend_on_values_alone() -> None:
    full, view = np.full((3, 4), 2.5), constant(2.5, (3, 4))
    assert array_digest(full) == array_digest(view) and constant_value(compact(full)) == 2.5
    assert array_digest(full) != array_digest(full.reshape(4, 3))
    signed = full * 0
    signed[2, 3] = -0.0
    assert constant_value(compact(signed)) is None and array_digest(signed) != array_digest(full * 0)


def test_the_graph_digest_sees_every_part() -> None:
    graph, _ = graph_of(TINY)
    base = graph_digest(graph)
    conv = "search.encoder.downsample2.encode_conv@t0"
    weight = graph.nodes[conv].array("weight").copy()
    assert graph_digest(with_node(graph, conv, weight=weight)) == base
    weight.flat[7] = np.nextafter(weight.flat[7], 9)
    reordered = Graph(graph.nodes, [*graph.edges[1:], graph.edges[0]], graph.metadata)
    changed = [
        with_node(graph, conv, weight=weight),
        with_node(graph, conv, stride=(1, 2)),
        reordered,
        Graph(graph.nodes, graph.edges[1:], graph.metadata),
        Graph(graph.nodes, graph.edges, {**graph.metadata, "schema": "x"}),
        Graph({n: v for n, v in graph.nodes.items() if n != conv}, graph.edges, graph.metadata),
    ]
    assert base not in {graph_digest(other) for other in changed}


def test_the_node_table_is_nir_1_0_8() -> None:
    import nir
    from nir.ir import __all__ as exported

    every = {name for name in exported if isinstance(getattr(nir, name), type) and name != "NIRNode"}
    assert len(every) > 15 and every == set(KINDS) | OTHER_NIR_KINDS
    renamed = {"input_type": "shape", "output_type": "shape"}
    for kind, spec in KINDS.items():
        inits = [f.name for f in dataclasses.fields(getattr(nir, kind)) if f.init and f.name != "metadata"]
        assert [field.name for field in spec.fields] == [renamed.get(name, name) for name in inits], kind


@pytest.mark.parametrize("config", [TINY, SINGLE, THREE], ids=lambda c: c.name)
def test_names_and_structure_follow_the_convention(config: TrackerConfig) -> None:
    graph, cuts = graph_of(config)
    sources = graph.sources()
    shapes = infer_shapes(graph, cuts)
    banks = [name for name in graph.nodes if f"{name}.k1" in graph.nodes]
    assert banks and len({cut.id for cut in cuts}) == len(cuts)
    for name in [*graph.nodes, *(cut.id for cut in cuts)]:
        split_name(name)
        assert valid_name(name)
    for name in banks:
        _, _, step, part = split_name(name)
        thresholds = sources[name]
        assert part == "" and thresholds == [f"{name}.k{k}" for k in range(1, LEVELS + 1)]
        assert len({tuple(sources[k]) for k in thresholds}) == 1
        assert constant_value(graph.nodes[name].array("scale")) == 1 / LEVELS
        if step:
            assert sources[thresholds[0]] == [f"{name}.m"] and sources[f"{name}.m"][:2] == [
                f"{name}.leak",
                f"{name}.reset",
            ]
            before = name.replace(f"@t{step}", f"@t{step - 1}")
            assert sources[f"{name}.reset"] == [before] and sources[f"{name}.leak"] == sources[f"{before}.k1"]
            leak, reset = (constant_value(graph.nodes[f"{name}.{part}"].array("scale")) for part in ("leak", "reset"))
            assert leak == -reset and 0 < leak < 1
    for name in (n for n in graph.nodes if ".sum_" in n):
        assert constant_value(graph.nodes[name].array("scale")) == 1 and len(sources[name]) == 2
    for name, node in graph.nodes.items():
        if node.kind == "Output":
            assert name == f"{sources[name][0]}.out" and shapes[name] == shapes[sources[name][0]]
    assert all("cut:" + c.id in shapes for c in cuts)


def test_residual_sums_list_the_stream_first() -> None:
    graph, _ = graph_of(TINY)
    sources = graph.sources()
    assert sources["search.encoder.block3.0.sum_attn@t0"] == [
        "search.encoder.block3.0.sum_conv@t0",
        "search.encoder.block3.0.attn.proj_conv@t0",
    ]
    assert sources["search.encoder.mrm.0.sum_retriever@t0"] == [
        "search.encoder.downsample1_2.encode_conv@t0",
        "search.encoder.mrm.0.retriever@t0.upsample.in",
    ]
    assert sources["search.encoder.mrm.2.retriever.sum_shortcut@t1"] == [
        "search.encoder.mrm.2.retriever.q_conv@t0",
        "search.encoder.mrm.2.retriever.seg_responder_pw.1@t1",
    ]


def test_weights_are_shared_between_steps_and_branches() -> None:
    graph, _ = graph_of(TINY)
    path = "encoder.ConvBlock1_1.0.conv1"
    arrays = {id(graph.nodes[f"{where}.{path}@t{t}"].array("weight")) for where, t in (("template", 0), ("template", 1), ("search", 0))}  # fmt: skip  # noqa: E501
    assert len(arrays) == 1


def test_the_template_branch_ends_with_the_last_memory() -> None:
    graph, cuts = graph_of(TINY)
    assert not any(name.startswith("template.encoder.block3") for name in graph.nodes)
    writes = [(c.params["memory"], c.params["step"]) for c in cuts if c.op == "memory_write"]
    assert writes == [(0, 0), (0, 1), (2, 0), (2, 1)]


def test_batch_norm_is_folded_exactly_as_written() -> None:
    rng = np.random.default_rng(0)
    state = {"c.weight": rng.normal(size=(3, 2, 1, 1)), "c.bias": rng.normal(size=3)}
    state |= {f"n.{k}": rng.uniform(0.5, 2, 3) for k in ("weight", "bias", "running_mean", "running_var")}
    weight, bias = Weights(state).fold("c", "n")
    x = rng.normal(size=2)
    y = state["c.weight"][:, :, 0, 0] @ x + state["c.bias"]
    want = (y - state["n.running_mean"]) / np.sqrt(state["n.running_var"] + 1e-5) * state["n.weight"] + state["n.bias"]
    np.testing.assert_allclose(weight[:, :, 0, 0] @ x + bias, want, rtol=1e-13)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encoder.downsample2.encode_conv.weight", None, "lacks"),
        ("encoder.block3.0.attn.s_pos_embed", np.zeros((1, 16, 9)), "shape"),
        ("encoder.downsample2.encode_bn.running_var", np.full(8, np.nan), "not finite"),
        ("encoder.downsample2.encode_bn.running_var", np.full(8, -1.0), "negative"),
        ("encoder.downsample2.encode_bn.weight", np.ones(9), "disagree"),
        ("encoder.block3.0.attn.q_conv.0.weight", np.ones((16, 5, 1, 1)), "does not read"),
        ("encoder.mrm.0.retriever.gate.mlp.0.weight", np.ones((2, 3, 1)), "channels do not fit"),
    ],
)
def test_unusable_weights_are_named(key: str, value: np.ndarray | None, words: str) -> None:
    state = state_of(TINY)
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(InputError, match=words) as caught:
        build_graph(state, TINY)
    assert key.rsplit(".", 1)[0].removesuffix(".0") in str(caught.value)


def test_shape_inference_reports_disagreement() -> None:
    graph, cuts = graph_of(TINY)
    spike = "search.encoder.downsample2.encode_spike@t0"
    conv = "search.encoder.downsample2.encode_conv@t0"
    cut = next(c for c in cuts if c.op == "upsample")
    other = dataclasses.replace(cut, params={**cut.params, "factor": 2})
    wrong = [
        (with_node(graph, f"{spike}.k2", threshold=constant(1.0, (8, 3, 8))), cuts, f"{spike}.k2"),
        (with_node(graph, conv, bias=np.zeros(5)), cuts, "bias"),
        (with_node(graph, conv, groups=3), cuts, "groups"),
        (with_node(graph, conv, input_shape=(9, 8)), cuts, "input_shape"),
        (with_node(graph, "search.image@t0", shape=(3, 32, 30)), cuts, "normalise.*declares"),
        (graph, [other if c is cut else c for c in cuts], cut.id),
        (Graph(graph.nodes, [*graph.edges, (conv, spike)], graph.metadata), cuts, "different shapes|cycle"),
    ]
    for broken, its_cuts, words in wrong:
        with pytest.raises(InputError, match=words):
            infer_shapes(broken, its_cuts)


def test_a_whole_must_be_closed() -> None:
    graph, cuts = graph_of(TINY)
    without = [c for c in cuts if c.op != "upsample"]
    doubled = [*cuts, dataclasses.replace(cuts[0], id="template.again@t0.normalise")]
    lost = [c for c in cuts if c.op != "memory_write"]
    cases = [
        (graph, without, "filled by no cut|read by no cut"),
        (graph, doubled, "filled by two cuts"),
        (graph, [*cuts, cuts[0]], "listed twice|two cuts"),
        (graph, lost, "no cut writes"),
        (
            Graph(graph.nodes, [*graph.edges, ("template.image@t0", "search.decoder.conv5_ctr@t0")], {}),
            cuts,
            "two phases",
        ),
    ]
    for whole, its_cuts, words in cases:
        with pytest.raises(InputError, match=words):
            execution_order(whole, its_cuts)


def test_a_cycle_is_named() -> None:
    ones = {"scale": constant(1.0, (1, 2, 2))}
    nodes = {f"search.{n}@t0": Node("Scale", dict(ones)) for n in "abc"}
    graph = Graph(
        nodes, [("search.a@t0", "search.b@t0"), ("search.b@t0", "search.c@t0"), ("search.c@t0", "search.a@t0")], {}
    )
    with pytest.raises(InputError, match=r"cycle: .*search\.a@t0.*search\.b@t0"):
        execution_order(graph, [])


def test_the_summary_counts_the_neurons_of_the_published_network() -> None:
    """17,070,080 neurons in S256's search branch at T = 1: counted on the published network."""
    import torch

    from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

    config = TrackerConfig.official("s256_t1")
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in SpikeTrack(config).state_dict().items()}
    graph, cuts = build_graph({key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}, config)
    counts = summary(graph, cuts)
    assert counts["phases"]["search"]["neurons"] == 17_070_080
    assert counts["phases"]["search"]["neuron_banks"] == 171 and counts["phases"]["template"]["neuron_banks"] == 122
    assert counts["nodes"]["Threshold"] == LEVELS * (171 + 122)
    assert [c["id"] for c in counts["phases"]["search"]["cuts"]] == [c.id for c in cuts if c.id.startswith("search.")]
    assert counts["bytes"]["stored"] < counts["bytes"]["declared"] / 10
