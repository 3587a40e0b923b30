"""Options that several commands share, and how their text becomes values.

This module decides spelling and help texts. It must not know what a value is used for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import click

from spiketrack_deploy.errors import UsageError

Function = Callable[..., Any]

GRANULARITIES = ("block", "stock")
ENGINES = ("sim", "lava", "reference", "onnx")
THREADS = click.IntRange(min=1, max=256)
"""OpenMP ends the process over a hundred thousand threads, and more than there are cores help nobody."""


class Box(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``x,y,w,h`` in pixels of the first frame."""

    name = "x,y,w,h"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Four finite numbers; where they lie is the tracker's business."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).replace(" ", "").split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 4 or not all(math.isfinite(n) for n in numbers):
            self.fail(
                f"{value!r} is not a box: give four numbers x,y,w,h in pixels, for example 74,70,37,80", param, ctx
            )
        return numbers


class Energy(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """An energy as papers print it: a number with a unit of J, millijoules without one; nanojoules as a value."""

    name = "NUMBER"
    _UNITS: ClassVar = {"": 1e6, "mj": 1e6, "uj": 1e3, "\u00b5j": 1e3, "nj": 1.0, "j": 1e9}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Nanojoules, above 0."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]{1,3})?)\s*([a-zA-Z\u00b5]*)\s*", str(value))
        factor = self._UNITS.get(match[2].lower()) if match else None
        number = float(match[1]) * factor if match and factor else 0.0
        if not (number > 0 and math.isfinite(number)):
            self.fail(
                f"{value!r} is no energy: give a number above 0 with mJ, uJ, nJ or J, for example 2.9mJ", param, ctx
            )
        return number


def names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name for part in value.split(",") if (name := part.strip()))


class Weighed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``DIR`` or ``DIR=WEIGHT``."""

    name = "DIR[=WEIGHT]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, float | None]:
        """A folder and its weight, None where none is stated; a folder whose name has a sign of its own is itself."""
        if isinstance(value, tuple):
            return value
        place, sign, text = str(value).rpartition("=")
        if not sign or Path(value).exists():
            return Path(value), None
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not 0 < weight <= 1e6:
            self.fail(f"{value!r} states no weight: a number above 0 (at most 1e6) goes behind the sign", param, ctx)
        return Path(place), weight


class Located(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """``VIDEO`` or ``VIDEO:x,y,w,h``."""

    name = "VIDEO[:x,y,w,h]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Path, tuple[float, ...] | None]:
        """A place and the target's first box, None where none is said; a file whose name has a colon is itself."""
        if isinstance(value, tuple):
            return value
        place, sign, text = str(value).rpartition(":")
        if not sign or "," not in text or Path(value).exists():
            return Path(value), None
        return Path(place), Box().convert(text, param, ctx)


def _path() -> click.Path:
    # Existence is checked where the file is used, so that a bad file ends with exit code 3 and a sentence about it.
    return click.Path(path_type=Path)


def output(function: Function) -> Function:
    """``--json`` and ``--quiet``."""
    function = click.option("--quiet", is_flag=True, help="Print nothing but errors (and the object of --json).")(
        function
    )
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on stdout, everything else on stderr."
    )(function)


def frames(function: Function) -> Function:
    """What is tracked: ``--video`` or ``--frames``, ``--init``, ``--max-frames``."""
    for decorate in reversed(
        (
            click.option("--video", type=_path(), help="Video file. Default: the bundled clip."),
            click.option("--frames", type=_path(), help="Folder of images, in the order of their names."),
            click.option("--init", type=Box(), help="Box of the target in the first frame, in pixels."),
            click.option(
                "--max-frames", type=click.IntRange(min=2), help="Stop after so many frames, the first one included."
            ),
        )
    ):
        function = decorate(function)
    return function


def engine(
    default: str | None = "sim", who: str = "Who runs the program.", more: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """``--engine`` (one of :data:`ENGINES` and ``more``) and ``--threads``."""

    def decorate(function: Function) -> Function:
        threads = "Threads of the sim engine and of the float tracker; integers do not change."
        function = click.option("--threads", type=THREADS, help=threads)(function)
        choice = click.Choice((*ENGINES, *more))
        return click.option("--engine", type=choice, default=default, show_default=True, help=who)(function)

    return decorate


def device(function: Function) -> Function:
    """``--device`` of float trackers."""
    words = "Where a float tracker computes; auto: a GPU where there is one. Programs run on the processor."
    choice = click.Choice(["cpu", "cuda", "auto"])
    return click.option("--device", type=choice, default="cpu", show_default=True, help=words)(function)


def way(default: str) -> Callable[[Function], Function]:
    """``--first-layer`` and ``--streams``: how chips run a program (``mapping.ways``)."""

    def decorate(function: Function) -> Function:
        streams = (
            "Streams that several neurons or sums read: relayed by accumulators of their own; convolutions' outputs "
            "summed by every reader (fewer slots and levels, more synaptic operations); or merged with a neuron that "
            f"reads them, which then sends two messages (fewest slots and levels). Default: {default}."
        )
        choice = click.Choice(["relayed", "summed", "merged"])
        function = click.option("--streams", type=choice, help=streams)(function)
        first = (
            "Who runs the layer that reads the picture. The host sends its spikes, which are fewer than the pixels. "
            f"Default: {default}."
        )
        return click.option("--first-layer", type=click.Choice(["chip", "host"]), help=first)(function)

    return decorate


def granularity(function: Function) -> Function:
    """``--granularity`` of the Lava engine."""
    words = "Of --engine lava: a Process per block (default), or the Processes that Lava ships (docs/lava-dl.md)."
    return click.option("--granularity", type=click.Choice(GRANULARITIES), help=words)(function)


_WORDS = {
    "integrate": (("euler", "exp"), "Decay of a step: 1 - dt/tau, or e^(-dt/tau)."),
    "reset": (("value", "subtract"), "After a spike: to v_reset, or minus the threshold."),
    "compare": (("gt", "ge"), "Fires where v > threshold, or v >= threshold."),
    "initial": (("zero", "leak", "reset"), "v before the first step: 0, v_leak or v_reset."),
    "if_unit": (("dt", "one"), "What an IF adds a step: dt R x, or R x."),
    "gain": (("r", "one"), "What a leaky membrane adds for an input: (1 - decay) R x, or x as it is."),
    "synapse": (("w_in", "one", "decayed"), "What a current adds for an input: (1 - decay) w_in x, x, or decay x."),
    "late": (
        ("no", "reset", "spike"),
        "Subtract a spike's threshold in the next step, and send the spike then as well.",
    ),
}
NETWORK = (
    "dt", "convention", *_WORDS, "several", "input", "steps", "rate", "seed", "strict", "trace", "max_spike_error",
    "weight_bits", "input_bits",
)  # fmt: skip
"""Options of an export that concern a NIR network alone."""
CONVENTIONS = ("euler", "norse", "snntorch", "spikingjelly", "sinabs", "rockpool", "spyx", "lava-dl")


def network(function: Function) -> Function:
    """How a NIR network is read in steps, and what goes into it."""
    most = click.IntRange(1, 1_000_000)
    for decorate in reversed(
        (
            click.option("--dt", type=click.FloatRange(min=0, min_open=True), help="NIR: seconds a step."),
            click.option(
                "--convention", type=click.Choice(CONVENTIONS), help="NIR: whose reading (docs/nir.md); default euler."
            ),
            *(click.option(f"--{k.replace('_', '-')}", type=click.Choice(w), help=h) for k, (w, h) in _WORDS.items()),
            click.option(
                "--several-spikes/--single-spike", "several", default=None, help="As many spikes a step as fit, or one."
            ),
            click.option(
                "--input",
                type=_path(),
                help="NIR: .npz with an array per Input node, or a NIRData file; .net: .npz with one array.",
            ),
            click.option("--steps", type=most, help="NIR, .net: steps to run; default all of --input, or 100 (50)."),
            click.option(
                "--rate", type=click.FloatRange(0, 1), help="NIR, .net: drawn spikes per input and step; default 0.1."
            ),
            click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="NIR, .net: of the drawn input; default 0."),
            click.option("--strict", is_flag=True, help="NIR: every diagnostic is an error."),
            click.option(
                "--trace", callback=names, default="", help="NIR: nodes whose membranes to keep, with commas."
            ),
            click.option(
                "--max-spike-error",
                type=click.FloatRange(0, 1),
                help="NIR: end with 5 where a larger share of output spikes differs from float64.",
            ),
            click.option("--weight-bits", type=click.IntRange(2, 16), help="NIR: bits of a weight; default 8."),
            click.option("--input-bits", type=click.IntRange(2, 16), help="NIR: bits of a real input; default 16."),
        )
    ):
        function = decorate(function)
    return function


def destination(function: Function) -> Function:
    """``-o`` and ``--force``."""
    function = click.option("--force", is_flag=True, help="Replace an earlier result in the output folder.")(function)
    return click.option("-o", "--out", type=_path(), help="Folder to write. Default: a name under export/.")(function)


def refuse(given: Mapping[str, Any], why: str) -> None:
    """UsageError where one of these options was given."""
    said = [key for key, value in given.items() if value not in (None, False, ())]
    if said:
        name = {"several": "several-spikes/--single-spike"}.get(said[0], said[0]).replace("_", "-")
        raise click.UsageError(f"--{name}: {why}")


def entries(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE``, where VALUE is JSON or else text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise UsageError(f"--set takes NAME=VALUE, not {pair!r}")
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):
            values[name] = text
    return values
