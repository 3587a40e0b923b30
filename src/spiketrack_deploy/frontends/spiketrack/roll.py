"""The T steps that NIR unrolls in space become one time axis: operations at single steps -> the operations of a phase.

This module decides which steps are one operation and in which order operations run. Steps may differ in weights,
biases, offsets and decays, which then are stored per step; any other difference is refused by name. It must not know
NIR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spiketrack_deploy.frontends.spiketrack.names import IMAGE, Ref, block_of, refusal
from spiketrack_deploy.frontends.spiketrack.steps import Step
from spiketrack_deploy.lowering.network import FloatInput, FloatOp, FloatPhase, Shape
from spiketrack_deploy.program.types import AnyArray

_BROADCAST = ("ni_lif", "add")
"""Kinds that may read one value at all their steps."""


def gather(steps: Mapping[Ref, Step]) -> dict[str, list[Step]]:
    """Operation -> its steps, of one kind each, none missing."""
    found: dict[str, dict[int, Step]] = {}
    for (stem, step), item in steps.items():
        found.setdefault(stem, {})[step] = item
    result = {}
    for stem, by_step in found.items():
        entries = [by_step[step] for step in sorted(by_step)]
        if sorted(by_step) != list(range(len(entries))) or len({e.kind for e in entries}) != 1:
            raise refusal(entries[-1].origin, f"steps {sorted(by_step)} of {stem} are incomplete or of several kinds")
        result[stem] = entries
    return result


def roll(
    phase: str,
    steps: Mapping[Ref, Step],
    outputs: Mapping[str, str],
    written: Mapping[str, str],
    memories: Mapping[str, Shape],
) -> FloatPhase:
    """One phase. ``outputs``, ``written``: public name or state -> operation; ``memories``: the states it may read."""
    stems = gather(steps)
    widths = {stem: len(entries) for stem, entries in stems.items()} | {m: shape[0] for m, shape in memories.items()}
    reads = {stem: _reads(stem, entries, widths) for stem, entries in stems.items()}
    for stem, (first, *rest) in ((s, r) for s, r in reads.items() if stems[s][0].kind == "add"):
        # The residual stream, which is passed on, stands before what is added to it: the other one depends on it.
        if _depends(first, rest[0], reads):
            reads[stem] = (rest[0], first)
    ends = {**outputs, **written}
    ops = [
        _operation(stem, stems, reads[stem], stem in outputs.values())
        for stem in _ordered([ends[name] for name in sorted(ends)], reads)
        if stem in stems and stem != IMAGE
    ]
    left = sorted(stems.keys() - {op.name for op in ops} - {IMAGE})
    if left:
        raise refusal(stems[left[0]][0].origin, f"nothing that the {phase} phase puts out depends on it")
    image = stems.get(IMAGE, [])
    inputs = {IMAGE: FloatInput("image", (len(image), *image[0].shape))} if image else {}
    return FloatPhase(phase, inputs, tuple(ops), outputs)


def _reads(stem: str, entries: Sequence[Step], widths: Mapping[str, int]) -> tuple[str, ...]:
    """What an operation reads, by name; refused where its steps read different values, or a value of another step."""
    if entries[0].kind == "gate":  # one step that reads every step of its two values
        refs = entries[0].inputs
        half = len(refs) // 2
        columns, readers = [refs[:half], refs[half:]], [entries[0]] * half
    else:
        read = [sorted(e.inputs) if e.kind == "add" else e.inputs for e in entries]  # a sum has no order
        columns, readers = list(zip(*read, strict=True)), list(entries)
    for column in columns:
        name = column[0][0]
        single = widths.get(name) == 1 and entries[0].kind in _BROADCAST
        for t, (reader, ref) in enumerate(zip(readers, column, strict=True)):
            if ref != (name, 0 if single else t) or (not single and widths.get(name) != len(column)):
                raise refusal(reader.origin, f"reads {ref[0]} of step {ref[1]}, not {name} as {stem} does at step {t}")
    return tuple(column[0][0] for column in columns)


def _depends(end: str, start: str, reads: Mapping[str, tuple[str, ...]]) -> bool:
    pending, seen = [end], set[str]()
    while pending:
        name = pending.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            pending.extend(reads.get(name, ()))
    return False


def _ordered(roots: Sequence[str], reads: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Everything that ``roots`` depend on, each behind what it reads: depth first, so that a value is used soon."""
    done: dict[str, None] = {}
    for root in roots:
        pending = [(root, False)]
        while pending:
            name, ready = pending.pop()
            if ready:
                done[name] = None
            elif name not in done:
                pending.append((name, True))
                pending.extend((n, False) for n in reversed(reads.get(name, ())) if n not in done)
    return list(done)


def _operation(stem: str, stems: Mapping[str, Sequence[Step]], reads: tuple[str, ...], is_output: bool) -> FloatOp:
    entries = stems[stem]
    kind, params = entries[0].kind, _params(entries)
    if kind == "conv" and reads == (IMAGE,):
        kind, params = "image_conv", params | _params(stems[IMAGE])
        for field in ("weight", "bias"):
            odd = next((e for e in entries if not np.array_equal(e.params[field], entries[0].params[field])), None)
            if odd is not None:
                raise refusal(odd.origin, f"field '{field}' is not that of {entries[0].origin}, which sees pixels too")
    elif is_output:
        if kind != "conv":
            raise refusal(entries[0].origin, f"is put out as logits, but is no convolution ({kind})")
        kind = "head_out"
    shape = (len(entries), *_four(entries[0].shape))
    return FloatOp(stem, kind, reads, block_of(stem), shape, params, tuple(e.origin for e in entries))


def _four(shape: Shape) -> Shape:
    """The gate's (positions, channels) lie in a column of channels, one for each position."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _params(entries: Sequence[Step]) -> dict[str, Any]:
    """Parameters of all steps: stacked where they may differ, else equal."""
    params: dict[str, Any] = {}
    for field, first in entries[0].params.items():
        values = [e.params[field] for e in entries]
        if field in ("weight", "bias"):
            params[field] = _stack(values)
        elif field == "offset":
            params[field] = _offsets(values)
        elif field == "sigma":
            params[field] = np.array(values[1:])
        else:
            for entry, value in zip(entries, values, strict=True):
                if not np.array_equal(value, first):
                    raise refusal(entry.origin, f"field '{field}' is {value}, but {first} in {entries[0].origin}")
            params[field] = first
    steps = {params[field].shape[0] for field in ("weight", "bias") if field in params}
    if len(steps) == 2:
        for field in ("weight", "bias"):
            params[field] = np.broadcast_to(params[field], (len(entries), *params[field].shape[1:]))
    return params


def _stack(arrays: Sequence[AnyArray]) -> AnyArray:
    """``[1, ...]`` where all steps share one array, else ``[T, ...]``."""
    if all(a is arrays[0] or np.array_equal(a, arrays[0]) for a in arrays[1:]):
        return arrays[0][None]
    return np.stack(arrays)


def _offsets(offsets: Sequence[AnyArray | None]) -> AnyArray | None:
    shapes = [o.shape for o in offsets if o is not None]
    return np.stack([np.zeros(shapes[0]) if o is None else o for o in offsets]) if shapes else None
