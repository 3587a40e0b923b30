"""Integer training over three templates: the program's membranes, gates and accumulated embeddings, spike by spike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _training import lively_model, sample, small_config, write_data
from test_training_integer import pixels, program_spikes

from spiketrack_deploy.lowering.emit import gate_table
from spiketrack_deploy.lowering.thresholds import dyadic_thresholds
from spiketrack_deploy.program.ops.gate import gate
from spiketrack_deploy.program.ops.neuron import ni_lif
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, save_model
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.trackers.spiketrack.retriever import Gate
from spiketrack_deploy.training.integer_model import IntegerModel
from spiketrack_deploy.training.membranes import GateUnits, Steps, over_time
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.session import Request
from spiketrack_deploy.training.session import train as run
from spiketrack_deploy.training.surrogate import learn
from spiketrack_deploy.training.units import lowered
from spiketrack_deploy.training.widen import widened

LIVELY_GAIN = 32.0
"""Attention so strong that the gates of drawn weights open."""


def three(seed: int) -> Sample:
    """Three templates and two searches."""
    shown = sample(seed)
    return replace(shown, templates=np.concatenate([sample(seed + k).templates for k in (0, 100, 200)]))


def lively_three() -> SpikeTrack:
    """Three templates that differ: drawn decays, gates and embeddings."""
    one = SpikeTrack(small_config(attention_gain=LIVELY_GAIN))
    one.load_state_dict(lively_model().state_dict())
    model = widened(one.eval(), small_config(name="small3", templates=3, attention_gain=LIVELY_GAIN))
    generator, spreads = torch.Generator().manual_seed(5), {".decay": 0.7, ".gate.": 0.3, ".t_pos_embeds.": 0.2}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for part, spread in spreads.items():
                if part in name:
                    parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> tuple[IntegerModel, Program]:
    """An integer model a few steps away from where it began, its units chosen anew, and the program of those units."""
    samples = [three(3)]
    model = IntegerModel(lively_three(), samples)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.002)
    for seed in range(2):
        shown = three(seed)
        maps = model(pixels(shown.templates)[:, None], pixels(shown.searches), 2)
        optimiser.zero_grad()
        (maps.ctr_logits.square().mean() + maps.offset.square().mean()).backward()
        optimiser.step()
    model.refit(samples)
    return model, lowered(model.deployed(integers=False), samples)


def by_neuron(found: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Calls of every neuron in order, the template's first."""
    calls: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, value in found.items():
        calls[name.rpartition(" ")[2].partition("#")[0]].append(value)
    return calls


def test_three_templates_spike_by_spike(trained: tuple[IntegerModel, Program]) -> None:
    model, program = trained
    for seed in (20, 21):
        shown = three(seed)
        spikes, logits, _ = program_spikes(program, shown)
        with torch.inference_mode(), record_spikes(model.net) as seen:
            maps = model(pixels(shown.templates)[:, None], pixels(shown.searches[:1]), 1)
        expected, found = by_neuron(spikes), by_neuron({name: n.numpy() for name, n in seen.items()})
        assert expected.keys() == found.keys() and sum(len(calls) for calls in expected.values()) == len(spikes) > 70
        assert sum(not value.any() for value in spikes.values()) < 3, "a silent network proves little"
        for name, calls in expected.items():
            for wanted, got in zip(calls, found[name], strict=True):
                got = got.transpose(2, 1, 0) if ".gate." in name else got
                wrong = int((got.reshape(-1) != wanted.reshape(-1)).sum())
                assert wrong == 0, f"{name}: {wrong} of {wanted.size} spikes differ from the program"
        for key, value in (("ctr", maps.ctr_logits), ("offset", maps.offset), ("size", maps.size_logits)):
            assert np.array_equal(logits[key].reshape(-1), value.double().numpy().reshape(-1))


def test_samples_of_a_batch_do_not_mix(trained: tuple[IntegerModel, Program]) -> None:
    model, _ = trained
    shown = [three(seed) for seed in (30, 31)]
    with torch.inference_mode():
        templates = torch.stack([pixels(s.templates) for s in shown], 1)
        both = model(templates, torch.cat([pixels(s.searches) for s in shown]), 2)
        alone = [model(pixels(s.templates)[:, None], pixels(s.searches), 2) for s in shown]
    assert torch.equal(both.ctr_logits, torch.cat([maps.ctr_logits for maps in alone]))
    assert both.ctr_logits.std() > 0


def test_decays_gates_and_embeddings_receive_gradients(trained: tuple[IntegerModel, Program]) -> None:
    model, shown = trained[0], three(1)
    model.zero_grad()
    maps = model(pixels(shown.templates)[:, None], pixels(shown.searches), 2)
    (maps.ctr_logits.sum() + maps.offset.sum() + maps.size_logits.square().sum()).backward()
    for part in (".t_pos_embeds.2", ".gate.mlp.2.weight", "attn_spike.decay", "head_spike.decay", "downsample2"):
        grads = [p.grad for n, p in model.net.named_parameters() if part in n and "4" not in n]
        assert grads and any(grad is not None and bool(grad.any()) for grad in grads), part


def draw(rng: np.random.Generator, shape: Sequence[int], top: int) -> np.ndarray:
    return rng.integers(-top, top, shape)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_membrane_is_the_programs(embedded: bool) -> None:
    """Three steps over five channels of different units on 4 x 3 cells, ties and negative leaks among them."""
    rng = np.random.default_rng(3)
    bits = np.array([2, 3, 5, 9, 14])
    x = draw(rng, (3, 5, 4, 3), 20) * (1 << (bits - 2))[None, :, None, None] + draw(rng, (3, 5, 4, 3), 3)
    neuron = NILIF()
    with torch.no_grad():
        neuron.decay.copy_(torch.tensor([-1.1, 0.6, 0.0]))
    offsets = torch.from_numpy(rng.normal(0, 0.5, (3, 5, 12)).astype(np.float32)) if embedded else None
    sigma = torch.sigmoid(neuron.decay.double()).detach().numpy()
    added = None
    if offsets is not None:
        real = offsets.double().numpy()
        for t in (1, 2):
            real[t] += sigma[t - 1] * real[t - 1]
        added = np.rint(real * 2.0 ** bits[None, :, None]).reshape(3, 5, 4, 3).astype(np.int64)
    thresholds, reset = dyadic_thresholds(bits), 1 << (bits - 2)
    wanted = ni_lif(x, 3, thresholds, added, np.rint(sigma[:2] * 4096).astype(np.uint16), reset)
    learn(neuron)
    over_time(neuron)
    rows = np.column_stack([bits, np.zeros(5), reset, thresholds]).astype(np.int64)
    neuron.units = [Steps(torch.from_numpy(rows), 1.0)], offsets
    got = neuron(torch.from_numpy(x * 2.0 ** -bits[None, :, None, None]).float()[:, None])
    assert np.array_equal(4 * got[:, 0].detach().numpy(), wanted) and set(np.unique(wanted)) == {0, 1, 2, 3, 4}


def test_a_gate_is_the_programs() -> None:
    rng = np.random.default_rng(4)
    model, spikes = Gate(6), rng.integers(0, 5, (3, 7, 2, 3))
    learn(model)
    over_time(model)
    model.mlp = torch.nn.Module()
    logits, real = draw(rng, (3, 1, 1, 7), 300), torch.from_numpy(spikes / 4.0).float()[:, None]
    model.mlp.forward = lambda y: torch.from_numpy(logits[:, 0, 0].T[:, None] * 2.0**-10).float()  # type: ignore[assignment]
    wanted = gate(logits, spikes, gate_table(), 2) > 0
    model.units = GateUnits(torch.tensor([10, 2]), torch.from_numpy(gate_table().astype(np.float64)))
    assert np.array_equal((model(real)[0, 0] > 0.5).numpy(), wanted[0]) and 0 < wanted.mean() < 1
    tie = np.array([[4], [0], [2]])[:, :, None, None]  # equal logits: the mean is one half, which does not open
    assert not (gate(np.zeros((3, 1, 1, 1), dtype=np.int64), tie, gate_table(), 2) > 0).any()


class _Stop(Exception):
    """Stands in for a crash."""


@pytest.mark.slow
def test_an_integer_run_of_three_templates_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spiketrack_deploy.training import trainer

    monkeypatch.setattr(trainer, "REFRESH_STEPS", 2)
    config, start = lively_three().config, tmp_path / "start.safetensors"
    save_model(lively_three(), config, start)
    recipe = Recipe(stage="integer", steps=4, templates_per_step=2, searches=2)
    base = Request(config, recipe, (write_data(tmp_path / "data"),), tmp_path / "whole", start=start, report_every=1)
    whole = load_checkpoint(run(base))[0].state_dict()

    def failing(what: str, done: int, total: int) -> None:
        if done == 4:
            raise _Stop

    parts = replace(base, folder=tmp_path / "parts", save_every=-1.0)
    with pytest.raises(_Stop):
        run(parts, failing)
    again = load_checkpoint(run(parts))[0].state_dict()
    assert all(torch.equal(again[key], value) for key, value in whole.items())
