"""Executes a graph and its cuts in float64: the judge of the export, and nothing else.

Decides the arithmetic of every node kind and cut, from their equations alone. Must not know the tracker, the
exporter or the lowering, and shares no code with them. PyTorch is imported when a graph is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.cuts import NORMALISE
from spiketrack_deploy.nir_graph.graph import (
    CUT_PREFIX,
    Cut,
    FloatArray,
    Graph,
    Node,
    constant_value,
    split_name,
)
from spiketrack_deploy.nir_graph.order import dependencies, execution_order

if TYPE_CHECKING:
    from torch import Tensor

GATE_LAYOUT_NDIM = 2
"""A bank over (positions, channels) belongs to a gate; its spikes are reported as [channels, positions, T]."""


@dataclass(frozen=True, slots=True)
class InterpreterResult:
    """What one phase did.

    ``spikes``: integer spikes n (0..4, int8) by module path (``#2`` for a second call), in execution order, shape
    [T, *value shape], for a gate's neuron [channels, positions, T]. ``memories``: {index: [T, heads, d, dv] float64,
    unscaled k^T v} that the phase wrote. ``maps``: score, size, offset and the logits ctr_logits and size_logits as
    float64 [1, 1 or 2, P, P] (search phase only).
    """

    spikes: dict[str, npt.NDArray[np.int8]]
    memories: dict[int, FloatArray]
    maps: dict[str, FloatArray]


def interpret(
    graph: Graph,
    cuts: Sequence[Cut],
    phase: str,
    images: npt.NDArray[np.uint8],
    memories: Mapping[int, FloatArray] | None = None,
) -> InterpreterResult:
    """Run ``phase`` ("template" or "search") on ``images`` uint8 [T,3,r,r] (search: [1,3,r,r]).

    ``memories`` are the template phase's. Raises InputError for images of a wrong type or number, for a missing
    memory, and for whatever :func:`execution_order` refuses.
    """
    import torch

    with torch.no_grad():
        run = _Run(graph, cuts, images, memories or {})
        order = execution_order(graph, cuts, phase)
        if not order:
            raise InputError(f"the graph has no '{phase}' phase")
        return run.run(order, dependencies(graph, cuts))


class _Run:
    def __init__(
        self,
        graph: Graph,
        cuts: Sequence[Cut],
        images: npt.NDArray[np.uint8],
        memories: Mapping[int, FloatArray],
    ) -> None:
        self.graph, self.images, self.given = graph, images, memories
        self.cuts = {CUT_PREFIX + cut.id: cut for cut in cuts}
        self.values: dict[str, Tensor] = {}
        self.spikes: dict[str, dict[int, npt.NDArray[np.int8]]] = {}
        self.written: dict[int, dict[int, FloatArray]] = {}
        self.maps: dict[str, FloatArray] = {}

    def run(self, order: Sequence[str], needs: Mapping[str, Sequence[str]]) -> InterpreterResult:
        steps = [step for step in order if step in self.cuts and self.cuts[step].op in NORMALISE]
        self._check_images([self.cuts[step] for step in steps])
        readers = dict.fromkeys(order, 0)
        for step in order:
            for need in self._reads(step, needs):
                readers[need] += 1
        for step in order:
            reads = self._reads(step, needs)
            inputs = [self.values[need] for need in reads]
            cut = self.cuts.get(step)
            if cut is not None:
                value = self._cut(cut, inputs)
            else:
                value = self._node(self.graph.nodes[step], inputs)
                self._record(step, value, reads)
            if value is not None and readers[step]:
                self.values[step] = value
            for need in reads:
                readers[need] -= 1
                if readers[need] == 0:
                    self.values.pop(need, None)
        return InterpreterResult(self._stacked(), self._memories(), self.maps)

    def _reads(self, step: str, needs: Mapping[str, Sequence[str]]) -> Sequence[str]:
        cut = self.cuts.get(step)
        return () if cut is not None and cut.op == "memory_read" else needs[step]

    def _check_images(self, entries: Sequence[Cut]) -> None:
        want = (len(entries), *entries[0].params["shape"]) if entries else (0,)
        if self.images.dtype != np.uint8 or self.images.shape != want:
            raise InputError(f"images are {self.images.dtype} {self.images.shape}, uint8 {want} is needed")
        if sorted(split_name(cut.id)[2] for cut in entries) != list(range(len(entries))):
            raise InputError("the normalise cuts do not cover the steps 0, 1, .. of the phase once each")

    def _node(self, node: Node, inputs: Sequence[Tensor]) -> Tensor:
        import torch
        from torch.nn import functional as nn

        x = inputs[0].to(torch.float64)
        for other in inputs[1:]:
            x = x + other
        if node.kind == "Scale":
            return x * _operand(node.array("scale"))
        if node.kind == "Threshold":
            return x > _operand(node.array("threshold"))
        if node.kind == "Conv2d":
            weight, bias = _tensor(node.array("weight")), _tensor(node.array("bias"))
            pairs = {key: node.ints(key) for key in ("stride", "padding", "dilation")}
            return nn.conv2d(x[None], weight, bias, groups=node.integer("groups"), **pairs)[0]
        if node.kind == "Conv1d":
            weight, bias = _tensor(node.array("weight")), _tensor(node.array("bias"))
            stride, padding, dilation = (node.integer(key) for key in ("stride", "padding", "dilation"))
            return nn.conv1d(x[None], weight, bias, stride, padding, dilation, node.integer("groups"))[0]
        if node.kind == "AvgPool2d":
            kernel, stride2, padding2 = (node.ints(key) for key in ("kernel_size", "stride", "padding"))
            return nn.avg_pool2d(x[None], kernel, stride2, padding2)[0]
        return x

    def _cut(self, cut: Cut, inputs: Sequence[Tensor]) -> Tensor | None:
        params = cut.params
        if cut.op in NORMALISE:
            image = self.images[split_name(cut.id)[2]]
            return _normalise(image / 255.0 if cut.op == "normalise" else image, params["mean"], params["std"])
        if cut.op == "key_value":
            keys, values = (x.reshape(params["heads"], x.shape[0] // params["heads"], -1) for x in inputs)
            return keys @ values.transpose(1, 2)
        if cut.op == "query":
            return _query(inputs[0], inputs[1], params["gain"])
        if cut.op == "memory_write":
            self.written.setdefault(params["memory"], {})[params["step"]] = inputs[0].numpy()
            return None
        if cut.op == "memory_read":
            return self._read_memory(params["memory"], params["step"])
        if cut.op == "upsample":
            from torch.nn.functional import interpolate

            return interpolate(inputs[0][None], scale_factor=params["factor"], mode="bilinear", align_corners=False)[0]
        if cut.op == "transpose":
            return inputs[0].flatten(1).T.contiguous()
        if cut.op == "gate":
            return _gate(inputs[: params["steps"]], inputs[params["steps"] :])
        self.maps = _decode(inputs, params["clamp"])
        return None

    def _read_memory(self, index: int, step: int) -> Tensor:
        import torch

        if index not in self.given or not 0 <= step < len(self.given[index]):
            raise InputError(f"memory {index} of step {step} is read but was not given; run the template phase first")
        return torch.from_numpy(np.ascontiguousarray(self.given[index][step], dtype=np.float64))

    def _record(self, step: str, value: Tensor, reads: Sequence[str]) -> None:
        """Keep the spikes of a bank: a node fed by Threshold nodes alone, whose value is n / 4."""
        import torch

        nodes = self.graph.nodes
        if nodes[step].kind != "Scale" or not reads or any(nodes[need].kind != "Threshold" for need in reads):
            return
        _, path, t, _ = split_name(step)
        self.spikes.setdefault(path, {})[t] = (value * len(reads)).to(torch.int8).numpy()

    def _stacked(self) -> dict[str, npt.NDArray[np.int8]]:
        stacked = {}
        for path, by_step in self.spikes.items():
            steps = [by_step[t] for t in sorted(by_step)]
            gate = steps[0].ndim == GATE_LAYOUT_NDIM
            stacked[path] = np.ascontiguousarray(np.stack([s.T for s in steps], axis=-1) if gate else np.stack(steps))
        return stacked

    def _memories(self) -> dict[int, FloatArray]:
        return {index: np.stack([steps[t] for t in sorted(steps)]) for index, steps in self.written.items()}


def _operand(array: FloatArray) -> Any:
    """A float where the array is one value everywhere, so that it needs no memory; else a tensor."""
    value = constant_value(array)
    return _tensor(array) if value is None else value


def _tensor(array: FloatArray) -> Tensor:
    """A copy, because the graph's arrays are read-only and PyTorch tensors cannot be."""
    import torch

    return torch.from_numpy(array.copy())


def _normalise(image: npt.NDArray[Any], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    import torch

    mean_, std_ = (np.array(values, dtype=np.float64).reshape(-1, 1, 1) for values in (mean, std))
    return torch.from_numpy((image - mean_) / std_)


def _query(queries: Tensor, matrix: Tensor, gain: float | None) -> Tensor:
    heads, dim, width = matrix.shape
    out = matrix.transpose(1, 2) @ queries.reshape(heads, dim, -1)
    # The published order of the two factors; another one differs in the last bit.
    out = (out * dim**-0.5) * 2 if gain is None else out * gain
    return out.reshape(heads * width, *queries.shape[1:])


def _gate(logits: Sequence[Tensor], spikes: Sequence[Tensor]) -> Tensor:
    """[C,P,P]: softmax over the steps of the [1,C] logits, times the spikes, summed over the steps in order."""
    import torch

    weights = torch.softmax(torch.stack([logit[0] for logit in logits], dim=-1), dim=-1)
    return (weights.T[:, :, None, None] * torch.stack(list(spikes))).sum(0)


def _decode(logits: Sequence[Tensor], clamp: float) -> dict[str, FloatArray]:
    import torch

    ctr, offset, size = logits
    values = {
        "score": torch.sigmoid(ctr).clamp(clamp, 1 - clamp),
        "size": torch.sigmoid(size).clamp(clamp, 1 - clamp),
        "offset": offset,
        "ctr_logits": ctr,
        "size_logits": size,
    }
    return {name: value[None].numpy() for name, value in values.items()}
