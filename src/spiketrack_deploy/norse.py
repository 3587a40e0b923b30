"""The NI-LIF neuron where norse is: a cell like norse's own, and a way out to NIR that this package compiles exactly.

This module decides the neuron's equations in PyTorch and what they are in NIR's words. It must not know integers. It
imports norse and PyTorch, and is imported by nothing here.

One step (all arrays of the neuron's shape; a level is one threshold):

    v <- (v - n_before) * decay + x;    n = round_half_up(clamp(v, 0, levels));    output n / levels

That is SpikeTrack's neuron (CVPR 2026) with a reset of a whole level, which NIR's LIF has, in place of the published
quarter, which it has no word for. In NIR it is a LIF with ``v_threshold`` 1 and ``v_leak`` 1/2, from which its membrane
starts: half a level up, rounding is counting whole levels (:data:`CONVENTION`). NIR has no cap on the levels of a step;
what a trained network sends beyond it is seen when the compiled network is compared.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

try:
    from norse.torch.module.snn import SNNCell  # type: ignore[import-not-found,unused-ignore]
except ImportError as error:
    raise ImportError(
        "spiketrack_deploy.norse needs norse (pip install norse nir): it is a module for norse"
    ) from error

import torch
from torch import Tensor, nn

from spiketrack_deploy.errors import InputError

DT = 1e-3
CONVENTION = {
    "dt": DT,
    "integrate": "euler",
    "reset": "subtract",
    "compare": "ge",
    "initial": "leak",
    "several": True,
    "gain": "r",
}
"""How NIR files of :func:`to_nir` are read: fields of ``frontends.nir.conventions.Convention``, options of
``spiketrack-export`` (``--several-spikes``)."""


class NILIFParameters(NamedTuple):
    """``decay``: what a step leaves of a membrane, 0 (none) to below 1; ``levels``: largest spike."""

    decay: float = 0.5
    levels: int = 4


class NILIFState(NamedTuple):
    """``v``: membrane behind its reset."""

    v: Tensor


class _Levels(torch.autograd.Function):
    """Whole levels of a membrane; gradient 1 between 0 and the largest (straight through)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward((v >= 0) & (v <= levels))
        return torch.floor(v + 0.5).clamp(0, levels)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grad[0] * inside, None


def nilif_step(x: Tensor, state: NILIFState, p: NILIFParameters, dt: float = DT) -> tuple[Tensor, NILIFState]:
    """One step: levels over the largest, and the state (norse's order of arguments)."""
    v = state.v * p.decay + x
    n: Tensor = _Levels.apply(v, p.levels)  # type: ignore[no-untyped-call,unused-ignore]
    return n / p.levels, NILIFState(v - n)


class NILIFCell(SNNCell):  # type: ignore[misc]
    """The neuron as a norse cell: ``cell(x, state) -> (spikes, state)``, for ``norse.torch.SequentialState``."""

    def __init__(self, p: NILIFParameters = NILIFParameters(), dt: float = DT) -> None:  # noqa: B008  a tuple of numbers
        if not 0 <= p.decay < 1 or p.levels < 1:
            raise InputError(
                f"NILIFCell: decay {p.decay} and levels {p.levels}; 0 to below 1, and 1 or more are possible"
            )
        super().__init__(nilif_step, lambda x: NILIFState(torch.zeros_like(x)), p, dt)


def to_nir(network: nn.Sequential, sample: Tensor) -> Any:
    """A ``nir.NIRGraph`` of a sequential network of Linear, Conv2d, Flatten and :class:`NILIFCell`; ``sample``: one
    input without batch. The division by the levels goes into the weights behind a neuron, so graphs carry whole levels.

    InputError: another module, or neurons that end the network behind others without weights.
    """
    import nir

    nodes: dict[str, Any] = {"input": nir.Input(input_type={"input": tuple(sample.shape)})}
    x, share = sample[None], 1.0
    for index, module in enumerate(network.children()):
        before = tuple(x.shape[1:])
        result = module(x)
        x = result[0] if isinstance(result, tuple) else result
        nodes[f"{index}_{type(module).__name__.lower()}"] = _node(nir, module, before, tuple(x.shape[1:]), share)
        if isinstance(module, NILIFCell):
            share = 1.0 / module.p.levels
        elif isinstance(module, nn.Linear | nn.Conv2d):
            share = 1.0
    nodes["output"] = nir.Output(output_type={"output": tuple(x.shape[1:])})
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)), type_check=False)


def _node(nir: Any, module: nn.Module, before: tuple[int, ...], after: tuple[int, ...], share: float) -> Any:
    if isinstance(module, nn.Flatten):
        return nir.Flatten(input_type={"input": before}, start_dim=module.start_dim - 1, end_dim=-1)
    if isinstance(module, nn.Linear | nn.Conv2d):
        weight = module.weight.detach().double().numpy() * share
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
        if isinstance(module, nn.Linear):
            return nir.Affine(weight=weight, bias=bias.double().numpy())
        return nir.Conv2d(
            input_shape=before[1:], weight=weight, bias=bias.double().numpy(), stride=module.stride,
            padding=module.padding, dilation=module.dilation, groups=module.groups,
        )  # fmt: skip
    if isinstance(module, NILIFCell):
        one, keep = torch.ones(after, dtype=torch.float64).numpy(), module.p.decay
        return nir.LIF(tau=one * DT / (1 - keep), r=one / (1 - keep), v_leak=one / 2, v_threshold=one, v_reset=one * 0)
    raise InputError(
        f"to_nir: {type(module).__name__} has no form in NIR here; Linear, Conv2d, Flatten, NILIFCell have"
    )
