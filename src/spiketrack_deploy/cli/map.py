"""``spiketrack map``: parse, call the verb, print tables; exit code 4 after the report where it does not fit.

This module decides options and how a mapping looks on a terminal. It must not compute a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import dense, options, printing
from spiketrack_deploy.errors import FitError
from spiketrack_deploy.units import Interval, number_of, si, si_interval

Result = Mapping[str, Any]
_EPILOG = """
\b
Examples:
  spiketrack map spiketrack-nano
  spiketrack map export/nano-loihi2 --target kapoho_point
  spiketrack map export/s256 --target hala_point --json
"""


@click.command(
    "map", epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.argument("subject", metavar="BUNDLE|MODEL")
@click.option(
    "--target",
    default="loihi2",
    show_default=True,
    metavar="NAME|FILE",
    help="A chip takes as many chips as needed; a board has a fixed number (spiketrack targets lists both).",
)
@click.option("--phase", metavar="NAME", help="Phase whose cores are described. Default: the one that runs most often.")
@click.option(
    "--sharing",
    type=click.Choice(["own", "turns", "host"]),
    help="Where the other phases run: on chips of their own, in turns on the same chips, on the host. Default: in "
    "turns where they run at the start alone, else on their own if the target has the chips.",
)
@options.way("as a bundle was exported, else chip and relayed")
@click.option(
    "--density",
    type=click.FloatRange(0, 1),
    help="Assume that this share of the neurons spikes, instead of a bundle's own counts. Default without counts: 0.5.",
)
@click.option(
    "--rule",
    type=click.Choice(["contiguous", "power_of_two"]),
    help="How layers are split: as densely as the limits allow, or in powers of two as logs of the vendor's compiler. "
    "Default: the rule of the chip's family, contiguous for both Loihis.",
)
@click.option(
    "--balance",
    type=click.FloatRange(min=1),
    metavar="FACTOR",
    help="Use more cores so that none does more than FACTOR times the mean work: shorter steps, more static power.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also draw the chips: floorplan.svg and floorplan.png, every core by block, load, work and energy.",
)
@options.output
def map_command(subject: str, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Map a bundle's program (or a model, lowered without calibration) to the cores and chips of a target.

    Prints whether all phases fit, what a frame takes and costs with one in flight, every way to share chips, limits
    exceeded and what would help, and what would change the total. Exit code 4 after the report where it does not fit;
    where it only needs a host for some operations, 0.
    """
    result = api.map(subject, **settings)
    if "kinds" in result:
        dense.show_fit(result, as_json, quiet)
    printing.show(result, map_summary, as_json, quiet)
    if not result.get("holds"):
        # The report is the answer; a second JSON object or a FitError's rendering on stdout would spoil it.
        click.echo(f"error: {_verdict(result)}", err=True)
        raise click.exceptions.Exit(FitError.exit_code)


def _verdict(result: Result) -> str:
    detail = result["detail"]
    fatal = [b for b in detail["breaches"] if b["fatal"]]
    worst = "; ".join(f"{b['op']}: {b['used']:,} {b['rule']}, limit {b['limit']:,}" for b in fatal[:3])
    if not fatal:
        worst = f"all phases need {number_of(result['chips'], 'chip')}, it has {detail['chips_available']}"
    more = f" (and {len(fatal) - 3} more)" if len(fatal) > 3 else ""
    fitting = next((f for f in detail["fixes"] if f["fits"]), None)
    remedy = f"nearest fix that fits: {fitting['change']}" if fitting else "no change that was tried makes it fit"
    return f"{result['subject']} does not fit {result['target']}: {worst}{more}; {remedy}"


def map_summary(result: Result) -> None:
    """Tables for a terminal."""
    detail = result["detail"]
    printing._line(f"{result['subject']}: {result['sentence']}")
    cost, top = result["cost"], result["dominant"]
    printing._line(
        f"A frame costs {_joules(cost['total_nj'])} in all, {_joules(cost['dynamic_nj'])} of it dynamic; the largest "
        f"term is {top['name']}, {100 * top['share']:.0f} %"
    )
    for words in result["camera"]:
        printing._line(words)
    _results(result)
    _interleaved(result["interleaved"])
    _changes(result["changes"])
    _forms(result["forms"])
    neurons = ", ".join(f"{n:,} {kind}" for kind, n in detail["neurons"].items())
    printing._line(
        f"Phase {detail['phase']}: {number_of(detail['cores'], 'core')} on {number_of(detail['chips'], 'chip')}; "
        f"{neurons} slots; "
        f"{detail['synapses']:,} synapses in {detail['synaptic_words']:,} words"
    )
    by_rule = "; ".join(
        f"{name}: " + ", ".join(f"{cores:,} by {rule}" for rule, cores in found.items())
        for name, found in result["cores_by_rule"].items()
    )
    limits = detail["limits"]
    printing._line(f"Cores by split rule: {by_rule}")
    if limits["usable"]:
        least, most = limits["usable"]
        printing._line(f"Of the {limits['built']} cores of a chip {least} to {most} are usable")
    kinds = detail["verdicts"]["count"]
    printing._line(
        f"{kinds.get('native', 0)} operations are native, {kinds.get('microcode', 0)} need neuron programs or embedded "
        f"processors, {kinds.get('host', 0)} are left to the host"
    )
    _breaches(detail)
    _loads(detail)
    _times(detail)
    _energy(detail["run"], detail["phase"])
    _verdicts(detail)


def _results(result: Result) -> None:
    """Every way to share chips: chips, time and energy of a start, a steady result and one with an update."""
    rows = []
    for one in result["arrangements"]:
        chosen = " *" if one["sharing"] == result["sharing"] else ""
        for kind, cost in one["results"].items():
            low, high = one["chips_band"]
            rows.append(
                (
                    (one["words"] or "all phases") + chosen,
                    one["answer"],
                    f"{one['chips']} [{low}..{high}]",
                    f"{kind}: {' + '.join(cost['phases']) or 'on the host'}",
                    _band(cost["on_chip_s"], "s") if cost["phases"] else "the host's: not known",
                    _band(cost["image_s"], "s") if cost["image_s"] and cost["phases"] else "-",
                    _joules(cost["total_nj"]),
                    *(_nominal(cost[key]) for key in ("dynamic_nj", "static_nj", "input_nj", "board_nj")),
                )
            )
    head = ["arrangement", "answer", "chips", "result", "on the chip", "image's way", "total"]
    head += ["dynamic", "static", "input", "(board)"]
    printing._table("What a frame takes and costs, one in flight (*: the headline's)", head, rows)
    missing: dict[str, None] = {}
    for one in result["arrangements"]:
        if one["sharing"] == result["sharing"]:
            missing |= dict.fromkeys(f"{u['name']} ({u['per']}): {u['reason']}" for u in one["unpriced"])
    for words in missing:
        printing._line(f"unpriced: {words}")


def _interleaved(pipe: Result) -> None:
    rate = pipe["results_per_second"]
    if rate:
        printing._line(
            f"Only with {pipe['targets_that_fill_the_pipeline']} independent targets interleaved is the pipeline full: "
            f"a result every {pipe['steps_between_results']} steps, {_band(pipe['period_s'], 's')}, {rate:,.0f} a "
            "second for all of them together, if their images arrive so fast and each has its own copy of the states"
        )


def _changes(changes: Any) -> None:
    rows = [
        (
            c["change"],
            f"{c['cores']:,}",
            f"{c['chips']:,}",
            _nominal(c["cost"]["total_nj"]),
            _nominal(c["cost"]["dynamic_nj"]),
            si(c["cost"]["on_chip_s"]["nominal"], "s"),
        )
        for c in changes
    ]
    head = ["change", "cores", "chips", "total", "dynamic", "on the chip"]
    title = "What would change it (of another network: structure counted, synaptic work scaled, accuracy unknown)"
    printing._table(title, head, rows, (1, 2, 3, 4, 5))


def _forms(forms: Any) -> None:
    """Own neurons beside hard-coded ones, and what those leave."""
    if not forms:
        return
    rows = [
        (
            f["name"] + ("" if f["holds"] else " (exceeds a core)"),
            *(si(f[key], "").strip() for key in ("neurons", "programmed", "synapses")),
            *(f"{f[key]:,}" for key in ("cores", "chips", "levels")),
            si(f["cost"]["on_chip_s"]["nominal"], "s"),
            _nominal(f["cost"]["total_nj"]),
            _nominal(f["cost"]["dynamic_nj"]),
            f"{f['native']}",
            f"{len(f['needs'])}",
        )
        for f in forms
    ]
    head = ["neurons of four levels as", "neurons", "programmed", "synapses", "cores", "chips", "levels", "on the chip"]
    head += ["total", "dynamic", "operations without a program", "with one"]
    printing._table("The same integers with hard-coded neurons (mapped afresh)", head, rows, tuple(range(1, 12)))
    why: dict[tuple[str, ...], list[int]] = {}
    for index, f in enumerate(forms):
        for verdict, kind, reason, number in f["reasons"]:
            why.setdefault((verdict, kind, reason), [0] * len(forms))[index] = number
    left = [(*key, *(str(n) if n else "none" for n in numbers)) for key, numbers in sorted(why.items())]
    title = "Operations that need a program or a host"
    printing._table(title, ["verdict", "kind", "why", *(f["name"] for f in forms)], left, (3, 4, 5))


def _joules(value: Result) -> str:
    return _band(value, "J", 1e-9)


def _nominal(value: Result | None) -> str:
    return si(value["nominal"] * 1e-9, "J") if value else "no price"


def _breaches(result: Result) -> None:
    if not result["breaches"]:
        printing._line("No limit is exceeded.")
        return
    rows = [
        (
            b["rule"],
            f"{b['used']:,}",
            f"{b['limit']:,}",
            f"+{b['over_by']:,}",
            b["op"],
            b["remedy"] + ("" if b["fatal"] else " (does not decide)"),
        )
        for b in result["breaches"]
    ]
    printing._table("Limits exceeded", ["limit", "used", "allowed", "over by", "layer", "remedy"], rows, (1, 2, 3))
    if result["fixes"]:
        rows3 = [(f["change"], f["effect"], "yes" if f["fits"] else "no") for f in result["fixes"]]
        printing._table("Nearest fixes (structure only; accuracy unknown)", ["change", "effect", "fits"], rows3)
    turns = result["in_turns"]
    if turns and not result["holds"]:
        printing._line(
            f"In turns on {number_of(turns['chips'], 'chip')}: {turns['turns_per_frame']} turns a frame, "
            f"{turns['weight_bytes_reloaded_per_frame']:,} bytes of weights reloaded and "
            f"{turns['values_kept_between_turns']:,} values kept; {turns['energy']}"
        )


def _loads(result: Result) -> None:
    limits = result["limits"]
    rows = []
    for key, load in result["loads"].items():
        limit = limits[key]
        share = f"{100 * load['max'] / limit:.0f} %" if limit else "-"
        rows.append((key, f"{load['max']:,}", f"{load['mean']:,.0f}", f"{limit:,}" if limit else "-", share))
    printing._table("Per core", ["load", "largest", "mean", "limit", "largest / limit"], rows, (1, 2, 3, 4))
    place = result["placement"]
    gap = place["gap_to_lower_bound"]
    printing._line(
        f"Placement: {place['weighted_hops']:,.0f} message hops a frame, {100 * place['saved_over_row_major']:.0f} % "
        f"below row-major" + (f", {1 + gap:.1f} times a lower bound" if gap is not None else "")
    )


def _band(value: Mapping[str, float], unit: str, factor: float = 1.0) -> str:
    return si_interval(Interval.from_dict(value) * factor, unit)


def _times(result: Result) -> None:
    loop = result["closed_loop"]
    if not loop["latency_s"]["high"]:
        printing._line("No time was published for this chip: the duration of a run is not known.")
        return
    sums: dict[str, tuple[int, int, float]] = {}
    for level in loop["levels"]:
        levels, steps, time = sums.get(level["set_by"], (0, 0, 0.0))
        sums[level["set_by"]] = (levels + 1, steps + level["steps"], time + level["time_s"]["nominal"])
    rows = [(what, str(n), str(steps), si(time, "s")) for what, (n, steps, time) in sums.items()]
    printing._table("Time of a run, by what sets a level", ["set by", "levels", "steps", "time"], rows, (1, 2, 3))
    slowest = max(loop["levels"], key=lambda level: level["time_s"]["nominal"])
    printing._line(
        f"A run takes {_band(loop['latency_s'], 's')}: {loop['elapsed_steps']} elapsed steps of {len(loop['levels'])} "
        f"levels, each with a barrier of {_band(loop['barrier_s'], 's')}; the slowest is level {slowest['number']}, "
        f"{slowest['steps']} steps, {_band(slowest['time_s'], 's')}"
    )
    if loop["untimed"]:
        printing._line(f"Without a time in this profile: {', '.join(loop['untimed'])}.")
    balance = result["balance"]
    even = balance["even"]
    if even["synops_busiest_core"] < balance["synops_busiest_core"]:
        less = balance["synops_busiest_core"] / even["synops_busiest_core"]
        printing._line(
            f"The busiest core does {balance['ratio']:.1f} times the mean; with --balance {even['balance']:g} it does "
            f"{less:.1f} times less, on {even['cores']:,} cores ({number_of(even['chips'], 'chip')})"
        )
    printing._line(f"Not modelled: {', '.join(loop['not_modelled'])}.")


def _energy(run: Result, phase: str) -> None:
    rows = [(x["name"], si(x["count"], "").strip(), _joules(x["energy_nj"])) for x in run["lines"]]
    structures = run["structures_nj"]
    rows += [(f"dynamic, synaptic energy by {name}", "", _joules(found)) for name, found in structures.items()]
    rows.append(("dynamic, band over both" if len(structures) > 1 else "dynamic", "", _joules(run["dynamic_nj"])))
    printing._table(f"Bill of a run of {phase} ({run['activity']})", ["what", "count", "energy"], rows, (1,))
    for item in run["unpriced"]:
        printing._line(f"unpriced: {item['count']:,.0f} {item['name']}: {item['reason']}")


def _verdicts(result: Result) -> None:
    reasons: dict[tuple[str, str, str], int] = {}
    for v in result["verdicts"]["operations"]:
        key = (v["verdict"], v["kind"], v["reason"])
        reasons[key] = reasons.get(key, 0) + 1
    rows = [(verdict, kind, str(n), why) for (verdict, kind, why), n in sorted(reasons.items())]
    printing._table("What the chip can do (--json: every layer)", ["verdict", "kind", "layers", "reason"], rows, (2,))
