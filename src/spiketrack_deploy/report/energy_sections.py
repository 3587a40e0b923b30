"""The parts of the report that speak of energy: totals, causes, blocks, layers, yardsticks, prices.

This module decides which figure of energy.json stands in which table. It must not compute one.
"""

from __future__ import annotations

from typing import Any

from spiketrack_deploy.hardware.vocabulary import PRICES
from spiketrack_deploy.report import html, pictures
from spiketrack_deploy.report.data import Json, branch_layers, interval, joules, nominal, percent, thin

_LAYER_COUNTS = ("events", "synops", "unit_ops", "neuron_updates", "neuron_spiking", "dense_macs")
_LAYER_HEAD = ["layer", "kind", "events", "synops", "unit ops", "neurons", "spiking", "dense MACs", "nJ [low .. high]"]
_BRANCHES = (("search", "Search phase, mean per frame"), ("template", "Template phase, per update"))


def totals(energy: Json) -> str:
    """Headline figures, causes and counts."""
    frame, update, static = energy["per_frame"], energy["template_update"], energy["static"]
    boxes = [
        ("search frame + template share, dynamic", nominal(frame["dynamic_nj"]), joules(frame["dynamic_nj"])),
        ("search frame alone", nominal(frame["search_nj"]), joules(frame["search_nj"])),
    ]
    if update["updates"]:
        share = f"every {update['interval_frames']} frames: {nominal(update['amortised_per_frame_nj'])} a frame"
        once = update["unamortised_nj"]
        boxes.append(("one template update", nominal(once), f"{joules(once)}; {share}"))
    if static:
        cost = static["energy_nj_per_chip_frame"]
        rate = f"at {1 / static['frame_period_s']:.3g} frames/s; not in the dynamic figures"
        boxes.append(("static, per chip and frame", nominal(cost), f"{joules(cost)} {rate}"))
    return html.cards(boxes) + _intervals(energy) + _causes(energy) + _counts(energy)


_SPREADS = (
    ("search_frame_over_prices", "prices drawn from their bands, counts held fixed"),
    ("search_frame_over_frames", "frames resampled, prices nominal"),
)


def _intervals(energy: Json) -> str:
    """The two uncertainties of a search frame, apart; bands beside them need no distribution."""
    rows = []
    for key, what in _SPREADS:
        spread = energy["uncertainty"][key]
        if spread:
            ends = (nominal({"nominal": spread[end]}) for end in ("low_nj", "median_nj", "high_nj"))
            rows.append(
                (what, *ends, f"{percent(spread['coverage'])}, {thin(spread['samples'])} draws: {spread['method']}")
            )
    if not rows:
        return ""
    head = ["search frame", "low", "median", "high", "interval"]
    return "<h3>Two uncertainties, apart</h3>" + html.table(head, rows)


def _causes(energy: Json) -> str:
    frame, update = energy["per_frame"], energy["template_update"]
    priced = {PRICES[name].cause for name in energy["profile"]["prices"] if name in PRICES}
    whole = frame["search_nj"]["nominal"] or 1.0
    rows: list[tuple[Any, ...]] = []
    for cause, value in frame["by_cause_nj"].items():
        if cause not in priced:
            rows.append((cause, html.Cell("no price", -1.0), html.Cell("", -1.0), html.Cell("no price", -1.0)))
            continue
        share = value["nominal"] / whole
        other = update.get("by_cause_nj", {}).get(cause)
        last = html.number(other["nominal"], joules(other)) if other else html.Cell("none ran", 0.0)
        rows.append((cause, html.number(value["nominal"], joules(value)), html.number(share, percent(share)), last))
    head = ["cause", "search frame", "share of nominal", "template update"]
    return "<h3>By cause</h3>" + html.table(head, rows, sortable=True)


def _counts(energy: Json) -> str:
    frame, update = energy["per_frame"]["counts"], energy["template_update"].get("counts", {})
    rows = []
    for key in dict.fromkeys([*frame, *update]):
        values = frame.get(key, 0), update.get(key, 0)
        rows.append((key.replace("_", " "), *(html.number(value, thin(value)) for value in values)))
    return "<h3>Counts</h3>" + html.table(["count", "search frame (mean)", "template update (mean)"], rows)


def where(energy: Json) -> str:
    """Energy by block, as pictures."""
    parts = [_block_picture(energy, "search", "Search phase, one frame")]
    if energy["template_update"]["updates"]:
        parts.append(_block_picture(energy, "template", "Template phase, one update"))
    return "".join(parts)


def _block_picture(energy: Json, phase: str, caption: str) -> str:
    svg = block_picture(energy, phase, caption)
    words = "dynamic energy per block, in execution order; coloured by cause (nominal), line: band of the block."
    return html.figure(svg, f"{caption}: {words}")


def block_picture(energy: Json, phase: str, title: str, form: str = "svg") -> Any:
    """The picture of one phase as SVG text, or as PNG bytes with ``form="png"``."""
    parts: dict[str, dict[str, float]] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    for row in branch_layers(energy, phase):
        name = row["block"]
        causes = parts.setdefault(name, {})
        for cause, value in row["by_cause_nj"].items():
            causes[cause] = causes.get(cause, 0.0) + value["nominal"]
        low[name] = low.get(name, 0.0) + row["energy_nj"]["low"]
        high[name] = high.get(name, 0.0) + row["energy_nj"]["high"]
    names = list(parts)
    present = [c for c in pictures.CAUSE_COLOURS if any(c in b for b in parts.values())]
    unit, scale = ("\u00b5J", 1e-3) if max(high.values(), default=0.0) >= 1000 else ("nJ", 1.0)
    values = {c: [parts[n].get(c, 0.0) * scale for n in names] for c in present}
    ends = [low[n] * scale for n in names], [high[n] * scale for n in names]
    return pictures.stacked_bands(names, values, *ends, unit, title, form)


def layers(energy: Json) -> str:
    """One sortable table per phase."""
    body = html.paragraph("Means, rounded; click a column to sort. layers.csv has every count and every cause in full.")
    for phase, title in _BRANCHES:
        rows = [_layer_row(row) for row in branch_layers(energy, phase)]
        if rows:
            body += f"<h3>{html.text(title)}</h3>" + html.table(_LAYER_HEAD, rows, sortable=True, scroll=True)
    return body


def _layer_row(row: Json) -> list[Any]:
    counts, cost = row["counts"], interval(row["energy_nj"])
    cells: list[Any] = [row["name"], row["kind"]]
    for key in _LAYER_COUNTS:
        value = counts.get(key, 0)
        cells.append(html.number(value, thin(round(value)) if value else "\u00b7"))
    band = f"{cost.nominal:.1f} [{cost.low:.1f} .. {cost.high:.1f}]"
    return [*cells, html.number(cost.nominal, band)]


def yardsticks(energy: Json) -> str:
    """The same execution under other conventions."""
    rows = [("this profile, dynamic search frame", joules(energy["per_frame"]["search_nj"]))]
    for twin in energy["dense_twin"]["search_frame"]:
        cost = f"{joules(twin['energy_nj'])} for {thin(twin['dense_macs'])} MACs"
        rows.append((f"dense twin as an ANN, {twin['profile']}", cost))
    convention = energy["published_convention"]
    difference = f"{convention['difference_nj'] * 1e-3:+.4g} \u00b5J"
    rows.append((f"published convention, {convention['profile']}", joules(convention["published_nj"])))
    rows.append(
        ("same prices, exact counts", f"{joules(convention['exact_nj'])}; the convention differs by {difference}")
    )
    head = ["layer", "mean spike value", "published, nJ", "exact, nJ", "difference, nJ"]
    listed = [_convention_row(row) for row in convention["layers"]]
    note = (
        "Other conventions for the same execution, so that the figure above can be compared with the literature. "
        "They are not predictions for a chip."
    )
    table = html.table(head, listed, sortable=True, scroll=True)
    return html.paragraph(note) + html.table(["yardstick", "energy"], rows) + table


def _convention_row(row: Json) -> list[Any]:
    mean = row["mean_input"]
    shown = html.Cell("pixels", -1.0) if mean is None else html.number(mean, f"{mean:.4f}")
    costs = [html.number(row[key]["nominal"]) for key in ("published_nj", "exact_nj")]
    return [row["name"], shown, *costs, html.number(row["difference_nj"], f"{row['difference_nj']:+.4g}")]


def prices(energy: Json) -> str:
    """Every price that was used, every assumption, everything without a price."""
    profile = energy["profile"]
    rows = [(name, _value(p), p["tag"], _source(p)) for name, p in profile["prices"].items()]
    missing = [
        (u["name"], "not counted" if u["count"] is None else thin(u["count"]), u["per"], u["reason"])
        for u in energy["unpriced"]
    ]
    unknown = html.bullets(profile["unknown"]) if profile["unknown"] else html.paragraph("nothing stated")
    parts = (
        f"<h3>Prices of {html.text(profile['title'])}</h3>",
        html.table(["price", "value and band", "tag", "source"], rows),
        "<h3>Assumptions</h3>",
        html.bullets(energy["assumptions"]),
        "<h3>Without a price: not in any total</h3>",
        html.table(["what", "count", "per", "why"], missing),
        "<h3>Not known of this target</h3>",
        unknown,
    )
    return "".join(parts)


def _value(price: Json) -> str:
    return f"{price['value']:g} [{price['low']:g} .. {price['high']:g}] {price['unit']}"


def _source(price: Json) -> str:
    return f"{price['source']}; {price['note']}" if price.get("note") else str(price["source"])
