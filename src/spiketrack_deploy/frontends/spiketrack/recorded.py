"""Spikes that a float tracker recorded, in the program's order of axes.

This module decides how a recorded tensor is laid over a program value. It must not know the tracker.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.types import AnyArray


def as_value(name: str, recorded: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """A recorded spike tensor in the program's ``[T,C,H,W]`` order; InputError where the sizes differ.

    The tracker records ``[T,1,C,H,W]``, ``[T,1,C,N]`` or, in the gate, ``[C,N/2,T]`` (docs/spiketrack.md, "Neuron").
    """
    if recorded.size != int(np.prod(shape)):
        raise InputError(
            f"recorded spikes of {name} have shape {tuple(recorded.shape)}, the network's are {tuple(shape)}; "
            "record them with the same model"
        )
    if name.endswith(".gate.mlp.1"):
        return np.ascontiguousarray(recorded.transpose(2, 1, 0)).reshape(shape)
    return recorded.reshape(shape)
