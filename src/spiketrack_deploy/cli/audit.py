"""``spiketrack audit``: parse, call the verb, print which convention gives which number.

This module decides options and how an audit looks on a terminal. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing
from spiketrack_deploy.cli.printing import _line, _table, joules
from spiketrack_deploy.units import Interval, si, si_interval

Result = Mapping[str, Any]
_FEW = 8
_EPILOG = """
\b
Examples:
  spiketrack audit
  spiketrack audit s256_t1 --paper 2.9mJ
  spiketrack audit export/demo --paper 48uJ
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("subject", metavar="[BUNDLE|MODEL|LAYOUT]", required=False)
@click.option(
    "--paper", "paper_nj", type=options.Energy(), help="The energy of a frame that a paper states: 2.9mJ, 150uJ."
)
@click.option(
    "--target", default="loihi2", show_default=True, metavar="NAME|FILE", help="The chip that it is held against."
)
@options.output
def audit(subject: str | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Derive a paper's energy again by every published convention: which one gives which number, and how far each is
    from a chip; then the same network as a dense one, and the spike rate below which spiking wins.

    A bundle has its own counts, a model is run on a few frames, an official layout (s256_t1) has shapes alone. Without
    a subject: the SpikeTrack paper's own table.
    """
    with printing.progress(quiet) as tell:
        result = api.audit(subject, tell=tell, **settings)
    printing.show(result, audit_summary, as_json, quiet)


def audit_summary(result: Result) -> None:
    """The table over cases, then each counted case in full."""
    if result["subject"] is None:
        _own_table(result["cases"])
        return
    for case in result["cases"]:
        _head(case)
        if case["conventions"]:
            _conventions(case)
        _chip(case)
        _dense(case)
        duel_table(case["duels"])


def _own_table(cases: Sequence[Result]) -> None:
    names = [row["name"] for row in cases[0]["conventions"]]
    rows = []
    for case in cases:
        implied = [_value(row["implied_mean_value"], case["largest_spike"]) for row in case["conventions"]]
        first = _value(case["conventions"][0]["implied_without_first_layer"], case["largest_spike"])
        chip = case["chip"]["total_nj"] or case["chip"]["dynamic_nj"] if case["chip"] else None
        rows.append(
            (
                case["name"],
                f"{case['dense_macs'] / 1e9:.3f}",
                si(case["paper_nj"] * 1e-9, "J"),
                implied[0],
                first,
                *implied[1:],
                joules(chip) if chip else "-",
            )
        )
    profile = next((case["chip"]["profile"] for case in cases if case["chip"]), "a chip")
    head = ["layout", "GMAC", "paper", names[0], "no first layer", *names[1:], f"on {profile}"]
    _table("SpikeTrack's table: the mean spike value that each convention needs for the number", head, rows, (1,))
    for source in dict.fromkeys(case["paper_source"] for case in cases):
        _line(f"{', '.join(case['name'] for case in cases if case['paper_source'] == source)}: {source}.")
    _line("GMAC: dense, of a frame's main phase, counted on the model. A value above the largest spike is impossible.")
    _line(
        "The chip's figure is all that a frame takes there, one in flight, at the value in the fourth column (a spike "
        "is 2.5 on average, assumed). `spiketrack audit LAYOUT` has each in full."
    )


def _value(value: float | None, largest: int) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if 0 < value <= largest else f"impossible ({value:.2f})"


def _head(case: Result) -> None:
    said = f"{case['name']}: {case['dense_macs'] / 1e9:.4g} GMAC in a run of {case['phase']}"
    if case["counted"]:
        said += (
            f", mean spike value {case['mean_value']:.3f}, {case['rate']:.3f} spikes a position ({case['runs']} runs)"
        )
    else:
        said += "; its spikes are not known" if case["conventions"] else "; a dense network, without spikes"
    paper = f"; the paper says {si(case['paper_nj'] * 1e-9, 'J')} ({case['paper_source']})" if case["paper_nj"] else ""
    _line(said + paper)


def _conventions(case: Result) -> None:
    chip = case["chip"]["profile"] if case["chip"] else "chip"
    rows = []
    nearest = min(
        (row for row in case["conventions"] if row["over_paper"]),
        key=lambda row: max(row["over_paper"], 1 / row["over_paper"]),
        default=None,
    )
    for row in case["conventions"]:
        counted = row["energy_nj"]
        slope = f"{joules_of(row['per_unit_mean_value_nj'])} x value"
        over = f"{row['over_paper']:.3g}" + (" (nearest)" if row is nearest else "") if row["over_paper"] else "-"
        rows.append(
            (
                row["name"] + (" (a slip)" if row["slip"] else ""),
                joules(counted) if counted else f"{joules(row['first_layer_nj'])} + {slope}",
                joules(row["without_first_layer_nj"]) if counted else slope,
                over,
                _value(row["implied_mean_value"], case["largest_spike"]),
                f"{row['chip_over_this']:,.0f} x" if row["chip_over_this"] else "-",
                f"{row['formula']} ({short(row['profile'])}; {row['source']})",
            )
        )
    head = ["convention", "energy", "without first layer", "over paper", "value implied", f"{chip} over it",
            "what it sums"]  # fmt: skip
    _table("Conventions: E = ADD x sum + MAC x first layer", head, rows)


def short(profile: str) -> str:
    """A convention without the process that all of them share."""
    return profile.removeprefix("cmos45_").replace("_memory", "+memory")


def joules_of(value: float) -> str:
    """Nanojoules without a band."""
    return si(value * 1e-9, "J")


def _chip(case: Result) -> None:
    chip = case["chip"]
    if not chip:
        return
    if chip.get("total_nj"):
        _line(
            f"On {chip['profile']}: {joules(chip['total_nj'])} a frame, of it {joules(chip['dynamic_nj'])} dynamic "
            f"(activity: {chip['activity']}); an estimate, no hardware was used."
        )
    elif chip.get("dynamic_nj"):
        _line(f"On {chip['profile']}: {joules(chip['dynamic_nj'])} dynamic ({chip['activity'] or chip['note']}).")


def _dense(case: Result) -> None:
    rows = [
        (short(row["profile"]), si_interval(Interval.from_dict(row["mac_nj"]) * 1e-9, "J"), joules(row["energy_nj"]))
        for row in case["dense"]
    ]
    _table("The same network as a dense one", ["prices", "a MAC", "a run"], rows)


def duel_table(duels: Sequence[Result], layers: bool = True) -> None:
    """Spiking against dense under every pair of prices, in all; with ``layers`` also where they disagree."""
    if not duels:
        return
    rows = []
    for duel in duels:
        whole = duel["whole"]
        rows.append(
            (
                short(duel["spiking_profile"]),
                short(duel["dense"]["profile"]),
                joules(whole["spiking_nj"]),
                joules(whole["dense_nj"]),
                "spiking" if whole["spiking_wins"] else "dense",
                f"{whole['rate']:.3f}",
                whole["spiking_wins_below"],
                f"{duel['layers_lost']} of {len(duel['layers'])}",
            )
        )
    head = ["spiking under", "dense under", "spiking", "dense", "wins", "spikes a position", "spiking wins below",
            "layers lost"]  # fmt: skip
    _table("Spiking against dense, in all", head, rows)
    if layers:
        _layers(duels)
    _line(
        "A position spikes at most once a time step; a limit above 1 is no limit. Dynamic energy; a dense accelerator "
        "reuses operands that the _memory conventions fetch each time. --json has every layer under every pair."
    )


def _layers(duels: Sequence[Result]) -> None:
    """The layers that spike most above the limit, under each pair."""
    open_ones = [duel for duel in duels if 0 < duel["layers_lost"] < len(duel["layers"])]
    if not open_ones:
        return
    found = {row["name"]: [row] for row in open_ones[0]["layers"]}
    for duel in open_ones[1:]:
        for row in duel["layers"]:
            found[row["name"]].append(row)
    worst = sorted(found, key=lambda name: -max(_excess(row) for row in found[name]))[:_FEW]
    rows = [
        (name, f"{found[name][0]['rate']:.3f}", *(row["spiking_wins_below"] for row in found[name])) for name in worst
    ]
    pairs = (f"{short(d['spiking_profile'])} / {short(d['dense']['profile'])}" for d in open_ones)
    _table(
        f"Spiking wins below, layer by layer, where it is not one-sided: the {len(rows)} layers furthest above",
        ["layer", "spikes a position", *pairs],
        rows,
    )


def _excess(row: Result) -> float:
    found = row["crossover_rate"]
    return row["rate"] / found["nominal"] if found and found["nominal"] else 0.0
