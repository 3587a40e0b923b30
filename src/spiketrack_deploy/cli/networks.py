"""How results about networks of NIR and lava-dl look on a terminal.

This module decides presentation. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spiketrack_deploy.cli import printing
from spiketrack_deploy.cli.printing import thin

Result = Mapping[str, Any]
_FEW = 40


def _remarks(result: Result) -> None:
    for found in result["diagnostics"]:
        node = f" node {found['node']}:" if found["node"] else ""
        printing._line(f"[{found['code']}]{node} {found['text']}")


def export_summary(result: Result) -> None:
    """What was assumed, the verdict, what to open."""
    _remarks(result)
    if "convention" in result:
        printing._line(f"convention: {result['convention']['text']}")
    for source, target in result.get("back_edges", ()):
        printing._line(f"back edge: {source} -> {target} carries the value of the step before")
    for sentence in result["verdict"]:
        printing._line(sentence)
    printing.exported(result)


def inspect_summary(result: Result) -> None:
    """Counts, nodes in execution order, edges that go back, what the file suggests."""
    rows = [
        ("written by NIR", result["version"] or "it does not say"),
        ("inputs", ", ".join(f"{name} {_size(shape)}" for name, shape in result["inputs"].items())),
        ("outputs", ", ".join(f"{name} {_size(shape)}" for name, shape in result["outputs"].items())),
        ("neurons, weights", f"{thin(result['neurons'])}, {thin(result['weights'])}"),
        ("synapses, borders not subtracted", thin(result["synapses"])),
        ("suggests", "; ".join(f"{m['convention']}: {m['why']}" for m in result["suggests"]) or "no convention"),
        ("back edges", ", ".join(f"{s} -> {t}" for s, t in result["back_edges"]) or "none"),
    ]
    printing._table(f"NIR network {result['name']}", ["what", "value"], rows)
    nodes = [(n["name"], n["kind"], _size(n["in"]), _size(n["out"]), _parameters(n)) for n in result["nodes"][:_FEW]]
    more = len(result["nodes"]) - len(nodes)
    title = "Nodes in order of execution" + (f" (first {_FEW}; --json has {more} more)" if more > 0 else "")
    printing._table(title, ["node", "kind", "in", "out", "parameters (range)"], nodes)
    _remarks(result)
    if result["svg"]:
        printing._line(f"wrote {result['svg']}")


def _size(shape: Any) -> str:
    return "x".join(map(str, shape))


def _parameters(node: Result) -> str:
    said = []
    for key, value in node.items():
        if key in ("name", "kind", "in", "out"):
            continue
        if isinstance(value, list) and len(value) == 2 and all(isinstance(end, float) for end in value):
            said.append(f"{key} {value[0]:.4g}..{value[1]:.4g}")
        else:
            said.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return ", ".join(said)


def conformance_summary(result: Result) -> None:
    """What was written."""
    printing._line(
        f"wrote {result['output']}: {result['graphs']} graphs, {result['answers']} answers under "
        f"{len(result['conventions'])} conventions; read {result['output']}/README.md first"
    )
