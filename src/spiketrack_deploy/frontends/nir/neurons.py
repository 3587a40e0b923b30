"""A neuron in integers: integrators, spikes, reset and their states, in a unit in which thresholds are whole.

Decides coefficients and the range of a membrane. Must not know files, nor what a framework calls its parameters.

With x counted per gain, ``J' = a J + x`` and ``m' = b m + J' + c / G`` for G = h g: gains only move thresholds. A gain
that is negative or 0 is a factor of the input. A membrane for which the proof finds no bound within the accumulators is
clipped, as the chip's own is, and clips are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.frontends.nir import scales
from spiketrack_deploy.frontends.nir.conventions import Convention, discretise
from spiketrack_deploy.frontends.nir.emit import Emitter, Map, Value
from spiketrack_deploy.frontends.nir.network import FloatArray, Node
from spiketrack_deploy.frontends.nir.synapses import Part, Synapse, Synapses, parts_shape, resized, sums_of
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.row import Bound
from spiketrack_deploy.program.types import DECAY_BITS, AnyArray, Op

WHOLE = 1 << DECAY_BITS
HEADROOM = 4.0
"""A clipped membrane has room for so many thresholds, and for so many times what a float run saw."""
BLIND = 16.0
"""The same where no float run was seen."""
MOST_SEVERAL = 255
_NEAR = 1e-7
"""Part of a threshold by which float64 may miss a whole number."""


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """What a neuron became. ``sent``: its value for other nodes; ``membrane``: v before the reset."""

    sent: Value
    membrane: Value


@dataclass(frozen=True, slots=True, eq=False)
class _Coefficients:
    """Of the program's map, per element; ``gain``: real v of one unit of m; ``sign``: of the gain, 0 where it is 0."""

    b: FloatArray
    a: FloatArray | None
    gain: FloatArray
    sign: FloatArray
    bias: FloatArray
    v0: FloatArray
    theta: FloatArray | None
    v_reset: FloatArray | None


def _coefficients(node: Node, convention: Convention, shape: Map) -> _Coefficients:
    step = discretise(node, convention)

    def on(array: FloatArray) -> FloatArray:
        return np.array(np.broadcast_to(array, node.shape)).reshape(shape)

    gain = on(step.h) * (1.0 if step.g is None else on(step.g))
    size = np.where(gain == 0, 1.0, np.abs(gain))
    theta, v_reset = (None if x is None else on(x) / size for x in (step.theta, step.v_reset))
    a = None if step.a is None else on(step.a)
    return _Coefficients(on(step.b), a, size, np.sign(gain), on(step.c) / size, on(step.v0) / size, theta, v_reset)


def _channels(array: FloatArray, how: Callable[..., FloatArray] = np.max) -> FloatArray:
    return np.asarray(how(array.reshape(len(array), -1), axis=1))


def _needs(k: _Coefficients, sums: FloatArray, seen: float | None) -> tuple[FloatArray, list[FloatArray]]:
    """Real ``[C]``: what the current comes to at most; what the membrane shall hold, anything first, then what
    matters."""
    with np.errstate(divide="ignore", invalid="ignore"):
        current = sums if k.a is None else sums / (1 - _channels(k.a))
        worst = (current + _channels(np.abs(k.bias))) / (1 - _channels(k.b))
        rest = np.where(k.b < 1, np.abs(k.bias) / np.where(k.b < 1, 1 - k.b, 1), 0)
    worst = np.where(np.isfinite(worst), worst, np.inf) + _channels(np.abs(k.v0))
    known = [2 * np.abs(k.v0), 2 * rest]
    if k.v_reset is not None:
        known.append(2 * np.abs(k.v_reset))
    if k.theta is not None:
        known.append((BLIND if seen is None else HEADROOM) * np.abs(k.theta))
        worst = worst + _channels(np.abs(k.theta))
    if seen is not None:
        known.append(HEADROOM * seen / k.gain)
    elif k.theta is None:
        known.append(np.broadcast_to((BLIND * sums).reshape(-1, 1, 1), k.b.shape))
    return current, [worst, np.minimum(_channels(np.maximum.reduce(known)), worst)]


class Neurons:
    """Puts neurons into a program. ``seen``: largest magnitude of a value (``NODE``) or membrane (``NODE.v``)."""

    def __init__(self, emit: Emitter, synapses: Synapses, convention: Convention, seen: Mapping[str, float]) -> None:
        self.emit, self.synapses, self.convention, self.seen = emit, synapses, convention, seen

    def top(self, name: str) -> int:
        """Most spikes that a neuron sends in a step: one, or twice what was seen."""
        if not self.convention.several:
            return 1
        return int(np.clip(2 * self.seen.get(name, HEADROOM), 4, MOST_SEVERAL))

    def put(self, node: Node, parts: Sequence[Part]) -> Cell:
        """A neuron whose inputs are ``parts``."""
        k = _coefficients(node, self.convention, parts_shape(parts))
        sums = np.sum([resized(sums_of(part), parts_shape(parts)[0]) for part in parts], axis=0)
        bare = not any(isinstance(part, Synapse) for part in parts)
        top = scales.BARE_SHIFT if bare else scales.SHIFT
        current, needs = _needs(k, sums, self.seen.get(f"{node.name}.v"))
        x = self._signed(node, k, self._driven(node, parts, k))
        if k.a is not None:
            x = self._leaky(node, f"{node.name}:i", x, [current], k.a, "current decay", None, top)
        v = self._leaky(node, "", x, needs, k.b, "decay", k, top)
        if k.theta is None:
            return Cell(v, v)
        return self._fired(node, k, v, k.theta, np.asarray(v.factor / k.gain))

    def _driven(self, node: Node, parts: Sequence[Part], k: _Coefficients) -> Value:
        """The summed input with positive factors: as it is, or in a unit that suits weights and threshold."""
        if len(parts) == 1 and isinstance(parts[0], Value):
            part = parts[0]
            if (part.factor > 0).all():
                return part
            return self.synapses.scaled(part, np.where(part.factor == 0, 1.0, np.abs(part.factor)), node.name)
        channels = parts_shape(parts)[0]
        sums = np.sum([resized(sums_of(part), channels) for part in parts], axis=0)
        natural = np.minimum.reduce([resized(self.synapses.natural(part), channels) for part in parts])
        unit = np.where(np.isfinite(natural), natural, 1.0)
        if k.theta is not None:
            fine = _channels(np.where(k.theta > 0, k.theta, np.inf), np.min) / scales.LEVELS
            unit = unit * 2.0 ** -np.ceil(np.log2(np.maximum(unit / fine, 1)) - 1e-9)
        unit = np.maximum(unit, scales.least(sums, self.emit.most))
        unit = self.synapses.fitted(parts, self.synapses.best(parts, unit, k.theta), 0)
        return self.synapses.total(parts, unit.reshape(-1, 1, 1), node.name)

    def _signed(self, node: Node, k: _Coefficients, x: Value) -> Value:
        if (k.sign == 1).all():
            return x
        arrays = {"factor": k.sign.astype(np.int32)}
        return self.emit.op(f"{node.name}:sign", "rescale", [x], node.name, x.factor, {"shift": 0, "limit": 0}, arrays)

    def _decay(self, node: Node, which: str, ideal: FloatArray) -> AnyArray:
        decay = np.clip(np.rint(ideal * WHOLE), 0, WHOLE).astype(np.int32)
        self.synapses.losses.append(scales.lost(node.name, which, ideal, decay / WHOLE, decay, plain=True))
        return decay if (decay != decay.flat[0]).any() else decay.flat[:1].reshape(1, 1, 1)

    def _integers(self, node: Node, which: str, ideal: FloatArray, fine: FloatArray) -> AnyArray:
        found = np.rint(ideal / fine)
        limited = np.clip(found, -self.emit.most, self.emit.most).astype(np.int32)
        self.synapses.losses.append(scales.lost(node.name, which, ideal, limited * fine, limited))
        return limited

    def _leaky(
        self,
        node: Node,
        name: str,
        x: Value,
        needs: Sequence[FloatArray],
        decay: FloatArray,
        which: str,
        k: _Coefficients | None,
        top: int,
    ) -> Value:
        """An integrator and its state: the membrane of coefficients ``k``, or a current. Clipped without a leak."""
        unit = _channels(np.broadcast_to(x.factor, x.shape), np.min)
        shift, right = scales.shifts(unit, x.largest, needs, self.emit.most, top)
        x = self.synapses.coarser(x, right, node.name)
        fine = np.asarray(x.factor / 2.0**shift)
        arrays, factor = {"decay": self._decay(node, which, decay)}, fine
        start: AnyArray | int = 0
        if k is not None:
            factor = np.asarray(fine * k.gain)
            name = self.emit.own(node.name) if k.theta is None else f"{node.name}:v"
            if k.bias.any():
                arrays["bias"] = self._integers(node, "leak", k.bias, fine)
            if k.v0.any():
                start = self._integers(node, "initial", k.v0, fine)
        limit = self.emit.most if arrays["decay"].max() >= WHOLE else 0
        attrs = {"shift": shift, "limit": limit, "readout": int(k is not None and k.theta is None)}
        ends = np.full(x.shape[0], self.emit.most)
        like = Value("", x.shape, "stream", 0, factor, -ends, ends)
        state = self.emit.state(f"{node.name}:{'current' if k is None else 'membrane'}", like, start)
        v = self.emit.op(
            name, "integrate", [state, x], node.name, factor, attrs, arrays, self._far(attrs, arrays, x, start)
        )
        self.emit.write(state, v)
        return v

    def _far(self, attrs: Mapping[str, int], arrays: Mapping[str, AnyArray], x: Value, start: AnyArray | int) -> Bound:
        """Where an integrator begins and settles, within the accumulators: what does not is going to be clipped."""
        row, op, nothing = OP_TABLE["integrate"], Op("", "integrate", (), "", attrs), np.zeros(1, dtype=np.int64)
        assert row.settled is not None
        low, high = row.settled(op, arrays, [(x.low, x.high), (x.low, x.high)], (nothing, nothing))
        low, high = np.minimum(low, np.min(start)), np.maximum(high, np.max(start))
        return np.maximum(low, -self.emit.most), np.minimum(high, self.emit.most)

    def _fired(self, node: Node, k: _Coefficients, v: Value, theta: FloatArray, fine: FloatArray) -> Cell:
        level = theta / fine
        near = np.rint(level)
        level = np.where(np.abs(level - near) <= _NEAR * np.maximum(np.abs(near), 1), near, level)
        above = np.floor(level) + 1 if self.convention.compare == "gt" else np.ceil(level)
        far = 2.0**30
        first, whole = (np.clip(x, -far, far).astype(np.int32) for x in (above, near))
        self.synapses.losses.append(scales.lost(node.name, "threshold", theta, near * fine, whole))
        most = self.top(node.name)
        arrays = {"first": first, "step": np.maximum(whole, 1)}
        reset = {"subtract": int(self.convention.reset == "subtract"), "limit": 0}
        resting = whole if reset["subtract"] else self._integers(node, "reset", _or_zero(k.v_reset, theta), fine)
        state = next(n for n in self.emit.outputs if self.emit.outputs[n] == v.name)
        one, fire = np.ones((1, 1, 1)), {"most": most}
        # Levels of a reset lift a membrane beyond what its inputs do: any neuron may fire.
        ends = np.zeros(v.shape[0], dtype=np.int64), np.full(v.shape[0], most)
        if self.convention.late == "no":
            sent = self.emit.op(self.emit.own(node.name), "fire", [v], node.name, one, fire, arrays, ends)
            left = self.emit.op(
                f"{node.name}:reset", "reset", [v, sent], node.name, v.factor, reset, {"level": resting}
            )
            self.emit.outputs[state] = left.name
            return Cell(sent, v)
        before = self.emit.state(f"{node.name}:spikes", Value("", v.shape, "spikes", most, one, *ends))
        v = self.emit.op(f"{node.name}:late", "reset", [v, before], node.name, v.factor, reset, {"level": resting})
        self.emit.outputs[state] = v.name
        sent = self.emit.op(self.emit.own(node.name), "fire", [v], node.name, one, fire, arrays, ends)
        self.emit.write(before, sent)
        return Cell(before if self.convention.late == "spike" else sent, v)


def _or_zero(array: FloatArray | None, like: FloatArray) -> FloatArray:
    return np.zeros_like(like) if array is None else array
