"""The report of a dense tracker's export as one self-contained HTML page.

This module decides what a reader of it sees first. It must not compute results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spiketrack_deploy.energy.report import EnergyReport
from spiketrack_deploy.report import energy_sections, html, pictures
from spiketrack_deploy.report.data import ClipFacts, joules, percent, thin
from spiketrack_deploy.units import Interval

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DenseReport:
    """``described``: content of ``dense.json``; ``parity``: of the file of that name; ``stills``: caption and JPEG."""

    model: str
    weights: str
    remark: str | None
    clip: ClipFacts
    target: str
    command: str
    described: Json
    energy: EnergyReport
    parity: Json
    stills: Sequence[tuple[str, bytes]]

    def sentences(self) -> list[str]:
        """What it says, in order of weight."""
        d, onnx, int8 = self.described, self.parity["onnx"], self.parity["int8"]
        profile, twins = self.energy.profile, self.energy.main.twins
        cost = f"{joules(self.energy.dynamic)} on {profile.title}" if self.energy.main.parts else "no price there"
        worst = onnx["worst"]
        return [
            f"A dense tracker: {d['macs'] / 1e9:.3g} billion multiply-accumulates in every frame; {cost}.",
            "; ".join(f"{t.profile}: {joules(t.energy)}" for t in twins) + " (multiply-accumulates alone).",
            f"ONNX Runtime (opset {onnx['opset']}) gives PyTorch's maps within "
            f"{max(worst['score'], worst['boxes_map']):.1g} (logits {worst['logits']:.1g}) and its boxes within "
            f"{worst['box_pixels']:.1g} px over {onnx['frames']} frames.",
            f"With linear layers in int8 the best cell's box overlaps that of float32 by "
            f"{100 * int8['same_crops_overlap']:.1f} % on the same crops, and by {100 * int8['mean_overlap']:.1f} % "
            "where each follows its own boxes through the clip.",
            _selective(d["experts"]),
        ]


def _selective(experts: Sequence[Json]) -> str:
    most = math.log(len(experts[0]["share"]))
    mean = sum(one["entropy"] for one in experts) / len(experts)
    words = f"Its experts are mixed with a mean entropy of {mean:.2f} nats (equal shares: {most:.2f})"
    return f"{words}; all run for every token."


def build(data: DenseReport, content_hash: str) -> str:
    """The whole page."""
    sections = [
        ("subject", "Model and clip", _subject(data)),
        ("totals", "Energy of a frame", energy_sections.totals(data.energy, dense=True)),
        ("parts", "What a frame multiplies and moves", _parts(data.described)),
        ("accelerators", "On dense accelerators", _accelerators(data.described["accelerators"])),
        ("experts", "How the experts are used", _experts(data.described["experts"])),
        ("parity", "Is the exported step the tracker?", _parity(data.parity)),
        ("layers", "Layer by layer", energy_sections.layers(data.energy)),
        ("prices", "Prices, assumptions, and what has no price", energy_sections.prices(data.energy)),
        ("again", "How to reproduce", _again(data, content_hash)),
    ]
    title = f"{data.model} on {data.energy.profile.title}"
    verdict = "".join(html.paragraph(s) for s in data.sentences())
    warning = f'<div class="warn">{html.text(data.remark)}</div>' if data.remark else ""
    head = f'<h1>{html.text(title)}</h1><p class="dim">spiketrack-deploy export report, dense tracker</p>'
    return html.page(title, f'{head}<div class="verdict">{verdict}</div>{warning}', sections)


def _subject(data: DenseReport) -> str:
    d, clip = data.described, data.clip
    rows = [
        ("model", f"{data.model} ({data.weights})"),
        ("layout", "; ".join(f"{key} {value}" for key, value in d["config"].items())),
        ("parameters", f"{thin(d['parameters']['all'])}, of which {thin(d['parameters']['trained'])} are trained"),
        ("clip", f"{clip.name}: {clip.frames} frames of {clip.width}x{clip.height}, first box {list(clip.init)}"),
        ("executed by", "float32 on this machine's processor"),
    ]
    return html.table(["what", "value"], rows) + html.photographs(data.stills)


def _parts(described: Json) -> str:
    rows = [
        (part, html.number(macs, thin(macs)), html.number(macs / described["macs"], percent(macs / described["macs"])))
        for part, macs in described["macs_by_part"].items()
    ]
    words = (
        "Counted on the module, three references embedded again in every frame as published. Every operand read once "
        f"and every result written once: {described['bytes_float32'] / 1e6:,.1f} MB in float32, "
        f"{described['bytes_int8'] / 1e6:,.1f} MB in int8. dense.json has every layer."
    )
    return html.paragraph(words) + html.table(["part", "multiply-accumulates", "share"], rows) + _by_block(described)


def _by_block(described: Json) -> str:
    blocks = list(dict.fromkeys(row["block"] for row in described["layers"] if row["macs"]))
    parts: dict[str, list[float]] = {part: [0.0] * len(blocks) for part in described["macs_by_part"]}
    for row in described["layers"]:
        if row["macs"]:
            parts[row["part"]][blocks.index(row["block"])] += row["macs"] / 1e6
    caption = "One frame: million multiply-accumulates per block, in execution order, coloured by part."
    return html.figure(pictures.stacked(blocks, parts, "million multiply-accumulates", caption), caption)


def _accelerators(twins: Sequence[Json]) -> str:
    rows = [
        (
            twin["profile"],
            *(joules(Interval.from_dict(twin[key])) for key in ("mac_nj", "energy_nj")),
        )
        for twin in twins
    ]
    words = (
        "All multiply-accumulates of a frame at the price of each; what the price holds beside arithmetic stands in "
        "the profile (spiketrack targets show NAME)."
    )
    return html.paragraph(words) + html.table(["prices", "a multiply-accumulate", "a frame"], rows)


def _experts(experts: Sequence[Json]) -> str:
    count = len(experts[0]["share"])
    rows = [
        (
            one["layer"],
            *(html.number(share, percent(share)) for share in one["share"]),
            html.number(one["entropy"], f"{one['entropy']:.3f}"),
            html.number(max(one["first"]), percent(max(one["first"]))),
        )
        for one in experts
    ]
    words = (
        f"Mean weight of each expert, mean entropy of the weights (nats; equal shares: {math.log(count):.3f}), and the "
        "share of tokens whose largest weight is on the most used one. A layer far below equal shares is selective."
    )
    names = [f"expert {i}" for i in range(count)]
    head = ["layer", *names, "entropy", "largest first share"]
    caption = (
        "Mean weight of each expert in each layer; a column of one colour is an expert that is used alike everywhere."
    )
    picture = pictures.shares([one["layer"] for one in experts], names, [one["share"] for one in experts], caption)
    shown = html.figure(picture, caption)
    return html.paragraph(words) + shown + html.table(head, rows, sortable=True, scroll=True)


def _parity(parity: Json) -> str:
    keys = ("score", "logits", "boxes_map", "box_pixels")
    rows: list[list[html.Cell | str]] = []
    for row in parity["onnx"]["rows"]:
        off = [html.number(row[key], f"{row[key]:.2g}") for key in keys]
        rows.append([html.number(row["frame"]), *off, str(row["same_cell"])])
    int8 = parity["int8"]
    words = (
        f"int8 linear layers: {int8['seconds_per_frame']:.3g} s a frame, float32 "
        f"{int8['float32_seconds_per_frame']:.3g} s, crops included, measured once on this machine."
    )
    head = [
        "frame",
        "largest difference of a score",
        "of its logit",
        "of the box map",
        "of the box, pixels",
        "same cell",
    ]
    return html.table(head, rows) + html.paragraph(words)


def _again(data: DenseReport, content_hash: str) -> str:
    rows = [("content hash", content_hash), ("network hash", data.described["network_hash"])]
    return f"<pre>{html.text(data.command)}</pre>" + html.table(["what", "SHA-256"], rows)
