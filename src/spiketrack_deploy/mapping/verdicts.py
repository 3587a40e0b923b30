"""What a chip can do of each operation: natively, with a neuron program of its own, or only on the host.

This module decides the verdict and its reason. It must not know how much of anything there is.

``native``: standard synapses and accumulation. ``microcode``: a programmable neuron (Loihi 2) must be written for it;
no such program was run on a chip here. ``host``: leaves the chip. Sources: Intel Loihi 2 technology brief 2021 (graded
payload, 8-bit weights, programmable neurons); Davies 2018, 10.1109/MM.2018.112130359 (Loihi 1: binary spikes, fixed
neuron model).
"""

from __future__ import annotations

from spiketrack_deploy.mapping.types import CoreLimits, Verdict
from spiketrack_deploy.program.types import Op, Phase

_CONV = "graded spikes through shared {bits}-bit weights; the shift per output channel belongs to the target's neuron"


def verdicts(phase: Phase, limits: CoreLimits) -> tuple[Verdict, ...]:
    """One verdict per operation of the phase, in execution order."""
    graded = limits.payload_bits != 0
    return tuple(Verdict(op.name, op.kind, *_verdict(op, phase, limits, graded)) for op in phase.ops)


def _verdict(op: Op, phase: Phase, limits: CoreLimits, graded: bool) -> tuple[str, str]:
    bits = limits.weight_bits or 8
    if op.kind in ("conv", "head_out"):
        if not graded:
            return "native", "convolution of binary spikes; a spike of value n is n events in 4 sub-steps"
        return "native", _CONV.format(bits=min(bits, 8))
    if op.kind == "gate_transpose":
        return "native", "wiring only"
    if op.kind == "gate":
        return "host", "exponentials and a product of two live activations (softmax over templates)"
    if op.kind == "key_value":
        if phase.name == "template":
            return "microcode", "outer product of spikes, token by token; the matrix then has to be written as synapses"
        return "microcode" if graded else "host", _attention(op, phase)
    if op.kind == "query" and op.inputs[1] not in phase.inputs:
        return "microcode" if graded else "host", _attention(op, phase)
    if op.kind == "query":
        return "microcode", (
            "the template's matrix as synapses: native while it stays, but an embedded processor has to rewrite it at "
            "every template update (energy and time of that are not published)"
        )
    return _accumulator(op, graded)


def _accumulator(op: Op, graded: bool) -> tuple[str, str]:
    if op.kind == "ni_lif":
        if graded:
            return "microcode", "four thresholds and a graded spike 0..4: a programmable neuron, no library neuron"
        return (
            "microcode",
            "integer spikes as up to 4 binary ones: soft reset over 4 sub-steps, not checked bit for bit",
        )
    if op.kind == "image_conv":
        if graded:
            return "native", "8-bit pixels as graded messages from the host through 8-bit weights"
        return "host", "pixels are graded and this chip's spikes are binary"
    if not graded:
        return "host", "a stream is a graded value of up to 24 bits and this chip's messages are binary"
    if op.kind == "requantise":
        return "microcode", "rounding shift inside the accumulator's neuron program"
    if op.kind == "upsample":
        return "microcode", "bilinear weights as synapses; the accumulator passes its value on as a graded message"
    if op.kind == "avg_pool":
        return "microcode", "unit weights as synapses; the accumulator passes its sum on as a graded message"
    return "microcode", "accumulator neurons that pass a signed value of up to 24 bits on as a graded message"


def _attention(op: Op, phase: Phase) -> str:
    spec = phase.spec(op.name if op.kind == "key_value" else op.inputs[1])
    other = phase.spec(op.inputs[0])
    tokens = other.shape[2] * other.shape[3]
    return (
        f"self-attention multiplies two live activations, which no synapse does: it needs {spec.size} matrix entries "
        f"as neuron state or weights rewritten every frame, and {tokens} tokens one after the other"
    )
