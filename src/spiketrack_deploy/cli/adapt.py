"""``spiketrack adapt``: parse, call the verb, print.

This module decides names, options, help texts and how an adaptation's result looks. It must not compute anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from spiketrack_deploy import api
from spiketrack_deploy.cli import options, printing

Result = Mapping[str, Any]
_WIDE = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_PATH = click.Path(path_type=Path)
_SHARE = click.FloatRange(min=0, max=1)
_STATES = {
    "deployed": "as deployed before",
    "routed": "adapted, before the merge",
    "merged": "after the merge",
    "quantised": "after quantisation (written)",
}


@click.command(context_settings=_WIDE)
@click.argument("model")
@click.argument("videos", type=options.Located(), nargs=-1, required=True, metavar="VIDEO[:x,y,w,h]...")
@click.option(
    "-o", "--out", type=_PATH, required=True, help="Model and run folder; the same folder and settings go on."
)
@click.option(
    "--method",
    type=click.Choice(["experts", "lora", "full"]),
    default="experts",
    show_default=True,
    help="experts: a mixture on 1x1 convolutions, merged; lora: as many numbers, a matrix a layer; full: all weights.",
)
@click.option("--experts", type=click.IntRange(1, 64), default=4, show_default=True, help="Experts of a layer.")
@click.option("--rank", type=click.IntRange(1, 1024), default=4, show_default=True, help="Rank that the experts share.")
@click.option("--layers", default="", metavar="BLOCKS", callback=options.names, help="Comma-separated; default: all.")
@click.option(
    "--hold-out",
    type=click.FloatRange(min=0, max=0.9),
    default=0.3,
    show_default=True,
    help="Share of every video, from its end, that is scored and not trained on.",
)
@click.option(
    "--agree", type=_SHARE, default=0.6, show_default=True, help="Own boxes: least overlap of the ways there and back."
)
@click.option("--confident", type=_SHARE, default=0.3, show_default=True, help="Own boxes: least confidence of both.")
@click.option(
    "--max-frames", type=click.IntRange(min=2), default=600, show_default=True, help="Frames read of a video file."
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimiser steps of the whole run. Default: 300.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of adapters and samples.")
@click.option("--recipe", type=_PATH, help="JSON object of recipe entries, as for train.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="One recipe entry; goes before --recipe.")
@options.output
def adapt(
    model: str, videos: tuple[tuple[Path, tuple[float, ...] | None], ...], out: Path, steps: int | None,
    pairs: tuple[str, ...], as_json: bool, quiet: bool, **settings: Any,
) -> None:  # fmt: skip
    """Adapt a deployed MODEL (SpikeTrack, bundled or a checkpoint) to the scene of the VIDEOs.

    A VIDEO is a file, a folder of frames, or a folder or zip of sequences with ground truth. Where only its first box
    is known (VIDEO:x,y,w,h, or one line of ground truth) the tracker's own boxes serve, checked there and back. The
    program afterwards has the operations of the one before.
    """
    entries = options.entries(pairs) | ({} if steps is None else {"steps": steps})
    result = api.adapt(model, videos, out, entries=entries, tell=None if quiet else printing.lines, **settings)
    printing.show(result, adapt_summary, as_json, quiet)


def adapt_summary(result: Result) -> None:
    """Labels of every video, what each step to the program costs on the held-out parts, the file."""
    print("| video | frames | labels | boxes kept | held out |\n| --- | --- | --- | --- | --- |")
    for scene in result["scenes"]:
        labels = "given" if scene["given"] else f"own, checked over {scene['reached']} frames"
        print(f"| {scene['name']} | {scene['frames']} | {labels} | {scene['kept']} | {scene['held_out']} |")
    if result["scores"]:
        print("\n| weights | pair IoU | success AUC in the loop, % |\n| --- | --- | --- |")
    for name, score in result["scores"].items():
        auc = f"{100 * score['loop_auc']:.1f}" if "loop_auc" in score else "-"
        print(f"| {_STATES[name]} | {score['pair_iou']:.3f} | {auc} |")
    if not result["scores"]:
        print("no video is long enough to hold a part out, so nothing says whether the adaptation helps")
    where = f" on {result['layers']} convolutions of {', '.join(result['blocks'])}" if result["layers"] else ""
    print(
        f"{result['method']}: {result['trained']:,} numbers trained{where} (the network has {result['parameters']:,}), "
        f"{result['steps']:,} steps in {result['seconds']:.0f} s on {result['threads']} thread(s)"
    )
    print(f"wrote {result['model']}")
