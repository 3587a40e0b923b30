"""One way from a source to a program: the same integers from every caller, no silent table, nothing measured twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from _models import FULL_WALK, calibration_of, lower_graph, tiny_config, tiny_graph, tiny_model, tiny_runs

from spiketrack_deploy.api.chips import program_of
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.compile import Options, compile
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.frontends.spiketrack.source import SpikeTrackSource
from spiketrack_deploy.inputs.sources import ClipSource
from spiketrack_deploy.lowering import emit, lower, units
from spiketrack_deploy.lowering.network import CONVS, FLOAT_KINDS, FloatNetwork, check_network
from spiketrack_deploy.nir_graph.cuts import read_cuts, write_cuts
from spiketrack_deploy.nir_graph.graph import Graph, Node
from spiketrack_deploy.nir_graph.reader import read_graph
from spiketrack_deploy.nir_graph.writer import write_graph
from spiketrack_deploy.program.store import content_hash, load_program, save_program
from spiketrack_deploy.trackers.settings import tracker_config
from spiketrack_deploy.trackers.spiketrack.checkpoint import save_model
from spiketrack_deploy.training.units import lowered

CONFIG = tiny_config(2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(tiny_model(CONFIG), CONFIG, path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipSource:
    """Seven drawn frames of 90 x 70 pixels."""
    folder, rng = tmp_path_factory.mktemp("clip"), np.random.default_rng(0)
    for k in range(7):
        cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 256, (70, 90, 3), dtype=np.uint8))
    return ClipSource(folder, (30.0, 20.0, 28.0, 19.0), False)


def test_a_calibrated_source_has_one_hash(checkpoint: Path, clip: ClipSource, tmp_path: Path) -> None:
    """As an export compiles it (through files, with a remark), as an evaluation does, and from memory."""
    files = (tmp_path / "model.nir", tmp_path / "model.cuts.json")
    exported = compile(checkpoint, Options(clip=clip, files=files, notes={"remark": "drawn"}))
    evaluated = compile(checkpoint, Options(clip=clip))
    assert exported.run is not None and [s.frame for s in exported.run.calibration] == [1, 3, 5]
    again = compile(SpikeTrackSource(tiny_model(CONFIG)), Options(calibration=exported.run.recorded()))
    hashes = {content_hash(c.program) for c in (exported, evaluated, again)}
    assert len(hashes) == 1 and all(file.is_file() for file in files)
    assert {save_program(exported.program, tmp_path / "program")} == hashes
    assert content_hash(load_program(tmp_path / "program")) in hashes
    assert hashes != {content_hash(compile(checkpoint).program)}, "the calibration chose nothing"
    assert exported.program.meta["remark"] == "drawn" and exported.program.meta["calibration_frames"] == [1, 3, 5]


def test_an_uncalibrated_source_has_one_hash(checkpoint: Path) -> None:
    """As `map`, training and the benchmarks compile it."""
    mapped = program_of(str(checkpoint)).program
    plain = compile(checkpoint)
    assert plain.run is None and all(c.sqnr_db is None for c in plain.report.convolutions)
    assert len({content_hash(p) for p in (mapped, lowered(tiny_model(CONFIG)), plain.program)}) == 1


def test_the_workload_travels_with_the_program(checkpoint: Path) -> None:
    compiled = compile(checkpoint)
    assert tracker_config(compiled.program) == CONFIG and compiled.workload.shown == "boxes"
    assert set(compiled.workload.outputs) == set(compiled.program.phases["search"].outputs) == {"ctr", "offset", "size"}
    cadence = {name: (p.cadence.start, p.cadence.every) for name, p in compiled.program.phases.items()}
    assert cadence == {"template": (True, CONFIG.update_interval), "search": (False, 1)}
    single, _ = recognise(*tiny_graph(tiny_config(1)))
    assert (single.phases["template"].cadence.start, single.phases["template"].cadence.every) == (True, None)


def test_a_network_without_retrievers_has_one_phase() -> None:
    walk = tuple(stage for stage in FULL_WALK if not stage.startswith("mrm."))
    network, _ = recognise(*tiny_graph(tiny_config(1, walk, name="no_memory")))
    assert list(network.phases) == ["search"] and not network.states
    assert list(lower.lower(network).program.phases) == ["search"]


def test_the_order_of_a_file_changes_nothing(tmp_path: Path) -> None:
    """Files hold nodes by name. Phases, operations and every name come back in the same order all the same."""
    graph, cuts = tiny_graph(CONFIG)
    write_cuts(cuts, graph, tmp_path / "cuts.json", digest=write_graph(graph, tmp_path / "g.nir"))
    back = read_graph(tmp_path / "g.nir", isolate=False)
    nodes, edges = list(graph.nodes.items()), list(graph.edges)
    random.Random(0).shuffle(nodes)
    random.Random(1).shuffle(edges)
    texts = [
        lower.dump_program(lower_graph(*whole).program)
        for whole in (
            (graph, cuts),
            (back, read_cuts(tmp_path / "cuts.json", back)),
            (Graph(dict(nodes), edges, graph.metadata), cuts),
        )
    ]
    assert list(back.nodes) != list(graph.nodes) and texts[0] == texts[1] == texts[2]
    assert texts[0].startswith("phase template(")


def with_params(graph: Graph, name: str, **params: object) -> Graph:
    node = graph.nodes[name]
    return Graph({**graph.nodes, name: Node(node.kind, {**node.params, **params})}, graph.edges, graph.metadata)


def test_weights_that_differ_between_phases_are_kept_apart() -> None:
    """Once the last phase's weights were written into both."""
    graph, cuts = tiny_graph(tiny_config(1))
    name = "encoder.ConvBlock1_1.0.conv1"
    weight = graph.nodes[f"template.{name}@t0"].array("weight")
    other = with_params(graph, f"template.{name}@t0", weight=weight[::-1] * 0.5)
    program, before = lower_graph(other, cuts).program, lower_graph(graph, cuts).program
    held = {
        phase.name: program.arrays[op.arrays["weight"]]
        for phase in program.phases.values()
        for op in phase.ops
        if op.name == name
    }
    assert np.array_equal(held["search"], before.arrays[f"{name}.weight"])
    assert np.array_equal(held["template"], held["search"][:, ::-1]), "half the weight, an exponent finer"
    other = with_params(graph, f"template.{name}@t0", padding=(0, 1))
    with pytest.raises(InputError, match=r"ConvBlock1_1\.0\.spike2@t0"):  # where the smaller value meets its reader
        lower_graph(other, cuts)


def test_normalisation_that_differs_between_phases_is_kept_apart() -> None:
    graph, cuts = tiny_graph(tiny_config(1))
    darker = [
        replace(c, params={**c.params, "mean": [0.1, 0.2, 0.3]}) if c.op == "normalise" and "search" in c.id else c
        for c in cuts
    ]
    program, before = lower_graph(graph, darker).program, lower_graph(graph, cuts).program
    ops = {name: phase.ops[0] for name, phase in program.phases.items()}
    key = "encoder.downsample1_1.encode_conv.bias"
    assert np.array_equal(program.arrays[ops["template"].arrays["bias"]], before.arrays[key])
    assert not np.array_equal(program.arrays[ops["search"].arrays["bias"]], before.arrays[key])
    sizes = {name: op.arrays["weight"] for name, op in ops.items()}
    assert np.array_equal(program.arrays[sizes["template"]], program.arrays[sizes["search"]])


def test_every_table_of_the_lowering_has_every_kind() -> None:
    streams = {kind for kind, row in FLOAT_KINDS.items() if row.output in ("stream", "score")}
    assert set(emit.EMITTERS) == set(FLOAT_KINDS)
    assert set(emit.DRIVES) == streams
    bounded = {kind for kind, row in FLOAT_KINDS.items() if row.output in ("stream", "logits")}
    assert set(units._BOUNDS) | set(CONVS) == bounded


def test_an_operation_without_a_row_is_named() -> None:
    network, _ = recognise(*tiny_graph(tiny_config(1)))
    search = network.phases["search"]

    def broken(**changes: object) -> FloatNetwork:
        ops = (*search.ops[:-1], replace(search.ops[-1], **changes))
        return FloatNetwork({**network.phases, "search": replace(search, ops=ops)}, network.states)

    name = search.ops[-1].name
    for changes, words in (
        ({"kind": "fft"}, "unknown kind 'fft'"),
        ({"params": {**search.ops[-1].params, "dropout": 1}}, "has parameters .*dropout"),
        ({"params": {**search.ops[-1].params, "bias": np.full((1, 2), np.nan)}}, "bias that is not finite"),
        ({"inputs": ("image",)}, "reads image; a head_out reads spikes"),
        ({"inputs": ("nobody",)}, "reads nobody before it exists"),
        ({"shape": (1, 0, 3, 3)}, "has shape"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            check_network(broken(**changes))
        assert name in str(caught.value) and "search" in str(caught.value)


def test_the_calibration_is_measured_once_however_often_units_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large and tiny weights meet in one stream, whose unit the large ones hold down; caps that are a bit or two too
    fine then fail the integer proof."""
    config = tiny_config(1)
    graph, cuts = tiny_graph(config)
    tiny = "encoder.ConvBlock1_1.0.conv2"
    for phase in ("template", "search"):
        for name, factor in ((tiny, 1e-6), ("encoder.ConvBlock1_1.0.Conv.pwconv2", 30.0)):
            node = f"{phase}.{name}@t0"
            graph = with_params(graph, node, weight=graph.nodes[node].array("weight") * factor)
    network, _ = recognise(graph, cuts)
    monkeypatch.setattr(units, "_SLACK", 0.3)
    ran, measured = Counter[str](), list[str]()
    result = lower.lower(
        network,
        calibration_of(tiny_runs(config, 1)),
        progress=measured.append,
        seen=lambda one, x: ran.update([one.name]),
    )
    assert len(measured) == len(set(measured)) and ran["measure"] == ran["prove"] == 1 and ran["plan"] > 1
    (report,) = (c for c in result.convolutions if c.name == tiny)
    assert report.capped_channels == 4 and report.sqnr_db is not None
    assert all(e.fits for entries in result.ranges.values() for e in entries)


def test_a_calibration_of_another_network_is_refused() -> None:
    network, _ = recognise(*tiny_graph(tiny_config(1)))
    runs = calibration_of(tiny_runs(tiny_config(1), 1))
    name = "decoder.spike"
    (run,) = runs["search"]
    for wrong in ({k: v for k, v in run.items() if k != name}, {**run, name: run[name][:, :, :2]}):
        with pytest.raises(InputError, match=rf"search {name}.*same model"):
            lower.lower(network, {**runs, "search": [wrong]})
