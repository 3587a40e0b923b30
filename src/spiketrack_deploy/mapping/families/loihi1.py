"""Loihi 1: binary spikes, weights of up to 9 bits, a fixed neuron model (Davies 2018, 10.1109/MM.2018.112130359).

This module decides memory and verdicts of the family. It must not know any network.

Memory and axons by the rules of the Nengo-Loihi code (docs/loihi.md): one input channel's synapses go into blocks of at
most 64 weights of ``ceil((n (b_w + b_idx) + 4 + 6) / 64)`` words, the index ``b_idx`` addressing the core's
compartments; a source position takes one axon slot up to 32 channels, else two for every 512.
"""

from __future__ import annotations

from spiketrack_deploy.mapping.families.family import (
    DELAY_STEPS,
    GATE,
    WIRING,
    Family,
    after_spikes,
    always,
    delays,
    integrator,
    joins,
    key_value,
    query,
    spikes,
    weighed,
)

HEADER_BITS = 10
WORD_BITS = 64
BLOCK_WEIGHTS = 64
INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)
ATOMS_ONE_SLOT, ATOMS_TWO_SLOTS = 32, 512

_CONV = always("native", "convolution of binary spikes; a spike of value n is n events in 4 sub-steps")
_STREAM = always("host", "a stream is a graded value of up to 24 bits and this chip's messages are binary")


def row_words(outputs: int, taps: int, bits: int, neurons: int) -> int:
    """See :class:`Family`."""
    index = next((b for b in INDEX_BITS if 2**b >= neurons), INDEX_BITS[-1])
    full, rest = divmod(outputs * taps, BLOCK_WEIGHTS)
    word = -(-(BLOCK_WEIGHTS * (bits + index) + HEADER_BITS) // WORD_BITS)
    last = -(-(rest * (bits + index) + HEADER_BITS) // WORD_BITS) if rest else 0
    return full * word + last


def axon_slots(atoms: int) -> int:
    """See :class:`Family`."""
    return 1 if atoms <= ATOMS_ONE_SLOT else 2 * -(-atoms // ATOMS_TWO_SLOTS)


LOIHI1 = Family(
    row_words=row_words,
    axon_slots=axon_slots,
    verdicts={
        "image_conv": always("host", "pixels are graded and this chip's spikes are binary"),
        "conv": _CONV,
        "head_out": _CONV,
        "ni_lif": always(
            "microcode",
            "integer spikes as up to 4 binary ones: soft reset over 4 sub-steps, not checked bit for bit",
        ),
        "add": joins(_STREAM),
        "avg_pool": _STREAM,
        "upsample": _STREAM,
        "requantise": _STREAM,
        "key_value": key_value("host"),
        "query": query("host"),
        "gate_transpose": WIRING,
        "gate": GATE,
        "integrate": integrator("membranes do not leave the core", readout="host"),
        "fire": spikes("several spikes a step as so many steps", several="microcode"),
        "reset": after_spikes(),
        "change": always("host", "graded messages, and this chip's spikes are binary"),
        "told": WIRING,
        "remember": WIRING,
        "delayed": delays(DELAY_STEPS),
        "graded_conv": always("host", "graded messages, and this chip's spikes are binary"),
        "rescale": weighed(always("host", "graded messages, and this chip's spikes are binary")),
        "reshape": WIRING,
    },
    split="contiguous",
    assumptions=(
        "Synaptic memory and axons follow the rules of the Nengo-Loihi code: blocks of at most 64 indexed weights, one "
        "axon slot for up to 32 channels of a position, else two for every 512.",
    ),
    programmable=False,
)
