"""Quantisation-aware training runs the integer program's arithmetic: the same spikes, logits and counts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from _training import lively_model, materialised, sample, small_config

from spiketrack_deploy.energy.layers import LayerCounts
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.compile import compile
from spiketrack_deploy.hardware.targets import resolve_target
from spiketrack_deploy.mapping.report import map_phase
from spiketrack_deploy.mapping.ways import Way
from spiketrack_deploy.program.run import run_phase
from spiketrack_deploy.program.types import Program
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.training.budget import drawn
from spiketrack_deploy.training.integer_model import IntegerModel, rounded
from spiketrack_deploy.training.joint import branch_pass, normalised
from spiketrack_deploy.training.pairs import Sample
from spiketrack_deploy.training.penalty import SpikeMeter
from spiketrack_deploy.training.prices import prices_of, spike_prices
from spiketrack_deploy.training.stages import IntegerStage
from spiketrack_deploy.training.surrogate import learn
from spiketrack_deploy.training.trainer import new_model
from spiketrack_deploy.training.units import lowered


@pytest.fixture(scope="module")
def trained() -> IntegerModel:
    """An integer model a few optimiser steps away from where its units were chosen."""
    model = IntegerModel(lively_model(), [sample(3)])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.002)
    for step in range(3):
        maps = model(pixels(sample(step).templates), pixels(sample(step).searches), 2)
        optimiser.zero_grad()
        (maps.ctr_logits.square().mean() + maps.offset.square().mean()).backward()
        optimiser.step()
    return model


def pixels(crops: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float()


def program_spikes(program: Program, shown: Sample) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """NI-LIF outputs of both branches by ``branch name``, logits by public name, synops of the search frame's
    convolutions."""
    spikes: dict[str, np.ndarray] = {}

    def watch(branch: str):
        def keep(op, value) -> None:
            if op.kind == "ni_lif":
                spikes[f"{branch} {op.name}"] = value

        return keep

    template = run_phase(program, "template", {"image": shown.templates.transpose(0, 3, 1, 2)}, watch=watch("template"))
    inputs = {"image": shown.searches[:1].transpose(0, 3, 1, 2), **template.outputs}
    search = run_phase(program, "search", inputs, watch=watch("search"))
    kinds = {op.name: op.kind for op in program.phases["search"].ops}
    synops = sum(c.synops for name, c in search.counts.items() if kinds[name] in ("conv", "head_out"))
    logits = {k: v * np.exp2(-unit(program, k).astype(float))[None, :, None, None] for k, v in search.outputs.items()}
    return spikes, logits, int(np.sum(synops))


def unit(program: Program, public: str) -> np.ndarray:
    branch = program.phases["search"]
    return program.arrays[str(branch.values[branch.outputs[public]].unit)]


def test_the_forward_pass_equals_the_program_spike_by_spike(trained: IntegerModel) -> None:
    program = lowered(copy.deepcopy(trained.deployed()), [sample(3)])
    net = materialised(trained)
    for seed in (20, 21, 22):
        shown = sample(seed)
        expected, logits, _ = program_spikes(program, shown)
        found: dict[str, np.ndarray] = {}
        with torch.inference_mode():
            with record_spikes(net) as seen:
                memories = net.template_branch(pixels(shown.templates).unsqueeze(0))
            found |= {f"template {k}": v.numpy() for k, v in seen.items()}
            with record_spikes(net) as seen:
                maps = net.search_branch(pixels(shown.searches[:1]).unsqueeze(0), memories)
            found |= {f"search {k}": v.numpy() for k, v in seen.items()}
        assert found.keys() == expected.keys() and len(found) > 40
        silent = [name for name, spikes in expected.items() if not spikes.any()]
        assert len(silent) < 5, f"a silent network proves little: {silent}"
        for name, spikes in expected.items():
            wrong = int((found[name].reshape(-1) != spikes.reshape(-1)).sum())
            assert wrong == 0, f"{name}: {wrong} of {spikes.size} spikes differ from the program"
        assert np.array_equal(logits["ctr"].reshape(-1), maps.ctr_logits.double().numpy().reshape(-1))
        assert np.array_equal(logits["offset"].reshape(-1), maps.offset.double().numpy().reshape(-1))
        assert np.array_equal(logits["size"].reshape(-1), maps.size_logits.double().numpy().reshape(-1))


def test_the_batched_training_pass_gives_the_same_logits(trained: IntegerModel) -> None:
    shown = sample(30)
    with torch.inference_mode():
        trained_maps = trained(pixels(shown.templates), pixels(shown.searches), 2)
        net = materialised(trained)
        maps = branch_pass(net, pixels(shown.templates).unsqueeze(0), pixels(shown.searches), 2)
    assert torch.equal(trained_maps.ctr_logits, maps.ctr_logits) and torch.equal(trained_maps.offset, maps.offset)


def test_every_master_receives_a_gradient(trained: IntegerModel) -> None:
    trained.zero_grad()
    maps = trained(pixels(sample(1).templates), pixels(sample(1).searches), 2)
    (maps.ctr_logits.sum() + maps.offset.sum() + maps.size_logits.square().sum()).backward()
    biases = {n: p for n, p in trained.net.named_parameters() if n.endswith(".bias") and ".gate." not in n}
    dead = [n for n, p in biases.items() if p.grad is None or not p.grad.any()]
    assert len(biases) > 30 and not dead


def test_the_meter_counts_what_the_program_counts(trained: IntegerModel) -> None:
    program = lowered(copy.deepcopy(trained.deployed()), [sample(3)])
    net, shown = materialised(trained), sample(40)
    meter = SpikeMeter(convolutions(net))
    _, _, expected = program_spikes(program, shown)
    with torch.no_grad():
        memories = net.template_branch(pixels(shown.templates).unsqueeze(0))
        meter.total()  # the template's own operations are not the search frame's
        net.search_branch(pixels(shown.searches[:1]).unsqueeze(0), memories)
    spent = meter.total()
    assert spent is not None and spent.synops.item() == expected > 0 and spent.energy is None


def convolutions(net: torch.nn.Module) -> dict[str, torch.nn.Module]:
    return {p: m for p, m in net.named_modules() if isinstance(m, (torch.nn.Conv1d, torch.nn.Conv2d))}


@pytest.mark.parametrize(("target", "first_layer"), [("loihi2", "chip"), ("loihi2", "host"), ("oheo_gulch", "chip")])
def test_the_penalty_is_the_difference_in_the_verdict_s_energy(
    trained: IntegerModel, target: str, first_layer: str
) -> None:
    """Two frames of a network on the same cores: what their spikes cost, by the bill and by the meter."""
    program = lowered(copy.deepcopy(trained.deployed()), [sample(3)])
    net, aim = materialised(trained), resolve_target(target)
    report = map_phase(program, "search", aim, way=Way(first_layer))
    prices = prices_of(report)
    assert prices == spike_prices(program, aim, first_layer) and prices.synop == pytest.approx(0.025)
    meter = SpikeMeter(convolutions(net), prices)
    billed, metered, layers = [], [], {}
    for seed in (40, 41):
        shown, counts = sample(seed), []
        template = run_phase(program, "template", {"image": shown.templates.transpose(0, 3, 1, 2)})
        images = {"image": shown.searches[:1].transpose(0, 3, 1, 2), **template.outputs}
        for op, found in zip(program.phases["search"].ops, run_phase(program, "search", images).counts.values()):
            # Only what convolutions read of spikes is weighed: everything else is that of the first frame.
            counts.append(LayerCounts(op.name, op.kind, op.block, found.to_dict()))
            layers.setdefault(op.name, counts[-1])
        mixed = [one if one.kind in ("conv", "head_out") else layers[one.name] for one in counts]
        billed.append(report.rerun(program.arrays, mixed).dynamic(aim.profile).nominal)
        with torch.no_grad():
            memories = net.template_branch(pixels(shown.templates).unsqueeze(0))
            meter.total()  # the template's own
            net.search_branch(pixels(shown.searches[:1]).unsqueeze(0), memories)
        spent = meter.total()
        assert spent is not None and spent.energy is not None
        metered.append(spent.energy.item())
    assert abs(billed[1] - billed[0]) > 1.0
    assert metered[1] - metered[0] == pytest.approx(billed[1] - billed[0], rel=1e-3, abs=1e-2)


def test_spikes_that_enter_from_a_host_cost_the_time_they_take() -> None:
    """As long as a frame takes longer than its period; below it another spike costs nothing there."""
    aim = resolve_target("loihi2")
    for side, waits in ((256, True), (32, False)):
        config = small_config(resolution=side)
        program = compile(drawn(config)).program
        chip, host = (spike_prices(program, aim, reader).spike for reader in ("chip", "host"))
        added = host["encoder.downsample1_2.encode_conv"]
        chips = map_phase(program, "search", aim, way=Way("host")).mapping.chips
        assert added == pytest.approx(chips * 0.26 * 1.65e-6 * 1e9 if waits else 0.0)
        assert chip["encoder.downsample1_2.encode_conv"] > 0 and len(chip) == len(host)


def test_penalty_reduces_synops() -> None:
    stage = IntegerStage(lively_model(), [sample(3)])
    meter = SpikeMeter(stage.convolutions())
    optimiser = torch.optim.Adam(stage.module.parameters(), lr=3e-3)
    shown = sample(5)
    crops = torch.from_numpy(shown.templates)[None], torch.from_numpy(shown.searches)
    counts = []
    for _ in range(12):
        stage.maps(*crops, 2)
        spent = meter.total()
        assert spent is not None
        counts.append(float(spent.synops.detach()))
        optimiser.zero_grad()
        (spent.synops / counts[0]).backward()
        optimiser.step()
    assert counts[-1] < 0.9 * counts[0], f"synops went from {counts[0]:.0f} to {counts[-1]:.0f}"


def test_rounding_is_half_even_clipped_and_straight_through() -> None:
    values = torch.tensor([[0.125, 0.375, 40.0], [-0.25, 0.3, 1.0]], requires_grad=True)
    out = rounded(values, torch.tensor([2, 1]), 127)
    assert out.tolist() == [[0.0, 0.5, 31.75], [0.0, 0.5, 1.0]]
    out.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[1.0] * 3] * 2


def test_training_neurons_emit_what_the_tracker_emits() -> None:
    model, shown = lively_model(), sample(8)
    twin = copy.deepcopy(model)
    learn(twin)
    t, s = (normalised(torch.from_numpy(x)) for x in (shown.templates, shown.searches))
    a, b = (branch_pass(m, t.unsqueeze(0), s, 2).ctr_logits for m in (model, twin))
    assert torch.equal(a, b)


def test_retrievers_that_resample_are_refused() -> None:
    walk = ("downsample1_1", "downsample1_2", "mrm.0", "downsample2", "downsample3", "mrm.2")
    with pytest.raises(InputError, match=r"not mrm\.0"):
        IntegerModel(new_model(small_config(walk=walk), 0), [sample(1)])


def test_deployed_norms_are_the_identity_to_the_last_bit(trained: IntegerModel) -> None:
    state = trained.deployed().state_dict()
    norms = [key[: -len(".running_var")] for key in state if key.endswith(".running_var")]
    assert len(norms) > 20
    for norm in norms:
        for dtype in (np.float32, np.float64):
            gamma, var = (state[f"{norm}.{part}"].numpy().astype(dtype) for part in ("weight", "running_var"))
            assert (gamma / np.sqrt(var + dtype(1e-5)) == 1).all(), norm
