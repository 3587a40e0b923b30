"""From the NIR graph to integers: the twin, the parity with the float tracker, the range proof, hostile graphs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.float_parity import layer_parity, summary
from spiketrack_deploy.errors import FitError, InputError
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.frontends.spiketrack.source import lay_out
from spiketrack_deploy.lowering.lower import PASSES, dump_program, lower
from spiketrack_deploy.lowering.network import dump
from spiketrack_deploy.nir_graph.graph import Graph, Node
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.store import content_hash
from spiketrack_deploy.trackers.spiketrack.record import record_spikes

from _models import FULL_WALK, calibration_of, lower_graph, picture, tiny_config, tiny_graph, tiny_model, tiny_runs  # isort: skip
from _twin import dequantised_twin  # isort: skip

HERE = Path(__file__).parent
VARIANTS = {
    "official walk": tiny_config(walk=FULL_WALK, name="tiny_full"),
    "short walk": tiny_config(),
    "stride 4 at once": tiny_config(
        walk=("downsample1_1", "mrm.0", "ConvBlock1_2.0", "downsample2", "downsample3", "mrm.2", "block3.0"),
        name="tiny_quarter",
        dims=(7, 16, 16, 24),
        heads=1,
    ),
    "gain, ratios, factors": tiny_config(
        name="tiny_other",
        attention_gain=3.0,
        sep_expansion=1,
        conv_expansion=2,
        mlp_expansion=2,
        value_ratio=2,
        search_factor=3.0,
        template_factor=2.0,
    ),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_dequantised_twin_emits_the_same_spikes_in_every_layer(config) -> None:
    """The program's integers, written back into the float64 tracker, give every spike, memory and logit of the
    program.
    """
    graph, cuts = tiny_graph(config)
    program = lower_graph(graph, cuts, calibration_of(tiny_runs(config))).program
    twin = dequantised_twin(tiny_model(config), program)
    template, search = picture(5, config.resolution)[None], picture(6, config.resolution)[None]
    compared = 0

    def watch_against(spikes):
        def watch(op, value):
            nonlocal compared
            if op.kind == "ni_lif":
                assert np.array_equal(value, lay_out(spikes[op.name])), op.name
                compared += 1

        return watch

    with torch.inference_mode():
        with record_spikes(twin) as in_template:
            memories = twin.template_branch(torch.from_numpy(template.astype(np.float64))[:, None])
        with record_spikes(twin) as in_search:
            maps = twin.search_branch(torch.from_numpy(search.astype(np.float64))[:, None], memories)
    written = run_phase(program, "template", {"image": template}, watch=watch_against(in_template)).outputs
    for name, value in written.items():
        assert np.array_equal(value, 16 * memories[int(name.split(".")[1])].numpy()[:, 0])
    logits = run_phase(program, "search", {"image": search, **written}, watch=watch_against(in_search)).outputs
    phase = program.phases["search"]
    for public, real in (("ctr", maps.ctr_logits), ("size", maps.size_logits), ("offset", maps.offset)):
        unit = program.real_unit(phase.spec(phase.outputs[public]))
        assert np.array_equal(logits[public] * unit[:, None, None], real.numpy()), public
    assert compared == len(in_template) + len(in_search) > 50


@pytest.mark.parametrize("templates", [1, 2, 3])
def test_teacher_forced_parity_with_the_float_tracker(templates: int) -> None:
    config = tiny_config(templates)
    graph, cuts = tiny_graph(config)
    runs = tiny_runs(config)
    program = lower_graph(graph, cuts, calibration_of(runs)).program
    layers = layer_parity(ReferenceEngine(program), runs, teacher_forced=True)
    figures = summary(layers)
    assert figures["layers"] == len({(r.phase, n) for r in runs for n in r.spikes})
    assert figures["mean_rate"] < 0.01, figures
    assert all(layer.neurons > 0 for layer in layers)
    free = summary(layer_parity(ReferenceEngine(program), runs, teacher_forced=False))
    assert free["mean_rate"] >= figures["mean_rate"] * 0.5


def test_calibration_is_not_worse_than_plain_exponents() -> None:
    """Exponents are chosen on frames: on those frames the layers' noise may not grow against largest-weight scaling."""
    config = tiny_config()
    graph, cuts = tiny_graph(config)
    runs = tiny_runs(config)
    tuned = lower_graph(graph, cuts, calibration_of(runs))
    assert all(c.sqnr_db is None or c.sqnr_db > 25 for c in tuned.convolutions)
    assert any(c.clipped_weights for c in tuned.convolutions), (
        "no channel preferred a finer exponent: the choice is dead"
    )
    assert lower_graph(graph, cuts).program.arrays.keys() == tuned.program.arrays.keys()


def test_border_of_the_image_is_exact() -> None:
    """Zero padding comes after the normalisation: a mean-coloured picture must give the bias at inner and border
    pixels.
    """
    config = tiny_config()
    graph, cuts = tiny_graph(config)
    program = lower_graph(graph, cuts).program
    model = tiny_model(config)
    image = picture(9, config.resolution)
    seen = {}
    run_phase(
        program,
        "template",
        {"image": image[None]},
        watch=lambda op, v: seen.setdefault(op.name, v) if op.kind == "image_conv" else None,
    )
    name = "encoder.downsample1_1.encode_conv"
    stem = model.encoder.downsample1_1
    mean, std = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        real = stem.encode_bn(stem.encode_conv(torch.from_numpy((image / 255.0 - mean) / std)[None])).numpy()[0]
    unit = program.real_unit(program.phases["template"].values[name])[:, None, None]
    error = np.abs(seen[name][0] * unit - real)
    scale = np.abs(real).mean()
    border = np.concatenate(
        [error[:, :2].ravel(), error[:, -2:].ravel(), error[:, :, :2].ravel(), error[:, :, -2:].ravel()]
    )
    assert border.mean() < 0.02 * scale and border.max() < 0.1 * scale


def test_ranges_hold_for_extreme_inputs() -> None:
    """White, black and checkered pictures stay inside the proven bounds, which stay inside signed 24 bits."""
    config = tiny_config(3)
    graph, cuts = tiny_graph(config)
    result = lower_graph(graph, cuts)
    side = config.resolution
    checker = np.indices((side, side)).sum(axis=0) % 2 * 255
    for level in (np.zeros((side, side)), np.full((side, side), 255), checker):
        image = np.broadcast_to(level, (3, side, side)).astype(np.uint8)
        bound = {e.op: e for e in result.ranges["template"]}

        def inside(op, value, bound=bound) -> None:
            assert (bound[op.name].low <= value.min() and value.max() <= bound[op.name].high) or op.kind == "ni_lif", (
                op.name
            )

        memories = run_phase(result.program, "template", {"image": np.stack([image] * 3)}, watch=inside).outputs
        bound = {e.op: e for e in result.ranges["search"]}
        run_phase(
            result.program, "search", {"image": image[None], **memories}, watch=lambda op, v, b=bound: inside(op, v, b)
        )
    assert all(e.fits for entries in result.ranges.values() for e in entries)


def test_weights_that_leave_24_bits_are_refused() -> None:
    graph, cuts = tiny_graph(tiny_config())
    network, _ = recognise(graph, cuts)
    search = network.phases["search"]
    huge = [
        dataclasses.replace(op, params={**op.params, "weight": op.params["weight"] * 1e7})
        if op.name.endswith("conv1")
        else op
        for op in search.ops
    ]
    phases = {**network.phases, "search": dataclasses.replace(search, ops=tuple(huge))}
    template = network.phases["template"]
    same = [
        dataclasses.replace(op, params={**op.params, "weight": op.params["weight"] * 1e7})
        if op.name.endswith("conv1")
        else op
        for op in template.ops
    ]
    phases["template"] = dataclasses.replace(template, ops=tuple(same))
    with pytest.raises(FitError, match="24"):
        lower(dataclasses.replace(network, phases=phases))


def test_same_graph_gives_the_same_program() -> None:
    config = tiny_config(3)
    graph, cuts = tiny_graph(config)
    runs = calibration_of(tiny_runs(config))
    assert content_hash(lower_graph(graph, cuts, runs).program) == content_hash(lower_graph(graph, cuts, runs).program)


def _changed(graph: Graph, name: str, **params: object) -> Graph:
    node = graph.nodes[name]
    return Graph({**graph.nodes, name: Node(node.kind, {**node.params, **params})}, graph.edges, graph.metadata)


@pytest.mark.parametrize("fault", ["threshold", "quarter", "membrane", "edge", "kind", "metadata"])
def test_a_graph_that_is_no_spiketrack_export_is_refused_by_name(fault: str) -> None:
    graph, cuts = tiny_graph(tiny_config(3))
    name = "search.encoder.mrm.2.retriever.q_spike@t1"
    if fault == "threshold":
        node = f"{name}.k2"
        graph = _changed(graph, node, threshold=np.asarray(graph.nodes[node].params["threshold"]) + 0.1)
    elif fault == "quarter":
        graph = _changed(graph, name, scale=np.full_like(graph.nodes[name].params["scale"], 0.5))
    elif fault == "membrane":
        node = f"{name}.leak"
        graph = _changed(graph, node, scale=np.asarray(graph.nodes[node].params["scale"]) * 0.5)
    elif fault == "edge":
        graph = Graph(graph.nodes, [e for e in graph.edges if e[1] != f"{name}.k3"], graph.metadata)
    elif fault == "kind":
        graph = Graph({**graph.nodes, name: Node("LIF", {})}, graph.edges, graph.metadata)
    else:
        graph = Graph(graph.nodes, graph.edges, {})
    with pytest.raises(InputError, match="SpikeTrack export" if fault == "metadata" else "mrm.2.retriever.q_spike"):
        lower_graph(graph, cuts)


def compare_golden(text: str, name: str) -> None:
    """The dumps are reviewed like code: `make golden` rewrites them after an intended change."""
    path = HERE / "golden_text" / name
    if os.environ.get("SPIKETRACK_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.golden
@pytest.mark.parametrize("templates", [1, 3])
@pytest.mark.parametrize("stage", ["recognised", "program"])
def test_text_dump_of_both_ends(stage: str, templates: int) -> None:
    network, _ = recognise(*tiny_graph(tiny_config(templates)))
    text = dump(network) if stage == "recognised" else dump_program(lower(network).program)
    compare_golden(text, f"tiny_t{templates}.{stage}.txt")


SMALL = tiny_config(2, ("downsample1_1", "downsample1_2", "mrm.0", "downsample2", "downsample3"), name="small_t2")


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    """Text of the network and behind every pass: two templates, a gate, an upsampling, a calibration."""
    network, _ = recognise(*tiny_graph(SMALL))
    texts = {"recognised": dump(network)}
    lower(network, calibration_of(tiny_runs(SMALL)), seen=lambda one, x: texts.update({one.name: one.dump(x)}))
    return texts


@pytest.mark.golden
@pytest.mark.parametrize("stage", ["recognised", *(one.name for one in PASSES)])
def test_text_dump_of_each_stage(stage: str, stages: dict[str, str]) -> None:
    compare_golden(stages[stage], f"small_t2.{stage}.txt")
