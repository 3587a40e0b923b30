"""First pass: NIR nodes and cuts become operations, and the T steps that NIR unrolls in space become one time axis.

This module decides what a group of NIR nodes means: four Thresholds summed into a Scale(1/4) are a NI-LIF neuron, a
Scale(1) with several sources is a sum, Scale(sigma)/Scale(-sigma) around a neuron are its membrane. The step suffix
``@t<k>`` of the node names (nir_graph's convention) only says which nodes are the same neuron at another step.
It must not know about integers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.lowering.network import LEVELS, FloatNetwork, FloatOp, FloatPhase, check_network
from spiketrack_deploy.nir_graph.graph import Cut, Graph, constant_value
from spiketrack_deploy.program.ops.conv import conv_size
from spiketrack_deploy.program.types import AnyArray

_NAME = re.compile(r"^(template|search)\.(?P<stem>.+)@t(?P<step>\d+)(?:\.(?P<part>.+))?$")
_BLOCK = re.compile(
    r"^(?:encoder\.)?(?P<block>downsample\w+|ConvBlock\w+\.\d+|block\d\.\d+|mrm\.\d+)(?:\.(?P<part>\w+))?"
)
_STEP_LIST = re.compile(r"(\.seg_responder_(?:dw|pw))\.\d+$")
"""The responders are lists of modules, one per template: one operation with weights per step."""
Ref = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation at one time step: kind, what it reads, parameters."""

    kind: str
    inputs: tuple[Ref, ...]
    params: Mapping[str, Any]


def block_of(name: str) -> str:
    """Block of the network that an operation belongs to: ``block3.0.attn``, ``mrm.2.retriever``, ``head`` ..."""
    match = _BLOCK.match(name)
    if not match:
        return "head"
    block, part = match["block"], match["part"] or ""
    if block.startswith(("block", "mrm")):
        return f"{block}.{part.removeprefix('sum_')}"
    return block


def gain_of(params: Mapping[str, Any]) -> float | None:
    """Attention gain of a query: a number, or None for the official ``2 / sqrt(head_dim)``, which may be irrational."""
    gain = params.get("gain")
    return None if gain is None else float(gain)


class _Reader:
    """Reads one phase of the graph into steps."""

    def __init__(self, graph: Graph, cuts: Sequence[Cut], phase: str) -> None:
        self.graph, self.phase = graph, phase
        self.cuts = [c for c in cuts if c.id.startswith(phase + ".")]
        self.by_id = {c.id: c for c in self.cuts}
        self.source_cut = {name: c for c in self.cuts for name in c.outputs}
        self.preds: dict[str, list[str]] = {}
        for a, b in graph.edges:
            self.preds.setdefault(b, []).append(a)
        self.steps: dict[Ref, Step] = {}
        self.outputs: dict[str, str] = {}

    def fail(self, name: str, what: str) -> InputError:
        return InputError(f"NIR node {name}: {what}; the graph is not a SpikeTrack export of this version")

    def parse(self, name: str) -> Ref:
        match = _NAME.match(name)
        if not match:
            raise self.fail(name, "its name has no phase and step")
        return _STEP_LIST.sub(r"\1", match["stem"]), int(match["step"])

    def cut_ref(self, cut: Cut) -> Ref:
        stem, step = self.parse(cut.id)
        if cut.op == "normalise":
            return "image", step
        if cut.op == "memory_read":
            return f"memory.{int(cut.params['memory'])}", int(cut.params["step"])
        match = _NAME.match(cut.id)
        part = match["part"] if match else None
        return f"{stem}.{part or cut.op}", step

    def producer(self, name: str) -> str:
        """The one node that feeds an Output node."""
        sources = self.preds.get(name, [])
        if len(sources) != 1:
            raise self.fail(name, f"has {len(sources)} sources instead of one")
        return sources[0]

    def value(self, name: str) -> Ref:
        """Which value a node's output is."""
        node = self.graph.nodes[name]
        if node.kind == "Input":
            return self.cut_ref(self.source_cut[name]) if name in self.source_cut else self._lost(name)
        return self.parse(name)

    def _lost(self, name: str) -> Ref:
        raise self.fail(name, "is an Input that no cut writes")

    def cut_value(self, text: str) -> Ref:
        """A cut's input: an Output node or another cut's value."""
        if text.startswith("cut:"):
            if text[4:] not in self.by_id:
                raise self.fail(text, "names a cut that does not exist")
            return self.cut_ref(self.by_id[text[4:]])
        return self.value(self.producer(text))

    def read(self) -> None:
        for cut in self.cuts:
            self.read_cut(cut)
        for name, node in self.graph.nodes.items():
            if not name.startswith(self.phase + ".") or node.kind in ("Input", "Output", "Threshold"):
                continue
            self.read_node(name)

    def read_cut(self, cut: Cut) -> None:
        inputs = tuple(self.cut_value(i) for i in cut.inputs)
        if cut.op == "memory_write":
            self.outputs[f"memory.{int(cut.params['memory'])}"] = inputs[0][0]
        elif cut.op == "decode":
            self.outputs.update({k: ref[0] for k, ref in zip(("ctr", "offset", "size"), inputs, strict=True)})
        elif cut.op in ("key_value", "query", "upsample", "transpose", "gate"):
            kind = {"transpose": "gate_transpose"}.get(cut.op, cut.op)
            self.steps[self.cut_ref(cut)] = Step(kind, inputs, dict(cut.params))
        elif cut.op not in ("normalise", "memory_read"):
            raise InputError(f"cut {cut.id}: unknown operation {cut.op!r}; the cuts file is from another version")

    def read_node(self, name: str) -> None:
        node, sources = self.graph.nodes[name], self.preds.get(name, [])
        kinds = [self.graph.nodes[s].kind for s in sources]
        if node.kind in ("Conv2d", "Conv1d"):
            self.one_source(name, sources)
            self.steps[self.parse(name)] = Step("conv", (self.value(sources[0]),), conv_params(node.params))
        elif node.kind == "AvgPool2d":
            self.one_source(name, sources)
            kernel = int(np.ravel(node.params["kernel_size"])[0])
            self.steps[self.parse(name)] = Step("avg_pool", (self.value(sources[0]),), {"kernel": kernel})
        elif node.kind == "Scale":
            if kinds and all(k == "Threshold" for k in kinds):
                self.steps[self.parse(name)] = self.neuron(name, sources)
            elif not self.is_membrane(name):
                self.steps[self.parse(name)] = Step(
                    "add", tuple(self.value(s) for s in self.stream_first(name, sources)), {}
                )
        else:
            raise self.fail(name, f"is a {node.kind}, which a SpikeTrack graph does not have")

    def one_source(self, name: str, sources: list[str]) -> None:
        if len(sources) != 1:
            raise self.fail(name, f"has {len(sources)} sources instead of one")

    def constant(self, name: str) -> float:
        """The one value of a Scale node."""
        value = constant_value(self.graph.nodes[name].array("scale"))
        if value is None:
            raise self.fail(name, "scales its elements differently")
        return value

    def is_membrane(self, name: str) -> bool:
        """A leak or reset (a factor other than 1), or a junction that one of them feeds."""
        return self.constant(name) != 1.0 or any(
            self.graph.nodes[s].kind == "Scale" and self.is_leak(s) for s in self.preds.get(name, [])
        )

    def is_leak(self, name: str) -> bool:
        kinds = {self.graph.nodes[s].kind for s in self.preds.get(name, [])}
        return self.constant(name) != 1.0 and kinds != {"Threshold"}

    def stream_first(self, name: str, sources: list[str]) -> list[str]:
        """The residual stream, which is passed on, before the phase that is added to it: a sum's source that the
        other needs.
        """
        if len(sources) != 2:
            raise self.fail(name, f"sums {len(sources)} values; sums of two are known")
        first, second = sources
        return (
            [first, second]
            if self.reaches(first, second, name) or not self.reaches(second, first, name)
            else [second, first]
        )

    def reaches(self, start: str, end: str, within: str) -> bool:
        """Whether ``end`` depends on ``start`` inside the block of ``within`` (through cuts too)."""
        block = block_of(self.parse(within)[0])
        pending, seen = [end], set()
        while pending:
            node = pending.pop()
            if node == start:
                return True
            if node in seen:
                continue
            seen.add(node)
            if node in self.source_cut:
                for text in self.source_cut[node].inputs:
                    pending.extend(self.cut_sources(text))
            elif node == end or block_of(self.parse(node)[0]) == block:
                pending.extend(self.preds.get(node, []))
        return False

    def cut_sources(self, text: str) -> list[str]:
        if not text.startswith("cut:"):
            return [self.producer(text)]
        return [s for t in self.by_id[text[4:]].inputs for s in self.cut_sources(t)]

    def neuron(self, name: str, bank: list[str]) -> Step:
        """Four Thresholds on one source, at the levels of a NI-LIF shifted by one offset per neuron, summed to
        quarters.
        """
        if len(bank) != 4 or self.constant(name) != 0.25:
            raise self.fail(name, "is not a bank of four thresholds in quarters")
        sources = {tuple(self.preds.get(b, ())) for b in bank}
        if len(sources) != 1 or len(next(iter(sources))) != 1:
            raise self.fail(name, "has thresholds on different sources")
        arrays = [self.graph.nodes[b].array("threshold") for b in bank]
        levels = sorted((_collapse(a) for a in arrays), key=lambda a: float(a.flat[0]))
        offset = LEVELS[0] - levels[0]
        for level, array in zip(LEVELS[1:], levels[1:], strict=True):
            if not np.all(np.abs(level - array - offset) <= 1e-9 * (1.0 + np.abs(offset))):
                raise self.fail(name, "has thresholds that are not those of a NI-LIF neuron")
        shifted = np.broadcast_to(offset, arrays[0].shape) if np.any(offset) else None
        source, sigma = next(iter(sources))[0], 0.0
        step = self.parse(name)[1]
        drive = source
        if step and self.graph.nodes[source].kind == "Scale" and self.is_membrane(source):
            drive, sigma = self.membrane(source)
        elif step:
            raise self.fail(name, "has no membrane although it is not the first step")
        return Step("ni_lif", (self.value(drive),), {"offset": shifted, "sigma": sigma})

    def membrane(self, junction: str) -> tuple[str, float]:
        """``x + sigma * m_before - sigma * s_before``: the drive x and sigma."""
        sources = self.preds[junction]
        leaks = {s: self.constant(s) for s in sources if self.graph.nodes[s].kind == "Scale" and self.is_leak(s)}
        drives = [s for s in sources if s not in leaks]
        factors = sorted(leaks.values())
        if len(drives) != 1 or len(factors) != 2 or factors[0] != -factors[1] or not 0 < factors[1] < 1:
            raise self.fail(junction, "is not a NI-LIF membrane (drive, leak and reset by the same factor)")
        return drives[0], factors[1]


def _collapse(array: AnyArray) -> AnyArray:
    """One element where the array is a broadcast constant, so that comparing costs nothing."""
    value = constant_value(array)
    return array if value is None else np.full((1,) * array.ndim, value)


def conv_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """NIR convolution parameters in (height, width) pairs; a Conv1d over positions becomes a 1-row Conv2d."""
    weight = np.asarray(params["weight"], dtype=np.float64)
    one_d = weight.ndim == 3

    def pair(key: str, fill: int) -> tuple[int, int]:
        values = [int(v) for v in np.ravel(params[key])]
        if one_d:
            return fill, values[0]
        return (values[0], values[-1])

    if one_d:
        weight = weight[:, :, None, :]
    return {
        "weight": weight,
        "bias": np.asarray(params["bias"], dtype=np.float64),
        "stride": pair("stride", 1),
        "padding": pair("padding", 0),
        "dilation": pair("dilation", 1),
        "groups": int(np.ravel(params["groups"])[0]),
    }


def _stack(arrays: list[AnyArray]) -> AnyArray:
    """``[1, ...]`` where all steps share one array, else ``[T, ...]``."""
    if all(a is arrays[0] or np.array_equal(a, arrays[0]) for a in arrays[1:]):
        return arrays[0][None]
    return np.stack(arrays)


def _rolled_params(kind: str, steps: list[Step]) -> dict[str, Any]:
    first = dict(steps[0].params)
    if kind == "conv":
        first["weight"] = _stack([s.params["weight"] for s in steps])
        first["bias"] = _stack([s.params["bias"] for s in steps])
        if first["weight"].shape[0] != first["bias"].shape[0]:
            count = len(steps)
            first["weight"] = np.broadcast_to(first["weight"], (count, *first["weight"].shape[1:]))
            first["bias"] = np.broadcast_to(first["bias"], (count, *first["bias"].shape[1:]))
    elif kind == "ni_lif":
        offsets = [s.params["offset"] for s in steps]
        if any(o is not None for o in offsets):
            shape = next(o.shape for o in offsets if o is not None)
            first["offset"] = np.stack([np.zeros(shape) if o is None else o for o in offsets])
        first["sigma"] = np.array([s.params["sigma"] for s in steps[1:]])
    return first


def _out_shape(kind: str, params: Mapping[str, Any], steps: int, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    _, c, h, w = shapes[0]
    if kind == "conv":
        weight = params["weight"]
        return (
            steps,
            weight.shape[1],
            *conv_size((h, w), weight.shape[3:], params["stride"], params["padding"], params["dilation"]),
        )
    if kind == "avg_pool":
        return steps, c, h // params["kernel"], w // params["kernel"]
    if kind == "upsample":
        return steps, c, h * int(params["factor"]), w * int(params["factor"])
    if kind == "key_value":
        heads = int(params["heads"])
        return steps, heads, c // heads, shapes[1][1] // heads
    if kind == "query":
        return steps, shapes[1][1] * shapes[1][3], h, w
    if kind == "gate_transpose":
        return steps, h * w, 1, c
    if kind == "gate":
        return (1, *shapes[1][1:])
    return steps, c, h, w


def _roll(reader: _Reader, inputs: Mapping[str, tuple[int, ...]]) -> FloatPhase:
    """Group the steps of each stem, order them depth first from the outputs, infer shapes."""
    by_stem: dict[str, dict[int, Step]] = {}
    for (stem, step), item in reader.steps.items():
        by_stem.setdefault(stem, {})[step] = item
    ops: list[FloatOp] = []
    shapes: dict[str, tuple[int, ...]] = dict(inputs)

    def input_names(stem: str) -> tuple[str, ...]:
        names = []
        for refs in (by_stem[stem][s].inputs for s in sorted(by_stem[stem])):
            names.append(
                tuple(dict.fromkeys(r[0] for r in refs))
                if by_stem[stem][0].kind == "gate"
                else tuple(r[0] for r in refs)
            )
        if any(n != names[0] for n in names):
            raise InputError(
                f"{reader.phase} {stem}: its steps read different values {sorted(set(names))}; the NIR graph is "
                "not a SpikeTrack export"
            )
        return names[0]

    def emit(stem: str) -> None:
        entries = [by_stem[stem][s] for s in sorted(by_stem[stem])]
        kinds = {e.kind for e in entries}
        if len(kinds) != 1 or sorted(by_stem[stem]) != list(range(len(entries))):
            raise InputError(
                f"{reader.phase} {stem}: its time steps are incomplete or of several kinds; the NIR graph is not a "
                "SpikeTrack export"
            )
        kind, names = entries[0].kind, input_names(stem)
        params = _rolled_params(kind, entries)
        final = "image_conv" if kind == "conv" and names[0] == "image" else "head_out" if stem in head else kind
        shapes[stem] = _out_shape(kind, params, len(entries), [shapes[n] for n in names])
        ops.append(FloatOp(stem, final, names, block_of(stem), shapes[stem], params))

    head = {reader.outputs[k] for k in ("ctr", "offset", "size") if k in reader.outputs}
    done = set(inputs)
    for root in (reader.outputs[k] for k in sorted(reader.outputs)):
        pending = [(root, False)]
        while pending:
            stem, ready = pending.pop()
            if stem in done:
                continue
            if stem not in by_stem:
                raise InputError(
                    f"{reader.phase} phase: {stem} is read but never computed; the NIR graph is not a SpikeTrack "
                    "export"
                )
            if ready:
                done.add(stem)
                emit(stem)
            else:
                pending.append((stem, True))
                pending.extend((n, False) for n in reversed(input_names(stem)) if n not in done)
    return FloatPhase(reader.phase, inputs, tuple(ops), dict(reader.outputs))


def _config(graph: Graph) -> Mapping[str, Any]:
    """The tracker configuration that the export wrote into the graph's metadata."""
    try:
        config = json.loads(graph.metadata["config"])
    except (KeyError, ValueError):
        raise InputError(
            "the NIR graph's metadata hold no tracker configuration; it is not a SpikeTrack export"
        ) from None
    if not isinstance(config, dict):
        raise InputError("the NIR graph's metadata hold no tracker configuration; it is not a SpikeTrack export")
    return config


def recognise(graph: Graph, cuts: Sequence[Cut]) -> FloatNetwork:
    """NIR graph and cuts -> :class:`FloatNetwork`; InputError names the node that does not fit."""
    normalise = next((c for c in cuts if c.op == "normalise"), None)
    if normalise is None:
        raise InputError("the cuts file has no `normalise` entry; the NIR graph is not a SpikeTrack export")
    readers = {name: _Reader(graph, cuts, name) for name in ("template", "search")}
    for reader in readers.values():
        reader.read()
    phases = {}
    memory_shapes: dict[str, tuple[int, ...]] = {}
    for name, reader in readers.items():
        images = sum(1 for c in reader.cuts if c.op == "normalise")
        shape = tuple(
            int(n)
            for n in next(
                np.ravel(graph.nodes[o].params["shape"]) for c in reader.cuts if c.op == "normalise" for o in c.outputs
            )
        )
        wanted = {f"memory.{int(c.params['memory'])}" for c in reader.cuts if c.op == "memory_read"}
        inputs = {"image": (images, *shape)} | {k: memory_shapes[k] for k in sorted(wanted)}
        phases[name] = _roll(reader, inputs)
        if name == "template":
            found = {op.name: op.shape for op in phases[name].ops}
            memory_shapes = {public: found[value] for public, value in phases[name].outputs.items()}
    network = FloatNetwork(
        phases,
        np.asarray(normalise.params["mean"], dtype=np.float64),
        np.asarray(normalise.params["std"], dtype=np.float64),
        _config(graph),
    )
    check_network(network)
    return network
