"""Recording of integer spikes while a network runs.

This module decides under which name a call is kept. It must not know the network: it finds neurons by their type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spiketrack_deploy.trackers.spiketrack.neuron import LEVELS, NILIF


@contextmanager
def record_spikes(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Keep the integer output n (0..4, int8) of every neuron call of ``model`` inside the ``with`` block.

    Yields a dict in execution order: module path without ``.decay`` -> int8 tensor shaped as the neuron's output
    (``[T,B,C,H,W]``, ``[T,B,C,N]``, or ``[B*4C,N/2,T]`` in the gate). The second call of one neuron is ``path#2``,
    and so on: record the two branches in blocks of their own. Without a recorder a neuron only tests one attribute.
    """
    spikes: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Tensor], None]:
        calls = 0

        def tap(values: Tensor) -> None:
            nonlocal calls
            calls += 1
            key = name if calls == 1 else f"{name}#{calls}"
            spikes[key] = (values.detach() * LEVELS).to(torch.int8)

        return tap

    neurons = [(name, module) for name, module in model.named_modules() if isinstance(module, NILIF)]
    before = [neuron.tap for _, neuron in neurons]
    for name, neuron in neurons:
        neuron.tap = keep(name)
    try:
        yield spikes
    finally:
        for (_, neuron), tap in zip(neurons, before):
            neuron.tap = tap
