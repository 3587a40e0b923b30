"""Digits drawn by this script: trained where you train, exported to NIR, compiled here to integers, priced.

    python examples/digits.py norse      NI-LIF neurons of spiketrack_deploy.norse  (pip install norse nir)
    python examples/digits.py snntorch   leaky neurons of snnTorch  (pip install snntorch nirtorch nir)

Prints accuracy in float and in integers, and the energy of a digit on Loihi 2, dynamic and total. Minutes on two
cores; nothing is downloaded. The NIR file stays as digits-FRAMEWORK.nir: `spiketrack-export` takes it as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spiketrack_deploy.bundle.chips import on_chips
from spiketrack_deploy.energy.frames import CAMERA_PERIOD_S
from spiketrack_deploy.energy.layers import add_runs, layer_counts
from spiketrack_deploy.energy.report import assess
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import SpiketrackError
from spiketrack_deploy.frontends.nir.build import read_network
from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.lower import LowerOptions, lower_network
from spiketrack_deploy.hardware.targets import resolve_target

STEPS, TRAIN, TEST = 8, 2000, 300
SEGMENTS = (
    "1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011",
)  # fmt: skip
"""Seven segments: top, upper left, upper right, middle, lower left, lower right, bottom."""


def drawn(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spikes ``[T, N, 64]`` of noisy digits on 8 x 8 pixels, moved by up to a pixel, and their labels."""
    rng = np.random.default_rng(seed)
    label, images = rng.integers(0, 10, count), np.zeros((count, 8, 8))
    rows = slice(1, 2), slice(1, 4), slice(1, 4), slice(4, 5), slice(4, 7), slice(4, 7), slice(6, 7)
    columns = slice(3, 6), slice(2, 3), slice(6, 7), slice(3, 6), slice(2, 3), slice(6, 7), slice(3, 6)
    for image, digit in zip(images, label):
        for on, place in zip(SEGMENTS[digit], zip(rows, columns)):
            image[place] = 0.8 * int(on) * rng.uniform(0.7, 1.0)
        image[:] = np.roll(image, rng.integers(-1, 2, 2), (0, 1)) + rng.uniform(0, 0.12, (8, 8))
    spikes = rng.random((STEPS, count, 64)) < images.reshape(count, 64)
    return torch.tensor(spikes, dtype=torch.float32), torch.tensor(label)


def norse_network() -> tuple[nn.Module, Any]:
    """Network, and how it becomes NIR."""
    import norse.torch as snn

    from spiketrack_deploy.norse import CONVENTION, NILIFCell, to_nir

    net = snn.SequentialState(nn.Linear(64, 64), NILIFCell(), nn.Linear(64, 10), NILIFCell())
    return net, lambda: (to_nir(nn.Sequential(*net.children()), torch.zeros(64)), Convention(**CONVENTION))


def snntorch_network() -> tuple[nn.Module, Any]:
    """Network, and how it becomes NIR."""
    import snntorch
    from snntorch.export_nir import export_to_nir

    settings = {"beta": torch.full((64,), 0.8), "threshold": torch.ones(64)}
    last = {"beta": torch.full((10,), 0.8), "threshold": torch.ones(10)}
    zero = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    net = nn.Sequential(
        nn.Linear(64, 64), snntorch.Leaky(**settings, **zero), nn.Linear(64, 10), snntorch.Leaky(**last, **zero)
    )
    return net, lambda: (export_to_nir(net, torch.zeros(1, 64), ignore_dims=[0]), PRESETS["snntorch"])


def counts(net: nn.Module, spikes: torch.Tensor) -> torch.Tensor:
    """Spikes of the last layer over all steps ``[N, 10]``."""
    plain = type(net) is nn.Sequential  # snnTorch's neurons keep their state themselves
    for module in net.modules() if plain else ():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    state, total = None, torch.zeros(())
    for step in spikes:
        x, state = (net(step), None) if plain else net(step, state)
        total = total + x
    return total


def train(net: nn.Module) -> float:
    """Accuracy in float, percent of the test digits."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.1, 0.25)
    x, label = drawn(TRAIN, 1)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(400):
        pick = torch.randint(0, TRAIN, (100,))
        loss = nn.functional.cross_entropy(counts(net, x[:, pick]), label[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    x, label = drawn(TEST, 2)
    with torch.no_grad():
        return 100 * float((counts(net, x).argmax(1) == label).float().mean())


def integers(path: Path, convention: Convention) -> tuple[float, Any]:
    """Accuracy of the integer program, percent, and the energy of a step on chips; a digit has ``STEPS`` of them."""
    lowered = lower_network(read_network(path).network, convention, LowerOptions())
    program = lowered.program
    phase = program.phases["step"]
    (given,), (shown,) = program.external(phase), [name for name in phase.outputs if name not in program.states]
    x, label = drawn(TEST, 2)
    runs, right = [], 0
    with make_engine("sim", program) as engine:
        for n in range(TEST):
            session, total = engine.session(), 0
            for t in range(STEPS):
                result = session.step("step", {given: x[t, n].numpy().astype(np.int64).reshape(1, 64, 1, 1)})
                total = total + result.outputs[shown].reshape(-1)
                runs.append(layer_counts(phase.ops, result.counts))
            right += int(np.argmax(total)) == int(label[n])
    target, counts = resolve_target("loihi2"), {"step": add_runs(runs, "step")}
    whole = on_chips(program, counts, target, period_s=CAMERA_PERIOD_S / STEPS)
    placed = whole.placed if whole else None
    return 100 * right / TEST, assess(counts, target.profile, {"step": 1.0}, result="step", placed=placed)


def main() -> int:
    kinds = {"norse": norse_network, "snntorch": snntorch_network}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        print(__doc__)
        return 2
    torch.set_num_threads(2)
    try:
        net, export = kinds[sys.argv[1]]()
        accuracy = train(net)
        graph, convention = export()
        import nir

        path = Path(f"digits-{sys.argv[1]}.nir")
        nir.write(path, graph)
        exact, energy = integers(path, convention)
    except (ImportError, SpiketrackError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 6 if isinstance(error, ImportError) else error.exit_code
    print(f"accuracy in float {accuracy:.1f} %, in integers {exact:.1f} %, {TEST} digits not seen in training")
    print(f"a digit ({STEPS} steps) on loihi2, on {energy.placed.chips} chip:")
    powered = f"with static power and input, a digit every {1e3 * CAMERA_PERIOD_S:.1f} ms"
    for what, one in (("dynamic", energy.dynamic), (f"total, {powered}", energy.total)):
        low, nominal, high = (n * STEPS / 1e3 for n in (one.low, one.nominal, one.high))
        print(f"  {what}: {nominal:,.2f} uJ [{low:,.2f} .. {high:,.2f}]")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
