"""Synthetic programs for tests and benchmarks: every operation kind, the tracker's wiring, drawn integers.

``random_program`` is small and legal; ``tracker_program`` has the layer shapes of any SpikeTrack configuration. Weights
are drawn and then scaled so that spikes take all values 0..4; nothing here is a trained network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spiketrack_deploy.lowering.emit import value_spec
from spiketrack_deploy.program.ops.conv import conv_size
from spiketrack_deploy.program.types import (
    GATE_BITS,
    INT24_MAX,
    SPIKE_MAX,
    UNREACHABLE,
    AnyArray,
    Op,
    Phase,
    Program,
    TensorSpec,
    states_of,
)

STREAM_BITS = 11
"""Fraction bits of a drawn stream: 12 integer bits remain, more than the drawn residual sums can reach."""
OFFICIAL_STAGES = (
    "ConvBlock1_1.0", "downsample1_2", "mrm.0", "ConvBlock1_2.0", "downsample2", "mrm.1", "ConvBlock2_1.0",
    "ConvBlock2_2.0", "downsample3", "mrm.2", "block3.0", "block3.1", "block3.2", "mrm.3", "block3.3", "block3.4",
    "block3.5", "downsample4", "mrm.4", "block4.0", "block4.1", "mrm.5",
)  # fmt: skip


def spikes(shape: tuple[int, ...]) -> TensorSpec:
    """Graded spikes 0..4, quarters."""
    return TensorSpec("spikes", shape, scale=0.25, top=SPIKE_MAX)


def conv_attrs(stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> dict[str, int]:
    """Attributes of a square convolution."""
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    return {f"{k}_{axis}": v for k, v in pairs.items() for axis in "hw"} | {"groups": groups}


def round_thresholds(bits: AnyArray) -> AnyArray:
    """Exact integer form of round-half-to-even(clamp(v, 0, 4)) for streams with ``bits`` fraction bits: ``[C,4]``."""
    half = 1 << (np.asarray(bits, dtype=np.int64) - 1)
    return np.stack([half + 1, 3 * half, 5 * half + 1, 7 * half], axis=1).astype(np.int32)


@dataclass
class PhaseBuilder:
    """Adds operations to one phase; arrays are shared by key between phases."""

    name: str
    rng: np.random.Generator
    arrays: dict[str, AnyArray]
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    values: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def spec(self, name: str) -> TensorSpec:
        return self.inputs[name] if name in self.inputs else self.values[name]

    def put(self, key: str, array: AnyArray) -> str:
        """Store ``array`` unless the other phase has stored this key already."""
        self.arrays.setdefault(key, array)
        return key

    def op(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        block: str,
        spec: TensorSpec,
        attrs: Mapping[str, int] | None = None,
        arrays: Mapping[str, str] | None = None,
    ) -> str:
        self.ops.append(Op(name, kind, tuple(inputs), block, dict(attrs or {}), dict(arrays or {})))
        self.values[name] = spec
        return name

    def bits(self, name: str) -> AnyArray:
        unit = self.spec(name).unit
        assert unit is not None
        return self.arrays[unit].astype(np.int64)

    def unit(self, key: str, bits: AnyArray) -> str:
        return self.put("unit." + key, np.asarray(bits, dtype=np.int8))

    def conv(
        self,
        name: str,
        x: str,
        out: int,
        block: str,
        k: int = 1,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        *,
        unit: str | None = None,
        gain: float = 1.0,
        bias: float = 0.3,
        per_step: bool = False,
        kind: str = "conv",
    ) -> str:
        """A drawn convolution whose output has a standard deviation of about ``gain`` in real units."""
        steps, channels, height, width = self.spec(x).shape
        attrs = conv_attrs(stride, padding, dilation, groups)
        fan_in = channels // groups
        kernel = (k, k) if height > 1 else (1, 1)
        unit = unit or self.unit(name, np.full(out, STREAM_BITS) + self.rng.integers(-1, 1, out))
        bits = self.arrays[unit].astype(np.int64)
        shared = steps if per_step else 1
        size = conv_size((height, width), kernel, (stride, stride), (padding, padding), (dilation, dilation))
        level = 0.8 if kind != "image_conv" else 140.0
        taps = np.sqrt(fan_in * kernel[0] * kernel[1]) * level
        spread = np.minimum(50.0, gain * 2.0**bits / taps)
        weight = np.clip(
            np.rint(self.rng.normal(0, 1, (shared, out, fan_in, *kernel)) * spread[:, None, None, None]), -127, 127
        )
        weight[self.rng.random(weight.shape) < 0.1] = 0
        shift = np.floor(np.log2(np.maximum(gain * 2.0**bits / (taps * spread), 1.0))) + np.zeros((shared, 1))
        shape = (out, *size) if kind == "image_conv" else (shared, out)
        scale = 2.0 ** (bits[:, None, None] if kind == "image_conv" else bits)
        drawn = np.rint(self.rng.normal(0.2, bias + 0.05, shape) * scale)
        arrays = {
            "weight": self.put(name + ".weight", weight.astype(np.int8)),
            "shift": self.put(name + ".shift", shift.astype(np.int8)),
            # The map of an image convolution has the size of its phase's image.
            "bias": self.put(name + ".bias" + f".{self.name}" * (kind == "image_conv"), drawn.astype(np.int32)),
        }
        value = "logits" if kind == "head_out" else "stream"
        return self.op(name, kind, [x], block, TensorSpec(value, (steps, out, *size), unit), attrs, arrays)

    def ni_lif(self, name: str, x: str, block: str, steps: int | None = None, offset: str | None = None) -> str:
        """Rounding thresholds of the stream's unit; drawn decays; ``offset`` names a drawn positional embedding."""
        spec = self.spec(x)
        steps = steps or spec.shape[0]
        bits = self.bits(x)
        arrays = {"thresholds": self.put(f"thresholds.{spec.unit}", round_thresholds(bits))}
        if offset is not None:
            drawn = np.rint(self.rng.normal(0, 0.5, (steps, *spec.shape[1:])) * 2.0 ** bits[:, None, None])
            arrays["offset"] = self.put(offset, drawn.astype(np.int32))
        if steps > 1:
            arrays["reset"] = self.put(f"reset.{spec.unit}", (1 << (bits - 2)).astype(np.int32))
            arrays["decay"] = self.put(
                f"{name}.decay.{steps}", self.rng.integers(700, 1500, steps - 1).astype(np.uint16)
            )
        return self.op(name, "ni_lif", [x], block, spikes((steps, *spec.shape[1:])), {"steps": steps}, arrays)

    def add(self, name: str, a: str, b: str, block: str) -> str:
        first, second = self.spec(a), self.spec(b)
        steps = max(first.shape[0], second.shape[0])
        return self.op(name, "add", [a, b], block, TensorSpec("stream", (steps, *first.shape[1:]), first.unit))

    def pool(self, name: str, x: str, kernel: int, block: str) -> str:
        t, c, h, w = self.spec(x).shape
        finer = self.bits(x) + 2 * (kernel.bit_length() - 1)
        unit = self.unit(name, finer)
        return self.op(
            name,
            "avg_pool",
            [x],
            block,
            TensorSpec("stream", (t, c, h // kernel, w // kernel), unit),
            {"kernel": kernel},
        )

    def up(self, name: str, x: str, factor: int, block: str, unit: str) -> str:
        """Upsampling, then the requantisation back to ``unit``."""
        t, c, h, w = self.spec(x).shape
        finer = self.bits(x) + 2 * factor.bit_length()
        shape = (t, c, h * factor, w * factor)
        wide = self.op(
            name, "upsample", [x], block, TensorSpec("stream", shape, self.unit(name, finer)), {"factor": factor}
        )
        shift = finer - self.arrays[unit].astype(np.int64)
        key = self.put(name + ".requantise.shift", shift.astype(np.int8))
        return self.op(
            name + ".requantise", "requantise", [wide], block, TensorSpec("stream", shape, unit), None, {"shift": key}
        )

    def key_value(self, name: str, k: str, v: str, heads: int, block: str) -> str:
        t, c, _, _ = self.spec(k).shape
        shape = (t, heads, c // heads, self.spec(v).shape[1] // heads)
        return self.op(name, "key_value", [k, v], block, value_spec("memory", shape), {"heads": heads})

    def query(self, name: str, q: str, memory: str, heads: int, block: str, shift: int) -> str:
        t, _, h, w = self.spec(q).shape
        _, _, d, dv = self.spec(memory).shape
        scale = 2 * d**-0.5 / 64 / 2**shift
        spec = TensorSpec("stream", (t, heads * dv, h, w), None, scale)
        return self.op(name, "query", [q, memory], block, spec, {"heads": heads, "shift": shift})

    def query_spike(self, name: str, x: str, block: str, level: float, steps: int | None = None) -> str:
        """NI-LIF behind a query; ``level``: the real value taken as one spike (drawn networks need another gain)."""
        spec = self.spec(x)
        steps = steps or spec.shape[0]
        one = level / spec.scale
        limits = np.floor(one * (np.arange(4) + 0.5)) + 1
        arrays = {"thresholds": self.put(name + f".thresholds.{spec.shape[1]}.{steps}", limits.astype(np.int32)[None])}
        if steps > 1:
            arrays["reset"] = self.put(name + f".reset.{spec.shape[1]}", np.array([round(one / 4)], dtype=np.int32))
            arrays["decay"] = self.put(
                f"{name}.decay.{steps}", self.rng.integers(700, 1500, steps - 1).astype(np.uint16)
            )
        return self.op(name, "ni_lif", [x], block, spikes((steps, *spec.shape[1:])), {"steps": steps}, arrays)

    def finish(self) -> Phase:
        return Phase(self.name, self.inputs, tuple(self.ops), self.values, self.outputs)


@dataclass
class _Walk:
    """Adds the stages of the tracker to one phase."""

    b: PhaseBuilder
    dims: tuple[int, ...]
    size: tuple[int, int]
    steps: int
    head: int
    heads: int
    grid: tuple[int, int]
    tokens: int
    """of the larger grid of both phases"""
    dilation: int
    coarse: str
    """the stage whose memory a second, coarser query reads first"""

    @property
    def search(self) -> bool:
        return self.b.name == "search"

    def residual(self, prefix: str, x: str, y: str, block: str, tag: str) -> str:
        return self.b.add(f"{prefix}.{tag}", x, y, block)

    def down(self, name: str, x: str, out: int, stride: int) -> str:
        b, path = self.b, "encoder." + name
        s = b.ni_lif(path + ".encode_spike", x, name)
        return b.conv(path + ".encode_conv", s, out, name, 3, stride, 1)

    def sep_conv(self, path: str, x: str, block: str, k: int) -> str:
        b, c, unit = self.b, self.b.spec(x).shape[1], self.b.spec(x).unit
        s = b.ni_lif(path + ".spike1", x, block)
        y = b.conv(path + ".pwconv1", s, 2 * c, block, gain=1.5)
        s = b.ni_lif(path + ".spike2", y, block)
        y = b.conv(path + ".dwconv", s, 2 * c, block, k, 1, k // 2, groups=2 * c, gain=1.5)
        s = b.ni_lif(path + ".spike3", y, block)
        return b.conv(path + ".pwconv2", s, c, block, unit=unit, gain=0.5)

    def conv_block(self, name: str, x: str) -> str:
        b, path, c = self.b, "encoder." + name, self.b.spec(x).shape[1]
        unit = b.spec(x).unit
        x = self.residual(path, x, self.sep_conv(path + ".Conv", x, name, 7), name, "add1")
        s = b.ni_lif(path + ".spike1", x, name)
        y = b.conv(path + ".conv1", s, 4 * c, name, 3, 1, self.dilation, self.dilation, gain=1.5)
        s = b.ni_lif(path + ".spike2", y, name)
        return self.residual(path, x, b.conv(path + ".conv2", s, c, name, 3, 1, 1, unit=unit, gain=0.5), name, "add2")

    def mlp(self, path: str, x: str, block: str) -> str:
        b, c, unit = self.b, self.b.spec(x).shape[1], self.b.spec(x).unit
        s = b.ni_lif(path + ".fc1_spike", x, block)
        y = b.conv(path + ".fc1_conv", s, 4 * c, block, gain=1.5)
        s = b.ni_lif(path + ".fc2_spike", y, block)
        return b.conv(path + ".fc2_conv", s, c, block, unit=unit, gain=0.5)

    def projected(self, path: str, which: str, s: str, out: int, block: str) -> str:
        y = self.b.conv(f"{path}.{which}_conv", s, out, block, gain=1.2)
        return self.b.ni_lif(f"{path}.{which}_spike", y, block)

    def block(self, name: str, x: str) -> str:
        b, path, c = self.b, "encoder." + name, self.b.spec(x).shape[1]
        unit, side = b.spec(x).unit, "s" if self.search else "t"
        x = self.residual(path, x, self.sep_conv(path + ".conv", x, name + ".conv", 3), name + ".conv", "add_conv")
        attn, part = path + ".attn", name + ".attn"
        s = b.ni_lif(attn + ".head_spike", x, part, offset=f"{attn}.{side}_pos")
        q, k = self.projected(attn, "q", s, c, part), self.projected(attn, "k", s, c, part)
        v = self.projected(attn, "v", s, 4 * c, part)
        memory = b.key_value(attn + ".key_value", k, v, self.heads, part)
        o = b.query(attn + ".query", q, memory, self.heads, part, self.query_shift(c, b.spec(x).shape[0]))
        s = b.query_spike(attn + ".attn_spike", o, part, self.attention_level(c))
        x = self.residual(path, x, b.conv(attn + ".proj_conv", s, c, part, unit=unit, gain=0.5), part, "add_attn")
        return self.residual(path, x, self.mlp(path + ".mlp", x, name + ".mlp"), name + ".mlp", "add_mlp")

    def query_shift(self, channels: int, steps: int) -> int:
        """Left shift in front of a membrane: as far as the worst case of a few steps stays inside 24 bits."""
        if steps == 1:
            return 0
        room = INT24_MAX // (SPIKE_MAX**3 * self.tokens * channels // self.heads)
        return min(3, room.bit_length() - 2)

    def attention_level(self, channels: int) -> float:
        """Typical size of q k^T v for spikes of mean 1/2: the drawn network's own gain, so that spikes vary."""
        d = channels // self.heads
        return max(d * self.grid[0] * self.grid[1] / 64 * 2 * d**-0.5 * 0.12, 0.5)

    def pooled(self, path: str, x: str, block: str) -> tuple[str, int]:
        factor = self.b.spec(x).shape[2] // self.grid[0]
        return (x, 1) if factor == 1 else (self.b.pool(path + ".pool", x, factor, block), factor)

    def memorise(self, name: str, x: str) -> None:
        b, path, c = self.b, f"encoder.{name}.retriever", self.b.spec(x).shape[1]
        z, _ = self.pooled(path, x, name)
        s = b.ni_lif(path + ".head_spike", z, name, offset=path + ".t_pos")
        k, v = self.projected(path, "k", s, c, name), self.projected(path, "v", s, 4 * c, name)
        number = name.split(".")[1]
        b.outputs[f"memory.{number}"] = b.key_value(path + ".key_value", k, v, self.heads, name)

    def retrieve(self, name: str, x: str) -> str:
        b, path, c, t = self.b, f"encoder.{name}.retriever", self.b.spec(x).shape[1], self.steps
        unit, level = b.spec(x).unit, self.attention_level(c)
        memory = f"memory.{name.split('.')[1]}"
        b.inputs[memory] = value_spec("memory", (t, self.heads, c // self.heads, 4 * c // self.heads))
        z, factor = self.pooled(path, x, name)
        s = b.ni_lif(path + ".head_spike", z, name, offset=path + ".s_pos")
        u = b.conv(path + ".q_conv", s, c, name, gain=1.0)
        if name == self.coarse:
            u = self.coarsely(path + ".coarse", u, s, memory, name)
        q = b.ni_lif(path + ".q_spike", u, name, steps=t)
        a = b.query(path + ".query1", q, memory, self.heads, name, self.query_shift(c, t))
        s = b.query_spike(path + ".q_spike#2", a, name, level)
        a = b.conv(path + ".seg_responder_dw", s, 4 * c, name, 3, 1, 1, groups=4 * c, per_step=True, gain=1.2)
        s = b.ni_lif(path + ".seg_dw_spike", a, name)
        a = b.conv(path + ".seg_responder_pw", s, c, name, unit=b.spec(u).unit, per_step=True)
        a = b.add(path + ".short_cut", u, a, name)
        s = b.ni_lif(path + ".seg_pw_spike", a, name)
        a = b.conv(path + ".fuser", s, c, name)
        q = b.ni_lif(path + ".fuser_spike", a, name)
        a = b.query(path + ".query2", q, memory, self.heads, name, self.query_shift(c, t))
        s = b.query_spike(path + ".attn_spike", a, name, level)
        if t > 1:
            s = self.gate(path, s, name)
        y = b.conv(path + ".proj_conv", s, c, name, gain=0.5, unit=unit)
        if factor > 1:
            assert unit is not None
            y = b.up(path + ".up", y, factor, name, unit)
        x = self.residual(f"encoder.{name}", x, y, name, "add_retriever")
        return self.residual(
            f"encoder.{name}", x, self.mlp(f"encoder.{name}.mlp", x, name + ".mlp"), name + ".mlp", "add_mlp"
        )

    def coarsely(self, path: str, u: str, s: str, memory: str, block: str) -> str:
        """``u`` plus what every second position of ``s`` finds in the memory, upsampled: a query of another size."""
        b, c, unit = self.b, self.b.spec(u).shape[1], self.b.spec(u).unit
        assert unit is not None
        q = b.ni_lif(path + ".spike", b.conv(path + ".conv", s, c, block, stride=2), block, steps=self.steps)
        a = b.query(path + ".query", q, memory, self.heads, block, self.query_shift(c, self.steps))
        n = b.query_spike(path + ".query_spike", a, block, self.attention_level(c))
        y = b.up(path + ".up", b.conv(path + ".proj", n, c, block, unit=unit, gain=0.5), 2, block, unit)
        return b.add(path + ".add", u, y, block)

    def gate(self, path: str, s: str, block: str) -> str:
        b = self.b
        t, c, h, w = b.spec(s).shape
        moved = b.op(path + ".gate.transpose", "gate_transpose", [s], block, spikes((t, h * w, 1, c)))
        y = b.conv(path + ".gate.mlp.0", moved, h * w // 2, block)
        n = b.ni_lif(path + ".gate.mlp.1", y, block)
        y = b.conv(path + ".gate.mlp.2", n, 1, block)
        table = np.rint(2.0**GATE_BITS * np.exp(-np.arange(64) / 8)).astype(np.int32)
        key = b.put("gate.table", table)
        unit = b.unit(path + ".gate", np.zeros(c, dtype=np.int64))
        spec = TensorSpec("stream", (1, c, h, w), unit)
        g = b.op(path + ".gate", "gate", [y, s], block, spec, {"shift": STREAM_BITS - 3}, {"table": key})
        key = b.put("gate.thresholds", np.array([[1, UNREACHABLE, UNREACHABLE, UNREACHABLE]], dtype=np.int32))
        return b.op(
            path + ".gate_spike",
            "ni_lif",
            [g],
            block,
            spikes((1, c, h, w)),
            {"steps": 1},
            {"thresholds": key},
        )

    def decode(self, x: str) -> None:
        b = self.b
        s = b.ni_lif("decoder.spike", x, "head")
        for part, out in (("ctr", 1), ("offset", 2), ("size", 2)):
            y, width = s, self.head
            for i in range(1, 5):
                c = b.conv(f"decoder.conv{i}_{part}", y, max(width, 1), "head", 3, 1, 1, gain=1.5)
                y = b.ni_lif(f"decoder.{part}{i}_spike", c, "head")
                width //= 2
            b.outputs[part] = b.conv(f"decoder.conv5_{part}", y, out, "head", kind="head_out")

    def run(self, stages: Sequence[str]) -> Phase:
        b, d = self.b, self.dims
        b.inputs["image"] = TensorSpec("image", (1 if self.search else self.steps, 3, *self.size), top=255)
        x = b.conv("encoder.downsample1_1.encode_conv", "image", d[0] // 2, "downsample1_1", 7, 2, 3, kind="image_conv")
        widths = {"downsample1_2": d[0], "downsample2": d[1], "downsample3": d[2], "downsample4": d[3]}
        for name in stages:
            if name.startswith("ConvBlock"):
                x = self.conv_block(name, x)
            elif name in widths:
                x = self.down(name, x, widths[name], 1 if name == "downsample4" else 2)
            elif name.startswith("block"):
                x = self.block(name, x)
            elif self.search:
                x = self.retrieve(name, x)
            else:
                self.memorise(name, x)
        if self.search:
            self.decode(x)
        return b.finish()


def _prune(phase: Phase) -> Phase:
    """Without operations that no output needs (behind the last memory of a template phase)."""
    needed = set(phase.outputs.values())
    kept: list[Op] = []
    for op in reversed(phase.ops):
        if op.name in needed:
            kept.append(op)
            needed.update(op.inputs)
    ops = tuple(reversed(kept))
    return Phase(phase.name, phase.inputs, ops, {op.name: phase.values[op.name] for op in ops}, phase.outputs)


def tracker_program(
    seed: int,
    dims: tuple[int, ...],
    resolution: int | Mapping[str, tuple[int, int]],
    steps: int,
    head: int,
    *,
    heads: int = 8,
    stages: Sequence[str] = OFFICIAL_STAGES,
    dilation: int = 1,
    coarse: str = "",
) -> Program:
    """A drawn program with the operations and shapes of a SpikeTrack configuration.

    ``resolution``: side of both images, or (height, width) by phase. ``coarse``: a stage that queries its memory twice.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, AnyArray] = {}
    if isinstance(resolution, int):
        resolution = dict.fromkeys(("template", "search"), (resolution, resolution))
    reduced = 2 ** (1 + sum(s in ("downsample1_2", "downsample2", "downsample3") for s in stages))
    grids = {name: (height // reduced, width // reduced) for name, (height, width) in resolution.items()}
    tokens = max(height * width for height, width in grids.values())
    phases = {}
    for name in ("template", "search"):
        b = PhaseBuilder(name, rng, arrays)
        walk = _Walk(b, dims, resolution[name], steps, head, heads, grids[name], tokens, dilation, coarse)
        phases[name] = _prune(walk.run(stages))
    return Program(phases, arrays, states_of(phases), meta={"origin": "drawn", "seed": seed})


RANDOM_SIZES = {"template": (24, 40), "search": (32, 16)}
"""Height and width differ, and the template has more tokens (3 x 5) than the search image (4 x 2)."""


def random_program(seed: int, steps: int = 3) -> Program:
    """Small, legal, with every operation kind (``gate`` and ``gate_transpose`` only at ``steps`` > 1).

    ``memory.2`` is read by queries of two sizes, the smaller one first, and each memory was written from more tokens
    than any query has: no size of a query bounds it.
    """
    stages = ("ConvBlock1_1.0", "downsample1_2", "mrm.0", "downsample2", "mrm.2", "block3.0", "mrm.3")
    heads = (2, 4)[seed % 2]
    dims = (16, 16) if seed % 3 else (16, 24)
    dims += dims[1:] * 2
    return tracker_program(
        seed, dims, RANDOM_SIZES, steps, 16, heads=heads, stages=stages, dilation=1 + seed % 2, coarse="mrm.2"
    )


def memory_tokens(program: Program, name: str) -> int:
    """Positions from which the phase that writes memory ``name`` adds it up: an entry is at most 16 of each."""
    writer = next(phase for phase in program.phases.values() if name in phase.outputs)
    op = next(op for op in writer.ops if op.name == writer.outputs[name])
    return int(np.prod(writer.spec(op.inputs[0]).shape[2:]))


def random_inputs(program: Program, seed: int) -> dict[str, dict[str, AnyArray]]:
    """Phase -> input -> drawn integers: pixels 0..255, memory entries up to 4 per template token."""
    rng = np.random.default_rng(seed)
    return {
        name: {
            key: rng.integers(0, 256, spec.shape).astype(np.uint8)
            if spec.kind == "image"
            else rng.integers(0, 4 * memory_tokens(program, key) + 1, spec.shape).astype(np.int32)
            for key, spec in phase.inputs.items()
        }
        for name, phase in program.phases.items()
    }
