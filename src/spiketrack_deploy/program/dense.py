"""One layer of a network that stays in floating point: what it multiplies, moves and computes beside.

This module decides the kinds of such layers and their counts, and how they become the counts that energies are made
from. It must not know which network, prices or chips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spiketrack_deploy.program.counts import OpCounts

KINDS: dict[str, str] = {
    "linear": "product with stored weights",
    "live_product": "product of two operands that are both computed in the frame",
    "softmax": "exponentials and a division by their sum, over all tokens or experts",
    "layer_norm": "mean, variance and reciprocal root of every token",
    "activation": "GELU, SiLU or sigmoid of every value",
    "scaling": "product of two computed values, element by element",
}
"""Kind -> what it is."""


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """One operation in one frame. ``macs``: multiply-accumulates; ``weights``: stored values it reads (0: none);
    ``reads`` and ``writes``: computed values; ``elements``: values that ``softmax``, ``layer_norm``, ``activation`` or
    ``scaling`` make. ``part``: what it is called in a table of parts."""

    name: str
    kind: str
    block: str
    part: str
    macs: int
    weights: int
    reads: int
    writes: int
    elements: int

    def bytes_moved(self, width: int) -> int:
        """Every operand read once, every result written once, ``width`` bytes a value: no reuse beyond the layer."""
        return width * (self.weights + self.reads + self.writes)

    @property
    def counts(self) -> OpCounts:
        """As the layer of a program: true multiply-accumulates, and what no multiplier does."""
        return OpCounts(macs=self.macs, dense_macs=self.macs, host_ops=self.elements)

    def to_dict(self) -> dict[str, Any]:
        """JSON data."""
        return {**asdict(self), "bytes_float32": self.bytes_moved(4), "bytes_int8": self.bytes_moved(1)}


def total_macs(layers: Sequence[DenseLayer]) -> int:
    """Multiply-accumulates of a frame."""
    return sum(layer.macs for layer in layers)


def by_part(layers: Sequence[DenseLayer]) -> dict[str, int]:
    """Part -> multiply-accumulates, in execution order; parts without any are left out."""
    sums: dict[str, int] = {}
    for layer in layers:
        if layer.macs:
            sums[layer.part] = sums.get(layer.part, 0) + layer.macs
    return sums
