"""Checkpoints: official files load exactly, every fault is listed, and hostile files run nothing."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _cli import refuse, spiketrack

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers import inert_pickle
from spiketrack_deploy.trackers.spiketrack.checkpoint import load_checkpoint, read_config, save_model
from spiketrack_deploy.trackers.spiketrack.config import OFFICIAL_CONFIGS, OFFICIAL_WALK, TrackerConfig
from spiketrack_deploy.trackers.spiketrack.infer import infer_config
from spiketrack_deploy.trackers.spiketrack.model import SpikeTrack

TINY = TrackerConfig("custom", (8, 16, 16, 24), resolution=32, templates=1, head_width=8)
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model() -> SpikeTrack:
    """A small network with random weights."""
    torch.manual_seed(1)
    return SpikeTrack(TINY).eval()


@pytest.fixture
def state(model: SpikeTrack) -> State:
    """Its state dict, free to change."""
    return OrderedDict((key, value.clone()) for key, value in model.state_dict().items())


class AverageMeter:
    """Stands for the classes that the published trainer pickles beside the weights."""

    def __init__(self) -> None:
        self.history = {"loss": [1.0, 2.0]}


class Bomb:
    """Creates a file when unpickled by a machine that runs what a pickle says."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def save(path: Path, net: object, **beside: object) -> Path:
    """A file as the published trainer writes it."""
    torch.save({"epoch": 3, "net_type": "SpikeTrack", "net": net, **beside}, path)
    return path


def same(a: SpikeTrack, b: SpikeTrack) -> bool:
    """Whether two networks have equal tensors under equal keys."""
    x, y = a.state_dict(), b.state_dict()
    return list(x) == list(y) and all(torch.equal(x[key], y[key]) for key in x)


@pytest.mark.parametrize("config", OFFICIAL_CONFIGS.values(), ids=lambda c: c.name)
def test_every_official_layout_is_inferred_from_its_shapes(config: TrackerConfig) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in SpikeTrack(config).state_dict().items()}
    assert infer_config(shapes, "test") == config


@pytest.mark.parametrize(
    "changes",
    [
        {"templates": 3},
        {"walk": tuple(s for s in OFFICIAL_WALK if s not in ("mrm.0", "mrm.1", "ConvBlock1_1.0", "block3.4"))},
        {"walk": tuple(s for s in OFFICIAL_WALK if s not in ("ConvBlock1_1.0", "downsample1_2"))},
        {"sep_expansion": 1, "conv_expansion": 2, "mlp_expansion": 3, "value_ratio": 2},
        {"resolution": 48, "head_width": 24},
    ],
)
def test_other_layouts_are_inferred_too(changes: dict[str, Any]) -> None:
    config = replace(TINY, **changes)
    shapes = {key: tuple(value.shape) for key, value in SpikeTrack(config).state_dict().items()}
    assert infer_config(shapes, "test") == config


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
def test_a_trainer_file_loads_exactly(tmp_path: Path, model: SpikeTrack, suffix: str) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    stats = OrderedDict(train=OrderedDict(loss=AverageMeter()))
    net = OrderedDict(model.state_dict())
    net._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    path = save(tmp_path / f"a{suffix}", net, optimizer=optimizer.state_dict(), stats=stats, device=torch.device("cpu"))
    loaded, config = load_checkpoint(path)
    assert same(loaded, model)
    assert config == TINY
    assert not loaded.training


def test_bare_state_dicts_parameters_and_old_pickles_load(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    torch.save(state, tmp_path / "bare.pth")
    torch.save(OrderedDict((k, torch.nn.Parameter(v, False)) for k, v in state.items()), tmp_path / "parameters.pth")
    torch.save({"net": state}, tmp_path / "protocol4.pth", pickle_protocol=4)
    for name in ("bare", "parameters", "protocol4"):
        assert same(load_checkpoint(tmp_path / f"{name}.pth")[0], model), name


def test_tensors_that_share_or_stride_a_storage_load(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    key = "encoder.downsample1_2.encode_conv.weight"
    big = torch.zeros(*state[key].shape[::-1], 2)
    view = big[..., 1].permute(3, 2, 1, 0)
    view.copy_(state[key])
    state[key] = view
    assert same(load_checkpoint(save(tmp_path / "a.pth", state))[0], model)


def test_half_precision_widens_and_double_stays(tmp_path: Path, state: State) -> None:
    for name, dtype, expected in (("h", torch.bfloat16, torch.float32), ("d", torch.float64, torch.float64)):
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        loaded, _ = load_checkpoint(save(tmp_path / f"{name}.pth", cast))
        assert next(loaded.parameters()).dtype == expected


def test_cuda_locations_are_ignored(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    path = save(tmp_path / "a.pth", state)
    rewritten = tmp_path / "cuda.pth"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in data
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(info.filename, data)
    assert same(load_checkpoint(rewritten)[0], model)


def test_counters_are_neither_demanded_nor_misplaced(tmp_path: Path, state: State) -> None:
    for key in [k for k in state if k.endswith("num_batches_tracked")]:
        del state[key]
    state["encoder.downsample2.encode_bn.num_batches_tracked"] = torch.tensor(7)
    loaded, _ = load_checkpoint(save(tmp_path / "a.pth", state))
    assert "encoder.downsample2.encode_bn.num_batches_tracked" not in loaded.state_dict()
    state["encoder.downsample2.nothing.num_batches_tracked"] = torch.tensor(7)
    with pytest.raises(InputError, match=r"1 unexpected \(encoder.downsample2.nothing"):
        load_checkpoint(save(tmp_path / "a.pth", state))


def test_one_message_lists_every_kind_of_fault(tmp_path: Path, state: State) -> None:
    for key in list(state)[:12]:
        del state[key]
    state["encoder.extra.weight"] = torch.zeros(2)
    state["decoder.conv5_size.bias"] = torch.zeros(3)
    with pytest.raises(InputError) as caught:
        load_checkpoint(save(tmp_path / "a.pth", state), TINY)
    text = str(caught.value)
    assert "12 missing (encoder.downsample1_1.encode_conv.weight," in text
    assert "...)" in text
    assert "1 unexpected (encoder.extra.weight)" in text
    assert "1 of the wrong shape or type (decoder.conv5_size.bias [3] instead of [2])" in text


def test_one_damaged_tensor_is_named_even_without_a_configuration(tmp_path: Path, state: State) -> None:
    state["encoder.block3.0.attn.s_pos_embed"] = torch.zeros(1, 16, 9)
    del state["decoder.spike.decay"]
    with pytest.raises(InputError, match=r"1 missing \(decoder.spike.decay\); 1 of the wrong shape"):
        load_checkpoint(save(tmp_path / "a.pth", state))


def test_unusable_values_are_named(tmp_path: Path, state: State) -> None:
    state["decoder.conv5_ctr.bias"][0] = float("nan")
    state["decoder.conv1_ctr.1.running_var"][0] = -1
    with pytest.raises(InputError, match=r"2 not finite or with negative variance \(decoder.conv1_ctr.1.running_var"):
        load_checkpoint(save(tmp_path / "a.pth", state))


@pytest.mark.parametrize(("has", "wants"), [(1, 3), (3, 1)])
def test_template_counts_do_not_mix(tmp_path: Path, has: int, wants: int) -> None:
    other = SpikeTrack(replace(TINY, templates=has))
    with pytest.raises(InputError, match=rf"made for {has} template.*T = {has}"):
        load_checkpoint(save(tmp_path / "a.pth", other.state_dict()), replace(TINY, templates=wants))


def test_safetensors_carry_their_configuration(tmp_path: Path, model: SpikeTrack) -> None:
    config = replace(TINY, name="mine", search_factor=3.0, attention_gain=2.5)
    path = tmp_path / "model.safetensors"
    save_model(model, config, path)
    first = path.read_bytes()
    save_model(model, config, path)
    assert path.read_bytes() == first
    for place in (path, tmp_path):
        loaded, found = load_checkpoint(place)
        assert same(loaded, model)
        assert found == config


def test_safetensors_without_metadata_use_the_file_beside_or_the_shapes(tmp_path: Path, model: SpikeTrack) -> None:
    from safetensors.torch import save_file

    save_file({k: v.clone() for k, v in model.state_dict().items()}, str(tmp_path / "m.safetensors"))
    assert load_checkpoint(tmp_path / "m.safetensors")[1] == TINY
    config = replace(TINY, name="beside", template_factor=2.0)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert load_checkpoint(tmp_path / "m.safetensors")[1] == config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: is not valid JSON"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_models_are_only_saved_as_safetensors(tmp_path: Path, model: SpikeTrack) -> None:
    with pytest.raises(InputError, match="safetensors"):
        save_model(model, TINY, tmp_path / "a.pth")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_model(model, TINY, tmp_path / "file" / "a.safetensors")


# ---- hostile and damaged files


def test_a_bomb_does_not_go_off_anywhere(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    target = tmp_path / "executed"
    path = save(tmp_path / "a.pth", state, settings=Bomb(target), stats=OrderedDict(x=[Bomb(target)]))
    target.mkdir()
    with pytest.raises(FileExistsError):  # the bomb is live: an ordinary load sets it off
        torch.load(path, weights_only=False)
    target.rmdir()
    assert same(load_checkpoint(path)[0], model)
    assert not target.exists()
    state["decoder.bomb"] = Bomb(target)  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"decoder\.bomb"):
        load_checkpoint(save(tmp_path / "b.pth", state))
    torch.save(Bomb(target), tmp_path / "c.pth")
    with pytest.raises(InputError, match="no state dict"):
        load_checkpoint(tmp_path / "c.pth")
    assert not target.exists()


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    """A PyTorch zip archive around a hand-made pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        out.writestr("archive/data.pkl", data)
        for name, value in entries.items():
            out.writestr(f"archive/data/{name.lstrip('_')}", value)
    return path


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """``{'net': {'encoder.x': tensor}}`` over storage 0, written instruction by instruction."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def text(s: str) -> bytes:
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    def sizes(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + sizes(shape) + sizes(stride)
    return b"\x80\x02}" + text("net") + b"}" + text("encoder.x") + tensor + b"\x89}tRss."


@pytest.mark.parametrize(
    ("shape", "stride", "offset"),
    [((2**40,), (1,), 0), ((2**20, 2**20), (0, 0), 0), ((4,), (1,), 1), ((2, 2), (1, 2**40), 0), ((-1,), (1,), 0)],
)
def test_tensors_larger_than_their_bytes_are_refused(
    tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    path = archive(tmp_path / "a.pth", tensor_pickle(shape, stride, offset), _0=b"\0" * 16)
    with pytest.raises(InputError, match=r"claims more values|is no tensor"):
        load_checkpoint(path)


def test_the_hand_made_archive_is_otherwise_readable(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.pth", tensor_pickle((2, 2), (2, 1)), _0=b"\0" * 16)
    with pytest.raises(InputError, match="no SpikeTrack"):
        load_checkpoint(path)
    with pytest.raises(InputError, match=r"bytes of tensor encoder.x are missing"):
        load_checkpoint(archive(tmp_path / "b.pth", tensor_pickle((2, 2), (2, 1))))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "huge memo index": lambda: b"\x80\x02}r\xff\xff\xff\x7f.",
    "bytes longer than the file": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b".",
    "deep tuple as a key": lambda: b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.",
    "deep list": lambda: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep calls": lambda: b"\x80\x02)" + b"cos\nsystem\n)R\x85" * 50_000 + b".",
    "stack underflow": lambda: b"\x80\x02RRR.",
    "stray mark": lambda: b"\x80\x02(.",
    "no end": lambda: b"\x80\x02}",
    "unknown instruction": lambda: b"\x80\x02\xff.",
    "extension registry": lambda: b"\x80\x02\x82\x01.",
    "next buffer": lambda: b"\x80\x05\x97.",
    "memo that was never set": lambda: b"\x80\x02h\x05.",
    "a call to os.system": lambda: pickle.dumps({"net": 1}, 2)[:-1] + b"0cos\nsystem\n(X\x04\x00\x00\x00truetR.",
    "nothing": lambda: b"",
    # Each of these takes hours, or gigabytes, where what the pickle says is printed, hashed, copied or allocated.
    "names of nested pairs": lambda: b"\x80\x04" + b"\x8c\x08aaaaaaaa" + b"2\x86" * 40 + b"\x8c\x01a\x93.",
    "nested pairs as a key": lambda: b"\x80\x04})" + b"2\x86" * 60 + b"Ns.",
    "nested pairs in a set": lambda: b"\x80\x04\x8f()" + b"2\x86" * 60 + b"\x90.",
    "nested pairs in a frozen set": lambda: b"\x80\x04()" + b"2\x86" * 60 + b"\x91.",
    "a huge number as a key": lambda: (
        b"\x80\x04}\x8b" + struct.pack("<i", 2**20) + b"\x11" * 2**20 + b"\x940" + b"h\x00Ns" * 2**18 + b"."
    ),
    "a huge number as a key of the weights": lambda: (
        tensor_pickle((1,), (1,))[:-3] + b"\x8b" + struct.pack("<i", 2**13) + b"\x11" * 2**13 + b"Nss."
    ),
    "a call with many arguments, repeated": lambda: (
        b"\x80\x04](" + b"N" * 2**20 + b"t\x940" + b"cos\nsystem\nh\x00Ra" * 2**16 + b"."
    ),
    "an ordered dictionary of many pairs, repeated": lambda: (
        b"\x80\x04](" + b"NN\x86" * 2**18 + b"l\x85\x940" + b"ccollections\nOrderedDict\nh\x00R0" * 2**14 + b"N."
    ),
    "a byte array longer than the file": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
    "larger than any checkpoint's": lambda: b"\x80\x02" + b"}0" * (inert_pickle.MAX_BYTES // 2) + b"N.",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_end_in_one_sentence(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.pth", HOSTILE[name]())
    with pytest.raises(InputError, match=r"a\.pth"):
        load_checkpoint(path)


def test_the_rest_of_a_pickle_may_be_strange(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    """Sets, subclasses of containers, keys of every kind: none of it is needed, none of it disturbs."""
    beside = {
        "sets": [{1, 2}, frozenset({("a", "b")})],
        "keys": {None: 1, 2.5: 2, b"x": 3, (1, 2): 4, 2**70: 5, torch.float32: 6},
        "counts": Counter("abc"),
        "queue": deque([1, 2]),
        "factory": defaultdict(list, a=[1]),
        "class": Path,
    }
    for protocol in (2, 4, 5):
        torch.save({"net": state, **beside}, tmp_path / "a.pth", pickle_protocol=protocol)
        assert same(load_checkpoint(tmp_path / "a.pth")[0], model)


def stored(path: Path, model: SpikeTrack, **changes: object) -> Path:
    """The model in a file whose stored configuration has changes."""
    from safetensors.torch import save_file

    text = json.dumps({**TINY.to_dict(), **changes})
    save_file(dict(model.state_dict()), str(path), metadata={"spiketrack_config": text})
    return path


def test_attributes_that_no_number_can_hold(tmp_path: Path, model: SpikeTrack) -> None:
    huge, deep = 10**400, "[" * 100_000
    cases: dict[str, tuple[dict[str, object], str, str]] = {
        "gain": ({"attention_gain": huge}, "401 digits", "attention_gain should be a valid number, not an integer of"),
        "infinite": ({"attention_gain": math.inf}, "not a JSON number", "attention_gain should be a finite number"),
        "factor": ({"search_factor": huge}, "401 digits", "search_factor should be a valid number"),
        "threshold": ({"update_threshold": -huge}, "402 digits", "update_threshold should be"),
        "size": ({"dims": [65536] * 4, "resolution": 4096}, "lower dims", "lower dims"),
    }
    for name, (changes, says_json, says_pickle) in cases.items():
        with pytest.raises(InputError, match=says_json):
            load_checkpoint(stored(tmp_path / f"{name}.safetensors", model, **changes))
        kept = {**TINY.to_dict(), **changes}
        with pytest.raises(InputError, match=says_pickle):
            load_checkpoint(save(tmp_path / f"{name}.pth", model.state_dict(), spiketrack_config=kept))
    for text in (deep, "9" * 5000, "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json"):
            read_config(tmp_path / "config.json")
    nested: Any = []
    for _ in range(100):
        nested = [nested, nested]
    for kept in ({**TINY.to_dict(), "name": nested}, {**TINY.to_dict(), 1: 2}, dict.fromkeys(map(str, range(10**5)))):
        with pytest.raises(InputError, match="tracker configuration"):
            load_checkpoint(save(tmp_path / "kept.pth", model.state_dict(), spiketrack_config=kept))


@pytest.mark.timeout(60)
def test_the_command_refuses_pipes_devices_and_hostile_numbers(tmp_path: Path, model: SpikeTrack) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("pipe.pth", "pipe.safetensors", "zero.safetensors"):
        with pytest.raises(InputError, match="pipe, device or socket"):
            load_checkpoint(tmp_path / name)
    (tmp_path / "zero.safetensors").unlink()  # the helper reads every file to see that none has changed
    (tmp_path / "pipe.safetensors").unlink()
    done = spiketrack(tmp_path, "inspect", "pipe.pth")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1) and "a pipe" in done.stderr
    (tmp_path / "pipe.pth").unlink()
    stored(tmp_path / "gain.safetensors", model, attention_gain=10**400)
    refuse(tmp_path, 3, ("gain.safetensors", "401 digits"), "inspect", "gain.safetensors")


def test_files_that_are_no_checkpoint(tmp_path: Path, model: SpikeTrack, state: State) -> None:
    good = save(tmp_path / "good.pth", state).read_bytes()
    save_model(model, TINY, tmp_path / "good.safetensors")
    tensors = (tmp_path / "good.safetensors").read_bytes()
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as out:
        out.writestr("readme.txt", "hello")
    squeezed = io.BytesIO()
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data.pkl", b"\0" * 10_000_000)
    legacy = io.BytesIO()
    torch.save({"net": state}, legacy, _use_new_zipfile_serialization=False)
    damaged = bytearray(good)
    at = good.index(state["decoder.conv1_ctr.0.weight"].numpy().tobytes()[:64])
    damaged[at] ^= 1
    cases: dict[str, tuple[bytes, str]] = {
        "empty.pth": (b"", "is empty"),
        "text.pth": (b"just some text\n" * 100, "neither"),
        "half.pth": (good[: len(good) // 2], "truncated"),
        "head.pth": (good[:100], "truncated"),
        "plain.pth": (plain.getvalue(), "no data.pkl"),
        "squeezed.pth": (squeezed.getvalue(), "compressed"),
        "legacy.pth": (legacy.getvalue(), "before 1.6"),
        "damaged.pth": (bytes(damaged), "damaged"),
        "half.safetensors": (tensors[: len(tensors) // 2], "no usable safetensors"),
        "text.safetensors": (b"hello world, this is text", "no usable safetensors"),
        "header.safetensors": (struct.pack("<Q", 2**62) + b"{}", "no usable safetensors"),
    }
    for name, (data, says) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InputError, match=says):
            load_checkpoint(path)
    with pytest.raises(InputError, match="No such file"):
        load_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        (tmp_path / "folder").mkdir()
        load_checkpoint(tmp_path / "folder")


def test_names_from_a_file_cannot_disturb_the_terminal(tmp_path: Path, state: State) -> None:
    state["\x1b[2Jx" + "y" * 500] = torch.zeros(1)
    with pytest.raises(InputError) as caught:
        load_checkpoint(save(tmp_path / "a.pth", state))
    assert str(caught.value).isprintable()
    assert "y" * 100 not in str(caught.value)


def test_compact_files_halve_what_loses_nothing(tmp_path: Path, model: SpikeTrack) -> None:
    dyadic = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in dyadic.parameters():
            if parameter.dim() >= 3:
                parameter.copy_(torch.round(parameter * 256).clamp(-127, 127) / 256)
    sizes = {}
    for name, network in (("drawn", model), ("dyadic", dyadic)):
        for compact in (False, True):
            file = tmp_path / f"{name}{compact}.safetensors"
            save_model(network, TINY, file, compact=compact)
            assert same(load_checkpoint(file)[0], network)
            sizes[name, compact] = file.stat().st_size
    assert sizes["dyadic", True] < 0.8 * sizes["dyadic", False]
    assert sizes["drawn", True] > 0.85 * sizes["drawn", False], "what half precision would round must stay"
