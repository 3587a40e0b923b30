"""What goes into a NIR network: arrays of an .npz file, recordings of a NIRData file, or drawn spikes of a stated rate.

Decides how a file's arrays become one float64 array ``[steps, *shape]`` per Input node, and whether these are
spikes or real values. Must not know conventions of time beyond dt, or integers of a program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.network import FloatArray, Network, Shape
from spiketrack_deploy.inputs.untrusted import Arrays, shown

MOST_SPIKES = 255
"""Largest count of spikes a step that enters as it is; larger integers are real values."""
MAX_VALUES = 1 << 27
DEFAULT_STEPS, DEFAULT_RATE, DEFAULT_SEED = 100, 0.1, 0
REMEDY = "give one array per Input node under its name, the step as its first axis"


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """``values``: Input node -> [steps, *shape]. ``source``: what they are, in words. ``drawn``: nobody gave them."""

    values: Mapping[str, FloatArray]
    source: str
    drawn: bool = False

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(next(iter(self.values.values())))

    def is_spikes(self, name: str) -> bool:
        """Whether an input's values are counts of spikes, which enter as they are."""
        values = self.values[name]
        return bool((values >= 0).all() and (values <= MOST_SPIKES).all() and (values == np.floor(values)).all())


def drawn(network: Network, steps: int, rate: float, seed: int) -> Given:
    """Independent spikes: every element of every Input node is 1 with probability ``rate`` in every step."""
    rng = np.random.default_rng(seed)
    _affordable(network, steps)
    values = {
        name: (rng.random((steps, *network.nodes[name].shape)) < rate).astype(np.float64) for name in network.inputs
    }
    return Given(values, f"drawn spikes: {rate:g} per element and step, seed {seed}", True)


def _affordable(network: Network, steps: int) -> None:
    size = max(math.prod(network.nodes[name].shape) for name in network.inputs)
    if steps * size > MAX_VALUES:
        raise InputError(f"{steps} steps of {size} input values are more than {MAX_VALUES}; run fewer steps")


def read_inputs(path: Path, network: Network, steps: int | None, dt: float) -> Given:
    """Arrays of a file for every Input node; the first ``steps`` of them where that is given."""
    if path.suffix == ".npz":
        values = _npz(path, network)
    else:
        values = _recorded(path, network, dt)
    lengths = {name: len(array) for name, array in values.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"{path}: its arrays have different numbers of steps: {lengths}")
    length = next(iter(lengths.values()))
    if length == 0:
        raise InputError(f"{path}: holds no step; {REMEDY}")
    if steps is not None and steps > length:
        raise InputError(f"{path}: holds {length} steps, but {steps} are asked for (--steps)")
    values = {name: array[:steps] for name, array in values.items()}
    _affordable(network, len(next(iter(values.values()))))
    return Given(values, f"{path.name}, {steps or length} steps")


def _npz(path: Path, network: Network) -> dict[str, FloatArray]:
    values = {}
    with Arrays(path, packed=True, remedy=REMEDY) as archive:
        if sorted(archive.names) != sorted(network.inputs):
            found, wanted = (", ".join(map(shown, sorted(names))) for names in (archive.names, network.inputs))
            raise InputError(f"{path}: holds the arrays {found or 'none'}; {REMEDY}: {wanted}")
        for name in network.inputs:
            values[name] = _shaped(path, name, archive.read(name), network.nodes[name].shape)
    return values


def _shaped(path: Path, name: str, array: npt.NDArray[Any], shape: Shape) -> FloatArray:
    if array.ndim == 0 or (array.shape[1:] != shape and array.shape[1:] != (math.prod(shape),)):
        raise InputError(f"{path}: array '{name}' has shape {array.shape}; Input '{name}' needs (steps, {shape})")
    values = array.reshape(len(array), *shape).astype(np.float64)
    if not np.isfinite(values).all():
        step = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
        raise InputError(
            f"{path}: array '{name}' holds values that are not finite (NaN or infinity), first in step {step}"
        )
    return values


def _recorded(path: Path, network: Network, dt: float) -> dict[str, FloatArray]:
    from spiketrack_deploy.nir_graph.data import read_data

    values, found = {}, read_data(path)
    for name in network.inputs:
        if name not in found:
            raise InputError(
                f"{path}: holds no recording of Input '{name}'; it has {', '.join(sorted(found)) or 'none'}"
            )
        if len(found[name]) != 1:
            raise InputError(f"{path}: Input '{name}' has {len(found[name])} recordings {sorted(found[name])}, not one")
        recording = next(iter(found[name].values()))
        if recording.dt is not None and not math.isclose(recording.dt, dt, rel_tol=1e-6):
            raise InputError(
                f"{path}: Input '{name}' was recorded in steps of {recording.dt:g} s, the network runs in steps of "
                f"{dt:g} s; give --dt {recording.dt:g} or another recording"
            )
        if recording.dt is None and recording.seconds / dt > MAX_VALUES / max(recording.neurons, 1):
            raise InputError(
                f"{path}: Input '{name}': {recording.seconds:g} s in steps of {dt:g} s are too many values"
            )
        grid = recording.gridded(dt)
        if len(grid) != 1:
            raise InputError(f"{path}: Input '{name}' has {len(grid)} samples; a run needs one, cut the file to it")
        values[name] = _shaped(path, name, grid[0], network.nodes[name].shape)
    return values
