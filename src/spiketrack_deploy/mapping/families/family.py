"""What every family of chips says of itself.

This module decides the questions. It must not know any chip. Verdicts are keyed by the kind of an operation and there
is no default: an operation that a family does not list is refused by name.

``native``: standard synapses and accumulation. ``microcode``: a programmable neuron or an embedded processor must be
programmed for it; no such program was run on a chip here. ``host``: leaves the chip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spiketrack_deploy.program.types import Op, Phase

Answer = tuple[str, str]
"""Verdict and reason."""
Rule = Callable[[Op, Phase, int], Answer]
"""Operation, its phase, widest native weight in bits -> verdict and reason."""


@dataclass(frozen=True, slots=True)
class Family:
    """``row_words(outputs, taps, bits, neurons)``: 64-bit words of one input channel's synapses onto ``outputs``
    channels of a core of ``neurons`` neurons, all ``taps`` of the kernel, weights of ``bits`` bits.
    ``axon_slots(atoms)``: input axons of one source position with so many channels. ``verdicts``: by kind of
    operation. ``split``: the rule by which layers are split where none is asked for. ``assumptions``: sentences that
    every mapping prints.
    """

    row_words: Callable[[int, int, int, int], int]
    axon_slots: Callable[[int], int]
    verdicts: Mapping[str, Rule]
    split: str
    assumptions: tuple[str, ...]


def always(verdict: str, reason: str) -> Rule:
    """The same answer whatever the operation's neighbours are."""
    return lambda op, phase, bits: (verdict, reason)


def leaves(op: Op, phase: Phase) -> bool:
    """Whether the phase hands the operation's value on, to a state or to the host."""
    return op.name in phase.outputs.values()


def enters(name: str, phase: Phase) -> bool:
    """Whether a value comes from outside the phase."""
    return name in phase.inputs


def live_product(op: Op, phase: Phase) -> str:
    """What a product of two activations of the same run would need."""
    spec = phase.spec(op.name if op.kind == "key_value" else op.inputs[1])
    other = phase.spec(op.inputs[0])
    tokens = other.shape[2] * other.shape[3]
    return (
        f"self-attention multiplies two live activations, which no synapse does: it needs {spec.size} matrix entries "
        f"as neuron state or weights rewritten every run, and {tokens} tokens one after the other"
    )


def key_value(live: str) -> Rule:
    """A matrix that leaves the phase is written from outside its synapses; within it, both factors are live."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        if leaves(op, phase):
            return "microcode", "outer product of spikes, token by token; the matrix then has to be written as synapses"
        return live, live_product(op, phase)

    return rule


def query(live: str) -> Rule:
    """A matrix that enters the phase stays while it runs; one of the same run is a live product."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        if not enters(op.inputs[1], phase):
            return live, live_product(op, phase)
        return "microcode", (
            "a stored matrix as synapses: native while it stays, but an embedded processor has to rewrite it whenever "
            "it changes (energy and time of that are not published)"
        )

    return rule


WIRING = always("native", "wiring only")
GATE = always("host", "exponentials and a product of two live activations (softmax over time steps)")
