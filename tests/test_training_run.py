"""Training runs: seeded, resumable to the same curve, and refusing what does not belong together."""

from __future__ import annotations

import json
import multiprocessing
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _training import WALK, crew_work, lively_model, small_config, write_data

from spiketrack_deploy.errors import EngineError, InputError
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack
from spiketrack_deploy.trackers.spiketrack.record import record_spikes
from spiketrack_deploy.training.grow import LAST_NORMS, grown
from spiketrack_deploy.training.recipe import Recipe
from spiketrack_deploy.training.session import Request, train
from spiketrack_deploy.training.trainer import new_model, new_optimiser, set_rate
from spiketrack_deploy.training.workers import lead

RECIPE = Recipe(steps=9, templates_per_step=2, searches=2, half_precision=False)


def request(tmp_path: Path, name: str, **changes: object) -> Request:
    data = tmp_path / "data"
    if not data.exists():
        write_data(data)
    base = Request(small_config(), RECIPE, (data,), tmp_path / name, ("right",), validate_every=1e9)
    return replace(base, **changes)


def history(folder: Path) -> list[dict[str, object]]:
    rows = json.loads((folder / "history.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)[0].state_dict()


class _Stop(Exception):
    """Stands in for a crash in the middle of a run."""


@pytest.mark.parametrize("stage", ["float", "integer"])
def test_an_interrupted_run_resumes_to_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from spiketrack_deploy.training import trainer

    monkeypatch.setattr(trainer, "REFRESH_STEPS", 4)
    recipe = replace(RECIPE, stage=stage)
    whole = train(request(tmp_path, "whole", recipe=recipe, report_every=3))

    def failing(what: str, done: int, total: int) -> None:
        if done == 6:
            raise _Stop

    with pytest.raises(_Stop):
        train(request(tmp_path, "parts", recipe=recipe, report_every=3, save_every=-1.0), failing)
    saved = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"]
    assert saved == 5, "saved behind every step, and the sixth ended in its report"
    resumed = train(request(tmp_path, "parts", recipe=recipe, report_every=3))
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    a, b = weights(whole), weights(resumed)
    assert all(torch.equal(a[k], b[k]) for k in a), "the resumed network differs from the undisturbed one"


def test_the_seed_decides_the_network(tmp_path: Path) -> None:
    first, again, other = (
        weights(train(request(tmp_path, name, recipe=replace(RECIPE, steps=2, seed=seed))))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_two_workers_train_one_network(tmp_path: Path) -> None:
    file = train(request(tmp_path, "crew", recipe=replace(RECIPE, steps=2, workers=2)))
    assert all(bool(torch.isfinite(v).all()) for v in weights(file).values())


def test_gradients_meet_in_the_middle() -> None:
    seen = lead(3, crew_work, ("average",))
    expected = [([2.0 * i + step for i in range(6)], 10.0 * step) for step in range(3)]
    assert seen == expected, "the mean of all workers, and what the leader told"


def test_a_follower_that_refuses_or_dies_is_told_apart() -> None:
    with pytest.raises(InputError, match="frame 7 of the follower is no image"):
        lead(2, crew_work, ("refuse",))
    with pytest.raises(EngineError, match="a training worker died"):
        lead(2, crew_work, ("die",))
    assert not multiprocessing.active_children()


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    wanted = request(tmp_path, "run", recipe=replace(RECIPE, steps=1))
    train(wanted)
    file = tmp_path / "run" / "run.json"
    kept = json.loads(file.read_text())
    kept["recipe"]["phase"] = kept["recipe"].pop("stage")
    file.write_text(json.dumps(kept))
    train(replace(wanted, recipe=replace(RECIPE, steps=2)))
    with pytest.raises(InputError, match=r"its recipe\.stage is 'float', not 'integer'"):
        train(replace(wanted, recipe=replace(RECIPE, stage="integer")))


def test_a_run_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    train(request(tmp_path, "run", recipe=replace(RECIPE, steps=1)))
    with pytest.raises(InputError, match=r"belongs to another run: its config\.head_width is 16, not 32"):
        train(request(tmp_path, "run", config=small_config(head_width=32)))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds no training run"):
        train(request(tmp_path, "mine"))


def test_weights_of_another_configuration_are_refused(tmp_path: Path) -> None:
    start = train(request(tmp_path, "run", recipe=replace(RECIPE, steps=1)))
    with pytest.raises(InputError, match="does not fit configuration"):
        train(request(tmp_path, "next", config=small_config(head_width=32), start=start))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    train(request(tmp_path, "run", recipe=replace(RECIPE, steps=1)))
    (tmp_path / "run" / "state.pt").write_bytes(b"PK\x03\x04 not a state")
    with pytest.raises(InputError, match=r"training state .* cannot be read"):
        train(request(tmp_path, "run"))


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    wanted = request(tmp_path, "run")
    for picture in (tmp_path / "data").rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"\.jpg is empty or damaged"):
        train(wanted)


def test_an_unknown_clip_cannot_be_held_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clip called nowhere"):
        train(request(tmp_path, "run", held_out=("nowhere",)))


def test_three_templates_start_from_one(tmp_path: Path) -> None:
    start = train(request(tmp_path, "one", recipe=replace(RECIPE, steps=2)))
    three = request(tmp_path, "three", config=small_config(name="small3", templates=3), start=start)
    found = weights(train(replace(three, recipe=replace(RECIPE, steps=2, learning_rate=1e-4))))
    single = weights(start)
    for t in range(3):
        key = f"encoder.mrm.2.retriever.seg_responder_pw.{t}.0.weight"
        first = single["encoder.mrm.2.retriever.seg_responder_pw.0.0.weight"]
        assert torch.allclose(found[key], first, atol=1e-3) and not torch.equal(found[key], first)
    key = "encoder.downsample2.encode_bn.running_mean"
    assert torch.equal(found[key], single[key]), "norms that both phases share must stay"


def test_gates_and_decays_have_a_rate_of_their_own() -> None:
    model = new_model(small_config(templates=3), 1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimiser = new_optimiser(model, replace(RECIPE, time_rate=50.0, weight_decay=0.0))
    set_rate(optimiser, 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)  # Adam's first step is then the rate itself
    optimiser.step()
    fast = 0
    for name, value in model.named_parameters():
        over_time = ".gate." in name or name.endswith(".decay")
        fast += over_time
        moved = before[name] - value.detach()
        assert torch.allclose(moved, torch.full_like(moved, 0.05 if over_time else 0.001), rtol=1e-3), name
    assert 0 < fast < len(before) // 2


def test_more_templates_cannot_start_from_another_layout(tmp_path: Path) -> None:
    start = train(request(tmp_path, "one", recipe=replace(RECIPE, steps=1)))
    with pytest.raises(InputError, match="does not fit configuration"):
        train(request(tmp_path, "three", config=small_config(templates=3, head_width=32), start=start))


@pytest.mark.usefixtures("heeds_sigint")
def test_an_interrupt_ends_the_step_and_saves(tmp_path: Path) -> None:
    def interrupted(what: str, done: int, total: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(request(tmp_path, "parts", report_every=1), interrupted)
    assert torch.load(tmp_path / "parts" / "state.pt", weights_only=True)["step"] == 4
    a, b = weights(train(request(tmp_path, "parts"))), weights(train(request(tmp_path, "whole")))
    assert all(torch.equal(a[k], b[k]) for k in a)


def search_spikes(model: SpikeTrack) -> dict[str, torch.Tensor]:
    """Spikes of one search frame by neuron."""
    template, search = torch.randn(2, 1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), record_spikes(model) as seen:
        model.search_branch(search, model.template_branch(template))
    return {name: spikes.clone() for name, spikes in seen.items()}


def test_an_added_block_changes_nothing_until_it_is_trained() -> None:
    small = lively_model()
    deep = small_config(name="deep", walk=(*WALK[:5], "mrm.2", "block3.0", "block3.1", "mrm.3", "block3.3"))
    tall = grown(small, deep, new_model(deep, 1))
    before, after = search_spikes(small), search_spikes(tall)
    assert all(torch.equal(after[name], spikes) for name, spikes in before.items())
    behind = [name for name in before if "mrm.3" in name and before[name].any()]
    assert len(after) > len(before) and behind, "a silent network proves nothing"
    with torch.no_grad():
        tall.get_buffer("encoder.block3.1.mlp.fc2_bn.bias").fill_(1.0)
    learned = search_spikes(tall)
    assert any(not torch.equal(learned[name], before[name]) for name in behind), "the block never reaches the stream"


def test_a_block_left_out_takes_only_its_own_share_of_the_stream_with_it() -> None:
    deep = lively_model(walk=(*WALK[:5], "mrm.2", "block3.0", "mrm.3", "block3.3"))
    flat = small_config(name="flat", walk=(*WALK[:5], "block3.0", "mrm.3"))
    cut = search_spikes(grown(deep, flat, new_model(flat, 1)))
    with torch.no_grad():
        for name, tensor in deep.state_dict().items():
            stem, _, leaf = name.rpartition(".")
            gone = name.startswith(("encoder.mrm.2.", "encoder.block3.3.")) and stem.endswith(LAST_NORMS)
            if gone and leaf in ("weight", "bias"):
                tensor.zero_()
    silenced = search_spikes(deep)
    assert set(cut) < set(silenced) and any(spikes.any() for spikes in cut.values())
    assert all(torch.equal(silenced[name], spikes) for name, spikes in cut.items())


def test_a_first_convolution_of_stride_4_begins_afresh_in_front_of_trained_stages() -> None:
    small = lively_model()
    config = small_config(name="coarse", walk=tuple(s for s in WALK if s != "downsample1_2"))
    fresh = new_model(config, 1)
    start, old, new = (model.state_dict() for model in (grown(small, config, fresh), small, fresh))
    stem = [key for key in start if key.startswith("encoder.downsample1_1.")]
    assert all(torch.equal(start[key], new[key]) for key in stem) and len(stem) > 4
    assert all(torch.equal(start[key], old[key]) for key in start if key not in stem)


def test_a_larger_crop_keeps_the_weights_and_resamples_the_embeddings() -> None:
    small, config = new_model(small_config(), 5).eval(), small_config(name="wide", resolution=64)
    wide, old = grown(small, config, new_model(config, 1)).state_dict(), small.state_dict()
    for key, value in old.items():
        if "pos_embed" not in key and ".gate." not in key:
            assert torch.equal(wide[key], value), key
    key = "encoder.block3.0.attn.s_pos_embed"
    corner = wide[key].unflatten(2, (4, 4))[:, :, 0, 0]
    assert torch.equal(corner, old[key][:, :, 0])
    assert torch.allclose(wide[key].mean(2), old[key].mean(2), atol=1e-6)


def test_a_run_grows_from_a_smaller_network_only_when_told(tmp_path: Path) -> None:
    start = train(request(tmp_path, "small", recipe=replace(RECIPE, steps=1)))
    wide = request(tmp_path, "wide", config=small_config(name="wide", resolution=64), start=start)
    wide = replace(wide, recipe=replace(RECIPE, steps=1))
    with pytest.raises(InputError, match="does not fit configuration"):
        train(wide)
    assert load_checkpoint(train(replace(wide, grow=True)))[1].resolution == 64
    other = replace(wide, grow=True, config=small_config(head_width=32), folder=tmp_path / "other")
    with pytest.raises(InputError, match="cannot grow from small: head_width is 32 and not 16"):
        train(other)
    walk = (*WALK, "downsample4", "mrm.4")
    with pytest.raises(InputError, match="downsample4 changes every width behind it"):
        train(replace(wide, grow=True, config=small_config(walk=walk), folder=tmp_path / "longer"))


def test_many_unusable_sequences_are_counted(tmp_path: Path) -> None:
    wanted = request(tmp_path, "run", recipe=replace(RECIPE, steps=1))
    for number in range(25):
        (tmp_path / "data" / f"b{number}").mkdir()
        (tmp_path / "data" / f"b{number}" / "groundtruth.txt").write_text("1,2,3,4\n")
    said: list[str] = []
    train(wanted, lambda what, done, total: said.append(what))
    skipped = [sentence for sentence in said if sentence.startswith("skipped: ")]
    assert len(skipped) == 21 and skipped[-1] == "skipped: and 5 more"
