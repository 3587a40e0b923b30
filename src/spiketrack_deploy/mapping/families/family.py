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
    every mapping prints. ``programmable``: whether a neuron can sum a stream, fire, and send both.
    """

    row_words: Callable[[int, int, int, int], int]
    axon_slots: Callable[[int], int]
    verdicts: Mapping[str, Rule]
    split: str
    assumptions: tuple[str, ...]
    programmable: bool


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


DELAY_STEPS = 62
"""Steps that a synapse can hold a message, as lava-dl 0.6.0 takes it for both generations (``netx``: delays are clamped
to 62)."""
LEAK_SHIFT = 6
"""Fraction bits of a membrane below its input in the fixed-point LIF of both generations (lava-nc 0.10.0)."""


def integrator(graded: str, readout: str = "microcode") -> Rule:
    """Two decays of 12 bits are the chips' own neuron; a membrane that is read out is not a spike (``graded``)."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        if op.attrs["readout"]:
            return readout, graded
        if 0 < op.attrs["shift"] < LEAK_SHIFT:
            return (
                "microcode",
                f"a membrane of {op.attrs['shift']} fraction bits; the chip's own neuron has {LEAK_SHIFT}",
            )
        more = op.attrs["shift"] - LEAK_SHIFT
        weight = f", behind one-to-one synapses of weight {2**more}" if more > 0 else ""
        return "native", f"current or voltage of a leaky neuron with 12-bit decays{weight}"

    return rule


def joins(otherwise: Rule) -> Rule:
    """A sum that one neuron with a membrane reads is that neuron's own: its synapses add up."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        readers = [o for o in phase.ops if op.name in o.inputs]
        if len(readers) == 1 and readers[0].kind in ("integrate", "fire") and readers[0].block == op.block:
            return "native", "inputs of one neuron add up"
        return otherwise(op, phase, bits)

    return rule


def weighed(otherwise: Rule) -> Rule:
    """One weight a neuron: synapses where binary spikes arrive."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        source = phase.spec(op.inputs[0])
        if source.kind == "spikes" and source.top == 1:
            return "native", "one synapse a neuron"
        return otherwise(op, phase, bits)

    return rule


def spikes(graded: str, several: str = "microcode") -> Rule:
    """One spike a step is the chips' own; more are not."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        if op.attrs["most"] > 1:
            return several, graded
        return "native", "one threshold a neuron, a binary spike"

    return rule


def after_spikes() -> Rule:
    """The chips' own neuron goes to 0 when it fires; a membrane that keeps what is above its threshold does not."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        if op.attrs["subtract"]:
            return "microcode", "a reset by subtraction; the chip's own neuron goes to 0"
        return "native", "reset to a level: 0 is the chip's own, another level takes a programmable neuron or a bias"

    return rule


def delays(most: int) -> Rule:
    """Delays of synapses up to what the chip holds; longer ones take relay neurons, ``most`` steps each."""

    def rule(op: Op, phase: Phase, bits: int) -> Answer:
        length = phase.spec(op.inputs[0]).shape[0] - 1
        if length <= most:
            return "native", f"up to {length} steps of delay on the synapses"
        return "microcode", f"up to {length} steps of delay; a synapse holds {most}, the rest takes relay neurons"

    return rule


WIRING = always("native", "wiring only")
GATE = always("host", "exponentials and a product of two live activations (softmax over time steps)")
