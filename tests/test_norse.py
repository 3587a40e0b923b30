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
from spiketrack_deploy.frontends.nir.reference import simulate


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
    """The same levels step by step in float64, and but for rounded weights in integers."""
    nir = pytest.importorskip("nir")
    torch.manual_seed(3)
    cells = [norse.NILIFCell(norse.NILIFParameters(levels=16)) for _ in range(2)]  # never reached: NIR has no cap
    net = nn.Sequential(nn.Linear(6, 5), cells[0], nn.Linear(5, 3, bias=False), cells[1]).double()
    for p, scale in ((net[0].weight, 1.0), (net[0].bias, 1.0), (net[2].weight, 12.0)):
        p.data = torch.randn_like(p) * scale
    nir.write(tmp_path / "net.nir", norse.to_nir(net, torch.zeros(6, dtype=torch.float64)))
    network, convention = read_network(tmp_path / "net.nir").network, Convention(**norse.CONVENTION)
    x = (torch.rand(60, 6) < 0.4).double()
    states: list[Any] = [None, None]
    want = []
    for step in x:
        hidden, states[0] = net[1](net[0](step), states[0])
        out, states[1] = net[3](net[2](hidden), states[1])
        want.append((out * 16).round().int().tolist())
    moments = simulate(network, convention, {"input": x.numpy()})
    assert [m.values["output"].astype(int).tolist() for m in moments] == want
    assert max(map(max, want)) > 1
    lowered = lower_network(
        network, convention, LowerOptions(weight_bits=14, observed={"1_nilifcell": 16, "3_nilifcell": 16})
    )
    with make_engine("reference", lowered.program) as engine:
        session = engine.session()
        given = [step.numpy().astype(np.int64).reshape(1, 6, 1, 1) for step in x]
        found = [session.step("step", {"input": a}).outputs["output"].reshape(-1).tolist() for a in given]
    assert np.mean(np.array(found) != np.array(want)) < 0.02


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
