"""SPMTrack's forward pass for speed: the same numbers up to rounding, from fewer and larger matrix products.

This module decides what is computed once, and in which matrices:

* the patch embedding of a reference, and its queries, keys and values of the first block, once for all frames that
  take it (behind the first block every token depends on every other);
* q, k and v with their A and G in one product, all experts of a layer in one (``[B_1 .. B_E]``), LayerScale and the
  experts' scale folded into the weights;
* in the last block only what the head reads: the state and the search tokens;
* products by oneDNN with weights laid out once, on a processor (PyTorch's own are half as fast on AMD);
* several crops, each with its own references, in one pass.

It must not know crops' places. How a product is computed is the business of a :class:`Product`: float and bfloat16
here, int8 in :mod:`int8`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spmtrack.config import REFERENCES
from spiketrack_deploy.trackers.spmtrack.model import EPSILON, Block, Maps, Perceptron, SpmTrack, activation
from spiketrack_deploy.trackers.spmtrack.tmoe import ExpertLinear
from spiketrack_deploy.trackers.spmtrack.torch_network import SpmNetwork, box_maps, foreground_mask
from spiketrack_deploy.tracking.aligned_crop import Floats, Pixels
from spiketrack_deploy.tracking.reference_loop import BoxMaps


class Product(Protocol):
    """``x W^T + b`` for ``[N,in]``."""

    def __call__(self, x: Tensor) -> Tensor: ...


HEAD = "head."
"""How names of the head's products begin."""
Make = Callable[[str, Tensor, "Tensor | None"], Product]
"""A name, weights ``[out,in]``, bias: a product."""


def float_product(name: str, weight: Tensor, bias: Tensor | None) -> Product:
    """In the weights' own precision; float32 on a processor by oneDNN."""
    weight = weight.contiguous()
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return lambda x: functional.linear(x, weight, bias)
    ops: Any = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight)
    return lambda x: ops._linear_pointwise(x, packed, bias, "none", [], "")


def bf16_product(name: str, weight: Tensor, bias: Tensor | None) -> Product:
    """In bfloat16, sums in float32; what it returns is bfloat16, so attention is too. The head stays in float32, as
    norms and residual sums do: its logits are compared. (The published evaluation ran in half precision.)"""
    if name.startswith(HEAD):
        return float_product(name, weight, bias)
    half, shift = weight.to(torch.bfloat16), None if bias is None else bias.to(torch.bfloat16)
    return lambda x: functional.linear(x.to(torch.bfloat16), half, shift)


class Group:
    """Expert layers that read the same input, computed together."""

    def __init__(self, name: str, layers: Sequence[ExpertLinear], make: Make, gamma: Tensor | None = None) -> None:
        self._outs = [layer.linear.out_features for layer in layers]
        self._rank, experts = layers[0].tmoe.compress_expert.shape[0], len(layers[0].tmoe.routed_experts)
        self._width = self._rank + experts
        frozen = [_scaled(layer.linear.weight, gamma) for layer in layers]
        adapters = [part for one in layers for part in (one.tmoe.compress_expert, one.tmoe.expert_route.weight)]
        bias = [_scaled(layer.linear.bias, gamma) for layer in layers]
        zeros = bias[0].new_zeros(len(layers) * self._width)
        self._first = make(name, torch.cat([*frozen, *adapters]), torch.cat([*bias, zeros]))
        self._second = [
            make(f"{name}.experts{i}", _scaled(one.tmoe.joined() * one.tmoe.scale, gamma), None)
            for i, one in enumerate(layers)
        ]

    def __call__(self, x: Tensor) -> list[Tensor]:
        """``[N,in]`` -> every layer's ``[N,out]``."""
        made, total = self._first(x), sum(self._outs)
        inner = made[:, total:].unflatten(1, (len(self._outs), self._width)).transpose(0, 1)
        gate = inner[..., self._rank :].softmax(-1)
        mixed = (gate.unsqueeze(-1) * inner[..., : self._rank].unsqueeze(-2)).flatten(-2)
        parts = made[:, :total].split(self._outs, dim=1)
        return [part.add_(second(one)) for part, second, one in zip(parts, self._second, mixed)]


def _scaled(weight: Tensor, gamma: Tensor | None) -> Tensor:
    if gamma is None:
        return weight
    return weight * (gamma if weight.dim() == 1 else gamma[:, None])


class FastBlock:
    """One block on the rows ``[B N,D]`` of B crops."""

    def __init__(self, name: str, block: Block, make: Make, last: bool) -> None:
        self.norm1, self.norm2, self._heads = block.norm1, block.norm2, block.attn.heads
        qkv: list[ExpertLinear] = [block.attn.qkv[one] for one in "qkv"]  # type: ignore[misc]
        self._q = Group(f"{name}.q", qkv[:1], make) if last else None
        self._qkv = Group(f"{name}.kv", qkv[1:], make) if last else Group(f"{name}.qkv", qkv, make)
        self._proj = Group(f"{name}.proj", [block.attn.proj], make, block.ls1.gamma)
        mlp = block.mlp
        self._gated = mlp.gated
        self._fc1 = Group(f"{name}.{mlp.first}", [mlp.get_submodule(mlp.first)], make)  # type: ignore[list-item]
        self._fc2 = Group(
            f"{name}.{mlp.second}",
            [mlp.get_submodule(mlp.second)],  # type: ignore[list-item]
            make,
            block.ls2.gamma,
        )

    def qkv(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values of rows (of the last block: keys and values alone)."""
        return self._qkv(_norm(x, self.norm1))

    def finish(self, x: Tensor, qkv: Sequence[Tensor], batch: int) -> Tensor:
        """The rest of the block for the rows ``x``, given queries of these rows, keys and values of all."""
        q, k, v = (part.unflatten(1, (self._heads, -1)).unflatten(0, (batch, -1)).transpose(1, 2) for part in qkv)
        joined = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)
        x = x + self._proj(joined)[0]
        inner = activation(self._fc1(_norm(x, self.norm2))[0], self._gated)
        return x.add_(self._fc2(inner)[0])

    def __call__(self, x: Tensor, rows: Tensor, batch: int) -> Tensor:
        """All rows, or in the last block those of ``rows``."""
        if self._q is None:
            return self.finish(x, self.qkv(x), batch)
        x1 = _norm(x, self.norm1)
        return self.finish(x[rows], [*self._q(x1[rows]), *self._qkv(x1)], batch)


def _norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    return functional.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, EPSILON)


class FastModel:
    """Blocks and head over rows; built from a model whose tensors may be dropped afterwards."""

    def __init__(self, model: SpmTrack, make: Make) -> None:
        self._norm, self._grid, self._tokens = model.norm, model.config.grid, model.config.tokens
        last = model.config.depth - 1
        self.blocks = [FastBlock(f"blocks.{i}", b, make, 0 < i == last) for i, b in enumerate(model.blocks)]  # type: ignore[arg-type]
        self._cls, self._reg = (_perceptron(f"{HEAD}{n}", getattr(model.head, n), make) for n in ("cls_mlp", "reg_mlp"))

    def begin(self, tokens: Tensor) -> list[Tensor]:
        """What the first block makes of some rows alone."""
        return self.blocks[0].qkv(tokens)

    def __call__(self, tokens: Tensor, first: Sequence[Tensor]) -> Maps:
        """Maps of B crops' rows ``[state, references, search]``, one crop after the other, given what :meth:`begin`
        made of them."""
        cells, batch = self._grid**2, len(tokens) // self._tokens
        at = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(self._tokens - cells, self._tokens)])
        rows = (at + torch.arange(batch).unsqueeze(1) * self._tokens).flatten().to(tokens.device)
        x = self.blocks[0].finish(tokens, first, batch)
        for block in self.blocks[1:]:
            x = block(x, rows, batch)
        x = _norm(x if len(x) == len(rows) else x[rows], self._norm).unflatten(0, (batch, -1))
        state, found = x[:, 0], x[:, 1:]
        gate = found @ state.unsqueeze(-1)
        gated = (found * gate).flatten(0, 1)
        shape = (batch, self._grid, self._grid)
        return Maps(self._cls(gated).view(shape), self._reg(gated).view(*shape, 4), gate.view(shape), state)


def _perceptron(name: str, head: Perceptron, make: Make) -> Callable[[Tensor], Tensor]:
    """Its last layer, of one or four outputs, stays in float."""
    made = [
        (make if i < 2 else float_product)(f"{name}.{i}", layer.weight, layer.bias)  # type: ignore[arg-type]
        for i, layer in enumerate(head.layers)
    ]
    return lambda x: made[2](functional.gelu(made[1](functional.gelu(made[0](x)))))


class FastNetwork(SpmNetwork):
    """The loop's network over :class:`FastModel`, float32 but for what ``make`` computes: the products.

    A reference is its tokens and what the first block makes of them.
    """

    def __init__(self, model: SpmTrack, make: Make = float_product, device: str = "cpu") -> None:
        super().__init__(model.to(device), torch.float32)
        self._device = device
        with torch.inference_mode():
            self.fast = FastModel(self.model, make)

    def start(self) -> Tensor:
        """A state of zeros ``[1,D]``."""
        return super().start().to(self._device)

    def reference(self, crop: Floats, cells: Pixels) -> Any:
        """Tokens ``[T*T,D]`` of a template, and its rows of the first block."""
        with torch.inference_mode():
            mask = foreground_mask(cells, self.config.template_grid).to(self._device)
            tokens = self.model.embed_template(self.image(crop, self.config.template), mask)[0]
            return tokens, self.fast.begin(tokens)

    def search(self, crop: Floats, references: Sequence[Any], state: Tensor) -> BoxMaps:
        """One tracked frame."""
        return self.search_many([(crop, references, state)])[0]

    def search_many(self, asked: Sequence[tuple[Floats, Sequence[Any], Tensor]]) -> list[BoxMaps]:
        """One tracked frame of several targets: crop, references and state of each."""
        if any(len(references) != REFERENCES for _, references, _ in asked):
            raise InputError(f"network {self.config.name} takes {REFERENCES} references for every crop")
        with torch.inference_mode():
            images = torch.cat([self.image(crop, self.config.search) for crop, _, _ in asked])
            query = self.model.query(torch.cat([state for _, _, state in asked]))
            mine = torch.cat([query, self.model.embed_search(images)], 1)
            own = [part.unflatten(0, (len(asked), -1)) for part in self.fast.begin(mine.flatten(0, 1))]
            tokens = _joined(mine, [[one[0] for one in references] for _, references, _ in asked])
            first = [
                _joined(part, [[one[1][i] for one in references] for _, references, _ in asked])
                for i, part in enumerate(own)
            ]
            return box_maps(self.fast(tokens, first))

    def image(self, crop: Floats, side: int) -> Tensor:
        """As the parent's, on the device."""
        return super().image(crop, side).to(self._device)


def _joined(own: Tensor, references: Sequence[Sequence[Tensor]]) -> Tensor:
    """Rows ``[state, references, search]`` of every crop: ``own`` ``[B,1+cells,C]`` around its references' rows."""
    parts = [part for mine, others in zip(own, references) for part in (mine[:1], *others, mine[1:])]
    return torch.cat(parts)
