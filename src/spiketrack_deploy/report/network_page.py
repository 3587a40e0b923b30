"""The report of a network's export as one HTML page: rasters and membranes where a tracker has boxes.

Decides what a reader sees first and what beside it. Must not compute results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.mapping.whole import WholeNetwork
from spiketrack_deploy.program.describe import tightest
from spiketrack_deploy.report import chip_section, energy_sections, graph_drawing, html, rasters
from spiketrack_deploy.report.data import Json, percent, thin
from spiketrack_deploy.report.verdict import cost

_SHOWN = 15
_COUNT = 255


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """``parity``: content of the file of that name. ``pictures``: (input, values or membrane; node; float64; integer),
    [steps, neurons] each. ``outline``: the network as plain data."""

    name: str
    target: str
    engine: str
    command: str
    program: Json
    energy: EnergyReport
    parity: Json
    chips: tuple[WholeNetwork, str] | None
    source: str
    steps: int
    pictures: Sequence[tuple[str, str, NDArray[Any], NDArray[Any]]]
    program_hash: str
    content_hash: str = ""
    outline: Mapping[str, Any] = field(default_factory=dict)


def sentences(data: NetworkReport) -> list[str]:
    """Fit, cost, exactness, faithfulness, and what the figures hang on."""
    found = data.parity
    said = [data.chips[0].sentence] if data.chips else []
    said += [f"{cost(data.energy)} Input: {data.source}.", _exactness(found), _faithfulness(found)]
    if data.chips:
        said.append(chip_section.dominance(data.chips[0]))
    top = data.energy.main.dominant
    if top:
        said.append(
            f"The dynamic figure hangs most on one price, '{top.name}': {percent(top.share)} of it, known as "
            f"'{top.price.tag}' ({top.price.source})."
        )
    return said


def _exactness(found: Json) -> str:
    engines, one = [row["engine"] for row in found["engines"]], found["engines"][0]
    differing = sum(row["differing"] for row in found["engines"])
    if engines == ["reference"]:
        return (
            f"The reference engine alone runs this program; run again, {differing} of {one['integers']:,} integers of "
            f"{one['runs']} steps differ."
        )
    return (
        f"The program ran exactly: {differing} of {one['integers']:,} integers of {one['runs']} steps differ between "
        f"the reference and {' and '.join(engines)}."
    )


def _faithfulness(found: Json) -> str:
    """What integers change, against float64 under the same convention; nothing where they are the source."""
    if "integers" in found:
        return str(found["integers"])
    parts = []
    for name, row in found["outputs"].items():
        if row["spikes"]:
            first = row["first"]
            since = f", first in step {first['step']}" if first else ""
            parts.append(f"{thin(row['differing'])} of {thin(row['values'])} spikes of {name}{since}")
        else:
            noise = "" if row["snr_db"] is None else f" ({row['snr_db']:.1f} dB)"
            parts.append(f"values of {name} by {row['rms_error']:.3g} of {row['rms']:.3g} rms{noise}")
    text = "; ".join(parts)
    return f"Against the float64 network under the same convention these differ: {text}."


def build(data: NetworkReport) -> str:
    """The whole page."""
    title = f"{data.name} on {data.energy.profile.title}"
    sections = [
        ("subject", "Network, convention, input", _subject(data)),
        ("activity", "What it did", "".join(_figure(*picture) for picture in data.pictures)),
        ("parity", "Is the program the network?", _parity(data.parity)),
        ("totals", "Energy of a step", energy_sections.totals(data.energy)),
        ("where", "Where it goes", energy_sections.where(data.energy)),
        *([("chips", "On the chip", chip_section.section(*data.chips))] if data.chips else []),
        ("ranges", "Range proof", _ranges(data.parity)),
        ("layers", "Operation by operation", energy_sections.layers(data.energy)),
        ("prices", "Prices, assumptions, and what has no price", energy_sections.prices(data.energy)),
        ("again", "How to reproduce", _again(data)),
    ]
    verdict = "".join(html.paragraph(s) for s in sentences(data))
    remarks = "".join(f'<div class="warn">{html.text(_remark(one))}</div>' for one in data.parity["diagnostics"])
    head = f'<h1>{html.text(title)}</h1><p class="dim">spiketrack-deploy export report of a network</p>'
    return html.page(title, f'{head}<div class="verdict">{verdict}</div>{remarks}', sections)


def _remark(one: Mapping[str, str]) -> str:
    where = f" node {one['node']}:" if one["node"] else ""
    return f"[{one['code']}]{where} {one['text']}"


def _subject(data: NetworkReport) -> str:
    if "about" in data.parity:
        rows = [*map(tuple, data.parity["about"]), *_executed(data)]
        return html.table(["what", "value"], rows)
    outline, back = data.outline, data.parity["back_edges"]
    rows = [
        ("network", f"{data.name}, {', '.join(f'{count} {kind}' for kind, count in outline['kinds'].items())}"),
        ("neurons, weights", f"{thin(outline['neurons'])}, {thin(outline['weights'])}"),
        ("convention", f"{data.parity['preset'] or 'not stated'}: {data.parity['convention']['text']}"),
        ("back edges", ", ".join(f"{a} -> {b}" for a, b in back) or "none: every edge carries the value of its step"),
        *_executed(data),
    ]
    caption = "The flattened graph. Dashed edges carry the value of the step before."
    return html.table(["what", "value"], rows) + html.figure(graph_drawing.draw(outline, data.name), caption)


def _executed(data: NetworkReport) -> list[tuple[str, str]]:
    operations = data.program["phases"]["step"]["operations"]
    return [
        ("input", data.source),
        *((f"input {name}", said) for name, said in data.parity["inputs"].items()),
        ("integers", f"{thin(data.program['weights'])} weights, {operations} operations"),
        ("executed by", f"{data.engine} engine, exact integers; no neuromorphic hardware"),
    ]


def _figure(kind: str, name: str, floats: NDArray[Any], integers: NDArray[Any]) -> str:
    if kind == "membrane":
        caption = f"Membrane of {name} before its reset, a few neurons: float64 (line) and integer program (dots)."
        return html.figure(rasters.lines(floats, integers, f"{name}.v"), caption)
    if kind == "integers" and (integers.min() < 0 or integers.max() > _COUNT):
        return html.figure(rasters.lines(floats, integers, name), f"Integers of {name}, a few elements.")
    whole = bool((floats == floats.round()).all() and (integers == integers.round()).all())
    if not whole:
        caption = f"Values of {name}, a few elements: float64 (line) and integer program (dots)."
        return html.figure(rasters.lines(floats, integers, name), caption)
    differs = "" if kind in ("input", "integers") else " Red: the float64 network differs."
    caption = f"Spikes of {name}, {floats.shape[1]} elements; darker: more in a step.{differs}"
    return html.figure(rasters.raster(floats, integers, name), caption)


def _parity(found: Json) -> str:
    head = ["engine", "steps", "operations", "integers", "differing"]
    engines = [
        (r["engine"], *(html.number(r[key], thin(r[key])) for key in ("runs", "operations", "integers", "differing")))
        for r in found["engines"]
    ]
    if not found["nodes"]:
        return "<h3>Engines against the reference</h3>" + html.table(head, engines)
    spiking = [n for n in found["nodes"] if n["agreement"] and n["agreement"]["spikes"]]
    graded = [n for n in found["nodes"] if n["agreement"] and not n["agreement"]["spikes"]]
    body = "<h3>Engines against the reference</h3>" + html.table(head, engines)
    if spiking:
        columns = ["node", "kind", "values", "differing", "share", "first (step, index)", "mean float", "mean integer"]
        body += "<h3>Spikes against float64</h3>" + html.table(columns, [_spikes(n) for n in spiking], True, True)
    if graded:
        columns = ["node", "kind", "values", "worst error", "rms error", "rms", "SNR, dB"]
        body += "<h3>Voltages against float64</h3>" + html.table(columns, [_graded(n) for n in graded], True, True)
    columns = ["node", "parameter", "bits", "worst error", "rms error"]
    lost = [
        (n["node"], p["parameter"], html.number(p["bits"]), html.number(p["worst"]), html.number(p["rms"]))
        for n in found["nodes"]
        for p in n["parameters"]
    ]
    note = "Errors over the largest ideal value of the channel; of a decay, plain."
    return body + "<h3>What rounding lost</h3>" + html.paragraph(note) + html.table(columns, lost, True, True)


def _spikes(node: Json) -> list[Any]:
    row = node["agreement"]
    first = f"{row['first']['step']}, {row['first']['index']}" if row["first"] else "none"
    counts = [html.number(row[key], thin(row[key])) for key in ("values", "differing")]
    share = html.number(row["share"], percent(row["share"]))
    return [
        node["node"],
        node["kind"],
        *counts,
        share,
        first,
        *(html.number(row[f"mean_{k}"]) for k in ("float", "integer")),
    ]


def _graded(node: Json) -> list[Any]:
    row = node["agreement"]
    cells = [html.number(row[key]) for key in ("worst_error", "rms_error", "rms")]
    noise = html.number(row["snr_db"], f"{row['snr_db']:.1f}") if row["snr_db"] is not None else html.Cell("exact", 1e9)
    return [node["node"], node["kind"], html.number(row["values"], thin(row["values"])), *cells, noise]


def _ranges(found: Json) -> str:
    rows = [
        (
            entry["op"],
            *(html.number(entry[k], thin(entry[k])) for k in ("low", "high")),
            html.number(entry["margin_bits"]),
        )
        for _, entry in tightest(found["ranges"], _SHOWN)
    ]
    limited = ", ".join(found["limits"]) or "none"
    text = (
        "Worst case over any input of the declared kinds, states by fixed point. Operations that saturate by rule, "
        f"because no bound holds: {limited}."
    )
    return html.paragraph(text) + html.table(["operation", "low", "high", "bits left"], rows)


def _again(data: NetworkReport) -> str:
    rows = [("content hash", data.content_hash), ("program hash", data.program_hash)]
    command = f"<pre>{html.text(data.command)}\nspiketrack verify BUNDLE</pre>"
    words = (
        "spiketrack verify re-executes the recorded steps with NumPy alone; outputs.npz holds what the outputs said."
    )
    return command + html.paragraph(words) + html.table(["what", "SHA-256"], rows)
