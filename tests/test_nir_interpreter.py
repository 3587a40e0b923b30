"""The interpreter against the golden sets and against the tracker; and that it would notice a wrong graph."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

import nir_golden
from _golden import GoldenSet
from _nir import SINGLE, THREE, TINY, graph_of, images, state_of, with_node

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import Cut, Graph, constant
from spiketrack_deploy.nir_graph.interpreter import interpret
from spiketrack_deploy.trackers.spiketrack.config import TrackerConfig

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["n128_t1", "n128_t3"])
def test_the_written_file_reproduces_the_golden_set(name: str) -> None:
    report = nir_golden.check_set(GOLDEN, name)
    assert report["differences"] == [] and report["equal"]
    assert sorted(report["cases"]) == ["A", "B"]
    for case in report["cases"].values():
        assert case["neurons"] == {"n128_t1": 293, "n128_t3": 305}[name] and case["memories"] == 6
        assert set(case["maps"]) == {"score", "size", "offset"} and max(case["maps"].values()) <= 1e-9


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[GoldenSet, Graph, list[Cut]]:
    golden = GoldenSet(GOLDEN, "n128_t3")
    return golden, *nir_golden.exported(golden, tmp_path_factory.mktemp("n128_t3"))


def rounded_half_up(graph: Graph, cuts: list[Cut]) -> tuple[Graph, list[Cut]]:
    """Every second threshold one float higher: ties round up instead of to even."""
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if name.endswith((".k2", ".k4")):
            nodes[name] = dataclasses.replace(node, params={"threshold": np.nextafter(node.array("threshold"), 99)})
    return Graph(nodes, graph.edges, graph.metadata), cuts


def full_reset(graph: Graph, cuts: list[Cut]) -> tuple[Graph, list[Cut]]:
    """The reset removes n instead of n / 4."""
    nodes = {
        name: dataclasses.replace(node, params={"scale": node.array("scale") * 4}) if name.endswith(".reset") else node
        for name, node in graph.nodes.items()
    }
    return Graph(nodes, graph.edges, graph.metadata), cuts


def swapped_memories(graph: Graph, cuts: list[Cut]) -> tuple[Graph, list[Cut]]:
    """The search branch reads the memories in the wrong order of steps."""
    reads = [c if c.op != "memory_read" else dataclasses.replace(c, params={**c.params, "step": 2 - c.params["step"]}) for c in cuts]  # fmt: skip  # noqa: E501
    return graph, reads


def lost_short_cut(graph: Graph, cuts: list[Cut]) -> tuple[Graph, list[Cut]]:
    lost = ("search.encoder.mrm.3.retriever.q_conv@t0", "search.encoder.mrm.3.retriever.sum_shortcut@t1")
    return Graph(graph.nodes, [edge for edge in graph.edges if edge != lost], graph.metadata), cuts


@pytest.mark.parametrize("fault", [rounded_half_up, full_reset, swapped_memories, lost_short_cut])
def test_the_golden_check_notices_a_wrong_graph(fault, exported: tuple[GoldenSet, Graph, list[Cut]]) -> None:  # type: ignore[no-untyped-def]
    golden, graph, cuts = exported
    assert nir_golden.check_case(golden, "A", *fault(graph, cuts))["differences"]


def test_the_golden_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("clip", "n128_t3", "case_B*"))
    assert nir_golden.main([str(folder), "--config", "n128_t1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["equal"] and report["sets"][0]["config"] == "n128_t1"
    path = folder / "expect" / "n128_t1" / "case_A.json"
    body = json.loads(path.read_text())
    body["search"]["neurons"][40]["sha256"] = "0" * 64
    path.write_text(json.dumps(body))
    assert nir_golden.main([str(folder), "--config", "n128_t1"]) == 1
    assert body["search"]["neurons"][40]["name"] in capsys.readouterr().out
    (folder / "keys" / "n128_t1.json").unlink()
    assert nir_golden.main([str(folder)]) == 3
    assert nir_golden.main([str(tmp_path)]) == 3 and nir_golden.main([str(folder), "--config", "none"]) == 3


def of_tracker(config: TrackerConfig, templates: np.ndarray, search: np.ndarray):  # type: ignore[no-untyped-def]
    """Spikes of both branches, memories and maps of the PyTorch tracker in float64."""
    import torch

    from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
    from spiketrack_deploy.trackers.spiketrack.record import record_spikes

    mean, std = (np.array(v).reshape(-1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    model = SpikeTrack(config)
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in state_of(config).items()})
    model = model.double().eval()
    with torch.no_grad():
        with record_spikes(model) as written:
            memories = model.template_branch(torch.from_numpy((templates / 255.0 - mean) / std)[:, None])
        with record_spikes(model) as read:
            maps = model.search_branch(torch.from_numpy((search / 255.0 - mean) / std)[:, None], memories)
    return written, memories, read, maps


@pytest.mark.parametrize("config", [TINY, SINGLE, THREE], ids=lambda c: c.name)
def test_other_layouts_equal_the_tracker(config: TrackerConfig) -> None:
    """Partial walks, two steps, other expansions, a constant gain: what the golden sets do not have."""
    graph, cuts = graph_of(config)
    templates, search = images(config, config.templates, 1), images(config, 1, 2)
    written, memories, read, maps = of_tracker(config, templates, search)
    template = interpret(graph, cuts, "template", templates)
    result = interpret(graph, cuts, "search", search, template.memories)
    for want, got in ((written, template.spikes), (read, result.spikes)):
        assert want.keys() == got.keys() and any(bool(n.any()) for n in want.values())
        for name, spikes in want.items():
            assert spikes.numpy().tobytes() == got[name].tobytes(), name
    assert memories.keys() == template.memories.keys()
    for index, memory in memories.items():
        np.testing.assert_array_equal(memory[:, 0].numpy(), template.memories[index])
    for name in ("score", "size", "offset", "ctr_logits", "size_logits"):
        np.testing.assert_allclose(result.maps[name], getattr(maps, name).numpy(), atol=1e-12, rtol=0, err_msg=name)


def test_what_cannot_be_run_is_said() -> None:
    graph, cuts = graph_of(TINY)
    templates = images(TINY, 2, 0)
    memories = interpret(graph, cuts, "template", templates).memories
    bad = [
        ("template", templates[:1], None, r"uint8 \(2, 3, 32, 32\) is needed"),
        ("template", templates.astype(float), None, "uint8"),
        ("search", templates[:1], None, "memory 0 of step 0 .* not given"),
        ("search", templates[:1], {0: memories[0], 2: memories[2][:1]}, "memory 2 of step 1 .* not given"),
        ("head", templates[:1], None, "no 'head' phase"),
    ]
    for branch, crops, given, words in bad:
        with pytest.raises(InputError, match=words):
            interpret(graph, cuts, branch, crops, given)


def test_a_constant_weight_is_as_good_as_any() -> None:
    graph, cuts = graph_of(SINGLE)
    conv = "template.encoder.downsample2.encode_conv@t0"
    weight = graph.nodes[conv].array("weight")
    crops = images(SINGLE, 1, 0)
    full, view = (interpret(with_node(graph, conv, weight=w), cuts, "template", crops) for w in (np.full(weight.shape, 0.01), constant(0.01, weight.shape)))  # fmt: skip  # noqa: E501
    assert all((full.memories[i] == view.memories[i]).all() for i in full.memories)
