"""NIR graph and cuts -> verified integer program: the passes in order.

    recognise        NIR nodes and cuts -> real-valued operations, steps rolled up
    fold_image       image normalisation into the first convolution (raw pixels, border-exact bias map)
    plan             which streams share a unit, and the finest unit their worst case allows
    choose           int8 exponents per output channel on the sample frames
    emit             integers
    prove            every accumulator, stream and membrane within signed 24 bits for any input

This module decides the order and what is reported. Each pass is followed by the legality check of its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.frontends.spiketrack.recognise import recognise
from spiketrack_deploy.lowering.calibrate import Calibration, Choice, choose, dequantise, input_samples, quantise
from spiketrack_deploy.lowering.emit import emit
from spiketrack_deploy.lowering.network import FloatNetwork, FloatOp, check_network
from spiketrack_deploy.lowering.units import CONVS, Streams, plan
from spiketrack_deploy.nir_graph.graph import Cut, Graph
from spiketrack_deploy.program.bounds import RangeEntry, prove_ranges
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.ops.conv import taps
from spiketrack_deploy.program.types import AnyArray, Program

_TRIES = 4


@dataclass(frozen=True, slots=True)
class ConvReport:
    """What quantisation did to one convolution: weights beyond int8 that were clipped, channels whose exponent a
    stream's range held down, signal-to-quantisation-noise ratio on the sample frames in dB (None without samples)."""

    name: str
    exponent_low: int
    exponent_high: int
    clipped_weights: int
    capped_channels: int
    zero_weights: int
    weights: int
    sqnr_db: float | None


@dataclass(frozen=True, slots=True)
class LoweringResult:
    """The program and what is known about it."""

    program: Program
    convolutions: tuple[ConvReport, ...]
    ranges: Mapping[str, Sequence[RangeEntry]]
    requantised: tuple[str, ...]


def convolutions(network: FloatNetwork) -> dict[str, FloatOp]:
    """Every convolution once, by name (both phases share weights)."""
    return {op.name: op for phase in network.phases.values() for op in phase.ops if op.kind in CONVS}


def fold_image(op: FloatOp, network: FloatNetwork) -> tuple[AnyArray, AnyArray]:
    """Weights ``[1,O,3,kh,kw]`` for raw pixels 0..255 and bias ``[1,O]`` without the mean's share."""
    scale: AnyArray = 1.0 / (255.0 * network.std)
    weight: AnyArray = op.params["weight"] * scale[None, None, :, None, None]
    return weight, op.params["bias"]


def image_bias(op: FloatOp, network: FloatNetwork, weight: AnyArray, size: tuple[int, int]) -> AnyArray:
    """Bias map ``[O,Ho,Wo]``: the mean is subtracted only where a tap falls inside the image.

    Zero padding happens after the normalisation, so a border tap contributes 0 and not ``-mean``. ``weight``: as the
    program will hold it, so that its rounding error meets zero-mean pixels.
    """
    _, outputs, height, width = op.shape
    result = np.repeat(op.params["bias"][0].astype(np.float64), height * width).reshape(outputs, height, width)
    share = (weight[0] * (255.0 * network.mean)[None, :, None, None]).sum(axis=1)
    for ky, kx, rows, cols, _, _ in taps(
        size, (height, width), weight.shape[3:], op.params["stride"], op.params["padding"], op.params["dilation"]
    ):
        result[:, rows, cols] -= share[:, ky, kx, None, None]
    return result


def _choose_all(
    network: FloatNetwork,
    streams: Streams,
    weights: Mapping[str, AnyArray],
    calibration: Calibration | None,
    progress: Callable[[str], None],
) -> dict[str, Choice]:
    choices: dict[str, Choice] = {}
    for name, op in convolutions(network).items():
        progress(name)
        samples: list[AnyArray] = []
        cap: AnyArray | None = None
        for phase in network.phases.values():
            if any(o.name == name for o in phase.ops):
                own = next(o for o in phase.ops if o.name == name)
                cap = streams.cap[streams.group[(phase.name, name)]]
                if calibration is not None and own.params["weight"].shape == op.params["weight"].shape:
                    samples.extend(input_samples(network, phase, own, calibration))
        limit = np.asarray(cap) - (0 if op.kind == "image_conv" else 2)
        choices[name] = choose(weights[name], op, limit, samples)
    return choices


def _image_size(network: FloatNetwork) -> tuple[int, int]:
    shape = network.phases["search"].inputs["image"]
    return shape[2], shape[3]


def _attempt(
    network: FloatNetwork,
    calibration: Calibration | None,
    meta: Mapping[str, Any],
    penalty: int,
    progress: Callable[[str], None],
) -> tuple[Program, dict[str, Choice]]:
    weights: dict[str, AnyArray] = {}
    biases: dict[str, AnyArray] = {}
    size = _image_size(network)
    for name, op in convolutions(network).items():
        weights[name], biases[name] = (
            fold_image(op, network) if op.kind == "image_conv" else (op.params["weight"], op.params["bias"])
        )
        if op.kind == "image_conv":
            biases[name] = image_bias(op, network, weights[name], size)
    streams = plan(network, weights, biases, penalty)
    choices = _choose_all(network, streams, weights, calibration, progress)
    for name, op in convolutions(network).items():
        if op.kind == "image_conv":
            exponent = choices[name].exponent
            biases[name] = image_bias(op, network, dequantise(quantise(weights[name], exponent), exponent), size)
    return emit(network, streams, choices, weights, biases, meta), choices


def lower_network(
    network: FloatNetwork,
    calibration: Calibration | None,
    meta: Mapping[str, Any],
    progress: Callable[[str], None] = lambda name: None,
) -> LoweringResult:
    """All passes behind ``recognise``. FitError where no unit keeps the worst case inside 24 bits."""
    check_network(network)
    for penalty in range(_TRIES):
        program, choices = _attempt(network, calibration, meta, penalty, progress)
        check_program(program)
        ranges = prove_ranges(program)
        beyond = [entry for entries in ranges.values() for entry in entries if not entry.fits]
        if not beyond:
            requantised = tuple(
                f"{b.name} {op.name}" for b in program.phases.values() for op in b.ops if op.kind == "requantise"
            )
            return LoweringResult(program, _conv_reports(program, choices), ranges, requantised)
    worst = max(beyond, key=lambda e: max(-e.low, e.high))
    raise FitError(
        f"{worst.op}: its worst case {worst.low}..{worst.high} leaves signed 24 bits whatever unit is chosen; its "
        "weights are too large"
    )


def _conv_reports(program: Program, choices: Mapping[str, Choice]) -> tuple[ConvReport, ...]:
    reports = []
    for name, choice in choices.items():
        weight = program.arrays[f"{name}.weight"]
        reports.append(
            ConvReport(
                name,
                int(choice.exponent.min()),
                int(choice.exponent.max()),
                choice.clipped,
                choice.capped,
                int((weight == 0).sum()),
                int(weight.size),
                choice.sqnr_db,
            )
        )
    return tuple(reports)


def lower(
    graph: Graph,
    cuts: Sequence[Cut],
    calibration: Calibration | None = None,
    *,
    meta: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> LoweringResult:
    """NIR graph and cuts -> program.

    ``calibration``: the float tracker's spikes on sample frames; without it exponents avoid clipping and nothing is
    measured. ``meta``: JSON data to carry in the program beside the tracker's ``config``. InputError: the graph is
    not a SpikeTrack export. FitError: a worst case cannot be held in signed 24 bits.
    """
    network = recognise(graph, cuts)
    return lower_network(network, calibration, {"config": dict(network.config), **(meta or {})}, progress)


def dump_program(program: Program) -> str:
    """One line an operation: kind, inputs, shape, units, exponents' shifts; stable, for golden text tests."""
    lines = []
    for phase in program.phases.values():
        lines.append(f"phase {phase.name}({', '.join(f'{k}{list(s.shape)}' for k, s in phase.inputs.items())})")
        for op in phase.ops:
            spec = phase.values[op.name]
            attrs = " ".join(f"{k}={v}" for k, v in sorted(op.attrs.items()))
            parts = []
            if spec.unit:
                unit = program.arrays[spec.unit]
                parts.append(f"unit {unit.min()}..{unit.max()}")
            for role, key in sorted(op.arrays.items()):
                array = program.arrays[key].astype(np.int64)
                parts.append(f"{role}{list(array.shape)} sum {int(array.sum())}")
            lines.append(
                f"  {op.name}{list(spec.shape)} = {op.kind}({', '.join(op.inputs)}) {attrs} {{{'; '.join(parts)}}}"
            )
        lines.extend(f"  output {public} = {name}" for public, name in phase.outputs.items())
    return "\n".join(lines) + "\n"
