"""Loihi 2: graded spikes, 8-bit weights, programmable neurons (Intel Loihi 2 technology brief 2021).

This module decides memory and verdicts of the family. It must not know any network.

A core stores the kernel of its output channels once, however many positions it holds::

    words = kh kw C_in ceil((C_out_core b + h) / 64)        b = nominal bits + 1, h = 10

That is a fit of 16 rows that public logs of the vendor's compiler printed (docs/loihi.md, "A core's memory"), with one
bit more than the weight's own, to be careful.
Grouped and depthwise convolutions, one-to-one, pooling and interpolating synapses follow the same rule group by group
(an extrapolation: no published row has groups). An interpolation has kernels of its
own at every border of its source; a core is taken to hold all of them.

An input axon is one source position: its channels arrive as atoms of a population message. That one axon is enough
whatever the channels is an assumption; without it the published YOLO-KP mapping (196 positions of 256 channels into one
core) would exceed 16,000 axons threefold.
"""

from __future__ import annotations

from spiketrack_deploy.mapping.families.family import (
    DELAY_STEPS,
    GATE,
    WIRING,
    Answer,
    Family,
    after_spikes,
    always,
    delays,
    integrator,
    joins,
    key_value,
    query,
    spikes,
)
from spiketrack_deploy.program.types import Op, Phase

HEADER_BITS = 10
WORD_BITS = 64
EXTRA_BITS = 1


def row_words(outputs: int, taps: int, bits: int, neurons: int) -> int:
    """See :class:`Family`."""
    return taps * -(-(outputs * (bits + EXTRA_BITS) + HEADER_BITS) // WORD_BITS)


def _conv(op: Op, phase: Phase, bits: int) -> Answer:
    return "native", (
        f"graded spikes through shared {min(bits, 8)}-bit weights; the shift per output channel belongs to the "
        "target's neuron"
    )


LOIHI2 = Family(
    row_words=row_words,
    axon_slots=lambda atoms: 1,
    verdicts={
        "image_conv": always("native", "8-bit pixels as graded messages from the host through 8-bit weights"),
        "conv": _conv,
        "head_out": _conv,
        "ni_lif": always(
            "microcode", "four thresholds and a graded spike 0..4: a programmable neuron, no library neuron"
        ),
        "add": joins(
            always("microcode", "accumulator neurons that pass a signed value of up to 24 bits on as a graded message")
        ),
        "avg_pool": always(
            "microcode", "unit weights as synapses; the accumulator passes its sum on as a graded message"
        ),
        "upsample": always(
            "microcode", "bilinear weights as synapses; the accumulator passes its value on as a graded message"
        ),
        "requantise": always("microcode", "rounding shift inside the accumulator's neuron program"),
        "key_value": key_value("microcode"),
        "query": query("microcode"),
        "gate_transpose": WIRING,
        "gate": GATE,
        "integrate": integrator("a graded membrane leaves as a message of a programmable neuron"),
        "fire": spikes("graded spikes of a programmable neuron"),
        "reset": after_spikes(),
        "change": always("native", "a sigma-delta neuron, as the vendor's library has it; graded messages"),
        "told": WIRING,
        "remember": WIRING,
        "delayed": delays(DELAY_STEPS),
        "graded_conv": always("native", "signed graded messages through shared weights"),
        "rescale": always("native", "one weight a neuron; its rounding shift belongs to the target's neuron"),
        "reshape": WIRING,
    },
    split="contiguous",
    assumptions=(
        "Convolution memory follows a fit of 16 rows of public compiler logs with one bit more than the weight's own "
        "(conservative); grouped, one-to-one and interpolating synapses follow the same rule by extrapolation.",
        "One input axon per source position with its channels as atoms.",
    ),
    programmable=True,
)
