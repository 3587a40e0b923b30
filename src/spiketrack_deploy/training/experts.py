"""Low-rank experts beside the 1x1 convolutions of a deployed tracker, merged into them before quantisation.

    g = softmax(G 4x)      u = mean of g over a scene      y = Q(W + sum_i u_i B_i A) x + b + sum_i (g_i - u_i) B_i A x

W, b: the deployed layer, frozen. A ``[r,in]``: compression shared by E experts B_i ``[out,r]``; G ``[E,in]``: the
router, which reads spike counts (arXiv 2503.18338, section 3.2, there on linear layers without Q). Q rounds as the
program does (:mod:`integer_model`), so the first term is what is deployed; the last one, the covariance of routing and
features, is what the merge drops. With one expert there is no router and no last term: low-rank adaptation (arXiv
2106.09685).

This module decides the adapter's arithmetic and which layers have one. It must not know data, files nor the order of a
step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.neuron import LEVELS
from spiketrack_deploy.training.integer_model import IntegerModel
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.stages import IntegerStage

METHODS = ("experts", "lora", "full")
USAGE_RATE = 0.05
"""How fast the mean routing weights follow the batches while training."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``method``: ``experts``, ``lora`` (one matrix a layer, of the rank that trains as many numbers) or ``full``
    (every weight). ``layers``: names of blocks that adapt, all of the backbone's where there are none. ``seed``: of the
    first A and G; B starts at 0, so an adapter begins as the program that is deployed."""

    method: str = "experts"
    experts: int = 4
    rank: int = 4
    layers: tuple[str, ...] = ()
    seed: int = 1


class Adapter(nn.Module):
    """A, B and G of one layer, and the mean routing weights ``usage [E]`` that a merge takes."""

    usage: Tensor

    def __init__(self, inputs: int, outputs: int, experts: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.compress = nn.Parameter(torch.randn(rank, inputs, generator=generator) * inputs**-0.5)
        self.experts = nn.Parameter(torch.zeros(experts, outputs, rank))
        route = torch.randn(experts, inputs, generator=generator) * inputs**-0.5 / LEVELS
        self.route = nn.Parameter(route) if experts > 1 else None
        self.register_buffer("usage", torch.full((experts,), 1 / experts))
        self._seen: list[Tensor] = []

    def merged(self) -> Tensor:
        """``sum_i u_i B_i A``, ``[out,in]``."""
        return torch.einsum("e,eor->or", self.usage, self.experts) @ self.compress

    def live(self, x: Tensor) -> Tensor | None:
        """What each token's own routing adds to the merged matrix: ``[B,in,N]`` -> ``[B,out,N]``; None: nothing."""
        if self.route is None:
            return None
        gate = torch.softmax(self.route @ (LEVELS * x), 1)
        self._seen.append(gate.detach().mean((0, 2)))
        mixed = (gate - self.usage[:, None]).unsqueeze(2) * (self.compress @ x).unsqueeze(1)
        return self.experts.transpose(0, 1).flatten(1) @ mixed.flatten(1, 2)

    def settle(self, rate: float) -> None:
        """Move ``usage`` towards the mean routing weights seen since the last call."""
        if self._seen:
            # A new tensor: the old one is part of the pass that is about to be differentiated.
            self.usage = self.usage.lerp(torch.stack(self._seen).mean(0), rate)
        self._seen = []


class _Routed1d(nn.Conv1d):
    adapter: Adapter

    def forward(self, input: Tensor) -> Tensor:
        return _with_routing(super().forward(input), input, self.adapter)


class _Routed2d(nn.Conv2d):
    adapter: Adapter

    def forward(self, input: Tensor) -> Tensor:
        return _with_routing(super().forward(input), input, self.adapter)


def _with_routing(out: Tensor, x: Tensor, adapter: Adapter) -> Tensor:
    live = adapter.live(x.flatten(2))
    return out if live is None else out + live.reshape(out.shape)


def attach(net: SpikeTrack, path: str, adapter: Adapter) -> None:
    """From now on the convolution ``path`` adds :meth:`Adapter.live` to its output; its weight is the caller's."""
    conv = net.get_submodule(path)
    conv.__class__ = _Routed1d if isinstance(conv, nn.Conv1d) else _Routed2d
    conv.adapter = adapter


def pointwise(net: SpikeTrack, layers: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Ungrouped 1x1 convolutions of the backbone that read spikes: module path -> (inputs, outputs).

    :class:`InputError` where ``layers`` (blocks, e.g. ``block3.0``) name none.
    """
    found = {
        path: (conv.in_channels, conv.out_channels)
        for path, conv in net.named_modules()
        if isinstance(conv, (nn.Conv1d, nn.Conv2d))
        and path.startswith("encoder.")
        and ".gate." not in path
        and conv.groups == 1
        and set(conv.kernel_size) == {1}
    }
    blocks = sorted({block_of(path) for path in found})
    unknown = [name for name in layers if name not in blocks]
    chosen = {path: sides for path, sides in found.items() if not layers or block_of(path) in layers}
    if unknown or not chosen:
        named = f" in {unknown[0]!r}" if unknown else ""
        raise InputError(
            f"network {net.config.name} has no 1x1 convolution{named} that could be adapted; "
            f"blocks with some: {', '.join(blocks) or 'none'}"
        )
    return chosen


def block_of(path: str) -> str:
    """Block of a module path: ``encoder.block3.0.mlp.fc1_conv`` -> ``block3.0``."""
    return ".".join(path.split(".")[1:3])


def trained_numbers(inputs: int, outputs: int, experts: int, rank: int) -> int:
    """How many numbers an adapter trains: r in + E r out + E in; one expert has no router."""
    return rank * (inputs + experts * outputs) + (experts * inputs if experts > 1 else 0)


def sizes(plan: Plan, inputs: int, outputs: int) -> tuple[int, int]:
    """(experts, rank) of a layer; for ``lora`` the rank that trains as many numbers as the experts would."""
    if plan.method == "experts":
        return plan.experts, plan.rank
    wanted = trained_numbers(inputs, outputs, plan.experts, plan.rank)
    return 1, max(1, round(wanted / (inputs + outputs)))


class AdapterModel(IntegerModel):
    """A tracker in the program's arithmetic whose masters stand still but for their adapters."""

    def __init__(self, model: SpikeTrack, samples: Sequence[Sample], plan: Plan) -> None:
        super().__init__(model, samples)
        self.requires_grad_(False)
        generator = torch.Generator().manual_seed(plan.seed)
        self.paths = tuple(pointwise(self.net, plan.layers))
        for path, (inputs, outputs) in pointwise(self.net, plan.layers).items():
            attach(self.net, path, Adapter(inputs, outputs, *sizes(plan, inputs, outputs), generator))

    def adapters(self) -> Mapping[str, Adapter]:
        """By path of the convolution."""
        return {path: cast(Adapter, self.net.get_submodule(f"{path}.adapter")) for path in self.paths}

    def masters(self) -> dict[str, Tensor]:
        """See :class:`IntegerModel`; adapted weights are merged with the mean routing weights."""
        out = super().masters()
        for path, adapter in self.adapters().items():
            key = f"{path}.weight"
            out[key] = out[key] + adapter.merged().reshape(out[key].shape)
        return out

    def settle(self, rate: float) -> None:
        """Behind a pass: the mean routing weights follow it."""
        for adapter in self.adapters().values():
            adapter.settle(rate)

    def routed(self) -> SpikeTrack:
        """A tracker of real weights before the merge: every token is routed by itself."""
        out = self.deployed(integers=False)
        for path, adapter in self.adapters().items():
            attach(out, path, copy.deepcopy(adapter).cpu())
        return out.eval()

    def usage(self) -> dict[str, list[float]]:
        """Mean routing weights by path."""
        return {path: adapter.usage.tolist() for path, adapter in self.adapters().items()}


class AdapterStage(IntegerStage):
    """Adapters are trained through the quantised merge."""

    def __init__(self, model: SpikeTrack, samples: Sequence[Sample], plan: Plan) -> None:
        self.module: AdapterModel = AdapterModel(model, samples, plan)

    def maps(self, templates: Tensor, searches: Tensor, each: int) -> Maps:
        """See :class:`Stage`."""
        maps = super().maps(templates, searches, each)
        self.module.settle(USAGE_RATE)
        return maps

    def settled(self, state: Mapping[str, Tensor], samples: Sequence[Sample]) -> AdapterModel:
        """The network of ``state`` with the mean routing weights of ``samples``, what the router then stands at."""
        out = copy.copy(self)
        out.module = cast(AdapterModel, self.loaded(state))
        templates = torch.stack([torch.from_numpy(sample.templates) for sample in samples], 1)
        searches = torch.cat([torch.from_numpy(sample.searches) for sample in samples])
        with torch.no_grad():
            super(AdapterStage, out).maps(templates, searches, len(samples[0].searches))
        out.module.settle(1.0)
        return out.module


def count_trained(module: nn.Module) -> int:
    """Numbers that a training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
