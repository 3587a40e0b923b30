"""Networks of lava-dl: what is read, what is computed, what is written and read again, and what is refused.

The judge of the integers is Lava itself: ``benchmarks/netx_parity.py`` compares with recorded traces and with
``lava.lib.dl.netx``. Here stand the rules by hand, the round trip, and hostile files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.netx.lower import lower_netx
from spiketrack_deploy.frontends.netx.network import Layer, NetxNetwork, Neuron, dense_weights
from spiketrack_deploy.frontends.netx.read import read_netx
from spiketrack_deploy.frontends.netx.recognise import recognise
from spiketrack_deploy.frontends.netx.write import write_netx
from spiketrack_deploy.program.bounds import demand_ranges
from spiketrack_deploy.program.ops import OP_TABLE
from spiketrack_deploy.program.types import IntArray, Op

NONE = np.zeros(0, np.int64)
SHAPE = (2, 7, 5)


def network(kind: str, seed: int = 0) -> NetxNetwork:
    """A convolution of two groups and a matrix behind an input layer, on a map that is not square."""
    rng = np.random.default_rng(seed)
    if kind == "sdnn":
        first = Layer("0.input", "input", SHAPE, Neuron("sdnn", 3), NONE)
        conv = Layer("1.conv", "conv", (4, 3, 5), Neuron("sdnn", 2), rng.integers(-9, 9, (4, 2, 3, 2)),
                     rng.integers(-5, 9, 4), (2, 1), (0, 1), (1, 2))  # fmt: skip
        dense = Layer("2.dense", "dense", (3, 1, 1), Neuron("sdnn", 0, sigma=True), rng.integers(-9, 9, (3, 60, 1, 1)))
        return NetxNetwork(kind, SHAPE, (first, conv, dense))
    neuron = Neuron("cuba", 17, 1000 if kind == "current" else 4096, 700)
    first = Layer("0.input", "input", SHAPE, Neuron("cuba", 20, 4096, 128), NONE)
    conv = Layer("1.conv", "conv", (4, 3, 5), neuron, rng.integers(-50, 128, (4, 1, 3, 2)), rng.integers(-9, 9, 4),
                 (2, 1), (0, 1), (1, 2), 2)  # fmt: skip
    back = rng.integers(-128, 128, (6, 6)) if kind == "recurrent" else None
    delay = {"late": rng.integers(0, 5, (6, 1)).repeat(60, 1), "delayed": rng.integers(0, 5, (6, 60))}.get(kind)
    dense = Layer("2.dense", "dense", (6, 1, 1), neuron, rng.integers(-128, 128, (6, 60, 1, 1)), rng.integers(-9, 9, 6),
                  delay=delay, recurrent=back)  # fmt: skip
    return NetxNetwork(kind, SHAPE, (first, conv, dense))


KINDS = ("cuba", "current", "recurrent", "late", "delayed", "sdnn")


def answers(given: NetxNetwork, timing: str = "lava", engine: str = "reference", width: int | None = None) -> IntArray:
    """40 steps of drawn input."""
    x = np.random.default_rng(1).integers(-40, 60, (40, 1, *given.input_shape))
    program = lower_netx(given, timing, width=width)
    demand_ranges(program, "it is lowered so")
    with make_engine(engine, program) as made:
        session = made.session()
        return np.stack([session.step("step", {"input": part}).outputs["output"] for part in x])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timing", ["lava", "aligned"])
def test_a_file_of_ours_is_the_same_network(kind: str, timing: str, tmp_path: Path) -> None:
    given = network(kind)
    want = answers(given, timing)
    assert want.any()
    write_netx(given, tmp_path / "a.net")
    assert np.array_equal(answers(read_netx(tmp_path / "a.net"), timing), want)
    if kind == "delayed":
        with pytest.raises(InputError, match=r"several taps|stands behind|chain"):
            recognise(lower_netx(given, timing))
        return
    write_netx(recognise(lower_netx(given, timing)), tmp_path / "b.net")
    assert np.array_equal(answers(read_netx(tmp_path / "b.net"), timing), want)


@pytest.mark.parametrize("kind", ["current", "late", "sdnn"])
def test_engines_agree(kind: str) -> None:
    program = lower_netx(network(kind), width=24)
    rng = np.random.default_rng(2)
    for name in ("sim", "onnx"):
        states = {n: np.zeros(s.spec.shape, np.int64) for n, s in program.states.items()}
        runs = [("step", states | {"input": rng.integers(-40, 60, (1, *SHAPE))}) for _ in range(3)]
        with make_engine(name, program) as engine:
            result = compare(ReferenceEngine(program), engine, program, runs)
        result.demand()
        assert result.differing_counts == 0


def test_steps_of_lava_against_a_loop() -> None:
    """The equations of lava-nc 0.10.0, neuron by neuron, connection by connection (docs/lava-dl.md)."""
    given = network("current", 3)
    first, conv, dense = given.layers
    x = np.random.default_rng(1).integers(-40, 60, (40, *SHAPE))
    u = {layer.name: np.zeros(layer.shape, np.int64) for layer in given.layers}
    v = {name: a.copy() for name, a in u.items()}

    def toward_zero(a: IntArray, keep: int) -> IntArray:
        return np.sign(a) * ((np.abs(a) * keep) >> 12)

    def step(layer: Layer, a: IntArray) -> IntArray:
        n, name = layer.neuron, layer.name
        u[name] = toward_zero(u[name], 4096 - n.i_decay) + a * 64
        bias = 0 if layer.bias is None else layer.bias[:, None, None] * 64
        v[name] = np.clip(toward_zero(v[name], 4096 - n.v_decay) + u[name] + bias, -(2**23) + 1, 2**23 - 1)
        spikes = v[name] > n.threshold * 64
        v[name][spikes] = 0
        return spikes.astype(np.int64)

    sums = np.zeros(conv.shape, np.int64), np.zeros(dense.shape, np.int64)
    out = []
    for now in x:
        spikes = step(first, now), step(conv, sums[0]), step(dense, sums[1])
        padded = np.pad(spikes[0], ((0, 0), (0, 0), (1, 1)))
        a = np.zeros(conv.shape, np.int64)
        for o, i, j in np.ndindex(*conv.shape):
            window = padded[o // 2, 2 * i : 2 * i + 3, [j, j + 2]]
            a[o, i, j] = (conv.weight[o, 0] * window.T).sum()
        sums = a, (dense.weight[:, :, 0, 0] @ spikes[1].reshape(-1))[:, None, None]
        out.append(spikes[2][None])
    assert np.array_equal(answers(given), np.stack(out))
    assert np.stack(out).any()


def test_sigma_delta_against_a_loop() -> None:
    op = Op("m", "change", ("s", "t"), "b", {"rectified": 1, "shift": 6, "limit": 0}, {})
    rng = np.random.default_rng(0)
    arrays = {
        "bias": rng.integers(-900, 900, (3, 1, 1)).astype(np.int32),
        "threshold": np.full((1, 1, 1), 500, np.int32),
    }
    told, act, residue = (np.zeros((1, 3, 2, 4), np.int64) for _ in range(3))
    sigma, sent_some = told.copy(), 0
    for _ in range(60):
        sigma = sigma + rng.integers(-300, 320, told.shape)
        message = OP_TABLE["change"].run(op, arrays, [sigma, told])
        told = OP_TABLE["told"].run(op, arrays, [sigma, told])
        now = np.maximum(sigma + arrays["bias"], 0)
        delta = now - act + residue
        sent = np.where(np.abs(delta) >= 500, delta, 0)
        residue, act = delta - sent, now
        assert np.array_equal(message, sent >> 6)
        sent_some += int(np.count_nonzero(sent))
    assert 0 < sent_some < 60 * told.size


def test_a_message_beyond_its_limit_is_counted_and_sent_later() -> None:
    op = Op("m", "change", ("s", "t"), "b", {"rectified": 0, "shift": 0, "limit": 10}, {})
    arrays, sigma = {"threshold": np.full((1, 1, 1), 1, np.int32)}, np.full((1, 1, 1, 1), -25)
    told, seen = np.zeros((1, 1, 1, 1), np.int64), []
    for _ in range(4):
        out = OP_TABLE["change"].run(op, arrays, [sigma, told])
        seen.append((int(out[0, 0, 0, 0]), OP_TABLE["change"].count(op, arrays, [sigma, told], out).saturated))
        told = OP_TABLE["told"].run(op, arrays, [sigma, told])
    assert seen == [(-10, 1), (-10, 1), (-5, 0), (0, 0)]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ([[-1, 1]], [[-1, 1]]),  # scaled up by seven bits and down again
        ([[-128, 127]], [[-128, 127]]),
        ([[-255, 3]], [[-255, 3]]),
        ([[0, 255]], [[0, 255]]),
        ([[300, -1]], [[254, -1]]),  # netx cuts signed matrices at 254
        ([[-1, -1]], [[0, 0]]),  # Dense holds -255 at most: nothing is left of 256 without its last eight bits
        ([[-3, -1]], [[-3, -1]]),
    ],
)
def test_what_dense_multiplies_with(given: list[list[int]], want: list[list[int]]) -> None:
    assert dense_weights(np.array(given))[0].tolist() == want


@pytest.mark.parametrize("given", [[[0, 0]], [[256, 1]]])
def test_matrices_that_netx_cannot_scale(given: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"netx cannot scale|eight bits"):
        dense_weights(np.array(given))


def _edit(path: Path, **changes: Any) -> Path:
    """A good file with fields of layer 1 replaced (``None``: removed; a callable: called with the file)."""
    write_netx(network("cuba"), path)
    with h5py.File(path, "a") as file:
        for name, value in changes.items():
            place = f"layer/1/{name.replace('__', '/')}"
            if place in file:
                del file[place]
            if callable(value):
                value(file, place)
            elif value is not None:
                file[place] = value
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": np.array([b"pool"], dtype="S10")}, r"layer 1 \(pool\): netx has no Process for it"),
        ({"type": np.array([b"magic"], dtype="S10")}, "is no layer of netx"),
        ({"bias": np.full(4, 40000.0)}, "'bias' runs from 40000 to 40000; -32768 to 32767"),
        ({"weight": np.full((4, 1, 3, 2), 0.5)}, "'weight' holds fractions"),
        ({"weight": np.full((4, 3, 3, 2), 1.0)}, "do not fit 2 input channels"),
        ({"shape": np.array([4, 9, 9])}, r"has shape \(4, 9, 9\), its weights give \(4, 3, 5\)"),
        ({"delay": np.full(4, 3.0)}, "ignores those of a convolution"),
        ({"neuron__type": b"RF"}, "neurons of type RF"),
        ({"neuron__vThMant": np.nan}, "not finite"),
        ({"neuron__extra": 1}, "unknown field extra"),
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"weight": None}, "has no field 'weight'"),
        ({"weight": lambda f, place: f.__setitem__(place, h5py.ExternalLink("/etc/passwd", "x"))}, "external link"),
        ({"weight": lambda f, place: f.create_dataset(place, shape=(2**40,), dtype="f4", chunks=(9,))}, "declares"),
    ],
)  # fmt: skip
def test_hostile_files(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_netx(_edit(tmp_path / "bad.net", **changes))
    assert "bad.net" in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    write_netx(network("cuba"), tmp_path / "a.net")
    whole = (tmp_path / "a.net").read_bytes()
    (tmp_path / "a.net").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"not a readable HDF5 file|damaged"):
        read_netx(tmp_path / "a.net")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bias": np.full(6, 40000)}, "biases from 40000 to 40000 in 16 bits"),
        ({"weight": np.full((6, 60, 1, 1), 300)}, "more than eight bits"),
        ({"delay": np.full((6, 60), 63)}, "delays of a dense layer up to 63"),
    ],
)
def test_what_a_file_cannot_hold_is_named_and_nothing_written(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    given = network("cuba")
    given = replace(given, layers=(*given.layers[:2], replace(given.layers[2], **change)))
    with pytest.raises(InputError, match=sentence):
        write_netx(given, tmp_path / "a.net")
    assert not list(tmp_path.iterdir())
