"""The NI-LIF neuron for norse: its equations, and that NIR carries them into integers.

norse is no dependency: a stand-in of its one base class is enough for what is tested here. ``examples/digits.py``
trains with the real one.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import Convention
from spiketrack_deploy.frontends.nir.lower import LowerOptions, lower_network


class SNNCell(nn.Module):
    """As norse 1.1.0 has it."""

    def __init__(self, activation: Any, state_fallback: Any, p: Any, dt: float) -> None:
        super().__init__()
        self.activation, self.state_fallback, self.p, self.dt = activation, state_fallback, p, dt

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        state = state if state is not None else self.state_fallback(x)
        return self.activation(x, state, self.p, self.dt)


@pytest.fixture
def norse(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("norse", "norse.torch", "norse.torch.module", "norse.torch.module.snn"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["norse.torch.module.snn"], "SNNCell", SNNCell, raising=False)
    monkeypatch.delitem(sys.modules, "spiketrack_deploy.norse", raising=False)
    yield importlib.import_module("spiketrack_deploy.norse")
    sys.modules.pop("spiketrack_deploy.norse", None)


def test_a_neuron_counts_levels_and_keeps_the_rest(norse: ModuleType) -> None:
    cell = norse.NILIFCell(norse.NILIFParameters(decay=0.5, levels=4))
    state, seen = None, []
    for x in (0.4, 0.4, 2.6, 9.0, -3.0):
        spike, state = cell(torch.tensor([x]), state)
        seen.append(float(spike) * 4)
    # v: 0.4, 0.6 -> 1 level, -0.2 + 2.6 = 2.4 -> 2, 0.2 + 9 = 9.2 -> capped at 4, (9.2 - 4) / 2 - 3 = -0.4
    assert seen == [0, 1, 2, 4, 0]


def test_gradients_pass_between_nothing_and_the_largest_spike(norse: ModuleType) -> None:
    x = torch.tensor([-1.0, 0.3, 3.9, 7.0], requires_grad=True)
    norse.NILIFCell()(x)[0].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 0.25, 0.25, 0]


def test_nir_carries_it_into_integers(norse: ModuleType, tmp_path: Path) -> None:
    """The same levels step by step: weights are whole sixteenths, so nothing is rounded on the way."""
    nir = pytest.importorskip("nir")
    torch.manual_seed(3)
    cells = [norse.NILIFCell(norse.NILIFParameters(levels=16)) for _ in range(2)]  # never reached: NIR has no cap
    net = nn.Sequential(nn.Linear(6, 5), cells[0], nn.Linear(5, 3, bias=False), cells[1])
    for module in (net[0], net[2]):
        for p in module.parameters():
            p.data = torch.round(torch.randn_like(p) * 20) / 16
    nir.write(tmp_path / "net.nir", norse.to_nir(net, torch.zeros(6)))
    lowered = lower_network(
        read_network(tmp_path / "net.nir").network, Convention(**norse.CONVENTION), LowerOptions(weight_bits=12)
    )
    x = (torch.rand(60, 6) < 0.4).float()
    states: list[Any] = [None, None]
    wrong = several = 0
    with make_engine("reference", lowered.program) as engine:
        session = engine.session()
        for step in x:
            hidden, states[0] = net[1](net[0](step), states[0])
            out, states[1] = net[3](net[2](hidden), states[1])
            given = step.numpy().astype(np.int64).reshape(1, 6, 1, 1)
            result = session.step("step", {"input": given}).outputs["output"].reshape(-1)
            want = (out * 16).round().int().tolist()
            wrong += int((result != np.array(want)).sum())
            several += int(max(want) > 1)
    assert wrong == 0
    assert several


def test_words_for_what_is_wrong(norse: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"decay 1\.5"):
        norse.NILIFCell(norse.NILIFParameters(decay=1.5))
    with pytest.raises(InputError, match="ReLU has no form in NIR"):
        norse.to_nir(nn.Sequential(nn.ReLU()), torch.zeros(3))
    for name in ("norse", "norse.torch", "norse.torch.module", "norse.torch.module.snn"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "spiketrack_deploy.norse")
    with pytest.raises(ImportError, match="pip install norse"):
        importlib.import_module("spiketrack_deploy.norse")
