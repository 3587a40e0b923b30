"""The network: key tables of all official layouts, reduced walks, gain, memories, training readiness."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_WALK, TrackerConfig
from spiketrack_deploy.trackers.spiketrack.head import Maps
from spiketrack_deploy.trackers.spiketrack.make_untrained import make_untrained
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF
from spiketrack_deploy.trackers.spiketrack.norm import freeze_norms, thaw_norms
from spiketrack_deploy.trackers.spiketrack.record import record_spikes

TINY = TrackerConfig("tiny", (8, 16, 16, 24), resolution=64, templates=2, head_width=16)
ONE_CHIP = TrackerConfig(
    "one-chip",
    (24, 48, 96, 96),
    resolution=96,
    templates=1,
    head_width=96,
    walk=tuple(
        s
        for s in OFFICIAL_WALK
        if (s.startswith("downsample") and s != "downsample4")
        or s in ("ConvBlock1_2.0", "ConvBlock2_1.0", "mrm.2", "block3.0", "mrm.3")
    ),
    conv_expansion=2,
    mlp_expansion=2,
    search_factor=3.0,
    template_factor=2.0,
    attention_gain=3.0,
)
"""The layout of a tracker for one chip: r/4 and r/8 conv block, mrm.2, one block, mrm.3, no downsample4."""

# Tensors, counters, parameters, buffer elements of the published models (docs/spiketrack.md, "Checkpoint").
PUBLISHED = {
    "s256_t1": (1215, 66, 11_760_130, 115_826),
    "s256_t3": (1359, 90, 12_720_770, 130_570),
    "b256_t1": (1215, 66, 36_661_162, 225_058),
    "b256_t3": (1359, 90, 40_078_186, 253_562),
    "b384_t1": (1215, 66, 43_349_802, 225_058),
    "b384_t3": (1359, 90, 46_766_826, 253_562),
    "t256_t1": (1215, 66, 6_489_578, 83_314),
}


def run(model: SpikeTrack, batch: int = 1, seed: int = 0) -> Maps:
    """Both branches on random images."""
    generator = torch.Generator().manual_seed(seed)
    side, steps = model.config.resolution, model.config.templates
    images = torch.randn(steps + 1, batch, 3, side, side, generator=generator, dtype=next(model.parameters()).dtype)
    return model(images[:steps], images[steps:])


@pytest.mark.parametrize("name", PUBLISHED)
def test_tensor_and_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = SpikeTrack(TrackerConfig.official(name))
    keys = model.state_dict()
    counters = sum(key.endswith("num_batches_tracked") for key in keys)
    parameters, buffers = (sum(x.numel() for x in xs) for xs in (model.parameters(), model.buffers()))
    assert (len(keys), counters, parameters, buffers) == PUBLISHED[name]
    assert sum(isinstance(m, NILIF) for m in model.modules()) == 189


@pytest.mark.parametrize(("templates", "calls"), [(1, 171), (3, 183)])
def test_neuron_calls_per_branch(templates: int, calls: int) -> None:
    model = SpikeTrack(replace(TINY, templates=templates)).eval()
    with torch.no_grad():
        with record_spikes(model) as template:
            memories = model.template_branch(torch.randn(templates, 1, 3, 64, 64))
        with record_spikes(model) as search:
            model.search_branch(torch.randn(1, 1, 3, 64, 64), memories)
    assert (len(template), len(search)) == (122, calls)
    assert all(int(n.min()) >= 0 and int(n.max()) <= 4 for n in [*template.values(), *search.values()])


def test_memories_are_integers_in_sixteenths_of_the_stated_shape() -> None:
    model = SpikeTrack(TINY).eval()
    with torch.no_grad():
        memories = model.template_branch(torch.randn(2, 1, 3, 64, 64))
    assert {i: tuple(m.shape) for i, m in memories.items()} == {
        0: (2, 1, 8, 1, 4),
        1: (2, 1, 8, 2, 8),
        2: (2, 1, 8, 2, 8),
        3: (2, 1, 8, 2, 8),
        4: (2, 1, 8, 3, 12),
        5: (2, 1, 8, 3, 12),
    }
    assert all(torch.equal(m * 16, (m * 16).round()) for m in memories.values())


def test_reduced_walk_has_only_its_own_keys_and_runs() -> None:
    model = SpikeTrack(ONE_CHIP).eval()
    stages = {".".join(key.split(".")[1:3]) for key in model.state_dict() if key.startswith("encoder.mrm")}
    assert stages == {"mrm.2", "mrm.3"}
    assert not any("downsample4" in key or "block4" in key for key in model.state_dict())
    assert tuple(model.state_dict()["decoder.conv1_ctr.0.weight"].shape) == (96, 96, 3, 3)
    with torch.no_grad():
        assert run(model).score.shape == (1, 1, 6, 6)


def test_every_legal_template_count_and_odd_grid_runs() -> None:
    for templates in (1, 2, 3):
        model = SpikeTrack(replace(TINY, templates=templates, resolution=80, value_ratio=2, sep_expansion=1)).eval()
        with torch.no_grad():
            maps = run(model)
        assert maps.size.shape == (1, 2, 5, 5)


def test_gain_replaces_the_factor_everywhere() -> None:
    layout = replace(TINY, dims=(8, 8, 8, 8))
    drawn = make_untrained(layout)
    spikes: dict[float | None, dict[str, torch.Tensor]] = {}
    for gain in (None, 2.0, 0.2):
        model = SpikeTrack(replace(layout, attention_gain=gain)).eval()
        model.load_state_dict(drawn.state_dict())
        with torch.no_grad(), record_spikes(model.double()) as spikes[gain]:
            run(model)
    # With one channel per head the official factor is 2.
    assert all(torch.equal(spikes[None][name], spikes[2.0][name]) for name in spikes[None])
    changed = {name for name, n in spikes[None].items() if not torch.equal(n, spikes[0.2][name])}
    for name in (
        "encoder.block3.0.attn.attn_spike",
        "encoder.mrm.0.retriever.attn_spike",
        "encoder.mrm.0.retriever.q_spike#2",
    ):
        assert name in changed


def test_batch_entries_do_not_mix() -> None:
    model = SpikeTrack(TINY).double().eval()
    with torch.no_grad():
        both = run(model, batch=2)
        images = torch.randn(3, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        one = model(images[:2, 1:], images[2:, 1:])
    assert torch.allclose(both.ctr_logits[1:], one.ctr_logits, atol=1e-12)


def test_wrong_image_shapes_and_missing_memories_are_refused() -> None:
    model = SpikeTrack(TINY).eval()
    with pytest.raises(InputError, match=r"\[2, batch, 3, 64, 64\]"):
        model.template_branch(torch.zeros(3, 1, 3, 64, 64))
    with pytest.raises(InputError, match=r"\[1, batch, 3, 64, 64\]"):
        model.search_branch(torch.zeros(1, 1, 3, 80, 80), {})
    with pytest.raises(InputError, match="memory 0"):
        model.search_branch(torch.zeros(1, 1, 3, 64, 64), {})
    memories = SpikeTrack(replace(TINY, templates=1)).template_branch(torch.zeros(1, 1, 3, 64, 64))
    with pytest.raises(InputError, match=r"1 template\(s\)"):
        model.search_branch(torch.zeros(1, 1, 3, 64, 64), memories)


def test_thawed_norms_train_and_freeze_back_to_the_published_keys() -> None:
    model = SpikeTrack(ONE_CHIP)
    keys = list(model.state_dict())
    with torch.no_grad():
        before = run(model.eval()).ctr_logits
    thaw_norms(model)
    assert len(model.state_dict()) > len(keys)
    with torch.no_grad():
        assert torch.allclose(run(model.eval()).ctr_logits, before, atol=1e-5)
    model.train()
    maps = run(model, batch=2)
    (maps.score.sum() + maps.size.sum() + maps.offset.sum()).backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None}
    # One step uses no decay; one template uses the first embedding only, and no gate.
    assert all(any(part in name for part in ("decay", "t_pos_embeds", "gate")) for name in idle)
    statistics = model.get_submodule("encoder.downsample1_1.encode_bn.running_mean".rpartition(".")[0]).running_mean
    assert statistics.abs().max() > 0
    freeze_norms(model)
    assert list(model.state_dict()) == keys
