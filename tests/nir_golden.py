"""Proof that the NIR file says what the tracker computes: export, write, read, interpret, compare with a golden set.

    python tests/nir_golden.py DIR [--config NAME] [--json]

DIR is a folder in the layout of the golden sets. Every neuron's integer spikes (shape, sums, full count, SHA-256),
every memory and the three maps of both branches must agree. Exit status 0 only if everything does; 1 where something
differs, 3 where DIR cannot be used.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
for _path in (str(HERE), str(HERE.parent / "src")):
    if _path not in sys.path:
        sys.path.append(_path)

from _golden import GoldenSet, set_names  # noqa: E402

from spiketrack_deploy.errors import SpiketrackError  # noqa: E402
from spiketrack_deploy.frontends.spiketrack.export import build_graph  # noqa: E402
from spiketrack_deploy.nir_graph.cuts import read_cuts, write_cuts  # noqa: E402
from spiketrack_deploy.nir_graph.graph import Cut, Graph  # noqa: E402
from spiketrack_deploy.nir_graph.interpreter import InterpreterResult, interpret  # noqa: E402
from spiketrack_deploy.nir_graph.order import infer_shapes  # noqa: E402
from spiketrack_deploy.nir_graph.reader import read_graph  # noqa: E402
from spiketrack_deploy.nir_graph.writer import write_graph  # noqa: E402

MAP_TOLERANCE = 1e-9
LEVELS = 4


def exported(golden: GoldenSet, folder: Path) -> tuple[Graph, list[Cut]]:
    """The set's weights as ``model.nir`` and ``model.cuts.json`` in ``folder``, read back from there."""
    graph, cuts = build_graph(golden.state_dict(), golden.config)
    write_cuts(cuts, graph, folder / "model.cuts.json", digest=write_graph(graph, folder / "model.nir"))
    graph = read_graph(folder / "model.nir")
    cuts = read_cuts(folder / "model.cuts.json", graph)
    infer_shapes(graph, cuts)
    return graph, cuts


def check_case(golden: GoldenSet, case: str, graph: Graph, cuts: list[Cut]) -> dict[str, Any]:
    """Compare one case; {"neurons", "memories": numbers compared, "maps": worst error, "differences": sentences}."""
    expected = golden.json(f"expect/{golden.name}/case_{case}.json")
    template = interpret(graph, cuts, "template", golden.templates(case))
    search = interpret(graph, cuts, "search", golden.crop(case, "s")[None], template.memories)
    differences: list[str] = []
    for branch, result in (("template", template), ("search", search)):
        differences += [f"case {case} {branch} {text}" for text in _neurons(expected[branch]["neurons"], result)]
    differences += [f"case {case} {text}" for text in _memories(expected["template"]["memories"], template)]
    worst = {}
    for name, want in golden.arrays(f"expect/{golden.name}/case_{case}_maps.npz").items():
        got = search.maps.get(name)
        worst[name] = float(np.abs(got - want).max()) if got is not None and got.shape == want.shape else math.inf
        if not worst[name] <= MAP_TOLERANCE:
            differences.append(f"case {case} map {name}: largest error {worst[name]:.3g}")
    neurons = sum(len(expected[branch]["neurons"]) for branch in ("template", "search"))
    memories = len(expected["template"]["memories"])
    return {"neurons": neurons, "memories": memories, "maps": worst, "differences": differences}


def _neurons(expected: list[dict[str, Any]], result: InterpreterResult) -> list[str]:
    differences = []
    for entry in expected:
        spikes = result.spikes.get(entry["name"])
        if spikes is None:
            differences.append(f"{entry['name']}: missing")
            continue
        if spikes.size != math.prod(entry["shape"]):
            differences.append(f"{entry['name']}: {spikes.shape} elements, expected {entry['shape']}")
            continue
        shaped = np.moveaxis(spikes.reshape(entry["shape"]), entry["time_axis"], 0)
        steps = shaped.reshape(shaped.shape[0], -1)
        got = {
            "sums": steps.sum(axis=1, dtype=np.int64).tolist(),
            "full": (steps == LEVELS).sum(axis=1).tolist(),
            "sha256": hashlib.sha256(spikes.tobytes()).hexdigest(),
        }
        differences += [f"{entry['name']}: {k} {v}, expected {entry[k]}" for k, v in got.items() if v != entry[k]][:1]
    extra = sorted(result.spikes.keys() - {entry["name"] for entry in expected})
    return differences + [f"{name}: not expected" for name in extra]


def _memories(expected: list[dict[str, Any]], result: InterpreterResult) -> list[str]:
    differences = []
    for entry in expected:
        memory = result.memories.get(entry["index"])
        scaled = None if memory is None else memory * 16
        if scaled is None or scaled.size != math.prod(entry["shape"]) or not (scaled == np.rint(scaled)).all():
            differences.append(f"memory {entry['index']}: missing, misshaped or not a multiple of 1/16")
        elif hashlib.sha256(scaled.astype("<i4").tobytes()).hexdigest() != entry["sha256"]:
            sums = scaled.sum(axis=(1, 2, 3)).tolist()
            differences.append(f"memory {entry['index']}: sums {sums}, expected {entry['sums']}")
    if result.memories.keys() - {entry["index"] for entry in expected}:
        differences.append("memories that are not expected")
    return differences


def check_set(folder: Path, name: str) -> dict[str, Any]:
    """Export, read back and compare one configuration."""
    start = time.perf_counter()
    golden = GoldenSet(folder, name)
    with tempfile.TemporaryDirectory() as scratch:
        graph, cuts = exported(golden, Path(scratch))
    exported_at = time.perf_counter()
    cases = {case: check_case(golden, case, graph, cuts) for case in golden.cases()}
    differences = [text for case in cases.values() for text in case.pop("differences")]
    seconds = {"export_and_read": exported_at - start, "interpret": time.perf_counter() - exported_at}
    return {"config": name, "equal": not differences, "cases": cases, "differences": differences, "seconds": seconds}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--config", metavar="NAME", help="only this configuration")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(argv)
    try:
        names = [options.config] if options.config else set_names(options.folder)
        reports = [check_set(options.folder, name) for name in names]
    except SpiketrackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    equal = all(report["equal"] for report in reports)
    if options.json:
        print(json.dumps({"equal": equal, "sets": reports}))
    else:
        _print(reports)
    return 0 if equal else 1


def _print(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        neurons = sum(case["neurons"] for case in report["cases"].values())
        memories = sum(case["memories"] for case in report["cases"].values())
        worst = max(error for case in report["cases"].values() for error in case["maps"].values())
        times = ", ".join(f"{name} {value:.1f} s" for name, value in report["seconds"].items())
        verdict = "equal" if report["equal"] else f"{len(report['differences'])} DIFFERENCES"
        compared = f"{neurons} neurons, {memories} memories, maps within {worst:.1g}"
        print(f"{report['config']:10s} {compared}: {verdict} ({times})")
        for text in report["differences"][:20]:
            print("   ", text)


if __name__ == "__main__":
    sys.exit(main())
