"""What one tracked SPMTrack frame multiplies and moves, counted on the module; and how its experts are used.

This module decides which tensor operation is which layer. It must not know prices. Counting runs the module on
PyTorch's ``meta`` device: every operation happens, with shapes and without values, so the largest size takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spiketrack_deploy.program.dense import DenseLayer
from spiketrack_deploy.trackers.spmtrack.checkpoint import on_meta
from spiketrack_deploy.trackers.spmtrack.config import REFERENCES, SpmConfig
from spiketrack_deploy.trackers.spmtrack.model import SpmTrack
from spiketrack_deploy.trackers.spmtrack.tmoe import Experts

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")
_ELEMENTS = {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "native_layer_norm": "layer_norm",
    "gelu": "activation",
    "silu": "activation",
    "sigmoid": "activation",
}


@lru_cache(maxsize=8)
def frame_layers(config: SpmConfig) -> tuple[DenseLayer, ...]:
    """Every counted operation of one frame in execution order: three references, one search crop, nothing cached, as
    published."""
    model = on_meta(config)
    counter = _Counter(model)
    with torch.no_grad(), counter.watching(), counter:  # (inference mode would not take composite operations apart)
        template = torch.empty(1, 3, config.template, config.template, device="meta")
        mask = torch.empty(1, config.template_grid, config.template_grid, dtype=torch.bool, device="meta")
        made = [model.embed_template(template, mask) for _ in range(REFERENCES)]
        search = model.embed_search(torch.empty(1, 3, config.search, config.search, device="meta"))
        maps = model((made[0], made[1], made[2]), search, torch.empty(1, config.dim, device="meta"))
        maps.reg.sigmoid()
    return tuple(counter.layers.values())


class _Counter(TorchDispatchMode):
    """Adds up operations by the module in which they happen."""

    def __init__(self, model: SpmTrack) -> None:
        super().__init__()
        self._model = model
        self._stack: list[str] = []
        self._seen: dict[str, int] = {}
        self.layers: dict[str, DenseLayer] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keeps track of the module that is running."""
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                stack.callback(module.register_forward_pre_hook(self._entering(name)).remove)
                stack.callback(module.register_forward_hook(self._leaving).remove)
            yield

    def _entering(self, name: str) -> Any:
        def enter(module: Any, given: Any) -> None:
            self._stack.append(name)
            self._seen[name] = 0

        return enter

    def _leaving(self, module: Any, given: Any, made: Any) -> None:
        self._stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in _PRODUCTS:
            self._product(name, [a for a in args if isinstance(a, Tensor)], made)
        elif name in _ELEMENTS:
            self._element(_ELEMENTS[name], made[0] if isinstance(made, tuple) else made)
        elif name == "mul" and isinstance(args[1], Tensor) and not self._here.endswith((".ls1", ".ls2")):
            self._element("scaling", made)
        return made

    @property
    def _here(self) -> str:
        return self._stack[-1] if self._stack else ""

    def _product(self, name: str, operands: list[Tensor], made: Tensor) -> None:
        here = self._here
        if name == "convolution":
            weight = operands[1]
            self._add(
                here, "linear", "patch embedding", made.numel() * weight[0].numel(), operands[:1], operands[1:], made
            )
            return
        bias = operands[:1] if name in ("addmm", "baddbmm") else []
        left, right = operands[len(bias) :][:2]
        macs = made.numel() * left.shape[-1]
        suffix, kind, part = self._meaning(here)
        live = kind == "live_product"
        self._add(
            here + suffix,
            kind,
            part,
            macs,
            [left, right] if live else [left],
            [*bias] if live else [right, *bias],
            made,
        )

    def _meaning(self, here: str) -> tuple[str, str, str]:
        """Suffix, kind and part of a product in module ``here``."""
        order = self._seen[here] = self._seen.get(here, 0) + 1
        if here.endswith(".tmoe"):
            return ((".A", "linear", "experts A"), (".B", "linear", "experts B"))[order > 1]
        if here.endswith(".expert_route"):
            return "", "linear", "router"
        if here.endswith(".attn"):
            return (".qk" if order == 1 else ".av"), "live_product", "attention"
        if here.startswith("head."):
            return "", "linear", "head"
        if here.startswith("blocks."):
            parts = (("attn.proj", "proj frozen"), ("attn.qkv", "qkv frozen"), ("mlp", "MLP frozen"))
            return "", "linear", next(part for key, part in parts if key in here)
        return "head.gate", "live_product", "head"

    def _element(self, kind: str, made: Tensor) -> None:
        self._add(f"{self._here or 'maps'}.{kind}", kind, kind, 0, [made], [], made, made.numel())

    def _add(
        self, name: str, kind: str, part: str, macs: int, reads: list[Tensor], weights: list[Tensor], made: Tensor,
        elements: int = 0,
    ) -> None:  # fmt: skip
        old = self.layers.get(name)
        block = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else name.split(".")[0]
        read, written, stored = sum(t.numel() for t in reads), made.numel(), sum(t.numel() for t in weights)
        if old is not None:
            macs, read, written = macs + old.macs, read + old.reads, written + old.writes
            stored, elements = max(stored, old.weights), elements + old.elements
        self.layers[name] = DenseLayer(name, kind, block, part, macs, stored, read, written, elements)


@dataclass(frozen=True, slots=True)
class Usage:
    """How one layer's experts were used: mean weight of each, mean entropy in nats, share of tokens by their first."""

    layer: str
    share: tuple[float, ...]
    entropy: float
    first: tuple[float, ...]


class Shares:
    """Sums over tokens of one layer's router weights. Nothing else is kept: small arrays of every frame between the
    large ones of a forward pass would keep all of that memory from being given back."""

    def __init__(self, experts: int) -> None:
        self._tokens, self._entropy = 0, 0.0
        self._share, self._first = torch.zeros(experts, dtype=torch.float64), torch.zeros(experts)

    def add(self, logits: Tensor) -> None:
        """Router outputs ``[..., E]``."""
        g = logits.detach().softmax(-1).flatten(0, -2).double()
        self._tokens += len(g)
        self._share += g.sum(0)
        self._first += torch.bincount(g.argmax(-1), minlength=g.shape[-1])
        self._entropy -= float((g * g.clamp(min=1e-300).log()).sum())

    def usage(self, layer: str) -> Usage:
        """Means over all tokens."""
        share, first = ((one / self._tokens).tolist() for one in (self._share, self._first))
        return Usage(layer, tuple(share), self._entropy / self._tokens, tuple(first))


@contextmanager
def watch_experts(model: SpmTrack) -> Iterator[dict[str, Shares]]:
    """Router weights of every call by layer, of the literal model's calls in the block."""
    kept: dict[str, Shares] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, given: Any, made: Tensor) -> None:
            kept.setdefault(name, Shares(made.shape[-1])).add(made)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, Experts):
                layer = name.removesuffix(".tmoe")
                stack.callback(module.expert_route.register_forward_hook(keep(layer)).remove)
        yield kept


def usage(kept: Mapping[str, Shares]) -> list[Usage]:
    """What :func:`watch_experts` saw."""
    return [shares.usage(layer) for layer, shares in kept.items()]
