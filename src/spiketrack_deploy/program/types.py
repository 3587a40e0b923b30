"""What an integer program is made of: values with a shape and a unit, operations, phases.

This module decides the data; it must not know how an operation computes (``semantics``), what it costs (``counts``)
or who runs it (``engines``). A value is ``[T, C, H, W]`` (a memory ``[T, heads, d, dv]``), T the network's time steps.

    image    uint8 0..255           raw RGB pixels
    spikes   uint8 0..4             graded spikes n; the tracker's value is n / 4
    stream   int32 in signed 24 bit the tracker's value is integer * scale * 2**-unit[c], channel by channel
    memory   int32                  k^T v of a template, in units of 1/16
    logits   int32                  as stream; leaves the program for the host
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
AnyArray = NDArray[Any]
Arrays = Mapping[str, AnyArray]

VALUE_KINDS = ("image", "spikes", "stream", "memory", "logits")
SPIKE_MAX = 4
INT24_MIN, INT24_MAX = -(2**23), 2**23 - 1
UNREACHABLE = 2**23
"""A threshold that no signed 24-bit value reaches."""
DECAY_BITS = 12
GATE_BITS = 15


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Kind, shape and unit of a value.

    ``unit`` is the key of an int8 array ``[C]`` of fraction bits (streams and logits only, else ``None``); ``scale``
    is a factor common to all channels: 1 except behind a ``query``, whose attention gain may be irrational.
    """

    kind: str
    shape: tuple[int, ...]
    unit: str | None = None
    scale: float = 1.0

    @property
    def size(self) -> int:
        """Number of elements, all time steps."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. Its output value has its own name: the module path of the tracker it came from.

    ``inputs``: names of operations or phase inputs. ``block``: the block of the network it belongs to (reports, Lava
    Processes). ``attrs``: small integers of the operation's row in the table. ``arrays``: role -> key in the program.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    block: str
    attrs: Mapping[str, int] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Phase:
    """A feed-forward list of operations in execution order.

    ``inputs``: ``image`` and, in the search phase, ``memory.<i>``. ``outputs``: public name -> operation
    (``memory.<i>`` in the template phase; ``ctr``, ``offset``, ``size`` in the search phase).
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    ops: tuple[Op, ...]
    values: Mapping[str, TensorSpec]
    outputs: Mapping[str, str]

    def spec(self, name: str) -> TensorSpec:
        """Spec of a phase input or of an operation's output."""
        return self.inputs[name] if name in self.inputs else self.values[name]

    def last_uses(self) -> dict[str, int]:
        """Index of the last operation that reads each value (outputs are never released)."""
        last = {name: index for index, op in enumerate(self.ops) for name in op.inputs}
        return {name: index for name, index in last.items() if name not in self.outputs.values()}


@dataclass(frozen=True, slots=True)
class Program:
    """Template phase, search phase, and the arrays both use.

    ``meta`` is JSON data that the program carries along (tracker configuration, recipe of the quantisation); it takes
    part in the content hash and decides nothing here.
    """

    phases: Mapping[str, Phase]
    arrays: Arrays
    meta: Mapping[str, Any]

    def op_arrays(self, op: Op) -> dict[str, AnyArray]:
        """Role -> array of one operation."""
        return {role: self.arrays[key] for role, key in op.arrays.items()}

    def real_unit(self, spec: TensorSpec) -> NDArray[np.float64]:
        """Real value of one integer step, per channel ``[C]`` (spikes 1/4, memory 1/16, image 1)."""
        if spec.kind in ("stream", "logits"):
            if spec.unit is None:
                return np.array([spec.scale])
            return spec.scale * 2.0 ** -self.arrays[spec.unit].astype(np.float64)
        return np.array([{"image": 1.0, "spikes": 0.25, "memory": 1.0 / 16.0}[spec.kind]])
