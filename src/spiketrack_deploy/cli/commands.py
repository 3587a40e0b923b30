"""The commands: parse, call the verb of the same name in :mod:`spiketrack_deploy.api`, print.

This module decides names, options and help texts. It must not compute anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import __version__, api
from spiketrack_deploy.cli import dense, networks, options, printing
from spiketrack_deploy.cli.adapt import adapt
from spiketrack_deploy.cli.audit import audit
from spiketrack_deploy.cli.budget import budget
from spiketrack_deploy.cli.compare import compare_summary, energy_summary
from spiketrack_deploy.cli.evaluate import evaluate
from spiketrack_deploy.cli.lava import lava, netx, netx_summary, stock_summary
from spiketrack_deploy.cli.map import map_command
from spiketrack_deploy.cli.train import train

_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_WIDE)
@click.version_option(__version__, prog_name="spiketrack")
def group() -> None:
    """SpikeTrack (CVPR 2026, RGB, arXiv 2602.23963) from PyTorch to an exact integer program for Loihi-class chips.

    Exit codes: 0 done; 2 usage; 3 input unusable; 4 does not fit the target; 5 verification failed;
    6 engine or dependency missing; 130 interrupted.
    """


@click.command("export", context_settings=_WIDE)
@click.argument("model", required=False)
@click.option(
    "--target",
    default="loihi2",
    show_default=True,
    metavar="NAME|FILE",
    help="A chip, a board, a list of prices, or cpu (no chip; prices of 45 nm CMOS): spiketrack targets.",
)
@click.option("--profile", metavar="NAME|FILE", help="Hardware profile to price with, instead of the target's own.")
@options.way("chip and relayed")
@options.frames
@options.network
@options.engine()
@options.granularity
@options.destination
@options.output
@click.pass_obj
def export_command(argv: list[str], /, model: str | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Compile MODEL (a checkpoint file or the name of a bundled model), run it on a video, price it, write a bundle.

    Without MODEL the bundled one is used, without --video or --frames the bundled clip and its first box. Where MODEL
    is a NIR file (.nir) of any framework or a .net file of lava-dl, its network runs on --input (or drawn values).
    """
    for_network = {key: settings.pop(key) for key in options.NETWORK}
    if model is not None and (api.is_network(model) or api.is_netx(model)):
        for_clip = {key: settings.pop(key) for key in ("video", "frames", "init", "max_frames")}
        options.refuse(for_clip, f"{model} is a network, which runs on --input and not on a video")
        request = api.NetworkRequest(path=model, command=tuple(argv), **for_network, **settings)
        with printing.progress(quiet) as tell:
            found = api.export_network(request, tell)
        printing.show(found, networks.export_summary, as_json, quiet)
        return
    options.refuse(for_network, "this option is for networks (.nir, .net); a tracker runs on --video or --frames")
    with printing.progress(quiet) as tell:
        result = api.export(api.ExportRequest(model=model, command=tuple(argv), **settings), tell)
    if "kinds" in result:
        dense.show_fit(result, as_json, quiet)
    summary = dense.export_summary if "dense" in result else printing.export_summary
    printing.show(result, summary, as_json, quiet)


group.add_command(export_command)


@group.command(context_settings=_WIDE)
@click.argument("model")
@click.argument("video", type=click.Path(path_type=Path), required=False)
@click.option("--init", type=options.Box(), help="Box of the target in the first frame, in pixels.")
@click.option("--max-frames", type=click.IntRange(min=2), help="Stop after so many frames, the first one included.")
@options.engine(
    None,
    "Who runs a bundle's program (default sim; of a dense tracker onnx). Of a model float, or for a dense tracker bf16 "
    "(products in bfloat16), int8 (linear layers).",
    ("float", "bf16", "int8"),
)
@options.device
@options.destination
@options.output
def track(model: str, video: Path | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Follow a target through VIDEO (a file or a folder of images): boxes.csv and tracked.mp4.

    A checkpoint or bundled model runs as the float tracker, a bundle as its integer program (--engine).
    """
    with printing.progress(quiet) as tell:
        result = api.track(model, video, tell=tell, **settings)
    printing.show(result, printing.track_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("bundle", type=click.Path(path_type=Path))
@options.frames
@options.engine(None, "Who runs the program; default sim, and onnx for a dense tracker's step.")
@options.granularity
@options.output
def simulate(bundle: Path, granularity: str | None, as_json: bool, quiet: bool, **settings: Any) -> None:
    """Run the program of BUNDLE over a video and print what happened in it: events, synaptic operations, activity (of a
    dense tracker its step in ONNX Runtime: multiply-accumulates).

    With --granularity stock the bundle's recorded inputs run in Lava, and every value that can be read is compared.
    """
    if granularity and settings["engine"] != "lava":
        raise click.UsageError(
            f"--granularity {granularity}: is of --engine lava; {settings['engine'] or 'sim'} has none"
        )
    if granularity == "stock":
        options.refuse({k: v for k, v in settings.items() if k != "engine"}, "stock Processes run the recorded inputs")
        with printing.progress(quiet) as tell:
            found = api.simulate_stock(bundle, tell)
        printing.show(found, stock_summary, as_json, quiet)
        return
    network = (api.is_network(bundle) or api.is_netx(bundle)) and bundle.is_dir()
    with printing.progress(quiet) as tell:
        if network:
            own = {key: settings.pop(key) for key in ("engine", "threads")}
            options.refuse(settings, f"{bundle} is a network's bundle and runs its recorded input")
            result = api.simulate_network(bundle, tell=tell, **own)
        else:
            result = api.simulate(bundle, tell=tell, **settings)
    printing.show(result, printing.simulate_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME|FILE",
    help="Repeat to compare. Default: every bundled profile.",
)
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your own measurement of power rails (TOML or JSON, docs/energy.md), beside the prediction.",
)
@options.output
def energy(bundle: Path, profiles: tuple[str, ...], measured: Path | None, as_json: bool, quiet: bool) -> None:
    """Price the recorded counts of BUNDLE with other hardware profiles, side by side, and beside dense networks."""
    printing.show(api.energy(bundle, profiles, measured), energy_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("bundle", type=click.Path(path_type=Path))
@options.output
def verify(bundle: Path, as_json: bool, quiet: bool) -> None:
    """Check that BUNDLE is what was exported: digests, then every operation of its known answers, by NumPy alone (of a
    dense tracker recorded maps and boxes, by ONNX Runtime)."""
    with printing.progress(quiet) as tell:
        result = api.verify(bundle, tell)
    printing.show(result, dense.verify_summary if "worst" in result else printing.verify_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("subject", metavar="MODEL|BUNDLE|NIR|NET")
@click.option("--svg", type=click.Path(path_type=Path), help="NIR: draw the graph into this file.")
@options.output
def inspect(subject: str, svg: Path | None, as_json: bool, quiet: bool) -> None:
    """Structure, parameters, NIR summary and cuts of a model or bundle; margins of a bundle; a NIR file's graph."""
    if api.is_netx(subject):
        options.refuse({"svg": svg}, f"{subject} is no NIR file (.nir), so there is no graph to draw")
        printing.show(api.inspect_netx(subject), netx_summary, as_json, quiet)
        return
    if api.is_network(subject):
        printing.show(api.inspect_network(subject, svg), networks.inspect_summary, as_json, quiet)
        return
    options.refuse({"svg": svg}, f"{subject} is no NIR file (.nir), so there is no graph to draw")
    result = api.inspect(subject)
    summary = dense.inspect_summary if result["kind"].startswith("dense") else printing.inspect_summary
    printing.show(result, summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("action", type=click.Choice(["list", "show", "compare"]), default="list", required=False)
@click.argument("name", metavar="[NAME|FILE|BUNDLE|MODEL]", required=False)
@options.output
def targets(action: str, name: str | None, as_json: bool, quiet: bool) -> None:
    """List chips, boards and lists of prices; `targets show NAME|FILE` prints one with units, tags and sources;
    `targets compare BUNDLE|MODEL` puts a network on all of them: fit, chips, latency, energy."""
    if (action == "list") != (name is None):
        raise click.UsageError(
            "say `targets` for the list, `targets show NAME` for one profile, `targets compare BUNDLE` for a network"
        )
    if name is None:
        printing.show(api.targets(), printing.targets_summary, as_json, quiet)
    elif action == "compare":
        with printing.progress(quiet) as tell:
            result = api.compare_targets(name, tell)
        printing.show(result, compare_summary, as_json, quiet)
    else:
        printing.show(api.target(name), printing.target_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@options.output
def doctor(as_json: bool, quiet: bool) -> None:
    """Versions, which engines run here, and how to get what is missing."""
    printing.show(api.doctor(), printing.doctor_summary, as_json, quiet)


@group.command(context_settings=_WIDE)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace an earlier suite in the folder.")
@options.output
def conformance(folder: Path, force: bool, as_json: bool, quiet: bool) -> None:
    """Write small NIR graphs, inputs and the expected values of every convention into FOLDER."""
    printing.show(api.conformance(folder, force), networks.conformance_summary, as_json, quiet)


for command in (map_command, evaluate, train, adapt, budget, audit, lava, netx):
    group.add_command(command)
