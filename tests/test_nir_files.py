"""model.nir and model.cuts.json on disk: stock NIR opens them, values are stored once, hostile files are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

from _nir import SINGLE, TINY, graph_of, with_node

from spiketrack_deploy.errors import InputError, VerificationError
from spiketrack_deploy.nir_graph import guard
from spiketrack_deploy.nir_graph.cuts import read_cuts, write_cuts
from spiketrack_deploy.nir_graph.graph import Graph, Node, constant, constant_value, graph_digest
from spiketrack_deploy.nir_graph.reader import Limits, read_graph
from spiketrack_deploy.nir_graph.writer import write_graph

CONV = "search.encoder.downsample2.encode_conv@t0"
BANK = "search.encoder.downsample2.encode_spike@t0"
SHIFTED = "search.encoder.block3.0.attn.head_spike@t0.k1"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nir")
    graph, cuts = graph_of(TINY)
    write_cuts(cuts, graph, folder / "model.cuts.json", digest=write_graph(graph, folder / "model.nir"))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a one-step network's file: what the hostile files are made from."""
    path = tmp_path_factory.mktemp("nir") / "small.nir"
    write_graph(graph_of(SINGLE)[0], path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def graph(written: Path) -> Graph:
    return read(written / "model.nir")


def read(path: Path, **options: Any) -> Graph:
    return read_graph(path, isolate=False, **options)


def test_what_is_written_is_read_back(written: Path) -> None:
    graph, cuts = graph_of(TINY)
    back = read_graph(written / "model.nir")
    assert graph_digest(back) == graph_digest(graph) and back.edges == graph.edges and back.metadata == graph.metadata
    assert read_cuts(written / "model.cuts.json", back) == cuts
    threshold = back.nodes[f"{BANK}.k1"].array("threshold")
    assert constant_value(threshold) == 0.5 and not any(threshold.strides)
    assert back.nodes[CONV].params["stride"] == (2, 2) and back.nodes[CONV].params["groups"] == 1
    assert constant_value(back.nodes[SHIFTED].array("threshold")) is None


def test_stock_nir_opens_the_file_and_sees_the_same_values(written: Path) -> None:
    import nir

    graph, _ = graph_of(TINY)
    stock = nir.read(written / "model.nir", type_check=False)
    assert stock.nodes.keys() == graph.nodes.keys() and stock.edges == graph.edges
    for name, node in graph.nodes.items():
        other = stock.nodes[name]
        assert type(other).__name__ == node.kind
        for field, value in node.params.items():
            theirs = other.input_type["input"] if field == "shape" and node.kind == "Input" else None
            theirs = other.output_type["output"] if field == "shape" and node.kind == "Output" else theirs
            np.testing.assert_array_equal(getattr(other, field) if theirs is None else theirs, value, err_msg=name)
    assert json.loads(stock.metadata["config"])["name"] == "tiny"


def without_groups(graph: Graph) -> Graph:
    """The head alone, which has no grouped convolution, behind an Input of its own."""
    nodes = {name: node for name, node in graph.nodes.items() if name.startswith("search.decoder.")}
    feed = next(source for source, target in graph.edges if target == "search.decoder.spike@t0.k1")
    shape = tuple(graph.nodes["search.decoder.spike@t0.k1"].array("threshold").shape)
    nodes["search.decoder@t0.feed.in"] = Node("Input", {"shape": shape})
    renamed = [("search.decoder@t0.feed.in" if source == feed else source, target) for source, target in graph.edges]
    return Graph(nodes, [(s, t) for s, t in renamed if s in nodes and t in nodes], dict(graph.metadata))


def test_stock_nir_opens_it_with_its_type_check_where_no_convolution_is_grouped(tmp_path: Path) -> None:
    import nir

    graph, _ = graph_of(TINY)
    head = without_groups(graph)
    assert sum(node.kind == "Conv2d" for node in head.nodes.values()) == 15
    write_graph(head, tmp_path / "head.nir")
    assert nir.read(tmp_path / "head.nir").nodes.keys() == head.nodes.keys()


def test_a_file_that_stock_nir_wrote_is_read(written: Path, tmp_path: Path) -> None:
    import nir

    nir.write(tmp_path / "stock.nir", nir.read(written / "model.nir", type_check=False))
    assert graph_digest(read(tmp_path / "stock.nir")) == graph_digest(read(written / "model.nir"))


def test_equal_values_are_one_dataset(written: Path) -> None:
    graph, _ = graph_of(TINY)
    with h5py.File(written / "model.nir") as file:
        nodes = file["node/nodes"]

        def address(node: str, field: str) -> int:
            return int(h5py.h5o.get_info(nodes[node][field].id).addr)

        block = "encoder.ConvBlock1_1.0.conv1@t"
        weights = {
            address(f"{where}.{block}{t}", "weight") for where, t in (("template", 0), ("template", 1), ("search", 0))
        }
        assert len(weights) == 1
        assert address(f"{BANK}.k1", "threshold") == address(
            "template.encoder.downsample2.encode_spike@t1.k1", "threshold"
        )
        assert address(f"{BANK}.k1", "threshold") != address(f"{BANK}.k2", "threshold")
        assert address(CONV, "stride") == address("search.encoder.downsample3.encode_conv@t0", "stride")
        fields = sum(len(node) for node in nodes.values())
        assert len({address(name, field) for name in nodes for field in nodes[name]}) < fields / 4
    declared = sum(v.nbytes for n in graph.nodes.values() for v in n.params.values() if isinstance(v, np.ndarray))
    assert (written / "model.nir").stat().st_size < declared


def test_bytes_do_not_depend_on_the_run(written: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from _nir import TINY, graph_of\n"
        "from spiketrack_deploy.nir_graph.writer import write_graph\n"
        "from spiketrack_deploy.nir_graph.cuts import write_cuts\n"
        "graph, cuts = graph_of(TINY)\n"
        "write_graph(graph, Path(sys.argv[1]) / 'model.nir')\n"
        "write_cuts(cuts, graph, Path(sys.argv[1]) / 'model.cuts.json')\n"
    )
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", code, str(tmp_path), str(here), str(here.parent / "src")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "4711"})
    for name in ("model.nir", "model.cuts.json"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    one = {"scale": constant(1.0, (1,))}
    bad = [
        (Graph({"search.a/b@t0": Node("Scale", one)}, [], {}), "name"),
        (Graph({"search.a@t0": Node("Sum", one)}, [], {}), "kind"),
        (Graph({"search.a@t0": Node("Threshold", one)}, [], {}), "fields"),
        (Graph({"search.a@t0": Node("Scale", one)}, [("search.a@t0", "search.b@t0")], {}), "no node"),
    ]
    for graph, words in bad:
        with pytest.raises(InputError, match=words):
            write_graph(graph, tmp_path / "bad.nir")
    assert not (tmp_path / "bad.nir").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        write_graph(graph_of(SINGLE)[0], tmp_path / "file" / "folder.nir")


# Hostile files: each function damages an open file; the message must name the place.


def replace(node: str, field: str, value: Any, **options: Any) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        group = file[f"node/nodes/{node}"]
        if field in group:
            del group[field]
        group.create_dataset(field, data=value, **options)

    return damage


def replace_edges(change: Callable[[list[Any]], list[Any]]) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        edges = change(file["node/edges"][()].tolist())
        del file["node/edges"]
        file["node"].create_dataset("edges", data=np.array(edges, dtype=object), dtype=h5py.string_dtype())

    return damage


def link(node: str, field: str, target: Any) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        group = file[f"node/nodes/{node}"]
        del group[field]
        group[field] = target

    return damage


def external_storage(file: h5py.File) -> None:
    group = file[f"node/nodes/{CONV}"]
    del group["bias"]
    group.create_dataset("bias", shape=(16,), dtype="<f8", external=[("elsewhere.bin", 0, 128)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(16,), dtype="<f8")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(16,))
    group = file[f"node/nodes/{CONV}"]
    del group["bias"]
    group.create_virtual_dataset("bias", layout)


def group_linked_twice(file: h5py.File) -> None:
    file["node/nodes/search.twin@t0"] = file[f"node/nodes/{CONV}"]


def group_cycle(file: h5py.File) -> None:
    file[f"node/nodes/{CONV}/nodes"] = file["node/nodes"]


def named_type(file: h5py.File) -> None:
    del file[f"node/nodes/{CONV}/bias"]
    file[f"node/nodes/{CONV}/bias"] = np.dtype("<f8")


def nested(file: h5py.File) -> None:
    group = file.create_group("node/nodes/search.inner@t0")
    group.create_dataset("type", data="NIRGraph")
    group.create_group("nodes")


def huge(file: h5py.File) -> None:
    del file[f"node/nodes/{CONV}/weight"]
    file[f"node/nodes/{CONV}"].create_dataset("weight", shape=(10**6, 10**5, 1, 1), dtype="<f8")


def add(path: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.create_dataset(path, data=value) and None


def drop(path: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(path)


NAN = np.full((8, 8, 8), np.nan)
ONE = {"shape": (16,), "dtype": "<f8"}
HOSTILE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "external link": (
        link(CONV, "bias", h5py.ExternalLink("/etc/hostname", "x")),
        f"{CONV}.*'bias' is a soft or external",
    ),
    "soft link": (link(CONV, "bias", h5py.SoftLink("/node/edges")), f"{CONV}.*'bias' is a soft or external"),
    "external storage": (external_storage, f"{CONV}.*'bias' keeps its data in another file"),
    "virtual dataset": (virtual, f"{CONV}.*'bias' is a virtual dataset"),
    "group linked twice": (group_linked_twice, "search.twin@t0.*linked twice"),
    "group cycle": (group_cycle, f"{CONV}.*nested graphs"),
    "named type": (named_type, f"{CONV}.*'bias' is not a dataset"),
    "nested graph": (nested, "search.inner@t0.*nested graphs"),
    "huge array": (huge, f"{CONV}.*'weight' declares"),
    "nan": (replace(f"{BANK}.k1", "threshold", NAN), f"{BANK}.k1', field 'threshold'.*not finite"),
    "infinity": (replace(CONV, "bias", np.full(16, np.inf)), f"{CONV}', field 'bias'.*not finite"),
    "nan fill value": (replace(CONV, "bias", None, **ONE, fillvalue=np.nan), "not finite"),
    "complex": (replace(CONV, "bias", np.zeros(16, dtype=complex)), f"{CONV}', field 'bias'.*float32 or float64"),
    "integer weights": (
        replace(CONV, "bias", np.zeros(16, dtype=np.int64)),
        f"{CONV}', field 'bias'.*float32 or float64",
    ),
    "bias length": (replace(CONV, "bias", np.zeros(17)), f"{CONV}.*'bias' has shape"),
    "empty array": (replace(CONV, "bias", np.zeros(0)), f"{CONV}', field 'bias'.*at least one"),
    "axes": (replace(CONV, "weight", np.zeros((16, 8))), f"{CONV}', field 'weight'.*axes"),
    "threshold shape": (replace(f"{BANK}.k2", "threshold", np.ones((8, 8, 7))), f"{BANK}.k2.*'threshold' has shape"),
    "stride zero": (replace(CONV, "stride", np.array([0, 1])), f"{CONV}', field 'stride'.*at least 1"),
    "negative padding": (replace(CONV, "padding", np.array([-1, 1])), f"{CONV}', field 'padding'.*at least 0"),
    "padding text": (replace(CONV, "padding", "same"), f"{CONV}', field 'padding'.*integers"),
    "three strides": (replace(CONV, "stride", np.array([1, 1, 1])), f"{CONV}', field 'stride'.*3 numbers"),
    "groups": (replace(CONV, "groups", 5), f"{CONV}.*groups 5"),
    "missing field": (drop(f"node/nodes/{CONV}/bias"), f"{CONV}.*missing fields \\['bias'\\]"),
    "extra field": (replace(CONV, "tau", np.ones(16)), f"{CONV}.*unknown fields \\['tau'\\]"),
    "missing type": (drop(f"node/nodes/{CONV}/type"), f"{CONV}.*missing fields \\['type'\\]"),
    "unknown type": (replace(CONV, "type", "Softmax"), f"{CONV}.*'Softmax' is no NIR primitive"),
    "other primitive": (replace(CONV, "type", "LIF"), f"{CONV}.*'LIF' is a NIR primitive that no tracker"),
    "type no text": (replace(CONV, "type", 7), f"{CONV}.*not one text"),
    "type not utf-8": (replace(CONV, "type", np.bytes_(b"\xff\xfe")), f"{CONV}.*not text"),
    "dangling edge": (
        replace_edges(lambda e: [*e, [CONV.encode(), b"search.none@t0"]]),
        "edges.*no node 'search.none@t0'",
    ),
    "duplicate edge": (replace_edges(lambda e: [*e, e[0]]), "edges.*listed twice"),
    "cycle": (replace_edges(lambda e: [*e, [CONV.encode(), f"{BANK}.k1".encode()]]), "cycle.*" + CONV),
    "unfed node": (replace_edges(lambda e: [x for x in e if x[1] != CONV.encode()]), f"{CONV}.*nothing feeds it"),
    "edges no pairs": (replace_edges(lambda e: [[a, b, a] for a, b in e]), "edges.*pairs"),
    "no edges": (drop("node/edges"), "node.*missing fields \\['edges'\\]"),
    "unknown root field": (add("other", 1), "root.*unknown fields \\['other'\\]"),
    "no version": (drop("version"), "root.*missing fields \\['version'\\]"),
    "metadata no text": (add("node/metadata/number", 3), "metadata 'number'.*not one text"),
    "name": (lambda file: file.move(f"node/nodes/{CONV}", "node/nodes/a b"), "'a b'.*characters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(case: str, small: bytes, tmp_path: Path) -> None:
    damage, words = HOSTILE[case]
    path = tmp_path / "hostile.nir"
    path.write_bytes(small)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is text", None, "missing", "folder"], ids=repr)
def test_files_that_are_no_hdf5(content: Any, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.nir"
    if content == "folder":
        path.mkdir()
    elif content != "missing":
        whole = (written / "model.nir").read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    for isolate in (False, True):
        with pytest.raises(InputError, match=r"x\.nir"):
            read_graph(path, isolate=isolate)


def test_budgets(written: Path) -> None:
    path = written / "model.nir"
    for limits, words in (
        (Limits(nodes=10), "nodes, more than 10"),
        (Limits(edges=10), "edges, more than 10"),
        (Limits(elements=100), "elements, more than 100"),
        (Limits(array_bytes=10_000), "more than 10000 bytes"),
    ):
        with pytest.raises(InputError, match=words):
            read(path, limits=limits)


def test_a_fill_value_of_gigabytes_takes_no_memory(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fill.nir"
    path.write_bytes(small)
    with h5py.File(path, "r+") as file:
        replace(f"{BANK}.k1", "threshold", None, shape=(2**14, 2**14), dtype="<f8", fillvalue=0.5)(file)
    with pytest.raises(InputError, match="'threshold' has shape"):
        read(path)


def test_a_child_that_hangs_or_dies_is_one_sentence(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="did not end within"):
        read_graph(written / "model.nir", limits=Limits(seconds=0.01))
    monkeypatch.setattr(guard, "MEMORY_BASE", 0)
    monkeypatch.setattr(guard.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="died reading it"):
        read_graph(written / "model.nir")


def flip_bytes(whole: bytes, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    damaged = bytearray(whole)
    for index in rng.integers(0, len(damaged), 8):
        damaged[index] ^= int(rng.integers(1, 256))
    return bytes(damaged)


def assert_flips_are_noticed(written: Path, path: Path, seeds: range) -> int:
    """Every damaged file is refused, or its digest differs, or nothing that is read was hit."""
    whole, base, refused = (written / "model.nir").read_bytes(), graph_digest(read(written / "model.nir")), 0
    for seed in seeds:
        path.write_bytes(flip_bytes(whole, seed))
        try:
            graph = read_graph(path, limits=Limits(seconds=20))
        except InputError:
            refused += 1
            continue
        if graph_digest(graph) != base:
            with pytest.raises((InputError, VerificationError)):
                read_cuts(written / "model.cuts.json", graph)
    return refused


def test_flipped_bytes_are_noticed(written: Path, tmp_path: Path) -> None:
    assert assert_flips_are_noticed(written, tmp_path / "flipped.nir", range(8)) > 0


@pytest.mark.slow
def test_many_flipped_bytes_are_noticed(written: Path, tmp_path: Path) -> None:
    assert assert_flips_are_noticed(written, tmp_path / "flipped.nir", range(100, 220)) > 10


def test_tampered_weights_fail_verification(written: Path, graph: Graph, tmp_path: Path) -> None:
    weight = graph.nodes[CONV].array("weight").copy()
    weight.flat[3] += 2.0**-40
    write_graph(with_node(graph, CONV, weight=weight), tmp_path / "model.nir")
    with pytest.raises(VerificationError, match="another graph"):
        read_cuts(written / "model.cuts.json", read(tmp_path / "model.nir"))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))
    return change


def first(op: str, body: dict[str, Any]) -> dict[str, Any]:
    return next(cut for cut in body["cuts"] if cut["op"] == op)


HOSTILE_CUTS: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = {
    "version": (lambda b: b.update(version=2), InputError, "version 2"),
    "unknown key": (lambda b: b.update(extra=1), InputError, "unknown keys.*extra"),
    "no cuts": (lambda b: b.pop("cuts"), InputError, "missing keys.*cuts"),
    "cuts no list": (lambda b: b.update(cuts={}), InputError, "not a list"),
    "unknown op": (lambda b: b["cuts"][0].update(op="eval"), InputError, "'eval' is none of"),
    "op no text": (lambda b: b["cuts"][0].update(op=[1]), InputError, "is none of"),
    "id": (lambda b: b["cuts"][0].update(id="../x"), InputError, "no valid name"),
    "foreign input": (lambda b: first("upsample", b).update(inputs=[CONV]), InputError, "no Output node"),
    "foreign output": (lambda b: first("upsample", b).update(outputs=["search.x@t0.in"]), InputError, "no Input node"),
    "too few inputs": (lambda b: first("query", b)["inputs"].pop(), InputError, "takes 2 inputs"),
    "later cut": (lambda b: b["cuts"].reverse(), InputError, "not the id of an earlier cut"),
    "listed twice": (lambda b: b["cuts"].append(b["cuts"][0]), InputError, "listed twice"),
    "param type": (lambda b: first("upsample", b)["params"].update(factor=2.5), InputError, "'factor' is 2.5"),
    "param bool": (lambda b: first("key_value", b)["params"].update(heads=True), InputError, "'heads' is True"),
    "param range": (lambda b: first("decode", b)["params"].update(clamp=0.7), InputError, "'clamp' is 0.7"),
    "param std": (lambda b: first("normalise", b)["params"].update(std=[1, 0, 1]), InputError, "'std' is"),
    "param extra": (lambda b: first("gate", b)["params"].update(x=1), InputError, "unknown keys.*x"),
    "param missing": (lambda b: first("query", b)["params"].pop("gain"), InputError, "missing keys.*gain"),
    "changed number": (lambda b: first("query", b)["params"].update(gain=2.0), VerificationError, "changed after"),
    "changed config": (lambda b: b["config"].update(resolution=64), VerificationError, "changed after"),
}


@pytest.mark.parametrize("case", HOSTILE_CUTS)
def test_hostile_cuts_are_refused(case: str, written: Path, graph: Graph, tmp_path: Path) -> None:
    change, kind, words = HOSTILE_CUTS[case]
    path = tmp_path / "cuts.json"
    path.write_bytes((written / "model.cuts.json").read_bytes())
    edit(path, change)
    with pytest.raises(kind, match=words) as caught:
        read_cuts(path, graph)
    assert type(caught.value) is kind and str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"version": NaN}', "[" * 100_000, None], ids=lambda t: str(t)[:8])
def test_cuts_that_are_no_json_object(text: str | None, graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "cuts.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"cuts\.json"):
        read_cuts(path, graph)
