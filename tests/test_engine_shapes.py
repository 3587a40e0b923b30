"""Sim on layers of any legal shape: odd channels and sides, H differing from W, groups, dilation, several steps.

Every integer and every count equals the reference, with the compiled sums and with the NumPy ones; the two ways of
adding up are compared on their own as well.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spiketrack_deploy.engines import sim_census, sim_conv, sim_counts, sim_jit, sim_membrane, sim_sums
from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.engines.sim import SimEngine
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.ops.conv import conv_size
from spiketrack_deploy.program.types import Program, TensorSpec

from _programs import PhaseBuilder, random_inputs  # isort: skip

BITS = 6
"""Fraction bits of every stream here: drawn sums then fire all spikes."""


class Layers:
    """Adds layers of drawn geometry to a phase; a geometry that leaves no output position is drawn again."""

    def __init__(self, rng: np.random.Generator, late: int = 1) -> None:
        """``late``: steps of a neuron behind a stream of one step."""
        self.rng, self.late = rng, late
        self.b = PhaseBuilder("search", rng, {})

    def stream(self, name: str, shape: tuple[int, ...], kind: str = "stream") -> TensorSpec:
        return TensorSpec(kind, shape, self.b.unit(name, np.full(shape[1], BITS)))

    def conv(self, name: str, x: str, out: int, kind: str = "conv", same: bool = False) -> str:
        """A convolution of any geometry, its weights per step or shared; ``same``: a plain one that keeps the size."""
        b, rng = self.b, self.rng
        steps, channels, height, width = b.spec(x).shape
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0 and out % g == 0]))
        while True:
            kernel, stride, padding, dilation = (rng.integers(1, high, 2).tolist() for high in (6, 4, 5, 4))
            padding = [p - 1 for p in padding]
            if same:
                kernel, stride, padding, dilation = [1, 1], [1, 1], [0, 0], [1, 1]
            spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
            if all(n + 2 * p >= s for n, p, s in zip((height, width), padding, spans)):
                break
        pairs = {"stride": stride, "padding": padding, "dilation": dilation}
        attrs = {f"{k}_{axis}": v[i] for k, v in pairs.items() for i, axis in enumerate("hw")} | {"groups": groups}
        size = conv_size((height, width), tuple(kernel), tuple(stride), tuple(padding), tuple(dilation))
        shared = 1 if kind == "image_conv" else int(rng.choice([1, steps]))
        spread = 40 / (channels // groups * kernel[0] * kernel[1]) ** 0.5
        spread *= 0.01 if kind == "image_conv" else 1
        weight = np.rint(rng.normal(0, spread, (shared, out, channels // groups, *kernel)))
        weight[rng.random(weight.shape) < 0.2] = 0
        bias = (out, *size) if kind == "image_conv" else (shared, out)
        arrays = {
            "weight": b.put(name + ".weight", weight.clip(-127, 127).astype(np.int8)),
            "shift": b.put(name + ".shift", rng.integers(0, 2, (shared, out)).astype(np.int8)),
            "bias": b.put(name + ".bias", rng.integers(-40, 160, bias).astype(np.int32)),
        }
        spec = self.stream(name, (steps, out, *size), "logits" if kind == "head_out" else "stream")
        return b.op(name, kind, [x], "block", spec, attrs, arrays)

    def attend(self, s: str, width: int) -> str:
        """Keys, values and queries of one odd-sized spike tensor, a memory, and the spikes behind its query."""
        b, heads = self.b, int(self.rng.choice([1, 3]))
        q, k, v = (
            b.ni_lif(f"{n}.spike", self.conv(n, s, heads * wide, same=True), "block")
            for n, wide in (("q", width), ("k", width), ("v", width + 2))
        )
        memory = b.key_value("memory", k, v, heads, "block")
        steps = b.spec(q).shape[0]
        return b.query_spike(
            "read.spike", b.query("read", q, memory, heads, "block", 0), "block", 40.0, max(steps, self.late)
        )


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, int]:
    """An image, a neuron of one or more steps, readers of any geometry, attention, pooling, upsampling, a head."""
    seed = draw(st.integers(0, 2**32 - 1))
    steps, late, height, width = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
    )
    channels = draw(st.integers(1, 20))
    layers = Layers(np.random.default_rng(seed), late if steps == 1 else 1)
    b = layers.b
    b.inputs["image"] = TensorSpec("image", (steps, 3, height, width), top=255)
    x = layers.conv("image conv", "image", channels, "image_conv")
    s = b.ni_lif("spike", x, "block", max(steps, layers.late) if draw(st.booleans()) else None)
    for i in range(draw(st.integers(1, 3))):
        y = layers.conv(f"reader {i}", s, draw(st.integers(1, 17)))
        offset = f"offset {i}" if draw(st.booleans()) else None
        fired = b.ni_lif(f"spike {i}", y, "block", offset=offset)
        b.outputs[f"out{i}"] = layers.conv(f"head {i}", fired, 2, "head_out")
    same = layers.conv("same", s, channels, same=True)
    z = b.up("up", b.add("sum", x, same, "block"), 2, "block", b.spec(x).unit)
    z = b.pool("pool", z, 2, "block")
    read = layers.attend(b.ni_lif("again", z, "block"), draw(st.integers(1, 7)))
    b.outputs["read"] = layers.conv("read head", read, 3, "head_out")
    return Program({"search": b.finish()}, b.arrays, {}), seed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_any_legal_shape_has_the_integers_and_counts_of_the_reference(drawn: tuple[Program, int]) -> None:
    program, seed = drawn
    check_program(program)
    runs = list(random_inputs(program, seed).items())
    with ReferenceEngine(program) as reference, SimEngine(program, threads=1) as sim:
        compare(reference, sim, program, runs).demand()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim_membrane, "_compiled", lambda: None)
        for module in (sim_census, sim_counts):
            patch.setattr(module, "adders", lambda: sim_sums.PLAIN)
        with ReferenceEngine(program) as reference, SimEngine(program, threads=1, kernels="float32") as sim:
            compare(reference, sim, program, runs, timed=False).demand()


def test_large_tensors_of_one_size_and_odd_widths_do_not_leak_into_one_another() -> None:
    """Half a megabyte each, one after the other, with channels that no vector register divides."""
    layers = Layers(np.random.default_rng(3))
    b = layers.b
    b.inputs["image"] = TensorSpec("image", (1, 3, 67, 65), top=255)
    x = layers.conv("image conv", "image", 9, "image_conv", same=True)
    for i, width in enumerate((131, 125, 119)):
        s = b.ni_lif(f"spike {i}", x, "block")
        x = layers.conv(f"conv {i}", s, width, same=True)
    b.outputs["out"] = layers.conv("head", b.ni_lif("last", x, "block"), 2, "head_out", same=True)
    program = Program({"search": b.finish()}, b.arrays, {})
    runs = list(random_inputs(program, 3).items())
    compare(ReferenceEngine(program), SimEngine(program, threads=1), program, runs, timed=False).demand()


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 140), st.integers(1, 9), st.integers(1, 21))


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1))
def test_compiled_sums_are_those_of_numpy(shape: tuple[int, int, int, int], seed: int) -> None:
    """More rows than a byte can sum, any classes, fan-outs shared or step by step; and a count without any of it."""
    rng = np.random.default_rng(seed)
    steps, height, width, channels = shape
    x = rng.integers(0, 5, shape).astype(np.uint8)
    parts = (int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1)))
    rows, cols = (rng.permutation(np.arange(n) % k) for n, k in zip((height, width), parts))
    fan = rng.integers(0, 2**17, (3, int(rng.choice([1, steps])), *parts, channels)).astype(np.uint32)
    reach = fan[:, :, rows][:, :, :, cols].astype(np.int64)
    expected = [[((x > 0) * one).sum(), (x * one).sum()] for one in (np.ones(1, dtype=int), *reach)]
    memory = (rng.integers(0, 3, (steps, channels, 7))).astype(np.float32)
    visits = [(memory != 0).sum(axis=2)[:, None, None] * n for n in (x > 0, x.astype(np.int64))]
    tokens = x.reshape(-1, channels), x[..., ::-1].reshape(-1, channels).repeat(2, axis=1)
    assert sim_sums.adders() is not sim_sums.PLAIN, "this environment has numba, so the loops must be compiled"
    for adders in (sim_sums.adders(), sim_sums.PLAIN):
        found = np.zeros((4, 2), dtype=np.int64)
        classes = adders.by_class(x, rows, cols, fan, found)
        assert found.tolist() == expected
        assert classes.sum(axis=(2, 3)).tolist() == [(x > 0).sum(axis=(1, 2)).tolist(), x.sum(axis=(1, 2)).tolist()]
        assert adders.reads(memory, classes) == tuple(v.sum() for v in visits)
        assert adders.pairs(*tokens) == tuple(
            sum(f(k) * f(v) for k, v in zip(*tokens)) for f in (np.count_nonzero, np.sum)
        )
        assert adders.nonzero(x.reshape(-1).astype(np.float32)) == np.count_nonzero(x)


FAILURES = {
    "numba missing": ImportError("No module named numba"),
    "no folder to cache in": RuntimeError("cannot cache function: no locator available"),
    "disk full": OSError(28, "No space left on device"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_nothing_depends_on_numba(monkeypatch, case: str) -> None:
    def fails(loops: object, cache: bool) -> sim_jit.Compiled:
        raise FAILURES[case]

    monkeypatch.setattr(sim_jit, "machine_code", fails)
    assert sim_sums.adders.__wrapped__() is sim_sums.PLAIN
    assert sim_membrane._compiled.__wrapped__() is None


def test_numba_that_is_told_not_to_compile_is_not_used(monkeypatch) -> None:
    """Its loops would run as Python, a thousand times slower."""
    import numba

    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert sim_sums.adders.__wrapped__() is sim_sums.PLAIN


def test_without_a_folder_for_the_cache_the_loops_are_compiled_all_the_same(monkeypatch) -> None:
    def uncached(loops: object, cache: bool) -> sim_jit.Compiled:
        if cache:
            raise FAILURES["no folder to cache in"]
        return list(sim_sums.PLAIN)

    monkeypatch.setattr(sim_jit, "machine_code", uncached)
    assert sim_sums.adders.__wrapped__() is not sim_sums.PLAIN


@pytest.mark.parametrize("field", sim_sums.Adders._fields)
def test_a_compiled_sum_that_is_wrong_is_not_used(monkeypatch, field: str) -> None:
    def wrong(*arguments):
        found = getattr(sim_sums.PLAIN, field)(*arguments)
        return (found[0] + 1, found[1]) if isinstance(found, tuple) else found + 1

    spoilt = list(sim_sums.PLAIN._replace(**{field: wrong}))
    monkeypatch.setattr(sim_jit, "machine_code", lambda loops, cache: spoilt)
    assert sim_sums.adders.__wrapped__() is sim_sums.PLAIN


def test_a_compiled_membrane_that_is_wrong_is_not_used(monkeypatch) -> None:
    monkeypatch.setattr(sim_jit, "machine_code", lambda loops, cache: [lambda *arguments: None])
    assert sim_membrane._compiled.__wrapped__() is None


def test_numba_is_imported_only_where_something_is_counted() -> None:
    code = """
import sys
from _programs import random_inputs, random_program
from spiketrack_deploy.cli import main
from spiketrack_deploy.engines.sim import SimEngine
program = random_program(0, 1)
inputs = random_inputs(program, 0)["search"]
seen = ["numba" in sys.modules]
for count in (False, True):
    SimEngine(program, threads=1).run("search", inputs, count=count)
    seen.append("numba" in sys.modules)
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment())
    assert done.stdout.strip() == "[False, False, True]", done.stderr


def environment() -> dict[str, str]:
    """This process's import path for a child."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_one_channel_and_one_column_of_outputs() -> None:
    """Where oneDNN's convolution reads memory that is not its own; a drawn program found it."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        rows, columns = (int(n) for n in rng.integers(4, 7, 2))
        padding = int(rng.integers(0, columns // 2))
        width = columns - 2 * padding + int(rng.integers(0, 2))
        weight = rng.integers(-9, 9, (13, 1, rows, columns)).astype(np.int8)
        g = sim_conv._Geometry((1, 2), (1, padding), (1, 1), 1)
        x = torch.from_numpy(rng.integers(0, 5, (1, 12, width, 1)).astype(np.uint8)).permute(0, 3, 1, 2)
        made = sim_conv._conv_float(weight, np.ones(13), None, x.shape, g, False)
        wanted = torch.conv2d(x.double(), torch.from_numpy(weight).double(), None, g.stride, g.padding)
        assert torch.equal(made(x).double(), wanted), (seed, x.shape, weight.shape)
