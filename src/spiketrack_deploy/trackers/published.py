"""What trackers published of their cost: dense networks that a comparison sets beside a program, and energies of the
SpikeTrack paper that an audit derives again.

This module decides which figures and how they are known. It must not know prices.
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


class PublishedEnergy(NamedTuple):
    """An energy of a paper's table: ``nanojoules`` a frame, the official ``layout`` that it may be of, and what the
    paper says."""

    layout: str
    nanojoules: float
    source: str


_PAPER = "arXiv 2602.23963"
SPIKETRACK = (
    PublishedEnergy("s256_t1", 2.9e6, f"{_PAPER}, abstract: 1/26 of TransT's 75.2 mJ; T is not said"),
    PublishedEnergy("s256_t3", 2.9e6, f"{_PAPER}, abstract: 1/26 of TransT's 75.2 mJ; T is not said"),
    PublishedEnergy("b256_t1", 8.7e6, f"{_PAPER}, baseline of the ablation; the variant is not named"),
    PublishedEnergy("b256_t3", 9.9e6, f"{_PAPER}: TransT over 7.6"),
    PublishedEnergy("b384_t1", 27.3e6, f"{_PAPER}, listed as B384; T is not said"),
    PublishedEnergy("b384_t3", 27.3e6, f"{_PAPER}, listed as B384; T is not said"),
)
"""Energies of the SpikeTrack paper, each for every layout that it can be of."""
