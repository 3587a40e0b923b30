"""What a NIR network is once it is flat: nodes with full-shape parameters in execution order, and which edge is "back".

Decides the data that the float64 reference, the diagnostics and the lowering read. Must not know files, conventions of
time, or integers.

NIR has no order of time: a cycle is read as costing one step, and the edge that carries the value of the step before is
decided by :mod:`order` and printed. Nested graphs are inlined (``sub.lif``); their Input and Output nodes are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = "tuple[int, ...]"
Param: TypeAlias = "FloatArray | tuple[int, ...] | int"

NEURONS = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")
"""Kinds with a membrane."""
SPIKING = ("IF", "LIF", "CubaLIF")
"""Neurons whose output is spikes; that of the others is the membrane voltage."""
STATEFUL = (*NEURONS, "Delay")
"""Kinds that may close a cycle."""
SYNAPTIC = ("Affine", "Linear", "Conv1d", "Conv2d")
KINDS = (*STATEFUL, *SYNAPTIC, "Scale", "Threshold", "SumPool2d", "AvgPool2d", "Flatten", "Input", "Output")
"""Every kind that a flat network can have."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One primitive. Shapes are without step and batch axes.

    ``kind``: one of :data:`KINDS`. ``params``, float64 unless said, all finite and read-only:

    Linear            ``weight`` [..., out, in]
    Affine            ``weight`` [..., out, in], ``bias`` [..., out]
    Conv1d, Conv2d    ``weight`` [out, in / groups, *kernel], ``bias`` [out]; ints: ``stride``, ``dilation`` (one per
                      spatial axis), ``padding`` (before, after per spatial axis: 2 or 4 ints), ``groups`` int
    SumPool2d, AvgPool2d   ints: ``kernel_size``, ``stride`` (2), ``padding`` (4, as above)
    Scale ``scale``, Threshold ``threshold``, Delay ``delay`` (seconds), I ``r``
    IF                ``r``, ``v_threshold``, ``v_reset``
    LI                ``tau``, ``r``, ``v_leak``; LIF also ``v_threshold``, ``v_reset``
    CubaLI            ``tau_syn``, ``tau_mem``, ``r``, ``v_leak``, ``w_in``; CubaLIF also ``v_threshold``, ``v_reset``

    Parameters of element-wise kinds and neurons have the node's own ``shape`` (size-1 parameters are broadcast views).
    """

    name: str
    kind: str
    params: Mapping[str, Param]
    in_shape: Shape
    shape: Shape

    def array(self, key: str) -> FloatArray:
        """The float64 array ``key``; TypeError if it is something else."""
        value = self.params[key]
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{self.kind}.{key} is not an array")
        return value

    def ints(self, key: str) -> tuple[int, ...]:
        """The integers ``key``; TypeError if they are something else."""
        value = self.params[key]
        if not isinstance(value, tuple):
            raise TypeError(f"{self.kind}.{key} is not a tuple of integers")
        return value

    @property
    def groups(self) -> int:
        """Groups of a convolution, else 1."""
        value = self.params.get("groups", 1)
        return value if isinstance(value, int) else 1


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """Several edges into one node are summed, in their order.

    ``back``: it carries the value of the step before; at step 0 it carries ``initial`` (the source's shape, zero for a
    neuron or Delay; for a node without state, what it answers to silence, so that a recurrent bias acts from step 0).
    """

    source: str
    target: str
    back: bool = False
    initial: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """``nodes`` in execution order: behind everything they read through edges that are not back. ``edges`` in the order
    of the file. ``inputs``, ``outputs``: names of Input and Output nodes, in order of name. ``name``: of the file.
    """

    name: str
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str | float] = field(default_factory=dict)

    def into(self, name: str) -> tuple[Edge, ...]:
        """Edges that feed a node, in the order of the file."""
        return tuple(edge for edge in self.edges if edge.target == name)

    def out_of(self, name: str) -> tuple[Edge, ...]:
        """Edges that a node feeds."""
        return tuple(edge for edge in self.edges if edge.source == name)

    @property
    def back_edges(self) -> tuple[Edge, ...]:
        """Edges that carry the value of the step before."""
        return tuple(edge for edge in self.edges if edge.back)

    @property
    def neurons(self) -> tuple[str, ...]:
        """Names of the nodes with a membrane, in execution order."""
        return tuple(name for name, node in self.nodes.items() if node.kind in NEURONS)
