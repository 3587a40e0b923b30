"""The PilotNets as anchors: replay, layout and counts. The real networks where they can be fetched (slow), small SLAYER
files and the published core counts everywhere. Prices out of them: ``test_anchors_fit.py``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spiketrack_deploy.errors import EngineError, InputError, VerificationError
from spiketrack_deploy.hardware.profiles import load_profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import anchor_counts
import pilotnet
import pilotnet_cores
import pilotnet_sdnn

YOLO_KP = [
    # output (C, H, W), kernel * inputs, cores of the published log
    ((16, 224, 224), 9 * 3, 224),
    ((32, 112, 112), 9 * 16, 112),
    ((64, 56, 56), 9 * 32, 56),
    ((128, 28, 28), 9 * 64, 28),
    ((256, 28, 28), 9 * 128, 56),
    ((256, 14, 14), 9 * 256, 16),
    ((512, 14, 14), 9 * 256, 32),
    ((256, 14, 14), 1 * 512, 14),
    ((512, 14, 14), 9 * 256, 32),
    ((48, 14, 14), 1 * 512, 4),
]
PILOTNET_MAPS = [
    ((3, 66, 200), 1, 13),
    ((24, 32, 99), 9 * 3, 25),
    ((36, 15, 49), 9 * 24, 13),
    ((48, 7, 24), 9 * 36, 3),
    ((64, 4, 22), 9 * 48, 3),
    ((64, 2, 20), 9 * 64, 2),
]


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_one_rule_reproduces_both_published_core_counts(bits: int) -> None:
    """YOLO-KP 574 and PilotNet's maps 59 (74 with 15 of dense layers): every row exactly, whatever the weight bits."""
    yolo = [pilotnet_cores.vendor_cores(shape, rows, bits) for shape, rows, _ in YOLO_KP]
    assert yolo == [cores for *_, cores in YOLO_KP] and sum(yolo) == 574
    pilot = [pilotnet_cores.vendor_cores(shape, rows, bits) for shape, rows, _ in PILOTNET_MAPS]
    assert pilot == [cores for *_, cores in PILOTNET_MAPS] and sum(pilot) == 59


def test_dense_layers_take_the_words_and_cores_of_the_log() -> None:
    """Words an input: 61,440 and 12,800 of 2,560 inputs at 100 and 17 outputs, 1,300 of 100, 150 of 50, 10 of 10."""
    rows = {100: 61_440 // 2560, 17: 12_800 // 2560, 50: 1_300 // 100, 10: 150 // 50, 1: 10 // 10}
    assert {outputs: pilotnet_cores.dense_words(outputs) for outputs in rows} == rows
    layers = {"dense6": (100, 2560), "dense7": (50, 100), "dense8": (10, 50), "dense9": (1, 10)}
    for name, (outputs, inputs) in layers.items():
        assert pilotnet_cores.dense_cores(outputs, inputs) == pilotnet_cores.PUBLISHED[name], name


def test_neurons_per_core_are_those_of_the_log() -> None:
    """3,584 (87.5 % of 4,095) in YOLO-KP's first layer; 2,048 to 3,168 in PilotNet's."""
    channels, columns = pilotnet_cores.vendor_slabs((16, 224, 224), 27)
    assert channels * columns * 224 == 3584
    used = [pilotnet_cores.vendor_slabs(shape, rows) for shape, rows, _ in PILOTNET_MAPS]
    neurons = [c * w * shape[1] for (c, w), (shape, *_) in zip(used, PILOTNET_MAPS)]
    assert (min(neurons), max(neurons)) == (2048, 3168), neurons


def slayer(change: dict[str, Any] | None = None, sigma_delta: bool = False) -> bytes:
    """A netx file: input 2x5x6, conv of 3 channels (k3, stride (2, 1), padding (1, 0)), flatten, dense of 4."""
    import h5py

    rng = np.random.default_rng(3)
    values: dict[str, Any] = {
        "0/type": np.array([b"input"]), "0/shape": np.array([2, 5, 6]),
        "1/type": np.array([b"conv"]), "1/shape": np.array([3, 3, 4]), "1/stride": np.array([2, 1]),
        "1/padding": np.array([1, 0]), "1/dilation": np.array([1, 1]),
        "1/weight": rng.integers(-9, 10, (3, 2, 3, 3)).astype(np.float32),
        "1/bias": np.array([3.0, 40.0, 13.0]),
        "2/type": np.array([b"flatten"]), "2/shape": np.array([1, 1, 36]),
        "3/type": np.array([b"dense"]), "3/shape": np.array([4, 1, 1]),
        "3/weight": rng.integers(-9, 10, (4, 36)).astype(np.float32), "3/bias": np.array([1.0, 2.0, 3.0, 26.0]),
    }  # fmt: skip
    for layer in ("1", "3"):
        values |= {
            f"{layer}/neuron/type": b"CUBA",
            f"{layer}/neuron/iDecay": 4096,
            f"{layer}/neuron/vDecay": 1024,
            f"{layer}/neuron/vThMant": 25,
        }
    if sigma_delta:
        values = {key: value for key, value in values.items() if "neuron" not in key and key != "3/bias"}
        values |= {f"{layer}/neuron/type": b"SDNN" for layer in "013"}
        values |= {f"{layer}/neuron/vThMant": 6 for layer in "013"} | {"3/neuron/sigma_output": True}
    values |= change or {}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, value in values.items():
            if value is not None:
                file[f"layer/{key}"] = value
    return buffer.getvalue()


def scalar_replay(network: pilotnet.PilotNet, steps: int) -> list[list[int]]:
    """Spikes and synaptic operations per layer, neuron by neuron in Python integers."""
    spikes = np.zeros((steps, *network.input_shape), dtype=int)
    found = []
    for layer in network.layers:
        x = spikes.reshape(steps, -1, 1, 1) if layer.dense else spikes
        out = np.zeros((steps, *layer.shape), dtype=int)
        synops = 0
        for o, y, z in np.ndindex(*layer.shape):
            v = 0
            for t in range(steps):
                total = int(layer.source.bias[o])
                for c, ky, kx in np.ndindex(*layer.weight.shape[2:]):
                    row, col = y * layer.stride[0] + ky - layer.padding[0], z * layer.stride[1] + kx - layer.padding[1]
                    if 0 <= row < x.shape[2] and 0 <= col < x.shape[3] and x[t, c, row, col]:
                        weight = int(layer.weight[0, o, c, ky, kx])
                        total += weight
                        synops += weight != 0
                v = int(v * (4096 - layer.source.neuron.v_decay) / 4096) + total * 64
                if v > layer.source.neuron.threshold * 64:
                    out[t, o, y, z], v = 1, 0
        found.append([int(out.sum()), synops])
        spikes = out
    return found


def test_a_run_is_the_neuron_equation() -> None:
    network = pilotnet.read(slayer())
    replayed = pilotnet.sample(network, steps=11)
    assert [[int(r.spikes.sum()), r.counts.synops] for r in replayed] == scalar_replay(network, 11)
    assert replayed[0].spikes.any() and replayed[1].spikes.any(), "a silent network proves nothing"
    for item in replayed:
        assert item.synops_per_neuron().sum() == item.counts.synops, f"{item.layer.name}: neurons lose operations"
        assert item.all_taps >= item.counts.synops


def scalar_deltas(activation: list[int], threshold: int) -> list[int]:
    before = residue = 0
    sent = []
    for now in activation:
        delta = now - before + residue
        sent.append(delta if abs(delta) >= threshold else 0)
        before, residue = now, delta - sent[-1]
    return sent


def test_a_sigma_delta_run_is_the_neuron_equation() -> None:
    """Neuron by neuron in Python integers: messages of the convolution, the dense layer's sigma, operations."""
    network = pilotnet.read(slayer(sigma_delta=True))
    steps = 9
    pixels = pilotnet_sdnn.ramp(network.input_shape, steps)
    found = pilotnet.replay(network, pixels, "lava")
    sent = np.zeros((steps, *network.input_shape), dtype=int)
    for at in np.ndindex(*network.input_shape):
        sent[(slice(None), *at)] = scalar_deltas([int(p) << 6 for p in pixels[(slice(None), *at)]], 6 << 6)
    for layer, item in zip(network.layers, found):
        x = sent.reshape(steps, -1, 1, 1) if layer.dense else sent
        out, synops, last = np.zeros((steps, *layer.shape), dtype=int), 0, layer is network.layers[-1]
        for o, y, z in np.ndindex(*layer.shape):
            sigma, active = 0, []
            for t in range(steps):
                for c, ky, kx in np.ndindex(*layer.weight.shape[2:]):
                    row, col = y * layer.stride[0] + ky - layer.padding[0], z * layer.stride[1] + kx - layer.padding[1]
                    if t and 0 <= row < x.shape[2] and 0 <= col < x.shape[3] and x[t - 1, c, row, col]:
                        weight = int(layer.weight[0, o, c, ky, kx])
                        sigma += weight * int(x[t - 1, c, row, col])
                        synops += weight != 0
                active.append(sigma if last else max(sigma + (int(layer.source.bias[o]) << 12), 0))
            out[:, o, y, z] = active if last else [s >> 6 for s in scalar_deltas(active, 6 << 12)]
        assert np.array_equal(out, item.spikes), layer.name
        assert synops == item.counts.synops == int(pilotnet_sdnn.synops_per_step(item).sum()) > 0
        sent = out
    assert (found[0].spikes < 0).any(), "negative messages are what a spiking count would lose"
    late = pilotnet.replay(network, pixels, "lava", skip=4)
    assert sum(item.counts.synops for item in late) == sum(
        int(pilotnet_sdnn.synops_per_step(item)[4:].sum()) for item in found
    )


def test_a_panned_frame_moves_and_comes_back() -> None:
    frame = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    seen = pilotnet_sdnn.panned(frame, 12, 455 / 200)
    assert seen.shape == (12, 2, 3, 5) and seen.min() >= -64 and seen.max() <= 64
    assert np.array_equal(seen[1][..., :4], seen[0][..., 1:]), "one column a step"
    assert np.array_equal(seen[10], seen[0]), "there and back is twice the width"


def test_memory_words_are_rows_of_kernels() -> None:
    """Words of a core, message by message: every tap that meets an output of the core reads one row of weights."""
    network = pilotnet.read(slayer())
    found = pilotnet.sample(network, steps=11)
    layout = pilotnet_cores.mapped(network, load_profile("loihi2"), "power_of_two")
    work = pilotnet_cores.loads(layout, found)
    layer, spikes = network.layers[1], found[0].spikes
    dense = int(spikes.sum()) / 11 * pilotnet_cores.dense_words(4)
    assert [core.words for core in work if core.layer == layer.name] == [pytest.approx(dense)]
    positions = sum(int((item.rows_per_position() > 0).sum()) for item in found)
    assert positions and all(core.words <= core.synops or core.synops == 0 for core in work)


def test_a_layout_holds_every_neuron_once_and_its_work_adds_up() -> None:
    network = pilotnet.read(slayer())
    found = pilotnet.sample(network, steps=11)
    profile = load_profile("loihi2")
    for rule in ("power_of_two", "contiguous"):
        layout = pilotnet_cores.mapped(network, profile, rule)
        for name, masks in layout.masks.items():
            held = sum(mask.astype(int) for mask in masks.values())
            assert np.all(held == 1), f"{rule}: {name} has neurons on no core or on two"
        work = pilotnet_cores.loads(layout, found)
        assert sum(core.neurons for core in work) == sum(network.populations.values())
        assert sum(core.synops for core in work) == pytest.approx(sum(item.counts.synops for item in found) / 11)


def test_messages_go_to_every_core_with_a_synapse() -> None:
    network = pilotnet.read(slayer())
    found = pilotnet.sample(network, steps=11)
    layout = pilotnet_cores.mapped(network, load_profile("loihi2"), "power_of_two")
    one = pilotnet_cores.messages(layout, found[1])
    assert one == found[1].counts.events, "one core: one message a spike"
    whole = layout.masks["dense2"]
    core, mask = next(iter(whole.items()))
    first = np.zeros_like(mask)
    first[0] = True
    split = pilotnet_cores.Layout(network, layout.masks | {"dense2": {core: first, 99: ~first}})
    weight = found[1].layer.weight[0, :, :, 0, 0] != 0
    spikes = found[1].layer.shaped(found[1].spikes_in).sum(axis=0)[:, 0, 0]
    by_hand = int(spikes @ weight[0]) + int(spikes @ weight[1:].any(axis=0))
    assert pilotnet_cores.messages(split, found[1]) == by_hand


def test_what_is_no_network_or_another_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    with pytest.raises(InputError, match="HDF5"):
        pilotnet.read(b"not a file")
    wheel = tmp_path / "lava_dl.whl"
    monkeypatch.setenv(pilotnet.WHEEL_VARIABLE, str(wheel))
    with pytest.raises(InputError, match="lava_dl"):
        pilotnet.fetch()
    with zipfile.ZipFile(wheel, "w") as archive:
        for folder, names in pilotnet.MEMBERS.items():
            for name in names:
                archive.writestr(pilotnet.FOLDER + folder + name, b"changed")
    with pytest.raises(VerificationError, match="MD5"):
        pilotnet.fetch()


@pytest.mark.slow
def test_the_real_networks_count_as_the_chip_and_lava_did() -> None:
    """Counters 5 %, spikes and the recorded output exactly, cores 74; the vectors of another replay."""
    try:
        files = pilotnet.fetch()
    except EngineError as error:
        pytest.skip(str(error))
    network = pilotnet.read(files[pilotnet.LIF + pilotnet.NETWORK])
    found = pilotnet.sample(network)
    checks = anchor_counts.lif(network, found, files, load_profile("loihi2"))
    checks += anchor_counts.golden(pilotnet.read(files[pilotnet.SDNN + pilotnet.NETWORK]), files)
    assert len(checks) == 13 and not [check for check in checks if not check.ok]
    layers = {item.layer.name: item for item in found}
    assert layers["conv2"].counts.synops / 16 == 1_604_872.5 and layers["conv3"].counts.synops / 16 == 452_130
    assert sum(item.all_taps for item in found) > 1.3 * sum(item.counts.synops for item in found)
