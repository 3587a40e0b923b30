"""Which network a file's tensors belong to, by their names alone.

This module decides it for every tracker's room, so that a file given as another one's is told so. It must not read
values.
"""

from __future__ import annotations

from collections.abc import Collection

from spiketrack_deploy.errors import InputError

SPIKETRACK, SPMTRACK, DINOV2, UNKNOWN = "spiketrack", "spmtrack", "dinov2", "unknown"


def kind_of(keys: Collection[str], file: str) -> str:
    """The network that has tensors of these names; InputError for those of two trackers in one file."""
    spikes = any(key.startswith(("encoder.", "decoder.")) for key in keys)
    dense = "track_query" in keys or any(".tmoe." in key for key in keys)
    if spikes and dense:
        raise InputError(f"checkpoint {file} mixes tensors of a SpikeTrack and of an SPMTrack; give the file of one")
    if spikes or dense:
        return SPIKETRACK if spikes else SPMTRACK
    backbone = "pos_embed" in keys and "blocks.0.attn.qkv.weight" in keys
    return DINOV2 if backbone else UNKNOWN
