"""A whole SPMTrack step as a plain ONNX model: crops in 0..255, masks and state in; logits, boxes and state out.

This module decides how each part is written in ONNX (opset 20, for GELU and LayerNormalization); it must not know who
runs the model. Weights are float32 in the published layout, the experts of a layer joined to one matrix; the bytes of a
file depend on the network alone. What protobuf cannot hold in one file (2 GiB) lies beside it as ``.data``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spiketrack_deploy.inputs.whole_file import whole, write_whole
from spiketrack_deploy.trackers.spmtrack.config import PATCH, REFERENCES
from spiketrack_deploy.trackers.spmtrack.model import (
    BACKGROUND,
    EPSILON,
    FOREGROUND,
    SEARCH,
    Block,
    Perceptron,
    SpmTrack,
)
from spiketrack_deploy.trackers.spmtrack.tmoe import ExpertLinear
from spiketrack_deploy.tracking.pixels import MEAN, STD

OPSET, IR_VERSION = 20, 9
INPUTS = ("templates", "foreground", "search", "state")
OUTPUTS = ("score", "boxes", "state_out")
CONFIG_TEXT = "spiketrack.config"
ONE_FILE = 1 << 28
"""Bytes of weights that one file may hold."""
_ALIGN = 64
_INLINE = 1 << 10
"""Bytes of a constant that stays in the model in any case: shapes, which ONNX must see to infer others."""


class _Graph:
    """Collects nodes and constants."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def constant(self, value: Tensor | np.ndarray[Any, Any] | Sequence[int], name: str | None = None) -> str:
        """An initialiser: float32 of a tensor, int64 of a list."""
        key = name or f"constant.{len(self.constants)}"
        if isinstance(value, Tensor):
            array = value.detach().cpu().float().numpy()
        else:
            array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.int64)
        self.constants[key] = array
        return key

    def node(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        """One operator of one output; its name."""
        name = out or f"{kind}.{len(self.nodes)}"
        label = f"node.{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=label, **attributes))
        return name

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(shape))

    def transpose(self, x: str, *order: int) -> str:
        return self.node("Transpose", x, perm=list(order))

    def linear(self, x: str, layer: nn.Module) -> str:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        return self.node("Add", self.node("MatMul", x, self.constant(weight.mT)), self.constant(bias))

    def norm(self, x: str, norm: nn.LayerNorm) -> str:
        scale, bias = self.constant(norm.weight), self.constant(norm.bias)
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)

    def experts(self, x: str, layer: nn.Module) -> str:
        """A linear layer and its experts over ``[N,in]``."""
        assert isinstance(layer, ExpertLinear)
        one = layer.tmoe
        rank, experts = one.compress_expert.shape[0], len(one.routed_experts)
        gate = self.node("Softmax", self.node("MatMul", x, self.constant(one.expert_route.weight.mT)), axis=-1)
        hidden = self.node("MatMul", x, self.constant(one.compress_expert.mT))
        mixed = self.node("Mul", self.reshape(gate, -1, experts, 1), self.reshape(hidden, -1, 1, rank))
        joined = self.constant((one.joined() * one.scale).mT)
        adapter = self.node("MatMul", self.reshape(mixed, -1, experts * rank), joined)
        return self.node("Add", self.linear(x, layer.linear), adapter)

    def block(self, x: str, block: Block) -> str:
        heads = block.attn.heads
        y = self.norm(x, block.norm1)
        q, k, v = (self.reshape(self.experts(y, block.attn.qkv[name]), 0, heads, -1) for name in "qkv")
        width = block.norm1.normalized_shape[0] // heads
        root = self.constant(torch.tensor(width**-0.5))
        scores = self.node("MatMul", self.transpose(q, 1, 0, 2), self.transpose(k, 1, 2, 0))
        weights = self.node("Softmax", self.node("Mul", scores, root), axis=-1)
        joined = self.transpose(self.node("MatMul", weights, self.transpose(v, 1, 0, 2)), 1, 0, 2)
        made = self.experts(self.reshape(joined, 0, -1), block.attn.proj)
        x = self.node("Add", x, self.node("Mul", made, self.constant(block.ls1.gamma)))
        mlp = block.mlp
        inner = self.experts(self.norm(x, block.norm2), mlp.get_submodule(mlp.first))
        if mlp.gated:
            half = mlp.hidden
            axis = self.constant([1])
            a = self.node("Slice", inner, self.constant([0]), self.constant([half]), axis)
            b = self.node("Slice", inner, self.constant([half]), self.constant([2 * half]), axis)
            inner = self.node("Mul", self.node("Mul", a, self.node("Sigmoid", a)), b)
        else:
            inner = self.node("Gelu", inner)
        made = self.experts(inner, mlp.get_submodule(mlp.second))
        return self.node("Add", x, self.node("Mul", made, self.constant(block.ls2.gamma)))

    def perceptron(self, x: str, head: Perceptron) -> str:
        for layer in list(head.layers)[:2]:
            x = self.node("Gelu", self.linear(x, layer))
        return self.linear(x, head.layers[2])

    def patches(self, images: str, model: SpmTrack, count: int) -> str:
        """``[k,3,S,S]`` in 0..255 to ``[k,cells,D]``."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        scaled = self.node("Mul", images, self.constant(1 / (255 * std)))
        centred = self.node("Sub", scaled, self.constant(mean / std))
        proj = model.patch_embed.proj
        assert proj.bias is not None
        weight, bias = self.constant(proj.weight, "patch_embed.weight"), self.constant(proj.bias, "patch_embed.bias")
        made = self.node("Conv", centred, weight, bias, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
        return self.transpose(self.reshape(made, count, model.config.dim, -1), 0, 2, 1)


def export_onnx(model: SpmTrack, path: Path) -> None:
    """Write ``model`` to ``path``."""
    import onnx

    graph, config = _Graph(onnx), model.config
    with torch.no_grad():
        _step(graph, model)
    cells, side, dim = config.template_grid**2, config.grid, config.dim
    shapes = {
        "templates": [REFERENCES, 3, config.template, config.template],
        "foreground": [REFERENCES, cells, 1],
        "search": [1, 3, config.search, config.search],
        "state": [1, dim],
        "score": [side, side],
        "boxes": [side, side, 4],
        "state_out": [1, dim],
    }
    info = {n: onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shapes.items()}
    external = sum(one.nbytes for one in graph.constants.values()) > ONE_FILE
    tensors = _beside(onnx, graph, path.with_suffix(".data")) if external else _inside(onnx, graph)
    body = onnx.helper.make_graph(graph.nodes, "step", [info[n] for n in INPUTS], [info[n] for n in OUTPUTS], tensors)
    made = onnx.helper.make_model(
        body,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="spiketrack-deploy",
    )
    onnx.helper.set_model_props(made, {CONFIG_TEXT: json.dumps(config.to_dict(), sort_keys=True)})
    write_whole(path, made.SerializeToString(deterministic=True))


def _inside(onnx: Any, graph: _Graph) -> list[Any]:
    """Constants as tensors of the model itself."""
    return [onnx.numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in graph.constants.items()]


def _beside(onnx: Any, graph: _Graph, path: Path) -> list[Any]:
    """The same, the large ones in a file of their own, one after the other."""
    tensors = []
    with whole(path) as part, part.open("wb") as stream:
        for key, array in graph.constants.items():
            if array.nbytes <= _INLINE:
                tensors.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), key))
                continue
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = onnx.TensorProto(name=key, data_type=kind, dims=array.shape)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            stream.write(bytes(-stream.tell() % _ALIGN))
            for name, value in (("location", path.name), ("offset", stream.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=name, value=str(value))
            stream.write(np.ascontiguousarray(array).data)
            tensors.append(tensor)
    return tensors


def _step(graph: _Graph, model: SpmTrack) -> None:
    config = model.config
    side, grid, dim = config.template_grid, config.grid, config.dim
    kinds = model.token_type_embed
    corner = model.pos_embed.unflatten(1, (grid, grid))[:, :side, :side].flatten(1, 2)
    shown = graph.node("Mul", "foreground", graph.constant((kinds[FOREGROUND] - kinds[BACKGROUND]).view(1, 1, dim)))
    placed = graph.constant(corner + kinds[BACKGROUND])
    templates = graph.node("Add", graph.node("Add", graph.patches("templates", model, REFERENCES), placed), shown)
    cells = graph.constant(model.pos_embed + kinds[SEARCH])
    search = graph.node("Add", graph.patches("search", model, 1), cells)
    query = graph.node("Add", "state", graph.constant(model.track_query + model.query_embed))
    x = graph.node("Concat", query, graph.reshape(templates, -1, dim), graph.reshape(search, -1, dim), axis=0)
    for block in model.blocks:
        assert isinstance(block, Block)
        x = graph.block(x, block)
    x = graph.norm(x, model.norm)
    axis, end = graph.constant([0]), graph.constant([config.tokens])
    state = graph.node("Slice", x, graph.constant([0]), graph.constant([1]), axis, out="state_out")
    found = graph.node("Slice", x, graph.constant([config.tokens - grid**2]), end, axis)
    gated = graph.node("Mul", found, graph.node("MatMul", found, graph.transpose(state, 1, 0)))
    side_shape = graph.constant([grid, grid])
    graph.node("Reshape", graph.perceptron(gated, model.head.cls_mlp), side_shape, out="score")
    distances = graph.node("Sigmoid", graph.perceptron(gated, model.head.reg_mlp))
    at = (torch.arange(grid) + 0.5) / grid
    centre = torch.stack([at.repeat(grid), at.repeat_interleave(grid)] * 2, 1)
    signed = graph.node("Mul", distances, graph.constant(torch.tensor([[-1.0, -1.0, 1.0, 1.0]])))
    boxes = graph.node("Add", graph.constant(centre), signed)
    graph.node("Reshape", boxes, graph.constant([grid, grid, 4]), out="boxes")
