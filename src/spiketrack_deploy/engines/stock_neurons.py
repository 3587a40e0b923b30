"""When a LIF of Lava is a neuron of the program, and with which parameters.

This module decides exactness, rule by rule of lava-nc 0.10.0 (docs/loihi.md, "Fixed point"). It must not know how
Processes are joined. An answer in words is the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.engines.stock_parts import EARLY, Answer, Part, diagonal, worst_of
from spiketrack_deploy.program.bounds import RangeEntry
from spiketrack_deploy.program.lif import BIAS_LIMIT, INPUT_LIMIT
from spiketrack_deploy.program.types import AnyArray, IntArray, Op, Phase, Program

LIMIT = 2**23 - 1
SHIFT = 6
MOST_LEVELS = 16


@dataclass
class Lif:
    """A LIF. ``drive``: the value that it integrates; ``spikes``: its output; ``biased``: it acts on its own."""

    drive: str
    spikes: str
    params: dict[str, Any]
    arrays: dict[str, AnyArray]
    biased: bool


def levels_of(
    op: Op, arrays: Mapping[str, AnyArray], program: Program, phase: Phase, ranges: Mapping[str, RangeEntry],
    delays: bool,
) -> Answer | str:  # fmt: skip
    """A neuron of several levels without memory (``ni_lif`` of one step, ``fire``): a LIF a level, whose spikes add up.

    What leaves 17 bits goes through a coarser unit 2^s first. ``x >= a`` and ``(x + c) >> s >= (a + c) / 2^s`` are the
    same for whole numbers where ``c`` fills ``a`` up to a multiple of ``2^s``, so that nothing is lost; levels that
    need the same ``c`` share the connection.
    """
    shape = phase.values[op.name].shape
    if op.kind == "fire":
        first, step = (arrays[role].astype(np.int64) for role in ("first", "step"))
        thresholds = [first + k * step for k in range(min(op.attrs["most"], MOST_LEVELS + 1))]
    else:
        found = arrays["thresholds"].astype(np.int64)
        thresholds = [found[:, k, None, None] for k in range(found.shape[1])]
    if len(thresholds) > MOST_LEVELS:
        return f"{op.attrs['most']} spikes a step; a LIF a level, {MOST_LEVELS} at most"
    if delays and min(int(t.min()) for t in thresholds) < 1:
        return EARLY
    worst = worst_of(op.inputs[0], program, phase, ranges)
    if worst is None:
        return f"an input without bound; a LIF is exact below {INPUT_LIMIT}"
    offset = arrays["offset"][0].astype(np.int64) if "offset" in arrays else None
    worst += 0 if offset is None else int(np.abs(offset).max())
    coarse = 0
    while worst + (1 << coarse) - 1 >= INPUT_LIMIT << coarse:
        coarse += 1
    fronts: dict[bytes, Part] = {}
    parts = []
    for k, threshold in enumerate(thresholds):
        fill = -threshold % (1 << coarse)
        vth = np.clip((threshold + fill) >> coarse, -INPUT_LIMIT, INPUT_LIMIT) - 1
        params: dict[str, Any] = {"shape": list(shape[1:][::-1]), "du": 4095, "dv": 4096}
        part = Part("LIF", params, {"vth": vth}, f".{k + 1}" if len(thresholds) > 1 else "", port="a_in", out="s_out")
        added = fill if offset is None else fill + offset
        if coarse:
            part.fronts = (fronts.setdefault(fill.tobytes(), _coarser(added, coarse, shape[1:], len(fronts))),)
        elif offset is not None and int(np.abs(offset).max()) < BIAS_LIMIT:
            params["bias_exp"], part.arrays["bias_mant"] = SHIFT, offset
        elif offset is not None:
            part.before = [offset]
        parts.append(part)
    return Answer(parts)


def _coarser(added: IntArray, bits: int, shape: Sequence[int], index: int) -> Part:
    before = [added] if added.any() else []
    one = diagonal(np.ones(shape, np.int64))
    return Part("Sparse", {"exp": -bits}, one, f".coarse{index}", flat=True, before=before)


def lif_of(
    group: Sequence[Op], program: Program, phase: Phase, ranges: Mapping[str, RangeEntry], delays: bool
) -> Lif | str:
    """A LIF that is this neuron, or why none is."""
    kinds = sorted(op.kind for op in group)
    fires = [op for op in group if op.kind == "fire"]
    if kinds not in (["fire", "integrate", "reset"], ["fire", "integrate", "integrate", "reset"]):
        what = "sigma-delta with messages that are shifted" if "change" in kinds else (
            "Lava's LIF has no port for its membrane" if not fires else "a reset that acts a step late")  # fmt: skip
        return what
    fire, reset = fires[0], next(op for op in group if op.kind == "reset")
    v = next(op for op in group if op.name == fire.inputs[0])
    others = [op for op in group if op.kind == "integrate" and op is not v]
    u = others[0] if others else None
    if v.kind != "integrate" or reset.inputs != (v.name, fire.name):
        return "a reset that acts a step late"
    if v.name in phase.outputs.values() and v.attrs["readout"]:
        return "its membrane is read, and Lava's LIF has no port for it"
    return _reset_lif(u, v, fire, reset, program, phase, ranges, delays)


def _reset_lif(
    u: Op | None, v: Op, fire: Op, reset: Op, program: Program, phase: Phase, ranges: Mapping[str, RangeEntry],
    delays: bool,
) -> Lif | str:  # fmt: skip
    arrays, first = program.op_arrays(v), program.op_arrays(fire)["first"].astype(np.int64)
    source = u or v
    worst = worst_of(source.inputs[1], program, phase, ranges)
    decay = arrays["decay"].astype(np.int64)
    steady = bool(np.isin(decay, (0, 4096)).all()) and u is None and "bias" not in arrays
    if worst is None or worst >= INPUT_LIMIT:
        lost = "be cut off elsewhere" if v.attrs["limit"] else "leak otherwise"
        far = "without bound" if worst is None else f"up to {worst}"
        return f"inputs {far}; a LIF is exact below {INPUT_LIMIT}, and in a coarser unit its membrane would {lost}"
    if fire.attrs["most"] != 1:
        return "several spikes a step"
    if reset.attrs["subtract"] or program.op_arrays(reset)["level"].any():
        return "a reset otherwise than to 0"
    if any(program.states[s].initial != 0 for s in (v.inputs[0], *((u.inputs[0],) if u else ()))):
        return "a membrane that begins elsewhere than at 0"
    if (source.attrs["shift"] != SHIFT and not (steady and source.attrs["shift"] <= SHIFT)) or (
        u is not None and v.attrs["shift"]
    ):
        return f"a membrane of {source.attrs['shift']} fraction bits; Lava's has {SHIFT}"
    if v.attrs["limit"] not in (0, LIMIT):
        return f"a membrane that is cut off at {v.attrs['limit']}"
    if u is not None and ("bias" in program.op_arrays(u) or max(-ranges[u.name].low, ranges[u.name].high) >= LIMIT):
        return "a current that is cut off or has a bias; Lava's wraps around"
    gain = 1 << (SHIFT - source.attrs["shift"])
    if gain > 1 and max(-ranges[v.name].low, ranges[v.name].high) * gain > LIMIT:
        return f"a membrane up to {ranges[v.name].high} of {source.attrs['shift']} fraction bits; Lava's ends earlier"
    if not steady and ((first - 1) % (1 << SHIFT)).any():
        return f"a threshold that is no whole unit of {1 << SHIFT}"
    # A membrane without leak holds whole units: those above the threshold are those from the next whole one on.
    threshold = -(-first * gain // (1 << SHIFT)) - 1
    if threshold.min() < 0 or threshold.max() >= INPUT_LIMIT:
        return f"thresholds from {threshold.min()} to {threshold.max()}"
    numbers: dict[str, AnyArray] = {"vth": threshold, "dv": 4096 - decay}
    numbers["du"] = np.full((1, 1, 1), 4095) if u is None else 4095 - program.op_arrays(u)["decay"].astype(np.int64)
    params: dict[str, Any] = {}
    if "bias" in arrays:
        bias = arrays["bias"].astype(np.int64) * gain
        if delays:
            return EARLY
        params["bias_exp"] = 0 if np.abs(bias).max() < BIAS_LIMIT else SHIFT
        numbers["bias_mant"] = bias >> params["bias_exp"]
        if np.abs(numbers["bias_mant"]).max() >= BIAS_LIMIT or (bias % (1 << params["bias_exp"])).any():
            return "a bias that 16 bits do not hold"
    return Lif(source.inputs[1], fire.name, params, numbers, True)
