"""Writes ``.net`` files that ``lava.lib.dl.netx.hdf5.Network`` loads, whole or not at all.

Decides fields and their types, and names what the format cannot hold. Must not know programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.netx.network import (
    MAX_BIAS,
    MAX_DELAY,
    MIN_BIAS,
    NEVER,
    Layer,
    NetxNetwork,
    Neuron,
    dense_weights,
)
from spiketrack_deploy.inputs.whole_file import whole


def write_netx(network: NetxNetwork, path: Path) -> None:
    """Write ``network`` to ``path``. InputError, and nothing written, where a ``.net`` file cannot hold it."""
    import h5py

    check_netx(network)
    with whole(path) as part, h5py.File(part, "w") as file:
        layers = file.create_group("layer")
        number = 0

        def entry() -> Any:
            nonlocal number
            number += 1
            return layers.create_group(str(number - 1))

        before = network.input_shape
        if network.layers[0].kind != "input":
            _basics(entry(), "input", before)
        for layer in network.layers:
            if layer.kind == "dense" and before[1:] != (1, 1):
                _basics(entry(), "flatten", (int(np.prod(before)), 1, 1))
            _layer(entry(), layer)
            before = layer.shape


def check_netx(network: NetxNetwork) -> None:
    """InputError naming the first thing that netx cannot hold."""
    for index, layer in enumerate(network.layers):

        def refuse(problem: str, name: str = layer.name) -> InputError:
            return InputError(
                f"{network.name}: layer {name}: a .net file cannot hold it: {problem}; nothing was written"
            )

        if layer.kind == "input" and index:
            raise refuse("an input layer behind others")
        if not 0 <= layer.neuron.threshold <= 1 << 18:
            raise refuse(f"a threshold of {layer.neuron.threshold}")
        if layer.bias is not None and (layer.bias.min() < MIN_BIAS or layer.bias.max() > MAX_BIAS):
            raise refuse(f"biases from {layer.bias.min()} to {layer.bias.max()} in 16 bits")
        if layer.delay is not None and (layer.kind != "dense" or layer.delay.max() > MAX_DELAY):
            raise refuse(
                f"delays of a {layer.kind} layer up to {layer.delay.max()} steps; dense layers have up to {MAX_DELAY}"
            )
        if layer.delay is not None and layer.recurrent is not None:
            raise refuse("delays in front of a recurrent layer, whose recurrence they would delay as well")
        if layer.kind == "dense":
            parts = [m for m in (layer.weight[:, :, 0, 0], layer.recurrent) if m is not None]
            try:
                same = all(np.array_equal(a, b) for a, b in zip(dense_weights(*parts), parts))
            except ValueError as error:
                raise refuse(f"its weight matrix {error}") from error
            if not same:
                raise refuse("weights that Lava's Dense would clip or truncate (-256 to 254, one sign: 0 to 255)")


def _basics(group: Any, kind: str, shape: tuple[int, ...]) -> None:
    group["type"] = np.array([kind.encode()], dtype="S10")
    group["shape"] = np.array(shape, dtype=np.int64)


def _layer(group: Any, layer: Layer) -> None:
    # Lava's dense layers take a vector: neurons in front of one must not be a map of one pixel.
    flat = layer.kind != "conv" and layer.shape[1:] == (1, 1)
    kind = "dense_rec" if layer.recurrent is not None else layer.kind
    _basics(group, kind, layer.shape[:1] if flat else layer.shape)
    _neuron(group.create_group("neuron"), layer.neuron)
    if layer.bias is not None:
        group["bias"] = layer.bias.astype(np.float32)
    if layer.kind == "input":
        return
    weight = layer.weight.astype(np.float32)
    if layer.kind == "dense":
        group["weight"] = weight[:, :, 0, 0]
        group["inFeatures"], group["outFeatures"] = weight.shape[1], weight.shape[0]
        if layer.recurrent is not None:
            group["weight_rec"] = layer.recurrent.astype(np.float32)
        if layer.delay is not None:
            group["delay"] = layer.delay.astype(np.float32)
        return
    group["weight"] = weight
    group["inChannels"], group["outChannels"] = weight.shape[1] * layer.groups, weight.shape[0]
    group["kernelSize"], group["groups"] = np.array(weight.shape[2:]), layer.groups
    for name, pair in (("stride", layer.stride), ("padding", layer.padding), ("dilation", layer.dilation)):
        group[name] = np.array(pair)


def _neuron(group: Any, neuron: Neuron) -> None:
    group["type"] = "SDNN" if neuron.kind == "sdnn" else "CUBA"
    group["vThMant"] = min(neuron.threshold, NEVER)
    if neuron.kind == "sdnn":
        group["activation"] = "relu"
        if neuron.sigma:
            group["sigma_output"] = True
        return
    group["iDecay"], group["vDecay"], group["refDelay"] = neuron.i_decay, neuron.v_decay, 1
