"""Tables that put one network beside others' chips and beside what somebody measured.

This module decides how they look on a terminal. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spiketrack_deploy.cli.audit import duel_table, short
from spiketrack_deploy.cli.printing import _line, _table, joules
from spiketrack_deploy.units import Interval, si, si_interval

Result = Mapping[str, Any]


def compare_summary(result: Result) -> None:
    """One network on every target."""
    rows = []
    for row in result["rows"]:
        chips = row["chips"]
        most = f" of {row['chips_available']}" if chips is not None and row["chips_available"] else ""
        rows.append(
            (
                row["name"],
                "not known"
                if row["fits"] is None
                else "yes"
                if row["fits"]
                else "with a host"
                if row["holds"]
                else "no",
                "-" if chips is None else f"{row['cores']:,} on {chips:,}{most}",
                si_interval(Interval.from_dict(row["latency_s"]), "s") if row["latency_s"] else "-",
                joules(row["dynamic_nj"]) if row["dynamic_nj"] else "-",
                joules(row["total_nj"]) if row["total_nj"] else "-",
                row["note"],
            )
        )
    head = ["target", "fits", "cores on chips", "latency", "dynamic", "in all", "note"]
    _table(f"{result['subject']}: a frame on every target, one in flight", head, rows)
    activity = next((row["activity"] for row in result["rows"] if row["activity"]), None)
    counted = f" Activity of the mapped ones: {activity}." if activity else ""
    _line(f"-: not known. Boundaries differ: a figure without chips has neither static power nor routing.{counted}")


def _answer(row: Result) -> str:
    """Operations that stay on a host are no reason to say no, and none to say yes."""
    return "yes" if row["fits"] else "with a host" if row["holds"] else "no"


def energy_summary(result: Result) -> None:
    """The same counts under several profiles."""
    reports, main, lines = result["profiles"], result["main"], result["comparison"]["profiles"]
    phases = reports[0]["phases"]
    rows = []
    for report, line in zip(reports, lines):
        placed, top = report["placed"], report["phases"][main]["dominant"]
        cost = placed["cost"] if placed else None
        rows.append(
            (
                report["profile"]["name"],
                joules(cost["total_nj"]) if cost and cost["static_nj"] else "-",
                joules(line["dynamic_nj"]) if line["priced"] else "no price",
                *(joules(cost[key]) if cost and cost[key] else "-" for key in ("static_nj", "input_nj")),
                f"{placed['chips']} [{placed['chips_band'][0]}..{placed['chips_band'][1]}]" if placed else "-",
                si_interval(Interval.from_dict(cost["latency_s"]), "s") if cost else "-",
                f"{top['price']} {100 * top['share']:.0f} % ({top['tag']})" if top else "-",
                str(len([u for u in report["unpriced"] if u["count"]])),
            )
        )
    head = ["profile", "total", "dynamic", "static", "input", "chips", "latency", "dynamic hangs most on", "unpriced"]
    runs = ", ".join(f"{phase['runs']} runs of {name}" for name, phase in phases.items())
    if result["measured"]:
        _measured(result["measured"])
    _table(f"{result['bundle']}: energy of a {result['result']}, means of {runs}", head, rows)
    for report in reports:
        if report["placed"]:
            for words in (report["placed"]["sentence"], *report["placed"]["camera"]):
                _line(f"{report['profile']['name']}: {words}")
    _results(result["result"], reports)
    causes = phases[main]["by_cause_nj"]
    split = [(cause, *(_cause(r, main, cause, line) for r, line in zip(reports, lines))) for cause in causes]
    _table(f"One run of {main} by cause", ["cause", *(r["profile"]["name"] for r in reports)], split)
    _intervals(reports, main)
    _dense(result["comparison"])
    _line("Bands are low..high of the prices, added end by end. Unpriced events are in no total; --json lists them.")


def _results(word: str, reports: Sequence[Result]) -> None:
    """The first result, a steady one, one with an update, where a profile has chips."""
    rows = [
        (report["profile"]["name"], kind, " + ".join(cost["phases"]) or "on the host", joules(cost["total_nj"]),
         joules(cost["dynamic_nj"]), si_interval(Interval.from_dict(cost["latency_s"]), "s"))
        for report in reports
        if report["placed"]
        for kind, cost in report["placed"]["results"].items()
    ]  # fmt: skip
    if rows:
        _table(f"Kinds of a {word}", ["profile", "kind", "runs of", "total", "dynamic", "latency"], rows)


def _measured(found: Result) -> None:
    """Measured beside predicted."""
    rows = []
    for row in found["rows"]:
        band = row["predicted"]
        rows.append(
            (
                row["name"],
                si(row["measured"], row["unit"]),
                si_interval(Interval.from_dict(band), row["unit"]) if band else "not known",
                f"{100 * row['off']:+.0f} %" if row["off"] is not None else "-",
                {True: "inside", False: "OUTSIDE", None: "-"}[row["inside"]],
            )
        )
    _table(
        f"Measured on {found['target']} ({found['boundary']}; {found['frames']:,} frames) beside the prediction",
        ["quantity", "measured", "predicted", "measured is", "band"],
        rows,
        right=(1,),
    )
    rails = ", ".join(
        f"{r['name']} {si(r['static_w'], 'W')} still, {si(r['running_w'], 'W')} running" for r in found["rails"]
    )
    chips = f"{found['chips']} measured, {found['chips_predicted'] or 'unknown'} predicted"
    _line(f"Rails: {rails}. Chips: {chips}. A total is predicted over the measured time of a frame.")


def _intervals(reports: Sequence[Result], main: str) -> None:
    """What the bands mean where every price is drawn from its own."""
    rows = []
    for report in reports:
        spread = report["phases"][main]["uncertainty"]["over_prices"]
        if spread:
            ends = (si(spread[key] * 1e-9, "J") for key in ("low_nj", "median_nj", "high_nj"))
            rows.append((report["profile"]["name"], *ends))
    if rows:
        title = f"One run of {main} with prices drawn from triangles over their bands (counts held fixed)"
        _table(title, ["profile", "5 %", "median", "95 %"], rows)


def _dense(comparison: Result) -> None:
    """Dense networks, priced by conventions and by what accelerators drew; then the own twin against the spikes."""
    lines = comparison["dense"]
    rows = [(short(name), *(joules(line["energy_nj"][name]) for line in lines)) for name in lines[0]["energy_nj"]]
    names = [f"{line['name']}, {line['macs'] / 1e9:.3g} GMAC" for line in lines]
    _table("Dense networks: every multiply-accumulate of a frame (no static power)", ["prices", *names], rows)
    for line in lines[1:]:
        _line(f"{line['name']}: {line['source']}.")
    published = joules(comparison["published_convention_nj"])
    _line(f"This network in the published convention (firing rate x MACs): {published}.")
    duel_table(comparison["duels"], layers=False)


def _cause(report: Result, main: str, cause: str, line: Result) -> str:
    """A cause without any price is not free."""
    return joules(report["phases"][main]["by_cause_nj"][cause]) if cause in line["causes_priced"] else "no price"
