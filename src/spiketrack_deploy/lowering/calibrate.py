"""Chooses the power-of-two exponent of every output channel's int8 weights on sample frames.

This module decides exponents, by the error that rounding (and, one step finer, clipping) causes at the layer's
output on the spikes that the float tracker emitted, not by the largest weight alone. It must not know streams'
units; the largest exponent that a stream's range allows is handed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.recorded import as_value
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, FloatPhase
from spiketrack_deploy.program.ops.gate import gate_transpose
from spiketrack_deploy.program.types import AnyArray

WEIGHT_MAX = 127
_SAMPLES = 768
_EXPONENTS = (-20, 40)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the float tracker saw and did on sample frames.

    ``images``: phase -> runs of uint8 ``[T,3,r,r]``. ``spikes``: phase -> runs of NI-LIF name -> int8 as
    ``trackers.spiketrack.record`` gives them (``[T,1,C,H,W]``, ``[T,1,C,N]``, the gate's ``[C,N/2,T]``).
    """

    images: Mapping[str, Sequence[AnyArray]]
    spikes: Mapping[str, Sequence[Mapping[str, AnyArray]]]


def input_samples(
    network: FloatNetwork, phase: FloatPhase, op: FloatOp, calibration: Calibration
) -> Iterator[AnyArray]:
    """The recorded input ``[T,C,H,W]`` of a convolution, run by run: pixels minus their mean, or spikes n/4."""
    producers = {o.name: o for o in phase.ops}
    source = op.inputs[0]
    if source == "image":
        for image in calibration.images.get(phase.name, ()):
            yield image.astype(np.float32) - (255.0 * network.mean[:, None, None]).astype(np.float32)
        return
    producer = producers[source]
    transposed = producer.kind == "gate_transpose"
    neuron = producers[producer.inputs[0]] if transposed else producer
    for run in calibration.spikes.get(phase.name, ()):
        if neuron.name not in run:
            raise InputError(f"calibration has no spikes of {neuron.name}; record them with the same model")
        value = as_value(neuron.name, run[neuron.name], neuron.shape)
        yield (gate_transpose(value) if transposed else value).astype(np.float32) * np.float32(0.25)


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
    scaled = np.rint(weight * np.exp2(exponent.astype(np.float64))[:, :, None, None, None])
    clipped: AnyArray = np.clip(scaled, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    return clipped


def dequantise(weight: AnyArray, exponent: AnyArray) -> AnyArray:
    """int8 weights as float64."""
    return weight.astype(np.float64) * np.exp2(-exponent.astype(np.float64))[:, :, None, None, None]


def plain_exponents(weight: AnyArray) -> AnyArray:
    """Largest exponent ``[G,O]`` at which no weight of the channel clips."""
    peak = np.abs(weight).max(axis=(2, 3, 4))
    safe = np.where(peak > 0, peak, WEIGHT_MAX / 2.0**8)
    return np.clip(np.floor(np.log2(WEIGHT_MAX / safe)), *_EXPONENTS).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Choice:
    """Exponents ``[G,O]`` of one convolution, and what they cost on the sample frames.

    ``signal``, ``noise``: mean squares of the layer's output and of its error over the samples (0 without samples).
    """

    exponent: AnyArray
    clipped: int
    capped: int
    signal: float
    noise: float

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantisation-noise ratio in dB; None where nothing was measured."""
        if self.signal <= 0 or self.noise <= 0:
            return None
        return float(10.0 * np.log10(self.signal / self.noise))


def _powers(weights: Sequence[AnyArray], op: FloatOp, samples: Sequence[AnyArray]) -> list[AnyArray]:
    """Mean square of ``weights[i] @ patches`` per output channel: ``[G,O]`` each."""
    groups, shared = op.params["groups"], weights[0].shape[0]
    totals = [np.zeros(w.shape[:2]) for w in weights]
    count = 0
    for x in samples:
        for g in range(shared):
            columns = patches(x, op, g if shared > 1 else None)
            count += columns.shape[2]
            for power, w in zip(totals, weights, strict=True):
                y = np.matmul(w[g].reshape(groups, w.shape[1] // groups, -1).astype(np.float32), columns)
                power[g] += np.square(y, dtype=np.float64).sum(axis=2).reshape(-1)
    return [p * shared / max(count, 1) for p in totals]


def choose(weight: AnyArray, op: FloatOp, cap: AnyArray, samples: Sequence[AnyArray]) -> Choice:
    """Exponents of one convolution: per channel the better of *no clipping* and *one step finer with clipping*.

    ``weight`` float64 ``[G,O,I,kh,kw]`` acting on ``samples``; ``cap`` int ``[O]``: the largest exponent allowed.
    """
    plain = np.minimum(plain_exponents(weight), cap[None])
    finer = np.minimum(plain + 1, cap[None])
    if samples:
        errors = [dequantise(quantise(weight, e), e) - weight for e in (plain, finer)]
        noise, noise_finer, signal = _powers([*errors, weight], op, samples)
        exponent = np.where(noise_finer < noise, finer, plain)
        measured = float(np.minimum(noise, noise_finer).mean()), float(signal.mean())
    else:
        exponent, measured = plain, (0.0, 0.0)
    scaled = np.abs(np.rint(weight * np.exp2(exponent.astype(np.float64))[:, :, None, None, None]))
    return Choice(
        exponent,
        int((scaled > WEIGHT_MAX).sum()),
        int((plain_exponents(weight) > cap[None]).sum()),
        measured[1],
        measured[0],
    )
