"""Drawn (never trained) weights from a counter-based generator, the same on every machine.

This module decides the value of every tensor but the batch-norm vectors, from the configuration's name and the key
alone. It must not know PyTorch. The law is the one of the golden sets.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError

Array = npt.NDArray[np.generic]

LOGIT_QUARTER = -1.0986122886681098
COUNTER = np.int64(1000)
_BIAS_CENTRES = (("conv5_ctr", -0.3), ("conv5_size", -1.1), ("conv5_offset", 0.5))
_GAINS = ((".gate.mlp.0.", 6.0), (".gate.mlp.2.", 4.0), ("conv5_ctr", 2.0), ("conv5_size", 0.5), ("conv5_offset", 0.5))


def uniform(label: str, count: int) -> npt.NDArray[np.float64]:
    """``count`` values in [-1, 1) from SplitMix64, seeded by the first 8 bytes of SHA-256 of ``label``."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


def law(key: str, shape: Sequence[int]) -> tuple[float, float]:
    """(centre, half width) of the uniform law of one tensor."""
    if key.endswith(".decay"):
        return LOGIT_QUARTER, 0.8
    if "pos_embed" in key:
        return 0.0, 0.3
    if key.endswith(".bias"):
        if ".gate.mlp." in key:
            return 0.0, 0.5
        return next((centre for part, centre in _BIAS_CENTRES if part in key), 0.0), 0.1
    gain = next((gain for part, gain in _GAINS if part in key), 1.0)
    return 0.0, gain * math.sqrt(3.0 / math.prod(shape[1:]))


def is_norm_vector(key: str, keys: Mapping[str, Sequence[int]]) -> bool:
    """Whether ``key`` is one of the four vectors of a batch norm."""
    stem, _, leaf = key.rpartition(".")
    return leaf in ("running_mean", "running_var") or (leaf in ("weight", "bias") and f"{stem}.running_mean" in keys)


def draw_state(
    name: str, keys: Mapping[str, Sequence[int]], norms: npt.NDArray[np.float32] | None = None
) -> dict[str, Array]:
    """The state dict of configuration ``name``: {key: float32 array}, counters int64, in the order of ``keys``.

    ``norms`` holds every batch-norm vector one after the other in key order; without it norms are the identity.
    """
    state: dict[str, Array] = {}
    at = 0
    for key, shape in keys.items():
        count = math.prod(shape)
        if key.endswith(".num_batches_tracked"):
            state[key] = np.array(COUNTER)
        elif is_norm_vector(key, keys):
            if norms is None:
                one = key.endswith((".weight", ".running_var"))
                state[key] = np.full(tuple(shape), float(one), dtype=np.float32)
                continue
            state[key] = norms[at : at + count].reshape(tuple(shape)).astype(np.float32)
            at += count
        else:
            centre, half = law(key, shape)
            values = centre + half * uniform(f"{name}|{key}", count)
            state[key] = values.astype(np.float32).reshape(tuple(shape))
    if norms is not None and at != norms.size:
        raise InputError(f"{norms.size} batch-norm values were given for configuration {name}, which has {at}")
    return state


def fingerprint(state: Mapping[str, Array]) -> str:
    """SHA-256 over all tensors in order: key, then raw little-endian bytes."""
    digest = hashlib.sha256()
    for key, value in state.items():
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
