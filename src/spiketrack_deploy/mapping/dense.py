"""What of a dense network a spiking chip could hold: layer by layer, and what the rest would take.

This module decides the verdict on each kind of dense layer (``program/dense.py``) from what a family of chips does: it
multiplies messages with stored integer weights and updates neurons. Nothing is placed, because the network as a whole
does not run there. It must not know which network it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spiketrack_deploy.hardware.targets import Target
from spiketrack_deploy.mapping.limits import WORD_BYTES, core_limits
from spiketrack_deploy.program.dense import DenseLayer, total_macs

NATIVE, MICROCODE, HOST = "native", "microcode", "host"
VERDICTS: dict[str, tuple[str, str, str]] = {
    "linear": (
        NATIVE,
        "stored weights, activations as graded messages",
        "int8 weights; without ReLU or spikes no message is zero, so every synapse works in every frame",
    ),
    "live_product": (
        HOST,
        "both operands change in every frame, a synapse's weight does not",
        "rewrite one operand as weights in every frame, or replace softmax attention by a linear or spiking one",
    ),
    "softmax": (
        HOST,
        "exponentials and a sum over all tokens",
        "leave it to the host, or train with another normalisation (a frozen mean router needs none)",
    ),
    "layer_norm": (
        HOST,
        "mean, variance and 1/sqrt of the running input; a batch norm would fold, this does not",
        "leave it to the host, or train with batch norm",
    ),
    "activation": (
        MICROCODE,
        "a table or polynomial in every neuron, where neurons are programmable",
        "train with ReLU, which also brings zeros",
    ),
    "scaling": (
        MICROCODE,
        "product of two messages in a neuron program",
        "freeze the factor: its calibrated mean merges into the weights",
    ),
}
"""Kind -> verdict, why, what it would take."""


def dense_verdict(layers: Sequence[DenseLayer], target: Target) -> dict[str, Any]:
    """One row a layer and one a kind; ``fits`` is never true while something is left to the host.

    ``chips_for_weights``: chips that the 8-bit weights alone would fill, one copy of each and no index; ``None`` where
    the synaptic memory is unknown. A chip of spikes of one bit cannot take activations as messages, and says so."""
    limits = core_limits(target.profile)
    graded = limits.payload_bits is None or limits.payload_bits > 0
    rows = [_row(layer, graded) for layer in layers]
    stored: dict[str, int] = {}
    for layer in layers:
        if layer.weights:
            stored[layer.name] = max(stored.get(layer.name, 0), layer.weights)
    per_chip = None if limits.words is None else limits.words * WORD_BYTES * limits.cores_per_chip
    weights = sum(stored.values())
    rewritten = sum(layer.reads for layer in layers if layer.kind == "live_product")
    kinds = []
    for kind in dict.fromkeys(layer.kind for layer in layers):
        mine = [(layer, row) for layer, row in zip(layers, rows) if layer.kind == kind]
        _, why, remedy = VERDICTS[kind]
        kinds.append(
            {
                "kind": kind,
                "layers": len(mine),
                "macs": sum(layer.macs for layer, _ in mine),
                "elements": sum(layer.elements for layer, _ in mine),
                "verdict": mine[0][1]["verdict"],
                "why": why if mine[0][1]["verdict"] != HOST or VERDICTS[kind][0] == HOST else mine[0][1]["why"],
                "remedy": remedy,
            }
        )
    return {
        "target": target.name,
        "fits": False,
        "macs": total_macs(layers),
        "macs_on_chip": sum(layer.macs for layer, row in zip(layers, rows) if row["verdict"] == NATIVE),
        "weights": weights,
        "chips_for_weights": None if per_chip is None else -(-weights // per_chip),
        "bytes_rewritten_per_frame": rewritten,
        "kinds": kinds,
        "layers": rows,
    }


def _row(layer: DenseLayer, graded: bool) -> dict[str, Any]:
    verdict, why, _ = VERDICTS[layer.kind]
    if not graded and verdict != HOST:
        verdict, why = HOST, "messages of this chip are one bit: an activation would be a train of spikes"
    return {
        "name": layer.name,
        "kind": layer.kind,
        "block": layer.block,
        "macs": layer.macs,
        "elements": layer.elements,
        "weights": layer.weights,
        "verdict": verdict,
        "why": why,
    }
