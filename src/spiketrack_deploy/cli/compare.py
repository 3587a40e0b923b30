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
                {True: "yes", False: "no", None: "not known"}[row["fits"]],
                "-" if chips is None else f"{row['cores']:,} on {chips:,}{most}",
                si_interval(Interval.from_dict(row["latency_s"]), "s") if row["latency_s"] else "-",
                joules(row["dynamic_nj"]) if row["dynamic_nj"] else "-",
                joules(row["total_nj"]) if row["total_nj"] else "-",
                row["note"],
            )
        )
    head = ["target", "fits", "cores on chips", "latency", "dynamic", "with static", "note"]
    _table(f"{result['subject']}: a run of {result['phase']} on every target", head, rows)
    activity = next((row["activity"] for row in result["rows"] if row["activity"]), None)
    counted = f" Activity of the mapped ones: {activity}." if activity else ""
    _line(f"-: not known. Boundaries differ: a figure without chips has neither static power nor routing.{counted}")


def energy_summary(result: Result) -> None:
    """The same counts under several profiles."""
    reports, main, lines = result["profiles"], result["main"], result["comparison"]["profiles"]
    phases = reports[0]["phases"]
    rows = []
    for report, line in zip(reports, lines):
        static, top = report["static"], report["phases"][main]["dominant"]
        energies = [*line["phases_nj"].values(), line["dynamic_nj"]]
        rows.append(
            (
                report["profile"]["name"],
                *(joules(energy) if line["priced"] else "no price" for energy in energies),
                joules(static["energy_nj_per_chip_frame"]) if static else "-",
                f"{top['price']} {100 * top['share']:.0f} % ({top['tag']})" if top else "-",
                str(len([u for u in report["unpriced"] if u["count"]])),
            )
        )
    shares = [f"{name}, share" for name in phases]
    head = ["profile", *shares, "dynamic, sum", "static, chip and frame", "hangs most on", "unpriced"]
    runs = ", ".join(f"{phase['runs']} runs of {name}" for name, phase in phases.items())
    if result["measured"]:
        _measured(result["measured"])
    _table(f"{result['bundle']}: energy of a {result['result']}, means of {runs}", head, rows)
    causes = phases[main]["by_cause_nj"]
    split = [(cause, *(_cause(r, main, cause, line) for r, line in zip(reports, lines))) for cause in causes]
    _table(f"One run of {main} by cause", ["cause", *(r["profile"]["name"] for r in reports)], split)
    _intervals(reports, main)
    _dense(result["comparison"])
    _line("Bands are low..high of the prices, added end by end. Unpriced events are in no total; --json lists them.")


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
