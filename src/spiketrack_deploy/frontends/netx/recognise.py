"""An integer program as a chain of netx layers, whichever front end it came from.

Decides which programs are one: sums of spikes into LIF neurons that go to 0 when they fire, or into sigma-delta
neurons, one behind the other. Must not know files. Everything that netx has no field for is refused by its operation's
name. Time is not kept: netx lets every layer answer a step after the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.netx.lower import FRACTION, LIMIT, STATE
from spiketrack_deploy.frontends.netx.network import NEVER, Layer, NetxNetwork, Neuron, Shape
from spiketrack_deploy.program.ops.conv import conv_geometry
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program

WEIGHTED = ("conv", "graded_conv")


def recognise(program: Program, name: str = "network") -> NetxNetwork:
    """The layers of ``program``; InputError naming the first operation that netx cannot hold, and why."""
    return _Chain(program, name).network()


class _Chain:
    def __init__(self, program: Program, name: str) -> None:
        self.program, self.name = program, name
        if len(program.phases) != 1:
            raise self.refuse("it", f"has {len(program.phases)} phases ({', '.join(program.phases)}); netx has one")
        self.phase: Phase = next(iter(program.phases.values()))
        outside = list(program.external(self.phase))
        if len(outside) != 1:
            raise self.refuse("it", f"has {len(outside)} inputs; a chain has one")
        self.input = outside[0]
        self.ops = {op.name: op for op in self.phase.ops}
        self.used: set[str] = set()

    def refuse(self, what: str, why: str) -> InputError:
        return InputError(f"{self.name}: {what} {why}; a .net file cannot hold it, nothing was written")

    def readers(self, value: str) -> list[Op]:
        """Operations that read a value now, or one step later; reshapes and one-step delays are passed through."""
        names, found = {value}, list[Op]()
        names |= {
            public for public, made in self.phase.outputs.items() if made == value and public in self.program.states
        }
        for op in self.phase.ops:
            if names & set(op.inputs):
                if op.kind == "reshape":
                    self.used.add(op.name)
                    found += self.readers(op.name)
                else:
                    found.append(op)
        return found

    def one(self, op: Op, role: str, arrays: Mapping[str, AnyArray]) -> int:
        """The number that an array holds everywhere."""
        values = np.unique(arrays[role])
        if values.size != 1:
            raise self.refuse(
                f"operation {op.name}", f"has a {role} that differs from neuron to neuron ({values.size} values)"
            )
        return int(values[0])

    def network(self) -> NetxNetwork:
        spec = self.phase.inputs[self.input]
        layers: list[Layer] = []
        value = self.input
        first = [op for op in self.readers(value) if op.kind not in WEIGHTED]
        if first:
            layer, value = self._neurons(None, first[0], value, self._map(value))
            layers.append(layer)
        while True:
            following = [op for op in self.readers(value) if op.kind in WEIGHTED and op.name not in self.used]
            if not following:
                break
            if len(following) > 1:
                names = ", ".join(op.name for op in following)
                raise self.refuse(f"value {value}", f"is read by {names}; a chain has one reader")
            layer, value = self._weighted(following[0])
            layers.append(layer)
        left = [op.name for op in self.phase.ops if op.name not in self.used]
        if left:
            op = self.ops[left[0]]
            raise self.refuse(f"operation {op.name} ({op.kind})", "is no part of a chain of sums and neurons")
        if not layers:
            raise self.refuse("it", "has no layer")
        if spec.kind == "spikes" and spec.top > 1:
            raise self.refuse(f"input {self.input}", f"has spikes up to {spec.top}; only the caller of netx can say so")
        return NetxNetwork(self.name, self._map(self.input), tuple(layers))

    def _map(self, value: str) -> Shape:
        _, c, h, w = self.phase.spec(value).shape
        return c, h, w

    def _weighted(self, op: Op) -> tuple[Layer, str]:
        """A convolution (or a matrix) and the neurons behind it."""
        self.used.add(op.name)
        readers, late = self._past_delay(op, self.readers(op.name))
        back: IntArray | None = None
        if len(readers) == 1 and readers[0].kind == "add":
            total = readers[0]
            other = self.ops.get(next(n for n in total.inputs if n != op.name))
            if other is None or other.kind != "conv":
                raise self.refuse(f"operation {total.name}", "adds something other than a recurrence")
            source = other.inputs[0]
            fires = self.ops.get(self.phase.outputs.get(source, ""))
            if source not in self.program.states or fires is None or fires.kind != "fire":
                raise self.refuse(f"operation {total.name}", "adds a second branch; a chain has one")
            self.used |= {total.name, other.name}
            back = self._matrix(other)
            readers = self.readers(total.name)
        readers = [r for r in readers if r.kind not in ("fire", "reset")]
        if len(readers) != 1:
            raise self.refuse(
                f"operation {op.name}", f"is read by {len(readers)} operations; a layer has one kind of neurons"
            )
        neurons, value = self._neurons(op, readers[0], op.name, self._map(op.name))
        if late is not None and neurons.kind == "dense":
            late = np.broadcast_to(late, neurons.weight.shape[:2]).copy()
        return replace(neurons, recurrent=back, delay=late), value

    def _past_delay(self, op: Op, readers: list[Op]) -> tuple[list[Op], IntArray | None]:
        """Readers behind a delay line of sums, and its steps ``[O, 1]``."""
        if len(readers) != 1 or readers[0].kind != "remember" or readers[0].inputs[1] != op.name:
            return readers, None
        ring = readers[0]
        taps = [o for o in self.phase.ops if o.inputs[0] == ring.name]
        if len(taps) != 1 or taps[0].kind != "delayed":
            raise self.refuse(f"operation {ring.name}", "is a delay line with several taps")
        self.used |= {ring.name, taps[0].name}
        steps: IntArray = self.program.op_arrays(taps[0])["steps"].astype(np.int64)
        if steps.shape[1:] != (1, 1):
            raise self.refuse(f"operation {taps[0].name}", "has delays that differ from position to position")
        return self.readers(taps[0].name), steps[:, :, 0]

    def _matrix(self, op: Op) -> IntArray:
        arrays = self.program.op_arrays(op)
        weight = self._weights(op, arrays)
        if arrays["bias"].any() or weight.shape[2:] != (1, 1) or op.attrs["groups"] != 1:
            raise self.refuse(f"operation {op.name}", "is a recurrence with a kernel or a bias")
        return weight[:, :, 0, 0]

    def _weights(self, op: Op, arrays: Mapping[str, AnyArray]) -> IntArray:
        weight: IntArray = (
            arrays["weight"][0].astype(np.int64) << arrays["shift"][0].astype(np.int64)[:, None, None, None]
        )
        return weight

    def _neurons(self, op: Op | None, reader: Op, drive: str, shape: Shape) -> tuple[Layer, str]:
        if reader.kind == "integrate":
            sdnn = any(o.kind == "change" and o.inputs[0] == reader.name for o in self.phase.ops)
            leakless = self.one(reader, "decay", self.program.op_arrays(reader)) == 4096 and not reader.attrs["shift"]
            if sdnn or (reader.attrs["readout"] and leakless and op is not None and op.kind == "graded_conv"):
                return self._sigma_delta(op, reader, shape, STATE)
            return self._cuba(op, reader, shape)
        if reader.kind == "rescale" and op is None:
            return self._sigma_delta(op, reader, shape, FRACTION)
        raise self.refuse(f"operation {reader.name} ({reader.kind})", f"stands behind {drive}, where netx has neurons")

    def _membrane_bias(self, op: Op, arrays: Mapping[str, AnyArray], shift: int) -> IntArray | int:
        if "bias" not in arrays:
            return 0
        bias = arrays["bias"].astype(np.int64)
        per_channel = bias.reshape(bias.shape[0], -1)
        if (per_channel != per_channel[:, :1]).any() or (per_channel % (1 << shift)).any():
            raise self.refuse(
                f"operation {op.name}", f"has a bias that is no whole number per channel in units of 2^{shift}"
            )
        return per_channel[:, 0] >> shift

    def _cuba(self, op: Op | None, first: Op, shape: Shape) -> tuple[Layer, str]:
        current, v = None, first
        following = [r for r in self.readers(first.name) if r.kind == "integrate" and r.name != first.name]
        if following and following[0].inputs[1] == first.name:
            current, v = first, following[0]
            self.used.add(first.name)
        self.used.add(v.name)
        shift = (current or v).attrs["shift"]
        if shift != FRACTION or (current is not None and v.attrs["shift"]):
            raise self.refuse(f"operation {v.name}", f"has a membrane of {shift} fraction bits; netx has {FRACTION}")
        arrays = self.program.op_arrays(v)
        keep = self.one(v, "decay", arrays)
        i_decay = 4096 if current is None else 4096 - self.one(current, "decay", self.program.op_arrays(current))
        for neuron in (current, v):
            if neuron is not None and neuron.attrs["limit"] not in (0, LIMIT):
                raise self.refuse(
                    f"operation {neuron.name}", f"is cut off at {neuron.attrs['limit']}; a membrane of netx at {LIMIT}"
                )
        bias = self._membrane_bias(v, arrays, FRACTION)
        if current is not None and "bias" in self.program.op_arrays(current):
            raise self.refuse(f"operation {current.name}", "adds a bias to a current; netx adds it to the membrane")
        threshold, spikes = self._fires(v, keep)
        return self._layer(
            op, shape, Neuron("cuba", threshold, i_decay, 4096 - keep), bias, current is not None
        ), spikes

    def _fires(self, v: Op, keep: int) -> tuple[int, str]:
        """Threshold and the name of the spikes."""
        fires = [o for o in self.phase.ops if o.kind == "fire" and o.inputs[0] == v.name]
        if not fires:
            return NEVER, v.name
        fire = fires[0]
        self.used.add(fire.name)
        arrays = self.program.op_arrays(fire)
        if fire.attrs["most"] != 1:
            raise self.refuse(
                f"operation {fire.name}", f"sends up to {fire.attrs['most']} spikes a step; netx sends one"
            )
        first = self.one(fire, "first", arrays)
        # Without a leak between nothing and everything a membrane holds whole units: between two of them lies nothing.
        exact = keep in (0, 4096) or (first - 1) % (1 << FRACTION) == 0
        if not exact or first < 1:
            raise self.refuse(f"operation {fire.name}", f"has a threshold of {first}, no whole unit of {1 << FRACTION}")
        resets = [o for o in self.phase.ops if o.kind == "reset" and o.inputs[0] == v.name]
        for op in resets:
            self.used.add(op.name)
            if op.attrs["subtract"] or self.program.op_arrays(op)["level"].any():
                raise self.refuse(f"operation {op.name}", "resets otherwise than to 0")
        if not resets:
            raise self.refuse(f"operation {fire.name}", "fires without a reset")
        return min(-(-first // (1 << FRACTION)) - 1, NEVER), fire.name

    def _sigma_delta(self, op: Op | None, sigma: Op, shape: Shape, scale: int) -> tuple[Layer, str]:
        self.used.add(sigma.name)
        changes = [o for o in self.phase.ops if o.kind in ("change", "told") and o.inputs[0] == sigma.name]
        if not changes:
            return self._layer(op, shape, Neuron("sdnn", 0, sigma=True), 0, False), sigma.name
        self.used |= {o.name for o in changes}
        change = next(o for o in changes if o.kind == "change")
        arrays = self.program.op_arrays(change)
        threshold = self.one(change, "threshold", arrays)
        wrong = threshold % (1 << scale) or change.attrs["shift"] != scale - FRACTION
        if wrong or change.attrs["rectified"] != int(op is not None):
            raise self.refuse(
                f"operation {change.name}",
                f"is no neuron of netx: a threshold in units of 2^{scale}, relu behind weights",
            )
        bias = self._membrane_bias(change, arrays, scale)
        return self._layer(op, shape, Neuron("sdnn", threshold >> scale), bias, False), change.name

    def _layer(self, op: Op | None, shape: Shape, neuron: Neuron, bias: IntArray | int, current: bool) -> Layer:
        own = np.broadcast_to(np.asarray(bias, dtype=np.int64), shape[0])
        if op is None:
            return Layer("input", "input", shape, neuron, np.zeros(0, np.int64), own.copy() if own.any() else None)
        arrays = self.program.op_arrays(op)
        weight, sums = self._weights(op, arrays), arrays["bias"].astype(np.int64).reshape(-1)
        if current and sums.any():
            raise self.refuse(f"operation {op.name}", "adds a bias to a current; netx adds it to the membrane")
        if arrays["shift"].any() and neuron.kind == "sdnn":
            raise self.refuse(f"operation {op.name}", "shifts its sums")
        total = own + sums
        stride, padding, dilation, groups = conv_geometry(op)
        source = self.phase.spec(op.inputs[0]).shape
        whole = groups == 1 and padding == (0, 0) and weight.shape[2:] == source[2:]
        kept = total.copy() if total.any() else None
        if whole:
            # A kernel as large as its map is a matrix behind a flattening.
            matrix = weight.reshape(weight.shape[0], -1, 1, 1)
            return Layer(op.name, "dense", (shape[0], 1, 1), neuron, matrix, kept)
        return Layer(op.name, "conv", shape, neuron, weight, kept, stride, padding, dilation, groups)
