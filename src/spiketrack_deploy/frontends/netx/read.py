"""Reads ``.net`` files that nobody vouches for: HDF5 in two passes, every refusal names file, layer and field.

Decides which layers, neurons and fields are taken: those that ``netx.hdf5.Network`` of lava-dl 0.6.0 builds, with all
that it silently ignores refused or noted. Must not know programs. Both passes run in a child process first, as those of
a NIR file do.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spiketrack_deploy.frontends.netx.network import (
    MAX_BIAS,
    MAX_DELAY,
    MIN_BIAS,
    Layer,
    NetxNetwork,
    Neuron,
    Pair,
    Shape,
    dense_weights,
)
from spiketrack_deploy.nir_graph.guard import check_in_child
from spiketrack_deploy.nir_graph.safe_hdf5 import Item, Limits, SafeFile
from spiketrack_deploy.program.ops.conv import conv_size
from spiketrack_deploy.program.types import IntArray

LIMITS = Limits(nodes=1000, elements=1 << 26, array_bytes=1 << 30)
SKIPPED = ("pool", "unpool", "convT", "average", "concat", "dense_comp")
"""Layers that lava-dl can export and netx cannot load."""
NEURON_FIELDS = {
    "type", "iDecay", "vDecay", "vThMant", "refDelay", "wgtExp", "theta", "tauRho", "scaleRho", "gradedSpike",
    "activation", "sigma_output",
}  # fmt: skip
LAYER_FIELDS = {
    "type", "shape", "neuron", "weight", "weight_rec", "bias", "stride", "padding", "dilation", "kernelSize", "groups",
    "inChannels", "outChannels", "inFeatures", "outFeatures", "delay",
}  # fmt: skip
LARGEST = 2**15 - 1
"""Of a weight, either sign; as many bits as a program holds."""
DEFAULT = Neuron("cuba", 1 << 17, 0, 4096)
"""What netx gives a dense layer without neurons: an integrator that never fires."""


def read_netx(path: Path, *, layers: int | None = None, limits: Limits | None = None) -> NetxNetwork:
    """Read and check a ``.net`` file; ``layers``: only so many of its entries, as netx's ``num_layers``.

    A last layer ``average`` is left to whoever reads the spikes, and noted. InputError: it is no such file, is damaged,
    links elsewhere, asks for too much, or holds a layer, neuron or number that netx cannot build.
    """
    limits = limits or LIMITS
    argument = json.dumps({"layers": layers, "limits": asdict(limits)})
    check_in_child((__name__, check_file.__name__), path, argument, limits.seconds, 2 * limits.array_bytes)
    return _reader(layers).load(path, limits)


def check_file(path: str, argument: str) -> None:
    """What the child of :func:`read_netx` does."""
    options = json.loads(argument)
    _reader(options["layers"]).load(Path(path), Limits(**options["limits"]))


def _reader(layers: int | None) -> type[_Reader]:
    return type("_Part", (_Reader,), {"most": layers})


class _Reader(SafeFile[NetxNetwork]):
    elements = "f4 f8 i1 i2 i4 i8 u1 b1"
    scalars = True
    most: int | None = None

    def read(self) -> NetxNetwork:
        root = self.children(self.file, {"layer", "simulation"}, optional=frozenset({"simulation"}))
        entries = self.children(self.group(root, "layer"), None)
        count = len(entries)
        if set(entries) != {str(n) for n in range(count)} or not 0 < count <= self.limits.nodes:
            raise self.fail(f"'layer' must hold the layers 0, 1, 2 and so on, has {sorted(entries)[:8]}")
        count = count if self.most is None else min(count, self.most)
        parts = []
        for index in range(count):
            self.place = f"layer {index}"
            parts.append(self._fields(self.group(entries, str(index))))
        return self._network(parts)

    def _fields(self, group: Any) -> tuple[dict[str, Item], dict[str, Item] | None]:
        """Items of a layer and of its neuron."""
        found = self.children(group, LAYER_FIELDS, optional=frozenset(LAYER_FIELDS - {"type"}))
        neuron = None
        if "neuron" in found:
            inner = self.children(self.group(found, "neuron"), None)
            kind = self._word(self.dataset(inner, "type")) if "type" in inner else "none"
            if kind not in ("CUBA", "LOIHI", "SDNN"):
                raise self.fail(f"has neurons of type {kind}; CUBA (LOIHI) and SDNN are read")
            unknown = sorted(set(inner) - NEURON_FIELDS)
            if unknown:
                raise self.fail(f"its neuron has the unknown field {unknown[0]}")
            neuron = {name: self.dataset(inner, name) for name in inner}
        return {name: self.dataset(found, name) for name in found if name != "neuron"}, neuron

    def _word(self, item: Item) -> str:
        if item.dtype.kind not in "OS" or item.shape not in ((), (1,)) or item.dtype.itemsize > self.limits.text_bytes:
            raise self.fail("its type is not one word")
        raw = item.dataset[()] if item.shape == () else item.dataset[0]
        return self.decode(raw) if isinstance(raw, bytes) else str(raw)

    def _whole(self, items: dict[str, Item], name: str, low: int, high: int) -> IntArray:
        """Whole numbers within bounds, int64."""
        if name not in items:
            raise self.fail(f"has no field '{name}'")
        values = self.array(items[name])
        if not np.array_equal(values, np.trunc(values)):
            raise self.fail(f"'{name}' holds fractions; netx would cut them off")
        if values.min() < low or values.max() > high:
            raise self.fail(f"'{name}' runs from {values.min():g} to {values.max():g}; {low} to {high} are possible")
        return values.astype(np.int64)

    def _number(self, items: dict[str, Item], name: str, low: int, high: int) -> int:
        values = self._whole(items, name, low, high)
        if values.size != 1:
            raise self.fail(f"'{name}' holds {values.size} numbers; one is needed")
        return int(values.reshape(-1)[0])

    def _pair(self, items: dict[str, Item], name: str, low: int) -> Pair:
        values = self._whole(items, name, low, 1 << 12).reshape(-1)
        if values.size not in (1, 2):
            raise self.fail(f"'{name}' holds {values.size} numbers; one or two are needed")
        return int(values[0]), int(values[-1])

    def _shape(self, items: dict[str, Item]) -> Shape:
        sizes = self._whole(items, "shape", 1, 1 << 22).reshape(-1)
        if not 1 <= sizes.size <= 3 or prod(int(n) for n in sizes) > self.limits.elements:
            raise self.fail(f"has shape {tuple(int(n) for n in sizes)}; one to three sizes are needed")
        c, h, w = (int(n) for n in (*sizes, 1, 1)[:3])
        return c, h, w

    def _neuron(self, items: dict[str, Item] | None) -> Neuron:
        if items is None:
            return DEFAULT
        threshold = self._number(items, "vThMant", 0, 1 << 18)
        if self._word(items["type"]) != "SDNN":
            current, voltage = (self._number(items, name, 0, 4096) for name in ("iDecay", "vDecay"))
            return Neuron("cuba", threshold, current, voltage)
        if "activation" in items and self._word(items["activation"]) != "relu":
            raise self.fail("has an activation other than relu; netx builds relu whatever it is")
        return Neuron("sdnn", threshold, sigma="sigma_output" in items)

    def _network(self, parts: list[tuple[dict[str, Item], dict[str, Item] | None]]) -> NetxNetwork:
        layers: list[Layer] = []
        notes: list[str] = []
        entering: Shape | None = None
        before: Shape | None = None
        flat = False
        for index, (items, neuron) in enumerate(parts):
            self.place = f"layer {index}"
            kind = self._word(items["type"])
            self.place = f"layer {index} ({kind})"
            if kind == "average" and index == len(parts) - 1 and layers:
                notes.append(f"layer {index}, average, is no part of the network: its spikes are the output")
            elif kind in SKIPPED:
                raise self.fail("netx has no Process for it")
            elif kind == "flatten":
                flat = True
            elif kind == "input":
                if before is not None:
                    raise self.fail("only the first layer may be an input")
                entering = before = self._shape(items)
                if neuron is not None:
                    layers.append(
                        Layer(f"{index}.input", "input", entering, self._neuron(neuron), np.zeros(0, np.int64))
                    )
                    notes += self._transform(items)
            elif kind in ("conv", "dense", "dense_rec"):
                layer = self._conv(index, items, neuron, before) if kind == "conv" else self._dense(
                    index, items, neuron, before, flat, kind == "dense_rec")  # fmt: skip
                if before is None:
                    entering = (layer.weight.shape[1], 1, 1)
                self._chained(layers, layer)
                before, flat = layer.shape, False
                layers.append(layer)
            else:
                raise self.fail("is no layer of netx")
        if not layers or entering is None:
            raise self.fail("has no layer that computes")
        return NetxNetwork(self.path.stem, entering, tuple(layers), tuple(notes))

    def _transform(self, items: dict[str, Item]) -> list[str]:
        if "weight" not in items and "bias" not in items:
            return []
        weight, bias = (
            int(self.array(items[n]).reshape(-1)[0]) if n in items else d for n, d in (("weight", 64), ("bias", 0))
        )
        return [f"its input layer takes {weight} x + {bias} of a value x in 0..1"]

    def _chained(self, layers: list[Layer], layer: Layer) -> None:
        """What netx would build and what would not mean anything."""
        if layers and not layers[-1].neuron.fires:
            raise self.fail("comes behind neurons that never fire")
        if layers and layers[-1].neuron.sigma:
            raise self.fail("comes behind an output that is a sum, no message")
        if layer.neuron.kind == "cuba" and layers and layers[-1].neuron.kind == "sdnn":
            raise self.fail("are CUBA neurons behind sigma-delta neurons")
        if layer.neuron.kind == "sdnn" and (layer.recurrent is not None or layer.delay is not None):
            raise self.fail("has sigma-delta neurons with a recurrence or delays")
        if layer.neuron.sigma and layer.bias is not None and layer.bias.any():
            raise self.fail("has a bias in front of a plain sum, which netx ignores")

    def _bias(self, items: dict[str, Item], outputs: int) -> IntArray | None:
        if "bias" not in items:
            return None
        bias = self._whole(items, "bias", MIN_BIAS, MAX_BIAS).reshape(-1)
        if bias.size not in (1, outputs):
            raise self.fail(f"has {bias.size} biases for {outputs} outputs")
        return np.broadcast_to(bias, outputs).copy()

    def _conv(self, index: int, items: dict[str, Item], neuron: dict[str, Item] | None, before: Shape | None) -> Layer:
        if before is None:
            raise self.fail("is the first layer, and no input layer tells its input's shape")
        if neuron is None:
            raise self.fail("has no neurons")
        if "delay" in items and self._whole(items, "delay", 0, MAX_DELAY).any():
            raise self.fail("has delays; netx ignores those of a convolution")
        weight = self._whole(items, "weight", -LARGEST, LARGEST)
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        groups = self._number(items, "groups", 1, 1 << 16) if "groups" in items else 1
        if weight.ndim != 4 or weight.shape[1] * groups != before[0] or weight.shape[0] % groups:
            raise self.fail(f"weights {weight.shape} in {groups} groups do not fit {before[0]} input channels")
        stride, padding, dilation = (
            self._pair(items, name, low) for name, low in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        size = conv_size(before[1:], (weight.shape[2], weight.shape[3]), stride, padding, dilation)
        shape = self._shape(items)
        if (weight.shape[0], *size) != shape:
            raise self.fail(f"has shape {shape}, its weights give {(weight.shape[0], *size)}")
        bias = self._bias(items, shape[0])
        return Layer(
            f"{index}.conv", "conv", shape, self._neuron(neuron), weight, bias, stride, padding, dilation, groups
        )

    def _dense(
        self, index: int, items: dict[str, Item], neuron: dict[str, Item] | None, before: Shape | None, flat: bool,
        recurrent: bool,
    ) -> Layer:  # fmt: skip
        outputs = prod(self._shape(items))
        if before is not None and not flat and before[1:] != (1, 1):
            raise self.fail(f"reads maps {before}; a flatten layer is needed between them")
        weight = self._matrix(items, "weight", outputs)
        if before is not None and weight.shape[1] != prod(before):
            raise self.fail(f"weights {weight.shape} do not fit {prod(before)} inputs")
        back = self._matrix(items, "weight_rec", outputs) if recurrent else None
        if back is not None and back.shape[1] != outputs:
            raise self.fail(f"recurrent weights {back.shape} are not square")
        try:
            used = dense_weights(*(m for m in (weight, back) if m is not None))
        except ValueError as error:
            raise self.fail(f"its weight matrix {error}") from error
        delay = self._delay(items, used[0].shape) if "delay" in items else None
        kind: Literal["dense"] = "dense"
        bias, shape = self._bias(items, outputs), (outputs, 1, 1)
        return Layer(f"{index}.dense", kind, shape, self._neuron(neuron), used[0][:, :, None, None], bias, delay=delay,
                     recurrent=used[1] if recurrent else None)  # fmt: skip

    def _matrix(self, items: dict[str, Item], name: str, outputs: int) -> IntArray:
        weight = self._whole(items, name, -LARGEST, LARGEST)
        if weight.size % outputs or weight.ndim > 2 or (weight.ndim == 2 and weight.shape[0] != outputs):
            raise self.fail(f"'{name}' of shape {weight.shape} does not give {outputs} outputs")
        return weight.reshape(outputs, -1)

    def _delay(self, items: dict[str, Item], shape: tuple[int, ...]) -> IntArray | None:
        """Steps ``[O, I]``: one number, one an output, one an input, or one a synapse, in netx's order."""
        # netx cuts longer ones off with a warning; a network that was trained with them would not be this one.
        delay = self._whole(items, "delay", 0, MAX_DELAY)
        if delay.ndim == 1 and delay.size not in (1, *shape):
            raise self.fail(f"has {delay.size} delays for {shape[0]} outputs and {shape[1]} inputs")
        if delay.ndim == 2 and delay.shape != shape:
            raise self.fail(f"has delays {delay.shape} for weights {shape}")
        if delay.ndim == 1 and delay.size == shape[0]:
            delay = delay[:, None]
        return np.broadcast_to(delay, shape).copy() if delay.any() else None
