"""Draws small networks in other frameworks, lets them export NIR, and records what they themselves do: run by hand.

    python tests/draw_nir_frameworks.py norse|snntorch|spikingjelly|sinabs|rockpool

in an environment that has that framework (versions: docs/nir.md); writes ``tests/nir_frameworks/NAME.nir`` and
``NAME.npz`` (``input`` [steps, *shape], ``output`` [steps, *shape], ``convention``: the options under which
``tests/test_nir_frameworks.py`` must read it, ``versions``).
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent / "nir_frameworks"
STEPS = 60


def spikes(shape: tuple[int, ...], rate: float = 0.3, seed: int = 0) -> torch.Tensor:
    """float32 [STEPS, 1, *shape] of 0 and 1."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((STEPS, 1, *shape)) < rate).astype(np.float32))


def spread(module: nn.Module, scale: float = 1.0) -> None:
    """Drawn weights of a useful size."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            with torch.no_grad():
                fan = parameter[0].numel()
                parameter.copy_(scale * torch.randn_like(parameter) / fan**0.5 + scale / fan)


def save(name: str, graph: Any, x: torch.Tensor, y: Iterable[torch.Tensor], convention: str, *packages: str) -> None:
    """One network with its answers."""
    import nir

    HERE.mkdir(exist_ok=True)
    nir.write(HERE / f"{name}.nir", graph)
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in (*packages, "nir", "torch"))
    output = np.stack([step.detach().numpy()[0] for step in y])
    np.savez_compressed(
        HERE / f"{name}.npz", input=x[:, 0].numpy(), output=output, convention=convention, versions=versions
    )
    print(f"{name}: {int((output != 0).sum())} of {output.size} values are not zero, {int((output > 1).sum())} above 1")


def norse() -> None:
    import nir
    import norse.torch as snn

    def vectors(graph: Any, reset: float, shapes: dict[str, tuple[int, ...]]) -> Any:
        """norse exports scalars and drops v_reset: both set by hand."""
        for key, node in graph.nodes.items():
            for field in ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in"):
                if hasattr(node, field):
                    value = reset if field == "v_reset" else float(np.asarray(getattr(node, field)))
                    setattr(node, field, np.full(shapes[key], value))
        return nir.NIRGraph(graph.nodes, graph.edges, type_check=False)

    p = snn.LIFBoxParameters(tau_mem_inv=torch.tensor(1 / 8e-3), v_leak=torch.tensor(0.1), v_reset=torch.tensor(-0.2))
    net = snn.SequentialState(nn.Linear(12, 9), snn.LIFBoxCell(p), nn.Linear(9, 5), snn.LIFBoxCell(p))
    spread(net, 8)
    x, state, out = spikes((12,)), None, []
    for step in x:
        y, state = net(step, state)
        out.append(y)
    graph = snn.to_nir(net, x[0], dt=1.0)
    save("norse_dense", vectors(graph, -0.2, {"1": (9,), "3": (5,)}), x, out, "norse", "norse", "nirtorch")

    q = snn.LIFParameters(tau_syn_inv=torch.tensor(1 / 5e-3), tau_mem_inv=torch.tensor(1 / 8e-3))
    net = snn.SequentialState(nn.Linear(12, 9), snn.LIFCell(q), nn.Linear(9, 5), snn.LIFCell(q))
    spread(net, 2)
    state, out = None, []
    for step in x:
        y, state = net(step, state)
        out.append(y)
    graph = snn.to_nir(net, x[0], dt=1.0)
    save("norse_current", vectors(graph, 0.0, {"1": (9,), "3": (5,)}), x, out, "norse", "norse", "nirtorch")


def snntorch() -> None:
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    def run(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        out = []
        for step in x:
            y = net(step)
            out.append(y[0] if isinstance(y, tuple) else y)
        return out

    zero: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
    beta, threshold = torch.linspace(0.6, 0.95, 9), torch.linspace(0.5, 1.5, 9)
    last, many = torch.full((5,), 0.9), torch.ones(5)
    net = nn.Sequential(
        nn.Linear(12, 9), snn.Leaky(beta=beta, threshold=threshold, **zero),
        nn.Linear(9, 5, bias=False), snn.Leaky(beta=last, threshold=many, output=True, **zero),
    )  # fmt: skip
    spread(net)
    x = spikes((12,))
    out = run(net, x)
    graph = export_to_nir(net, x[0], ignore_dims=[0])
    save("snntorch_dense", graph, x, out, "snntorch", "snntorch", "nirtorch")

    alpha = torch.linspace(0.5, 0.8, 9)
    net = nn.Sequential(
        nn.Linear(12, 9), snn.Synaptic(alpha=alpha, beta=beta, threshold=threshold, **zero),
        nn.Linear(9, 5), snn.Leaky(beta=last, threshold=many, output=True, **zero),
    )  # fmt: skip
    spread(net)
    out = run(net, x)
    graph = export_to_nir(net, x[0], ignore_dims=[0])
    save("snntorch_current", graph, x, out, "snntorch", "snntorch", "nirtorch")

    delayed: dict[str, Any] = {"init_hidden": True}
    net = nn.Sequential(
        nn.Linear(12, 9), snn.Leaky(beta=beta, threshold=threshold, **delayed),
        nn.Linear(9, 5), snn.Leaky(beta=last, threshold=many, output=True, **delayed),
    )  # fmt: skip
    spread(net)
    out = run(net, x)
    graph = export_to_nir(net, x[0], ignore_dims=[0])
    save("snntorch_subtract", graph, x, out, "snntorch --reset subtract --late reset", "snntorch", "nirtorch")

    shape = (4, 6, 5)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=(1, 2), padding=1, bias=False),
        snn.Leaky(beta=torch.full(shape, 0.85), threshold=torch.ones(shape), **zero),
        nn.AvgPool2d(2, 2), nn.Flatten(), nn.Linear(24, 5),
        snn.Leaky(beta=last, threshold=many, output=True, **zero),
    )  # fmt: skip
    spread(net, 3)
    x = spikes((2, 6, 10))
    out = run(net, x)
    graph = export_to_nir(net, x[0], ignore_dims=[0])
    for node in graph.nodes.values():
        if type(node).__name__ == "Conv2d":
            node.input_shape = (6, 10)
    save("snntorch_conv", graph, x, out, "snntorch", "snntorch", "nirtorch")

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.fc2 = nn.Linear(12, 9), nn.Linear(9, 5)
            self.lif = snn.RSynaptic(alpha=0.6, beta=0.85, linear_features=9)
            self.out = snn.Leaky(beta=last, threshold=many)

        def forward(self, x: torch.Tensor, state: Any = None) -> Any:
            state = state or ([*self.lif.init_rsynaptic()], self.out.init_leaky())
            s, syn, mem = self.lif(self.fc(x), *state[0])
            y, last_ = self.out(self.fc2(s), state[1])
            return y, ([s, syn, mem], last_)

    # Without its delayed reset RSynaptic of snnTorch 1.0.0 fails at its first step.
    net = Recurrent()
    spread(net, 1.2)
    x, state, out = spikes((12,)), None, []
    for step in x:
        y, state = net(step, state)
        out.append(y)
    graph = export_to_nir(net, x[0], ignore_dims=[0])
    save("snntorch_recurrent", graph, x, out, "snntorch --reset subtract --late reset", "snntorch", "nirtorch")


def spikingjelly() -> None:
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    def run(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        functional.reset_net(net)
        out = [net(step) for step in x]
        functional.reset_net(net)
        return out

    net = nn.Sequential(
        layer.Linear(12, 9), neuron.LIFNode(tau=4.0, v_reset=-0.1, v_threshold=0.9),
        layer.Linear(9, 5), neuron.LIFNode(tau=2.5, decay_input=False, v_reset=0.0),
    )  # fmt: skip
    spread(net, 4)
    x = spikes((12,))
    out = run(net, x)
    save("spikingjelly_dense", export_to_nir(net, x[0]), x, out, "spikingjelly", "spikingjelly", "nirtorch")
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=(1, 0)), neuron.IFNode(v_threshold=1.3),
        layer.AvgPool2d(2), layer.Flatten(), layer.Linear(48, 5), neuron.IFNode(v_threshold=1.1),
    )  # fmt: skip
    spread(net, 2)
    x = spikes((2, 6, 10))
    out = run(net, x)
    save("spikingjelly_conv", export_to_nir(net, x[0]), x, out, "spikingjelly", "spikingjelly", "nirtorch")


def sinabs() -> None:
    import nir
    import sinabs.layers as sl
    from sinabs.nir import to_nir

    def run(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        y = x.transpose(0, 1)[0]  # squeezed layers take [batch * steps, *shape]
        return list(net(y)[:, None])

    def whole(graph: Any) -> Any:
        return nir.NIRGraph(graph.nodes, graph.edges, type_check=False)

    squeeze: dict[str, Any] = {"batch_size": 1}

    def lif(size: int, tau: float) -> nn.Module:
        times, thresholds = torch.full((size,), tau), torch.ones(size)
        return sl.LIFSqueeze(tau_mem=times, spike_threshold=thresholds, norm_input=False, **squeeze)

    net = nn.Sequential(
        nn.Linear(12, 9), lif(9, 6.0),
        nn.Linear(9, 5, bias=False), lif(5, 4.0),
    )  # fmt: skip
    spread(net, 2)
    x = spikes((12,))
    out = run(net, x)
    save("sinabs_dense", whole(to_nir(net, x[:, 0])), x, out, "sinabs", "sinabs", "nirtorch")
    for module in net:
        if isinstance(module, sl.LIFSqueeze):
            module.norm_input = True
            module.reset_states()
    with torch.no_grad():
        net[0].weight *= 5
        net[2].weight *= 5
    out = run(net, x)
    save("sinabs_norm_input", whole(to_nir(net, x[:, 0])), x, out, "sinabs --gain r", "sinabs", "nirtorch")
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), sl.IAFSqueeze(**squeeze), sl.SumPool2d(2), nn.Flatten(),
        nn.Linear(60, 5, bias=False), sl.IAFSqueeze(**squeeze),
    )  # fmt: skip
    spread(net, 1)
    x = spikes((2, 6, 10))
    out = run(net, x)
    graph = to_nir(net, x[:, 0])
    graph.nodes["0"].input_shape = (6, 10)
    graph = nir.NIRGraph(graph.nodes, graph.edges)
    save("sinabs_conv", graph, x, out, "sinabs", "sinabs", "nirtorch")


def rockpool() -> None:
    import nir
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFNeuronTorch, LIFTorch, LinearTorch
    from rockpool.nn.modules.torch.nir import to_nir

    dt = 1e-3
    for name, neuron, more in (
        ("rockpool_current", LIFTorch, {"tau_syn": 0.005, "tau_mem": 0.01, "threshold": 0.9}),
        ("rockpool_dense", LIFNeuronTorch, {"tau_mem": 0.008}),
    ):
        net = Sequential(
            LinearTorch((12, 9), has_bias=True), neuron((9, 9) if neuron is LIFTorch else 9, dt=dt, **more),
            LinearTorch((9, 5)), neuron((5, 5) if neuron is LIFTorch else 5, dt=dt, **more),
        )  # fmt: skip
        torch.manual_seed(7)
        for parameter in net.parameters().values():
            for key, value in parameter.items():
                if key == "weight":
                    value.data = 1.2 * torch.randn_like(value) / value.shape[0] ** 0.5 + 0.1
        x = spikes((12,))
        y, _, _ = net(x.transpose(0, 1))
        graph = to_nir(net, x[:1, 0])
        graph = nir.NIRGraph(graph.nodes, graph.edges, type_check=False)
        save(name, graph, x, y.transpose(0, 1), "rockpool --dt 0.001", "rockpool", "nirtorch")


FRAMEWORKS: dict[str, Callable[[], None]] = {
    "norse": norse, "snntorch": snntorch, "spikingjelly": spikingjelly, "sinabs": sinabs, "rockpool": rockpool,
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or FRAMEWORKS:
        torch.manual_seed(1)
        FRAMEWORKS[chosen]()
