"""What the documentation says about NIR, printed from the tables that the code runs on.

Decides the words and the order of docs/nir.md's tables and of the conformance suite's page. Must not compute.

    python -m spiketrack_deploy.frontends.nir.tables      prints them
"""

from __future__ import annotations

from dataclasses import fields

from spiketrack_deploy.frontends.nir.conventions import CHOICES, PRESETS, Convention
from spiketrack_deploy.frontends.nir.diagnose import CODES
from spiketrack_deploy.nir_graph.tree import PRIMITIVES

EXACT, ROUNDED = "exact", "approximate"
STANDING: dict[str, tuple[str, str]] = {
    "Input": (EXACT, "spikes and counts up to 255 as they are; real values as 16-bit integers of a stated scale"),
    "Output": (EXACT, "the sum of what feeds it"),
    "Affine": (ROUNDED, "weights to `--weight-bits` per output, bias to the neuron's unit; sums are exact"),
    "Linear": (ROUNDED, "as Affine"),
    "Scale": (ROUNDED, "as a weight of each element"),
    "Conv1d": (ROUNDED, "as Affine, per output channel; groups, strides, dilation, 'same' and 'valid'"),
    "Conv2d": (ROUNDED, "as Conv1d; kernels of any shape"),
    "SumPool2d": (EXACT, "a sum"),
    "AvgPool2d": (EXACT, "a sum; the division goes into the unit behind it"),
    "Flatten": (EXACT, "nothing moves"),
    "Delay": (EXACT, "whole steps; a remainder is rounded and said (`delay-rounded`)"),
    "Threshold": (EXACT, "the threshold in the unit of what feeds it"),
    "I": (ROUNDED, "no decay; saturates at the accumulator's width, and says so"),
    "IF": (ROUNDED, "as I; threshold and reset value in the membrane's unit"),
    "LI": (ROUNDED, "decay in 4096ths, rounded toward zero in every step"),
    "LIF": (ROUNDED, "as LI; threshold and reset value in the membrane's unit"),
    "CubaLI": (ROUNDED, "as LI, a decay each for current and membrane"),
    "CubaLIF": (ROUNDED, "as LIF, a decay each for current and membrane"),
}
"""Primitive -> how its integers stand to its real values, and what is rounded."""


def primitives_table() -> str:
    """Every primitive of NIR 1.0.8."""
    head = ["| primitive | fields | meaning | in integers | what is rounded |", "| --- | --- | --- | --- | --- |"]
    rows = [
        f"| {name} | {', '.join(f'`{field.name}`' for field in kind.fields)} | {kind.equation.replace('|', '/')} | "
        f"{STANDING[name][0]} | {STANDING[name][1]} |"
        for name, kind in PRIMITIVES.items()
    ]
    nested = "| NIRGraph | `nodes`, `edges` | a nested graph | exact | inlined as `graph.node` |"
    return "\n".join([*head, *rows, nested])


def presets_table() -> str:
    """Every convention in words."""
    names = [field.name for field in fields(Convention)]
    head = f"| convention | {' | '.join(name.replace('_', '-') for name in names)} |"
    rows = [
        f"| {preset} | {' | '.join(_word(getattr(convention, name)) for name in names)} |"
        for preset, convention in PRESETS.items()
    ]
    return "\n".join([head, "| --- " * (len(names) + 1) + "|", *rows])


def _word(value: object) -> str:
    return {True: "several", False: "single"}.get(value, f"{value}") if isinstance(value, bool) else f"{value}"


def codes_table() -> str:
    """Every diagnostic."""
    return "\n".join(
        ["| diagnostic | means |", "| --- | --- |", *(f"| `{code}` | {text} |" for code, text in CODES.items())]
    )


def convention_page() -> str:
    """What a convention decides, as a section of its own."""
    return f"## Conventions\n\n{convention_text()}"


def convention_text() -> str:
    """What a convention decides: the equations of a step, the words, the presets."""
    words = "; ".join(f"`{name.replace('_', '-')}`: {', '.join(values)}" for name, values in CHOICES.items())
    return "\n".join(
        [
            "One step of a neuron with summed input x, arrays element by element:",
            "",
            "```",
            "I <- a I + g x      a = 1 - dt/tau_syn (euler) or e^(-dt/tau_syn) (exp)",
            "                    g = (1 - a) w_in (synapse w_in), 1 (one), a (decayed); without a synapse I = x",
            "v <- b v + h I + c  b = 1 - dt/tau (euler) or e^(-dt/tau) (exp); 1 for I and IF",
            "                    h = (1 - b) r, c = (1 - b) v_leak (gain r), or h = 1, c = v_leak (gain one)",
            "                    I, IF: h = dt r (if-unit dt) or r (one), c = 0",
            "n = [v > theta] (gt) or [v >= theta] (ge); several: how often theta fits into v",
            "v <- v_reset where n > 0 (value), or v - n theta (subtract)",
            "late reset: n theta is subtracted in the next step, behind its decay; late spike: n leaves then as well",
            "```",
            "",
            "The value of I, LI and CubaLI is v. v begins as `initial` says, I at 0. A Threshold is strict under every "
            "convention. Within a step every node reads what its sources send in this step; an edge that closes a "
            "cycle (which one: `spiketrack inspect`) reads what its source sent in the step before, at step 0 what it "
            "sends while everything is silent. A Delay holds its values for whole steps; a back edge out of it is one.",
            "",
            f"Words: {words}.",
            "",
            presets_table(),
        ]
    )


if __name__ == "__main__":
    print("\n\n".join([primitives_table(), convention_page(), codes_table()]))  # noqa: T201
