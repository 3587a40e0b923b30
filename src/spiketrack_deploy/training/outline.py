"""The program of a configuration without its weights: operations, shapes and wiring, made in a millisecond.

This module decides nothing: it spells what the front end and the lowering would make of a network of one template, and
a test holds that populations, synapses and levels of both are the same. All weights are taken as not zero. It must not
know chips. Retrievers in front of ``downsample3`` are left out: whether their stream is rounded depends on weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.spiketrack.names import IMAGE, SEARCH, TEMPLATE, block_of, state_name
from spiketrack_deploy.program.types import (
    SPIKE_MAX,
    AnyArray,
    Cadence,
    Op,
    Phase,
    Program,
    TensorSpec,
    states_of,
)
from spiketrack_deploy.trackers.spiketrack.config import AFTER_DOWNSAMPLE4, TrackerConfig
from spiketrack_deploy.trackers.spiketrack.head import LAYERS

STAGES_LEFT_OUT = ("mrm.0", "mrm.1", "downsample4", *AFTER_DOWNSAMPLE4)
_BRANCHES = (("ctr", 1), ("offset", 2), ("size", 2))


def outline(config: TrackerConfig) -> Program:
    """Both phases of ``config``. InputError: several templates, or a stage of :data:`STAGES_LEFT_OUT`."""
    beyond = [stage for stage in config.walk if stage in STAGES_LEFT_OUT]
    if config.templates > 1 or beyond:
        what = f"the stage {beyond[0]}" if beyond else f"{config.templates} templates"
        raise InputError(f"{config.name}: only layouts of one template and without {what} can be outlined")
    template, search = _Phase(config), _Phase(config)
    last = max((i for i, stage in enumerate(config.walk) if stage.startswith("mrm.")), default=-1)
    for index, stage in enumerate(config.walk):
        search.stage(stage)
        if index <= last:
            template.stage(stage, template=True)
    search.head()
    phases = {
        TEMPLATE: template.phase(TEMPLATE, Cadence(start=True, every=None)),
        SEARCH: search.phase(SEARCH, Cadence()),
    }
    return Program(phases, {**template.arrays, **search.arrays}, states_of(phases))


@dataclass
class _Phase:
    """Operations in execution order. ``stream``: the value that the next stage reads."""

    config: TrackerConfig
    ops: list[Op] = field(default_factory=list)
    values: dict[str, TensorSpec] = field(default_factory=dict)
    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    arrays: dict[str, AnyArray] = field(default_factory=dict)
    stream: str = IMAGE

    def __post_init__(self) -> None:
        side = self.config.resolution
        self.inputs[IMAGE] = TensorSpec("image", (1, 3, side, side), top=255)

    def phase(self, name: str, cadence: Cadence) -> Phase:
        return Phase(name, self.inputs, tuple(self.ops), self.values, self.outputs, cadence)

    def shape(self, name: str) -> tuple[int, ...]:
        return (self.inputs.get(name) or self.values[name]).shape

    def add(
        self, name: str, kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], attrs: Mapping[str, int] = {}
    ) -> str:
        arrays = {"weight": f"{name}.weight"} if kind in ("image_conv", "conv", "head_out") else {}
        spikes = kind == "ni_lif"
        self.ops.append(Op(name, kind, inputs, block_of(name), attrs, arrays))
        self.values[name] = TensorSpec("spikes" if spikes else "stream", shape, top=SPIKE_MAX if spikes else 0)
        return name

    def fire(self, name: str, source: str) -> str:
        return self.add(name, "ni_lif", (source,), self.shape(source), {"steps": 1})

    def sum(self, name: str, *sources: str) -> str:
        return self.add(name, "add", sources, self.shape(sources[0]))

    def conv(
        self, name: str, source: str, out: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False
    ) -> str:
        _, channels, height, width = self.shape(source)
        groups = channels if depthwise else 1
        self.arrays[f"{name}.weight"] = np.broadcast_to(np.int8(1), (1, out, channels // groups, kernel, kernel))
        attrs = {"groups": groups}
        for axis in "hw":
            attrs |= {f"stride_{axis}": stride, f"padding_{axis}": kernel // 2, f"dilation_{axis}": 1}
        kind = "image_conv" if source == IMAGE else "head_out" if ".conv5_" in name else "conv"
        return self.add(name, kind, (source,), (1, out, height // stride, width // stride), attrs)

    def stage(self, stage: str, *, template: bool = False) -> None:
        width, path = self.config.width(stage), f"encoder.{stage}"
        if stage.startswith("downsample"):
            first = self.stream == IMAGE
            read = IMAGE if first else self.fire(f"{path}.encode_spike", self.stream)
            kernel = 7 if first else 3
            self.stream = self.conv(f"{path}.encode_conv", read, width, kernel, self.config.stride(stage))
        elif stage.startswith("ConvBlock"):
            self._separable(f"{path}.Conv", width, 7)
            y = self.conv(
                f"{path}.conv1", self.fire(f"{path}.spike1", self.stream), self.config.conv_expansion * width, 3
            )
            y = self.conv(f"{path}.conv2", self.fire(f"{path}.spike2", y), width, 3)
            self.stream = self.sum(f"{path}.sum_conv2", self.stream, y)
        elif template and stage.startswith("mrm."):
            self._write(stage, f"{path}.retriever", width)
        elif stage.startswith("mrm."):
            self._retrieve(stage, f"{path}.retriever", width)
            self._mlp(f"{path}.mlp", width)
        else:
            self._separable(f"{path}.conv", width, 3)
            self._attend(f"{path}.attn", width)
            self._mlp(f"{path}.mlp", width)

    def _join(self, path: str, y: str) -> None:
        """The residual path ``path`` ends in the stream."""
        owner, _, part = path.rpartition(".")
        self.stream = self.sum(f"{owner}.sum_{part}", self.stream, y)

    def _separable(self, path: str, width: int, kernel: int) -> None:
        hidden = self.config.sep_expansion * width
        y = self.conv(f"{path}.pwconv1", self.fire(f"{path}.spike1", self.stream), hidden)
        y = self.conv(f"{path}.dwconv", self.fire(f"{path}.spike2", y), hidden, kernel, depthwise=True)
        self._join(path, self.conv(f"{path}.pwconv2", self.fire(f"{path}.spike3", y), width))

    def _mlp(self, path: str, width: int) -> None:
        y = self.conv(
            f"{path}.fc1_conv", self.fire(f"{path}.fc1_spike", self.stream), self.config.mlp_expansion * width
        )
        self._join(path, self.conv(f"{path}.fc2_conv", self.fire(f"{path}.fc2_spike", y), width))

    def _key_value(self, path: str, source: str, width: int) -> str:
        made = {}
        for which in "kv":
            out = self.config.value_ratio * width if which == "v" else width
            made[which] = self.conv(f"{path}.{which}_conv", source, out)
            made[which] = self.fire(f"{path}.{which}_spike", made[which])
        name, heads = f"{path}.key_value", self.config.heads
        self.add(name, "key_value", (made["k"], made["v"]), self._matrix(width), {"heads": heads})
        return name

    def _matrix(self, width: int) -> tuple[int, ...]:
        heads = self.config.heads
        return (1, heads, width // heads, self.config.value_ratio * width // heads)

    def _query(self, name: str, q: str, memory: str, width: int) -> str:
        _, _, height, columns = self.shape(q)
        shape = (1, self.config.value_ratio * width, height, columns)
        return self.add(name, "query", (q, memory), shape, {"heads": self.config.heads})

    def _write(self, stage: str, path: str, width: int) -> None:
        head = self.fire(f"{path}.head_spike", self.stream)
        self.outputs[state_name(int(stage[4:]))] = self._key_value(path, head, width)

    def _retrieve(self, stage: str, path: str, width: int) -> None:
        memory, values = state_name(int(stage[4:])), self.config.value_ratio * width
        self.inputs[memory] = TensorSpec("memory", self._matrix(width))
        short = self.conv(f"{path}.q_conv", self.fire(f"{path}.head_spike", self.stream), width)
        y = self._query(f"{path}.query", self.fire(f"{path}.q_spike", short), memory, width)
        y = self.conv(f"{path}.seg_responder_dw", self.fire(f"{path}.q_spike#2", y), values, 3, depthwise=True)
        y = self.conv(f"{path}.seg_responder_pw", self.fire(f"{path}.seg_dw_spike", y), width)
        y = self.fire(f"{path}.seg_pw_spike", self.sum(f"{path}.sum_shortcut", short, y))
        y = self.fire(f"{path}.fuser_spike", self.conv(f"{path}.fuser", y, width))
        y = self.fire(f"{path}.attn_spike", self._query(f"{path}.query#2", y, memory, width))
        self._join(path, self.conv(f"{path}.proj_conv", y, width))

    def _attend(self, path: str, width: int) -> None:
        head = self.fire(f"{path}.head_spike", self.stream)
        q = self.fire(f"{path}.q_spike", self.conv(f"{path}.q_conv", head, width))
        memory = self._key_value(path, head, width)
        y = self.fire(f"{path}.attn_spike", self._query(f"{path}.query", q, memory, width))
        self._join(path, self.conv(f"{path}.proj_conv", y, width))

    def head(self) -> None:
        read = self.fire("decoder.spike", self.stream)
        for branch, outputs in _BRANCHES:
            y = read
            for layer in range(LAYERS):
                y = self.conv(f"decoder.conv{layer + 1}_{branch}", y, self.config.head_width >> layer, 3)
                y = self.fire(f"decoder.{branch}{layer + 1}_spike", y)
            self.outputs[branch] = self.conv(f"decoder.conv5_{branch}", y, outputs)
