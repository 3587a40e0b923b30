"""A chain of netx layers as an integer program, operation by operation what Lava's Processes compute.

Decides which operations a layer becomes and how time is counted. Must not know files. Two readings of time:

``lava``     every connection takes a step, as in one Lava run: layer k answers k steps later, and until then its biases
             alone drive it. The integers of step t are those of Lava's step t + 1.
``aligned``  the layers answer within the step. The same spikes, each layer k steps earlier, where the layers begin
             cleared (``reset_interval`` of netx, one step later for each layer).

Membranes are cut off at 2^23 - 1; Lava cuts off the voltage alone and lets a current wrap around. Sigma-delta messages
are cut off where the sums of the next layer could leave the program's width if every input were at its largest; Lava
has no such proof. Wherever an operation's ``saturated`` counts nothing, both are the same. 32 bits leave messages room
enough (the reference engine runs them); 24 bits are for the engines of float32 sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.netx.network import Layer, NetxNetwork
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program, State, TensorSpec

LIMIT = 2**23 - 1
FRACTION = 6
"""Fraction bits of a membrane below its input (LIF), and of a message (``spike_exp`` of netx)."""
STATE = 12
"""Fraction bits of a sigma-delta neuron's sum: message and state."""
LARGEST_DRIVE = 2**15 - 1
"""What an input layer's neurons take: as much as a bias of theirs."""
LARGEST_PIXEL = 2**10 - 1
TIMINGS = ("lava", "aligned")


def lower_netx(
    network: NetxNetwork, timing: str = "lava", top: int = 1, width: int | None = None, membrane: bool = True
) -> Program:
    """The program of a network, phase ``step``, input ``input``; ``width``: 24 bits, or 32 for sigma-delta neurons.

    An input layer takes integers in the unit of its neurons' bias; without one, spikes up to ``top`` enter. Outputs:
    ``output``, what the last layer sends; ``membrane``, of a last CUBA layer the voltage before its reset (where it
    fires only with ``membrane``: a chip's own neuron has no port for it). Trace
    values: ``NAME.v``, ``NAME.u``, ``NAME.spikes``, ``NAME.sigma``, ``NAME.message`` for every layer.
    """
    graded = any(layer.neuron.kind == "sdnn" for layer in network.layers)
    builder = _Builder(network, timing, top, width or (32 if graded else 24), membrane)
    for layer in network.layers:
        builder.layer(layer)
    return builder.program()


@dataclass
class _Builder:
    network: NetxNetwork
    timing: str
    top: int
    width: int
    membrane: bool
    ops: list[Op] = field(default_factory=list)
    values: dict[str, TensorSpec] = field(default_factory=dict)
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    message: str = "input"

    def __post_init__(self) -> None:
        first, shape = self.network.layers[0], (1, *self.network.input_shape)
        if first.kind != "input":
            self.inputs["input"] = TensorSpec("spikes", shape, top=self.top)
        else:
            top = LARGEST_DRIVE if first.neuron.kind == "cuba" else LARGEST_PIXEL
            self.inputs["input"] = TensorSpec("stream", shape, top=top)

    def spec(self, name: str) -> TensorSpec:
        return self.inputs.get(name) or self.values[name]

    def add(
        self, name: str, kind: str, inputs: tuple[str, ...], spec: TensorSpec, attrs: Mapping[str, int] = {},
        **arrays: AnyArray | None,
    ) -> str:  # fmt: skip
        """One operation, its output and its arrays."""
        keys = {role: f"{name}.{role}" for role, array in arrays.items() if array is not None}
        self.arrays.update({f"{name}.{role}": array for role, array in arrays.items() if array is not None})
        self.ops.append(Op(name, kind, inputs, name.split(".")[1], attrs, keys))
        self.values[name] = spec
        return name

    def state(self, name: str, spec: TensorSpec) -> str:
        """A state, empty at the beginning; its name among the inputs."""
        self.states[name] = State(spec, 0)
        self.inputs[name] = spec
        return name

    def before(self, name: str, value: str) -> str:
        """What ``value`` was a step before."""
        if value in self.inputs:
            spec = self.spec(value)
            sizes = dict(zip(("channels", "height", "width"), spec.shape[1:]))
            value = self.add(f"0.{value}.kept", "reshape", (value,), spec, sizes)
        self.outputs[name] = value
        return self.state(name, self.spec(value))

    def layer(self, layer: Layer) -> None:
        """Synapses and neurons."""
        drive = self.message if layer.kind == "input" else self._synapses(layer)
        (self._cuba if layer.neuron.kind == "cuba" else self._sigma_delta)(layer, drive)

    def _synapses(self, layer: Layer) -> str:
        source = self.message
        if self.timing == "lava":
            source = self.before(f"{layer.name}.given", source)
        shape = self.spec(source).shape
        if layer.kind == "dense" and shape[2:] != (1, 1):
            spec = self.spec(source)
            flat = TensorSpec(spec.kind, (1, spec.size, 1, 1), top=spec.top)
            sizes = {"channels": spec.size, "height": 1, "width": 1}
            source = self.add(f"{layer.name}.flat", "reshape", (source,), flat, sizes)
        if layer.delay is None:
            parts = [self._weighted(layer, f"{layer.name}.sum", source, layer.weight, None)]
        else:
            parts = self._delayed(layer, source, layer.delay)
        if layer.recurrent is not None:
            spec = TensorSpec("spikes", (1, *layer.shape), top=1)
            back = self.state(f"{layer.name}.sent", spec)
            self.outputs[back] = f"{layer.name}.spikes"
            parts.append(self._weighted(layer, f"{layer.name}.back", back, layer.recurrent[:, :, None, None], None))
        total = parts[0]
        for n, part in enumerate(parts[1:]):
            total = self.add(f"{layer.name}.total{n}", "add", (total, part), self.spec(total))
        return total

    def _weighted(self, layer: Layer, name: str, source: str, weight: IntArray, keep: AnyArray | None) -> str:
        kind = "conv" if self.spec(source).kind == "spikes" else "graded_conv"
        used = weight if keep is None else weight * keep[:, :, None, None]
        pairs = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        attrs = {f"{what}_{axis}": pair[i] for what, pair in pairs.items() for i, axis in enumerate("hw")}
        small = np.abs(used).max(initial=0) <= 127
        nothing = np.zeros((1, layer.shape[0]), np.int32)
        return self.add(
            name, kind, (source,), TensorSpec("stream", (1, *layer.shape)), attrs | {"groups": layer.groups},
            weight=used[None].astype(np.int8 if small else np.int16), bias=nothing, shift=nothing.astype(np.int8),
        )  # fmt: skip

    def _ring(self, name: str, value: str, steps: int) -> str:
        """The last ``steps`` + 1 values, newest first."""
        spec = self.spec(value)
        long = TensorSpec(spec.kind, (steps + 1, *spec.shape[1:]), top=spec.top)
        line = self.state(f"{name}.line", long)
        self.outputs[line] = self.add(name, "remember", (line, value), long)
        return name

    def _delayed(self, layer: Layer, source: str, delay: IntArray) -> list[str]:
        """Synapses that hold their message: one line of sums where all of an output's wait alike, else of messages."""
        if (delay == delay[:, :1]).all():
            total = self._weighted(layer, f"{layer.name}.sum", source, layer.weight, None)
            ring = self._ring(f"{layer.name}.ring", total, int(delay.max()))
            steps = delay[:, :1, None].astype(np.int32)
            return [self.add(f"{layer.name}.late", "delayed", (ring,), self.spec(total), steps=steps)]
        ring, parts = self._ring(f"{layer.name}.ring", source, int(delay.max())), []
        for d in np.unique(delay):
            steps = np.full((1, 1, 1), d, np.int32)
            late = self.add(f"{layer.name}.late{d}", "delayed", (ring,), self.spec(source), steps=steps)
            parts.append(self._weighted(layer, f"{layer.name}.sum{d}", late, layer.weight, delay == d))
        return parts

    def _cuba(self, layer: Layer, drive: str) -> None:
        neuron, spec, shift = layer.neuron, TensorSpec("stream", (1, *layer.shape)), FRACTION
        limit = {"limit": LIMIT}
        if neuron.i_decay < 4096:
            name = f"{layer.name}.u"
            held = self.state(f"{name}.held", spec)
            drive = self.add(name, "integrate", (held, drive), spec, {"shift": shift, "readout": 0, **limit},
                             decay=_one(4096 - neuron.i_decay, np.uint16))  # fmt: skip
            self.outputs[held], shift = name, 0
        last = layer is self.network.layers[-1] and (self.membrane or not neuron.fires)
        held = self.state(f"{layer.name}.v.held", spec)
        v = self.add(
            f"{layer.name}.v", "integrate", (held, drive), spec,
            {"shift": shift, "readout": int(last), **limit},
            decay=_one(4096 - neuron.v_decay, np.uint16), bias=_per_channel(layer.bias, FRACTION),
        )  # fmt: skip
        if last:
            self.outputs["membrane"] = v
        if not neuron.fires:
            self.outputs[held] = v
            return
        spikes = TensorSpec("spikes", spec.shape, top=1)
        first = _one((neuron.threshold << FRACTION) + 1, np.int32)
        self.message = self.add(
            f"{layer.name}.spikes", "fire", (v,), spikes, {"most": 1}, first=first, step=_one(1, np.int32)
        )
        after = self.add(f"{layer.name}.after", "reset", (v, self.message), spec, {"subtract": 0, "limit": 0},
                         level=_one(0, np.int32))  # fmt: skip
        self.outputs[held] = after

    def _sigma_delta(self, layer: Layer, drive: str) -> None:
        spec, scale = TensorSpec("stream", (1, *layer.shape)), STATE
        if layer.kind == "input":
            # Pixels have no state to add up; their unit is that of a message.
            attrs, factor = {"shift": 0, "limit": 0}, _one(1 << FRACTION, np.int32)
            sigma = self.add(f"{layer.name}.sigma", "rescale", (drive,), spec, attrs, factor=factor)
            scale = FRACTION
        else:
            held = self.state(f"{layer.name}.sigma.held", spec)
            sigma = self.add(f"{layer.name}.sigma", "integrate", (held, drive), spec,
                             {"shift": 0, "readout": int(layer.neuron.sigma), "limit": self._room(layer)},
                             decay=_one(4096, np.uint16))  # fmt: skip
            self.outputs[held] = sigma
        self.message = sigma
        if layer.neuron.sigma:
            return
        shift = scale - FRACTION
        told = self.state(f"{layer.name}.told", spec)
        attrs = {
            "rectified": int(layer.kind != "input"),
            "shift": shift,
            "limit": min(self._largest_message(layer) << shift, 2 ** (self.width - 1) - 1),
        }
        both = {"bias": _per_channel(layer.bias, STATE), "threshold": _one(layer.neuron.threshold << scale, np.int32)}
        self.message = self.add(f"{layer.name}.message", "change", (sigma, told), spec, attrs, **both)
        self.outputs[told] = self.add(f"{layer.name}.kept", "told", (sigma, told), spec, attrs, **both)

    def _room(self, layer: Layer) -> int:
        """Of a sum, so that its bias fits beside it and twice as much into the width."""
        limit = 2 ** (self.width - 1) - 1
        bias = 0 if layer.bias is None else int(np.abs(layer.bias).max()) << STATE
        if bias > limit // 2:
            raise InputError(
                f"{self.network.name}: layer {layer.name}: biases up to {bias >> STATE} leave no room for its sum"
            )
        return limit - bias

    def _largest_message(self, layer: Layer) -> int:
        """What the next layer's sums hold of every input at once."""
        following = self.network.layers[self.network.layers.index(layer) + 1 :]
        limit = 2 ** (self.width - 1) - 1
        if not following:
            return limit >> STATE
        return limit // max(1, int(np.abs(following[0].weight).sum(axis=(1, 2, 3)).max()))

    def program(self) -> Program:
        """Everything together, checked."""
        last = self.network.layers[-1]
        if self.message != "input" and last.neuron.fires:
            self.outputs["output"] = self.message
        phase = Phase("step", self.inputs, tuple(self.ops), self.values, self.outputs)
        meta = {"netx": {"name": self.network.name, "timing": self.timing, "notes": list(self.network.notes)}}
        program = Program({"step": phase}, self.arrays, self.states, self.width, meta)
        check_program(program)
        return program


def _one(number: int, dtype: type) -> AnyArray:
    return np.full((1, 1, 1), number, dtype)


def _per_channel(bias: IntArray | None, shift: int) -> AnyArray | None:
    """``[C, 1, 1]`` in a membrane's unit."""
    return None if bias is None else (bias << shift).astype(np.int32)[:, None, None]
