"""When a chip's own leaky integrate-and-fire neuron gives the integers of a neuron of several levels.

This module decides exactness by the fixed-point rule of lava-nc 0.10.0 (docs/loihi.md, "Fixed point"). It must not know
who asks: Lava Processes and the price of the form stand on the same answer.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.program.bounds import RangeEntry
from spiketrack_deploy.program.types import Arrays, Op, Phase

INPUT_LIMIT = 2**17
"""Of an input: shifted by six bits it must stay within 24."""
BIAS_LIMIT = 2**15
"""Of a bias: 16 bits, signed."""


def levels_defect(op: Op, arrays: Arrays, phase: Phase, entry: RangeEntry | None) -> str | None:
    """Why ``op`` (``ni_lif``) is not one LIF without memory for each of its levels, whose spikes add up; ``None``
    where it is. ``arrays``: of the operation; ``entry``: range of its input, ``None`` where there is no bound."""
    if phase.values[op.name].shape[0] != 1:
        return "a membrane that keeps what is above its threshold over unrolled steps"
    room = int(np.abs(arrays["offset"][0].astype(np.int64)).max()) if "offset" in arrays else 0
    if room >= BIAS_LIMIT:
        return f"an embedding of {room}, more than a bias of 16 bits"
    if entry is None:
        return f"an input without bound; a LIF is exact below {INPUT_LIMIT}"
    if max(-entry.low, entry.high) + room >= INPUT_LIMIT:
        return f"a stream up to {max(-entry.low, entry.high)}; a LIF is exact below {INPUT_LIMIT}"
    return None
