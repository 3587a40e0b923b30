"""The work of one Process in one step: receive, compute, check, send, report.

This module decides the order of receives and sends and what is reported of an operation. It must not know Lava: the
Process hands in two functions. Arithmetic is the program's own integer rule (``program.ops``), except that weighted
sums go through BLAS (see :func:`weighted_sum`); what the Lava engine proves is that the network works as communicating
Processes with rewritable states.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.engines.lava_worker.frames import Channel
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.ops.conv import Pair, conv_geometry, conv_size, taps
from spiketrack_deploy.program.types import INT24_MAX, INT24_MIN, AnyArray, IntArray, Op

Receive = Callable[[str], IntArray]
Send = Callable[[str, IntArray], None]

WAITING, COMPUTING = 1, 2


def weighted_sum(x: IntArray, weight: AnyArray, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> IntArray:
    """``program.ops.conv.weighted_sum`` (same arguments) in floating point, exactly.

    NumPy multiplies int64 matrices without BLAS, about forty times slower. Every partial sum is an integer of at most
    ``max(sum |w|) * max |x|``; below 2^24 float32 holds all of them, below 2^53 float64 does.
    """
    steps, _, height, width = x.shape
    shared, outputs, fan_in, kh, kw = weight.shape
    largest = int(np.abs(weight.astype(np.int64)).sum(axis=(2, 3, 4)).max(initial=0)) * int(np.abs(x).max(initial=0))
    real = np.float32 if largest < 2**24 else np.float64
    if largest >= 2**53:
        raise OverflowError("weights and inputs are too large for exact arithmetic")
    out = conv_size((height, width), (kh, kw), stride, padding, dilation)
    w = weight.astype(real).reshape(shared, groups, outputs // groups, fan_in, kh, kw)
    grouped = x.astype(real).reshape(steps, groups, fan_in, height, width)
    y = np.zeros((steps, groups, outputs // groups, *out), dtype=real)
    for ky, kx, orow, ocol, irow, icol in taps((height, width), out, (kh, kw), stride, padding, dilation):
        patch = grouped[..., irow, icol]
        tap = np.ascontiguousarray(w[..., ky, kx])
        if fan_in == 1:
            # Depthwise: one product per output, no matrix.
            y[..., orow, ocol] += tap[..., None] * patch
        else:
            flat = patch.reshape(steps, groups, fan_in, -1)
            y[..., orow, ocol] += np.matmul(tap, flat).reshape(*y.shape[:3], *patch.shape[-2:])
    return y.reshape(steps, outputs, *out).astype(np.int64)


def compute(op: Op, arrays: Mapping[str, AnyArray], inputs: list[IntArray]) -> IntArray:
    """Output of one operation, int64, equal to the reference."""
    if not OP_TABLE[op.kind].weighted:
        return OP_TABLE[op.kind].run(op, arrays, inputs)
    y = weighted_sum(inputs[0], arrays["weight"], *conv_geometry(op))
    y <<= arrays["shift"].astype(np.int64)[:, :, None, None]
    bias = arrays["bias"].astype(np.int64)
    y += bias[None] if bias.ndim == 3 else bias[:, :, None, None]
    return y


def check_range(name: str, value: IntArray) -> None:
    """OverflowError naming value and operation where a message would not survive a signed 24-bit channel.

    A Lava channel casts to the port's dtype without a word (docs/loihi.md, "Fixed point").
    """
    low, high = int(value.min(initial=0)), int(value.max(initial=0))
    if low < INT24_MIN or high > INT24_MAX:
        worst = low if low < INT24_MIN else high
        raise OverflowError(f"operation {name} gives {worst}, outside signed 24 bits ({INT24_MIN}..{INT24_MAX})")


@dataclass(frozen=True, slots=True)
class Fault:
    """Test hook ``SPIKETRACK_LAVA_FAULT=die|hang|raise@NAME``: NAME is a Process, an operation, or ``start``."""

    action: str = ""
    target: str = ""

    @classmethod
    def from_environment(cls) -> Fault:
        """The fault that the environment asks for; none by default."""
        action, _, target = os.environ.get("SPIKETRACK_LAVA_FAULT", "").partition("@")
        return cls(action, target)

    def strike(self, *names: str) -> None:
        """Die, hang or raise if one of the names is the target."""
        if not self.target or self.target not in names:
            return
        if self.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "hang":
            time.sleep(10**6)
        if self.action == "raise":
            raise RuntimeError(f"fault injected at {self.target}")


@dataclass(frozen=True, slots=True)
class Segment:
    """One Process: operations by phase, arrays, pipe for reports, row ``[stage, operation]`` of the state table."""

    name: str
    work: Mapping[str, tuple[Op, ...]]
    arrays: Mapping[str, AnyArray]
    report: Channel
    state: AnyArray
    fault: Fault

    def step(self, phase: str, count: bool, watch: bool, receive: Receive, send: Send, sent: frozenset[str]) -> None:
        """Run one phase. ``sent``: values that leave the Process; they leave as soon as they exist.

        Reports over the pipe: every operation's integers if watched, in order; then one message with all counts.
        Errors carry the operation's name; the Process that raises ends the whole run.
        """
        values: dict[str, IntArray] = {}
        counts: dict[str, list[int]] = {}
        ops = self.work.get(phase, ())
        last = {name: index for index, op in enumerate(ops) for name in op.inputs}
        for index, op in enumerate(ops):
            self.state[:] = (WAITING, index)
            for name in op.inputs:
                if name not in values:
                    values[name] = receive(name)
            self.state[:] = (COMPUTING, index)
            self.fault.strike(self.name, op.name)
            args = [values[name] for name in op.inputs]
            arrays = {role: self.arrays[key] for role, key in op.arrays.items()}
            values[op.name] = out = compute(op, arrays, args)
            check_range(op.name, out)
            if op.name in sent:
                send(op.name, out)
            if count:
                counts[op.name] = list(OP_TABLE[op.kind].count(op, arrays, args, out).to_dict().values())
            if watch:
                small = OP_TABLE[op.kind].output == "spikes"
                self.report.send({"op": op.name}, {"value": out.astype(np.uint8 if small else np.int32)})
            for name in {*op.inputs, op.name}:
                if last.get(name, index) <= index:
                    del values[name]
        self.state[:] = 0
        self.report.send({"done": self.name, "counts": counts})


def describe(state: AnyArray, names: list[str], work: list[Mapping[str, tuple[Op, ...]]], phase: str) -> str:
    """Who is computing what, for the message of a hang: the Processes at work, else the first that waits."""
    busy: list[str] = []
    waiting: list[str] = []
    for row, name, ops in zip(state, names, work):
        stage, index = int(row[0]), int(row[1])
        if stage and phase in ops:
            place: Any = ops[phase][index]
            (busy if stage == COMPUTING else waiting).append(f"{name} (operation {place.name})")
    if busy:
        return "at work: " + ", ".join(busy)
    return "waiting: " + waiting[0] if waiting else "no Process is at work"
