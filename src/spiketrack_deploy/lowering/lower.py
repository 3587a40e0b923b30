"""Real-valued network -> verified integer program: a list of passes.

    fold       every convolution once, the image normalisation folded in (raw pixels, border-exact bias map)
    measure    what the candidate int8 exponents of every output channel cost on the sample frames
    plan       which streams share a unit, and the finest unit their worst case allows
    choose     int8 exponents per output channel
    units      fraction bits of every stream
    emit       integers
    prove      every accumulator, stream and membrane within signed 24 bits for any input

This module decides the order, what is tried again and what is reported. A pass is a value: its function, the legality
check of what it made, and a text of it. Where the integer proof fails, ``plan`` and what follows run again with a bit
less; the calibration is measured once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from spiketrack_deploy.errors import FitError
from spiketrack_deploy.lowering.calibrate import (
    Calibration,
    Choice,
    Measured,
    choose,
    dump_choices,
    dump_measured,
    measure,
    sqnr_db,
)
from spiketrack_deploy.lowering.convs import Conv, dump_convs, fold
from spiketrack_deploy.lowering.emit import emit
from spiketrack_deploy.lowering.network import FloatNetwork, Key, check_network
from spiketrack_deploy.lowering.units import Streams, check_plan, dump_plan, dump_units, plan, stream_bits
from spiketrack_deploy.program.bounds import RangeEntry, prove_ranges
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.types import AnyArray, Program

_TRIES = 4


@dataclass(slots=True)
class Lowering:
    """What is known so far: every pass reads the fields of those before it and fills its own."""

    network: FloatNetwork
    calibration: Calibration | None
    meta: Mapping[str, Any]
    progress: Callable[[str], None]
    penalty: int = 0
    convs: Mapping[str, Conv] = field(init=False)
    measured: Mapping[str, Measured] = field(init=False)
    streams: Streams = field(init=False)
    choices: Mapping[str, Choice] = field(init=False)
    bits: Mapping[Key, AnyArray] = field(init=False)
    program: Program = field(init=False)
    ranges: Mapping[str, Sequence[RangeEntry]] = field(init=False)


def _fold(x: Lowering) -> None:
    x.convs = fold(x.network)


def _measure(x: Lowering) -> None:
    found = {}
    for key, conv in x.convs.items():
        x.progress(key)
        found[key] = measure(x.network, conv, x.calibration)
    x.measured = found


def _plan(x: Lowering) -> None:
    x.streams = plan(x.network, x.convs, x.penalty)


def _choose(x: Lowering) -> None:
    x.choices = {
        key: choose(conv, x.measured[key], x.streams.cap[x.streams.group[conv.uses[0]]] - conv.spike_bits)
        for key, conv in x.convs.items()
    }


def _units(x: Lowering) -> None:
    x.bits = stream_bits(x.network, x.convs, x.streams, x.choices)


def _emit(x: Lowering) -> None:
    x.program = emit(x.network, x.convs, x.choices, x.streams, x.bits, x.meta)


def _prove(x: Lowering) -> None:
    x.ranges = prove_ranges(x.program)


class Beyond(Exception):
    """The worst case of an operation leaves 24 bits; its argument is the entry of the proof."""


def _check_ranges(x: Lowering) -> None:
    beyond = [entry for entries in x.ranges.values() for entry in entries if not entry.fits]
    if beyond:
        raise Beyond(max(beyond, key=lambda e: max(-e.low, e.high)))


@dataclass(frozen=True, slots=True)
class Pass:
    """A name, the function, the legality check of what it made (by its errors), and a text of that, one line each."""

    name: str
    run: Callable[[Lowering], None]
    dump: Callable[[Lowering], str]
    check: Callable[[Lowering], None] = lambda x: None


PASSES = (
    Pass("fold", _fold, lambda x: dump_convs(x.convs)),
    Pass("measure", _measure, lambda x: dump_measured(x.measured)),
    Pass("plan", _plan, lambda x: dump_plan(x.streams), lambda x: check_plan(x.streams)),
    Pass("choose", _choose, lambda x: dump_choices(x.choices)),
    Pass("units", _units, lambda x: dump_units(x.streams, x.bits)),
    Pass("emit", _emit, lambda x: dump_program(x.program), lambda x: check_program(x.program)),
    Pass("prove", _prove, lambda x: dump_ranges(x.ranges), _check_ranges),
)
TRIED_AGAIN = next(index for index, one in enumerate(PASSES) if one.name == "plan")
"""From here on passes run again with another penalty."""


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


def lower(
    network: FloatNetwork,
    calibration: Calibration | None = None,
    *,
    meta: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda name: None,
    seen: Callable[[Pass, Lowering], None] = lambda one, x: None,
) -> LoweringResult:
    """All passes over ``network``.

    ``calibration``: what the real-valued network did on sample frames; without it exponents avoid clipping and nothing
    is measured. ``meta``: JSON data to carry in the program. ``progress`` is told the convolution that is measured,
    ``seen`` every pass that was run and checked. InputError: the network is not legal, or the calibration is another
    network's. FitError: a worst case cannot be held in signed 24 bits.
    """
    check_network(network)
    # The products of the measuring are small: BLAS threads that wait for one another take forty times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        return _lower(Lowering(network, calibration, meta or {}, progress), seen)


def _lower(x: Lowering, seen: Callable[[Pass, Lowering], None]) -> LoweringResult:
    _run(PASSES[:TRIED_AGAIN], x, seen)
    for penalty in range(_TRIES):
        x.penalty = penalty
        try:
            _run(PASSES[TRIED_AGAIN:], x, seen)
            return _report(x)
        except Beyond as failed:
            worst = failed.args[0]
    raise FitError(
        f"{worst.op}: its worst case {worst.low}..{worst.high} leaves signed 24 bits whatever unit is chosen; its "
        "weights are too large"
    )


def _run(passes: Sequence[Pass], x: Lowering, seen: Callable[[Pass, Lowering], None]) -> None:
    for one in passes:
        one.run(x)
        one.check(x)
        seen(one, x)


def _report(x: Lowering) -> LoweringResult:
    reports = []
    for key, conv in x.convs.items():
        choice, weight = x.choices[key], x.program.arrays[f"{key}.weight"]
        reports.append(
            ConvReport(
                key,
                int(choice.exponent.min()),
                int(choice.exponent.max()),
                choice.clipped,
                int(choice.capped.sum()),
                int((weight == 0).sum()),
                int(weight.size),
                sqnr_db(x.network, conv, x.measured[key], choice, x.calibration),
            )
        )
    requantised = (
        f"{phase.name} {op.name}" for phase in x.program.phases.values() for op in phase.ops if op.kind == "requantise"
    )
    return LoweringResult(x.program, tuple(reports), x.ranges, tuple(requantised))


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


def dump_ranges(ranges: Mapping[str, Sequence[RangeEntry]]) -> str:
    """One line an operation: what its accumulator may reach, for golden text tests."""
    return "".join(f"{phase} {e.op}: {e.low}..{e.high}\n" for phase, entries in ranges.items() for e in entries)
