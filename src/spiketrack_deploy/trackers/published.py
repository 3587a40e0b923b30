"""Published trackers as dense networks: what an energy comparison sets beside a program.

This module decides which trackers and how their multiply-accumulates are known. It must not know prices.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A published tracker: ``macs`` multiply-accumulates of a frame, and how that is known."""

    name: str
    macs: float
    source: str


def spmtrack_macs(width: int, blocks: int, gated: bool) -> int:
    """Multiply-accumulates of one SPMTrack frame (CVPR 2025, arXiv 2503.18338), by layer shapes.

    ``width`` D, ``blocks`` L; ``gated``: SwiGLU of 4096 in place of a 4D-wide MLP. Three references and a query are run
    with the search crop in every frame: 1 + 3 * 14**2 + 27**2 tokens; four routed experts of rank 64 on six layers.
    """
    search, reference, experts, rank, hidden = 27**2, 14**2, 4, 64, 4096
    tokens = 1 + 3 * reference + search
    inputs = 5 * width + (hidden if gated else 4 * width)
    outputs = 5 * width + (2 * hidden if gated else 4 * width)
    mlp = 3 * width * hidden if gated else 8 * width**2
    per_token = 4 * width**2 + mlp + experts * inputs + rank * inputs + experts * rank * outputs
    attention = 2 * tokens**2 * width
    patches = (tokens - 1) * 3 * 14**2 * width
    head = search * (4 * width**2 + 6 * width)
    return patches + blocks * (tokens * per_token + attention) + head


def published() -> tuple[Published, ...]:
    """Trackers that the field compares with."""
    spmtrack = "layer shapes of the published code, three references in every frame (arXiv 2503.18338)"
    return (
        Published("TransT-N4", 16.35e9, "75.2 mJ of arXiv 2602.23963 over 4.6 pJ"),
        Published("OSTrack-256", 34.5e9, "158.7 mJ of the same convention over 4.6 pJ"),
        Published("SPMTrack-B", spmtrack_macs(768, 12, False), spmtrack),
        Published("SPMTrack-L", spmtrack_macs(1024, 24, False), spmtrack),
        Published("SPMTrack-G", spmtrack_macs(1536, 40, True), spmtrack),
    )
