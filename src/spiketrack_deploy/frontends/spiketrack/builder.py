"""The vocabulary in which a tracker is written down as NIR: convolution, NI-LIF bank, junction, pool, cut.

Decides how each of them looks as nodes and how the nodes are named (docs: the convention text in
:data:`CONVENTION`). Must not know the order of layers; :mod:`export` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.fold import STRICT_THRESHOLDS, Weights, shifted_threshold
from spiketrack_deploy.nir_graph.cuts import CUT_OPS
from spiketrack_deploy.nir_graph.graph import CUT_PREFIX, Cut, FloatArray, Graph, Node, Param, Shape, constant
from spiketrack_deploy.nir_graph.kinds import KINDS

LEVELS = len(STRICT_THRESHOLDS)
"""A graded spike is n / LEVELS with n = 0 .. LEVELS."""

SCHEMA = "spiketrack-nir-1"
CONVENTION = (
    "Values are in the tracker's units: spikes are n/4 with integer n in 0..4, images are normalised. There is no dt: "
    "the graph is feed-forward, T steps are unrolled in space (@t<step>). Several edges into a node are summed in edge "
    "order. Thresholds are strict (>). A NI-LIF X at step t is four Threshold nodes X@t.k1..k4 fed by one node and "
    "summed into the Scale node X@t = 1/4; membrane carry-over is X@t.m = X@t.leak (sigma * m[t-1]) + X@t.reset "
    "(-sigma * spike[t-1]) + input. A positional embedding is inside the thresholds. Batch norm is folded into the "
    "convolutions. Output and Input nodes end and begin at the cuts of model.cuts.json."
)


class GraphBuilder:
    """Collects nodes, edges and cuts; keeps the shape of every value as it goes."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: dict[str, Node] = {}
        self.edges: list[tuple[str, str]] = []
        self.cuts: list[Cut] = []
        self.shapes: dict[str, Shape] = {}
        self._folded: dict[tuple[str, str | None], tuple[FloatArray, FloatArray]] = {}

    def graph(self, metadata: dict[str, str]) -> Graph:
        """What has been collected so far."""
        return Graph(self.nodes, self.edges, metadata)

    def add(self, name: str, kind: str, params: dict[str, Param], sources: Sequence[str]) -> str:
        """Add one node fed by ``sources`` (equal shapes) and return its name."""
        if name in self.nodes:
            raise ValueError(f"two nodes are called '{name}'")
        node = Node(kind, params)
        self.nodes[name] = node
        self.edges.extend((source, name) for source in sources)
        self.shapes[name] = KINDS[kind].shape(name, node, self.shapes[sources[0]] if sources else None)
        return name

    def scale(self, name: str, value: float, sources: Sequence[str]) -> str:
        """A Scale node of one value everywhere over the sum of ``sources``."""
        return self.add(name, "Scale", {"scale": constant(value, self.shapes[sources[0]])}, sources)

    def junction(self, name: str, sources: Sequence[str]) -> str:
        """The plain sum of ``sources``; NIR has no addition node, so it is a Scale of ones."""
        return self.scale(name, 1.0, sources)

    def conv2d(self, name: str, source: str, conv: str, norm: str | None, stride: int = 1) -> str:
        """Convolution ``conv`` with its norm folded in; 1-D kernels of size 1 run as 1x1 on (C, H, W)."""
        weight, bias = self._fold(conv, norm)
        shape = self.shapes[source]
        groups = shape[0] // weight.shape[1] if weight.shape[1] else 0
        if weight.ndim != 4 or weight.shape[1] * groups != shape[0]:
            raise InputError(f"'{conv}.weight' of shape {tuple(weight.shape)} does not read {shape[0]} channels")
        kernel = weight.shape[2:]
        params: dict[str, Param] = {
            "input_shape": shape[1:],
            "weight": weight,
            "stride": (stride, stride),
            "padding": (kernel[0] // 2, kernel[1] // 2),
            "dilation": (1, 1),
            "groups": groups,
            "bias": bias,
        }
        return self.add(name, "Conv2d", params, [source])

    def conv1d(self, name: str, source: str, conv: str) -> str:
        """Pointwise 1-D convolution over (positions, channels); the positions are what it mixes."""
        weight, bias = self.weights.array(f"{conv}.weight", 3), self.weights.array(f"{conv}.bias", 1)
        length = self.shapes[source][1]
        params: dict[str, Param] = {"input_shape": length, "weight": weight, "bias": bias}
        params.update({"stride": 1, "padding": 0, "dilation": 1, "groups": 1})
        return self.add(name, "Conv1d", params, [source])

    def pool(self, name: str, source: str, grid: int) -> str:
        """Plain mean over equal windows down to ``grid`` x ``grid``."""
        factor = self.shapes[source][1] // grid
        window: dict[str, Param] = {"kernel_size": (factor, factor), "stride": (factor, factor), "padding": (0, 0)}
        return self.add(name, "AvgPool2d", window, [source])

    def ni_lif(
        self, phase: str, path: str, inputs: Sequence[str], embeds: Sequence[FloatArray] | None = None, call: int = 1
    ) -> list[str]:
        """One call of the NI-LIF ``path`` over the steps ``inputs``; returns the spike node of every step.

        m[0] = x[0]; m[t] = (m[t-1] - s[t-1]) * sigma[t-1] + x[t]; n = round_half_even(clamp(m + e, 0, 4)), where the
        embedding ``embeds[t]`` of each step ([C,H,W]) accumulates to e[t] = embed[t] + sigma[t-1] * e[t-1].
        """
        sigma = self.weights.decays(path) if len(inputs) > 1 else np.zeros(0)
        base = f"{phase}.{path}" + (f"#{call}" if call > 1 else "")
        membrane, spikes, offset = inputs[0], list[str](), None
        for t, source in enumerate(inputs):
            name = f"{base}@t{t}"
            if embeds is not None:
                offset = embeds[t] if offset is None else embeds[t] + float(sigma[t - 1]) * offset
            if t > 0:
                decay = float(sigma[t - 1])
                leak = self.scale(f"{name}.leak", decay, [membrane])
                reset = self.scale(f"{name}.reset", -decay, [spikes[-1]])
                membrane = self.junction(f"{name}.m", [leak, reset, source])
            spikes.append(self._bank(name, membrane, offset))
        return spikes

    def _bank(self, name: str, membrane: str, offset: FloatArray | None) -> str:
        shape = self.shapes[membrane]
        parts = []
        for k, theta in enumerate(STRICT_THRESHOLDS, start=1):
            threshold = constant(theta, shape) if offset is None else shifted_threshold(theta, offset)
            parts.append(self.add(f"{name}.k{k}", "Threshold", {"threshold": threshold}, [membrane]))
        return self.scale(name, 1.0 / LEVELS, parts)

    def output(self, producer: str) -> str:
        """The Output node of ``producer``; made once, read by as many cuts as need it."""
        name = f"{producer}.out"
        if name not in self.nodes:
            self.add(name, "Output", {"shape": self.shapes[producer]}, [producer])
        return name

    def cut(self, name: str, op: str, inputs: Sequence[str], params: dict[str, Any], result: str | None = None) -> str:
        """Add a cut. ``inputs`` are producing nodes or ``cut:`` references.

        Returns the Input node where the operation has an output (named ``<id>.in`` unless ``result`` says otherwise),
        else the reference ``cut:<id>``.
        """
        ends = tuple(source if source.startswith(CUT_PREFIX) else self.output(source) for source in inputs)
        spec = CUT_OPS[op]
        target = (result or f"{name}.in") if spec.outputs else None
        cut = Cut(name, op, ends, () if target is None else (target,), params)
        shape = spec.shape(cut, [self.shapes[end] for end in ends]) if op != "memory_read" else self._slot(params)
        self.cuts.append(cut)
        if target is None:
            self.shapes[CUT_PREFIX + name] = shape
            return CUT_PREFIX + name
        return self.add(target, "Input", {"shape": shape}, [])

    def _slot(self, params: dict[str, Any]) -> Shape:
        writer = next(c for c in self.cuts if c.op == "memory_write" and c.params == params)
        return self.shapes[CUT_PREFIX + writer.id]

    def _fold(self, conv: str, norm: str | None) -> tuple[FloatArray, FloatArray]:
        # Steps and phases share one array object each: the writer stores it once.
        if (conv, norm) not in self._folded:
            weight, bias = self.weights.fold(conv, norm)
            self._folded[conv, norm] = (weight[..., None] if weight.ndim == 3 else weight, bias)
        return self._folded[conv, norm]
