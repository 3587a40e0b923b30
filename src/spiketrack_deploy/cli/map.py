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
from spiketrack_deploy.units import Interval, si, si_interval

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
@click.option("--phase", metavar="NAME", help="Phase of the program. Default: the one that runs most often.")
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

    Prints chips, cores, limits exceeded and what would help, time per step and frame, energy with static power. Exit
    code 4 after the report where it does not fit.
    """
    result = api.map(subject, **settings)
    if "kinds" in result:
        dense.show_fit(result, as_json, quiet)
    printing.show(result, map_summary, as_json, quiet)
    if not result["fits"]:
        # The report is the answer; a second JSON object or a FitError's rendering on stdout would spoil it.
        click.echo(f"error: {_verdict(result)}", err=True)
        raise click.exceptions.Exit(FitError.exit_code)


def _verdict(result: Result) -> str:
    fatal = [b for b in result["breaches"] if b["fatal"]]
    worst = "; ".join(f"{b['op']}: {b['used']:,} {b['rule']}, limit {b['limit']:,}" for b in fatal[:3])
    more = f" (and {len(fatal) - 3} more)" if len(fatal) > 3 else ""
    fitting = next((f for f in result["fixes"] if f["fits"]), None)
    remedy = f"nearest fix that fits: {fitting['change']}" if fitting else "no change that was tried makes it fit"
    return f"{result['subject']} does not fit {result['target']}: {worst}{more}; {remedy}"


def _chips(number: int) -> str:
    return f"{number:,} chip" + ("" if number == 1 else "s")


def map_summary(result: Result) -> None:
    """Tables for a terminal."""
    neurons = ", ".join(f"{n:,} {kind}" for kind, n in result["neurons"].items())
    available = result["chips_available"]
    board = f" (the board has {available})" if available else ""
    answer = "fits" if result["fits"] else "does not fit"
    printing._line(
        f"{result['subject']} (phase {result['phase']}) {answer} {result['target']}: {result['cores']:,} cores on "
        f"{_chips(result['chips'])}{board}"
    )
    printing._line(f"{neurons} on chip; {result['synapses']:,} synapses in {result['synaptic_words']:,} words")
    kinds = result["verdicts"]["count"]
    printing._line(
        f"{kinds.get('native', 0)} operations are native, {kinds.get('microcode', 0)} need neuron programs or embedded "
        f"processors, {kinds.get('host', 0)} are left to the host"
    )
    _breaches(result)
    _loads(result)
    _times(result)
    _energy(result["energy"], result["phase"])
    _verdicts(result)
    for other in result["other_phases"]:
        printing._line(
            f"Phase {other['phase']} needs {other['cores']:,} more cores ({_chips(other['chips_together'])} together): "
            f"{other['note']}"
        )


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
    if turns and not result["fits"]:
        printing._line(
            f"In turns on {_chips(turns['chips'])}: {turns['turns_per_frame']} turns a frame, "
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
    time = result["latency"]
    rows = [
        (
            c["cause"],
            si(c["amount"], "").strip(),
            _band(c["time_s"], "s") if c["time_s"] else "not published",
            c["where"],
        )
        for c in time["causes"]
    ]
    printing._table("Time of a step, by cause", ["cause", "amount", "time", "where"], rows, (1,))
    rate = time["pipelined_frames_per_second"]
    if not time["bottleneck"]:
        printing._line("No time was published for this chip: the duration of a step is not known.")
        return
    printing._line(
        f"Step {_band(time['step_s'], 's')}, set by the {time['bottleneck']['cause']}; a frame takes "
        f"{time['depth_steps']} steps, {_band(time['frame_latency_s'], 's')}"
        + (f"; pipelined {rate['nominal']:,.0f} frames/s" if rate else "")
    )
    balance = result["balance"]
    even = balance["even"]
    if even["synops_busiest_core"] < balance["synops_busiest_core"]:
        less = balance["synops_busiest_core"] / even["synops_busiest_core"]
        printing._line(
            f"The busiest core does {balance['ratio']:.1f} times the mean; with --balance {even['balance']:g} it does "
            f"{less:.1f} times less, on {even['cores']:,} cores ({_chips(even['chips'])})"
        )
    printing._line(f"Not modelled: {', '.join(time['not_modelled'])}.")


def _energy(energy: Result, phase: str) -> None:
    rows = [(x["name"], f"{x['count']:,.0f}", _band(x["energy_nj"], "J", 1e-9)) for x in energy["lines"]]
    rows.append(("dynamic, sum", "", _band(energy["dynamic_nj"], "J", 1e-9)))
    for key, name in (
        ("static_camera_frame_nj", "static, 30 frames/s"),
        ("static_full_speed_nj", "static, full speed"),
    ):
        if energy[key]:
            rows.append((name, _chips(energy["chips_powered"]), _band(energy[key], "J", 1e-9)))
    printing._table(f"Energy of a run of {phase} ({energy['activity']})", ["what", "count", "energy"], rows, (1,))
    printing._line(f"At camera rate the largest term is {energy['dominant_at_camera_rate']}.")
    for item in energy["unpriced"]:
        printing._line(f"unpriced: {item['count']:,.0f} {item['name']}: {item['reason']}")


def _verdicts(result: Result) -> None:
    reasons: dict[tuple[str, str, str], int] = {}
    for v in result["verdicts"]["operations"]:
        key = (v["verdict"], v["kind"], v["reason"])
        reasons[key] = reasons.get(key, 0) + 1
    rows = [(verdict, kind, str(n), why) for (verdict, kind, why), n in sorted(reasons.items())]
    printing._table("What the chip can do (--json: every layer)", ["verdict", "kind", "layers", "reason"], rows, (2,))
