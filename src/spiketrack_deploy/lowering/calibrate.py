"""Passes `measure` and `choose`: the power-of-two exponent of every output channel's int8 weights, on sample frames.

This module decides exponents, by the error that rounding (and, one step finer, clipping) causes at the layer's output
on what the real-valued network did, not by the largest weight alone. It must not know streams' units: the largest
exponent that a stream's range allows is handed in. Measuring needs no such limit, so it is done once, however often the
limits are tightened: a channel that its limit holds down has no choice left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.lowering.convs import Conv
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, FloatPhase
from spiketrack_deploy.program.ops.gate import gate_transpose
from spiketrack_deploy.program.types import AnyArray

WEIGHT_MAX = 127
_SAMPLES = 768
_EXPONENTS = (-20, 40)

Calibration = Mapping[str, Sequence[Mapping[str, AnyArray]]]
"""What the real-valued network saw and did on sample frames: phase -> runs of name -> integers in the value's shape:
uint8 images by input name, int8 spikes 0..4 by the NI-LIF operation's name."""


def input_samples(
    network: FloatNetwork, phase: FloatPhase, op: FloatOp, calibration: Calibration
) -> Iterator[AnyArray]:
    """The recorded input ``[T,C,H,W]`` of a convolution, run by run: pixels minus their mean, or spikes n/4.

    InputError where a run lacks the value or has it in another shape.
    """
    source = op.inputs[0]
    producer = phase.op(source)
    transposed = producer is not None and producer.kind == "gate_transpose"
    name = producer.inputs[0] if producer is not None and transposed else source
    shape = network.shape(phase, name)
    for run in calibration.get(phase.name, ()):
        if name not in run or tuple(run[name].shape) != shape:
            found = f"has it as {tuple(run[name].shape)}" if name in run else "lacks it"
            raise InputError(
                f"calibration of {phase.name} {name}: the network's value is {shape}, a recorded run {found}; record "
                "with the same model"
            )
        if op.kind == "image_conv":
            yield run[name].astype(np.float32) - op.params["mean"][:, None, None].astype(np.float32)
        else:
            value = gate_transpose(run[name]) if transposed else run[name]
            yield value.astype(np.float32) * np.float32(0.25)


def patches(x: AnyArray, op: FloatOp, step: int | None) -> AnyArray:
    """Input patches at evenly spread output positions: float32 ``[groups, I*kh*kw, samples]``."""
    weight, groups = op.params["weight"], op.params["groups"]
    (sy, sx), (py, px), (dy, dx) = op.params["stride"], op.params["padding"], op.params["dilation"]
    _, _, fan_in, kh, kw = weight.shape
    steps = [step] if step is not None else list(range(x.shape[0]))
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)))
    _, _, height, width = op.shape
    chosen = np.unique(np.linspace(0, len(steps) * height * width - 1, _SAMPLES).astype(np.int64))
    t, rest = np.divmod(chosen, height * width)
    rows, cols = np.divmod(rest, width)
    t = np.asarray(steps)[t]
    columns = np.empty((x.shape[1], kh, kw, chosen.size), dtype=np.float32)
    for ky in range(kh):
        for kx in range(kw):
            columns[:, ky, kx] = padded[t, :, rows * sy + ky * dy, cols * sx + kx * dx].T
    return columns.reshape(groups, fan_in * kh * kw, chosen.size)


def quantise(weight: AnyArray, exponent: AnyArray) -> AnyArray:
    """``clip(rint(weight * 2**exponent), -127, 127)`` int8; ``exponent`` ``[G,O]`` for weight ``[G,O,...]``."""
    clipped: AnyArray = np.clip(_scaled(weight, exponent), -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    return clipped


def dequantise(weight: AnyArray, exponent: AnyArray) -> AnyArray:
    """int8 weights as float64."""
    return weight.astype(np.float64) * np.exp2(-exponent.astype(np.float64))[:, :, None, None, None]


def _scaled(weight: AnyArray, exponent: AnyArray) -> AnyArray:
    scaled: AnyArray = np.rint(weight * np.exp2(exponent.astype(np.float64))[:, :, None, None, None])
    return scaled


def plain_exponents(weight: AnyArray) -> AnyArray:
    """Largest exponent ``[G,O]`` at which no weight of the channel clips."""
    peak = np.abs(weight).max(axis=(2, 3, 4))
    safe = np.where(peak > 0, peak, WEIGHT_MAX / 2.0**8)
    return np.clip(np.floor(np.log2(WEIGHT_MAX / safe)), *_EXPONENTS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one convolution, per output channel ``[G,O]``: the exponent at which nothing clips, and mean squares over the
    samples of the output (``signal``) and of its error at that exponent and at the next finer one; None without any.
    """

    plain: AnyArray
    signal: AnyArray | None = None
    noise: AnyArray | None = None
    noise_finer: AnyArray | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Exponents ``[G,O]`` of one convolution; ``clipped``: weights beyond int8; ``capped``: channels held down."""

    exponent: AnyArray
    clipped: int
    capped: AnyArray


def _powers(
    network: FloatNetwork, conv: Conv, weights: Sequence[AnyArray], calibration: Calibration
) -> list[AnyArray] | None:
    """Mean square of ``weights[i] @ patches`` per output channel: ``[G,O]`` each; None where nothing was recorded."""
    groups, shared = conv.op.params["groups"], weights[0].shape[0]
    totals = [np.zeros(w.shape[:2]) for w in weights]
    count = 0
    for phase_name, name in conv.uses:
        phase = network.phases[phase_name]
        op = phase.op(name) or conv.op
        for x in input_samples(network, phase, op, calibration):
            for g in range(shared):
                columns = patches(x, op, g if shared > 1 else None)
                count += columns.shape[2]
                for power, w in zip(totals, weights, strict=True):
                    y = np.matmul(w[g].reshape(groups, w.shape[1] // groups, -1).astype(np.float32), columns)
                    power[g] += np.square(y, dtype=np.float64).sum(axis=2).reshape(-1)
    return [p * shared / count for p in totals] if count else None


def _error(conv: Conv, exponent: AnyArray) -> AnyArray:
    return dequantise(quantise(conv.weight, exponent), exponent) - conv.weight


def measure(network: FloatNetwork, conv: Conv, calibration: Calibration | None) -> Measured:
    """What the two candidate exponents of every channel cost on the sample frames."""
    plain = plain_exponents(conv.weight)
    weights = [_error(conv, plain), _error(conv, plain + 1), conv.weight]
    powers = _powers(network, conv, weights, calibration or {})
    return Measured(plain) if powers is None else Measured(plain, powers[2], powers[0], powers[1])


def choose(conv: Conv, measured: Measured, cap: AnyArray) -> Choice:
    """Per channel the better of *no clipping* and *one step finer with clipping*, none above ``cap`` int ``[O]``."""
    exponent = np.minimum(measured.plain, cap[None])
    if measured.noise is not None and measured.noise_finer is not None:
        finer = (measured.noise_finer < measured.noise) & (measured.plain < cap[None])
        exponent = np.where(finer, measured.plain + 1, exponent)
    clipped = int((np.abs(_scaled(conv.weight, exponent)) > WEIGHT_MAX).sum())
    return Choice(exponent, clipped, measured.plain > cap[None])


def sqnr_db(
    network: FloatNetwork, conv: Conv, measured: Measured, choice: Choice, calibration: Calibration | None
) -> float | None:
    """Signal-to-quantisation-noise ratio of the layer's output in dB; None where nothing was measured."""
    if measured.signal is None or measured.noise is None or measured.noise_finer is None:
        return None
    noise = np.where(choice.exponent > measured.plain, measured.noise_finer, measured.noise)
    if choice.capped.any():  # these exponents were not among the measured ones
        again = _powers(network, conv, [_error(conv, choice.exponent)], calibration or {})
        noise = noise if again is None else again[0]
    signal, error = float(measured.signal.mean()), float(noise.mean())
    return float(10.0 * np.log10(signal / error)) if signal > 0 and error > 0 else None


def dump_measured(measured: Mapping[str, Measured]) -> str:
    """One line a convolution, for golden text tests."""
    lines = []
    for key, m in measured.items():
        text = f"{key}: exponents {m.plain.min()}..{m.plain.max()}"
        if m.signal is not None and m.noise is not None and m.noise_finer is not None:
            better = int((m.noise_finer < m.noise).sum())
            power = float(m.signal.mean())
            text += f"; finer is better in {better} of {m.plain.size}; " + (
                f"signal 2^{np.log2(power):.0f}" if power else "silent"
            )
        lines.append(text + "\n")
    return "".join(lines)


def dump_choices(choices: Mapping[str, Choice]) -> str:
    """One line a convolution, for golden text tests."""
    return "".join(
        f"{key}: exponents {c.exponent.min()}..{c.exponent.max()} sum {int(c.exponent.sum())}; {c.clipped} clipped; "
        f"{int(c.capped.sum())} capped\n"
        for key, c in choices.items()
    )
