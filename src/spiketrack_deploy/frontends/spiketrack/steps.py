"""What every node and every cut of one phase means: operations at single time steps.

This module decides what a group of NIR nodes means: four Thresholds summed into a Scale(1/4) are a NI-LIF neuron, a
Scale(1) over two values is a sum, Scale(sigma) and Scale(-sigma) around a neuron are its membrane. Every parameter of
every node and cut is taken by somebody or refused by name, and so is every node that nothing claims. It must not know
integers, nor that the steps of one operation belong together (:mod:`roll`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiketrack_deploy.frontends.spiketrack.fold import STRICT_THRESHOLDS
from spiketrack_deploy.frontends.spiketrack.names import IMAGE, MAPS, Ref, parse, refusal, state_name
from spiketrack_deploy.nir_graph.cuts import NORMALISE
from spiketrack_deploy.nir_graph.graph import (
    CUT_PREFIX,
    Cut,
    FloatArray,
    Graph,
    Shape,
    compact,
    constant_value,
    phase_of,
)
from spiketrack_deploy.tracking.loop import CLAMP

LEVELS = len(STRICT_THRESHOLDS)
Inputs = tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation at one time step: kind, what it reads, parameters, shape of its value, the node or cut it is."""

    kind: str
    inputs: Inputs
    params: Mapping[str, Any]
    shape: Shape
    origin: str


class Fields:
    """The parameters of one node or cut, each to be taken once; what is left over is refused by name."""

    def __init__(self, owner: str, params: Mapping[str, Any]) -> None:
        self.owner, self._left = owner, dict(params)

    def take(self, field: str) -> Any:
        """The value of a field, whatever it is."""
        if field not in self._left:
            raise refusal(self.owner, f"field '{field}' is missing")
        return self._left.pop(field)

    def demand(self, field: str, want: Any, why: str) -> None:
        """Refuse a field that is not just ``want``."""
        value = self.take(field)
        if value != want:
            raise refusal(self.owner, f"field '{field}' is {value}, not {want}: {why}")

    def done(self) -> None:
        """Refuse what nobody took."""
        if self._left:
            raise refusal(self.owner, f"field '{next(iter(self._left))}' has no meaning here")


class PhaseReader:
    """Reads one phase of a graph whose shapes have been inferred.

    ``steps``: operation and time step -> what it is there. ``outputs``: map -> operation. ``written``: memory and
    time step -> the value.
    """

    def __init__(self, graph: Graph, cuts: Sequence[Cut], shapes: Mapping[str, Shape], phase: str) -> None:
        self.graph, self.shapes, self.phase = graph, shapes, phase
        self.cuts = {CUT_PREFIX + cut.id: cut for cut in cuts if phase_of(cut.id) == phase}
        self.filled = {name: reference for reference, cut in self.cuts.items() for name in cut.outputs}
        self.sources = graph.sources()
        self.unclaimed = {name for name in graph.nodes if phase_of(name) == phase}
        self.steps: dict[Ref, Step] = {}
        self.outputs: dict[str, str] = {}
        self.written: dict[Ref, Ref] = {}

    def read(self) -> None:
        """Read every cut and every node. InputError names the first that does not fit or that nothing claims."""
        for reference, cut in self.cuts.items():
            if cut.op not in _CUTS:
                raise refusal(reference, f"operation '{cut.op}' has no meaning here")
            fields = Fields(reference, cut.params)
            _CUTS[cut.op](self, cut, fields)
            fields.done()
        for name, node in self.graph.nodes.items():
            if name not in self.unclaimed:
                continue
            if node.kind in ("Input", "Output"):  # their shapes agree with what they carry, and a cut uses them
                self.unclaimed.discard(name)
            elif parse(name).part == "":
                if node.kind not in _NODES:
                    raise refusal(name, f"is a {node.kind}, which a SpikeTrack graph does not have")
                self.unclaimed.discard(name)
                fields = Fields(name, node.params)
                _NODES[node.kind](self, name, fields)
                fields.done()
        if self.unclaimed:
            raise refusal(min(self.unclaimed), "it is part of no neuron and no operation")

    def keep(self, kind: str, owner: str, inputs: Inputs, params: Mapping[str, Any], ref: Ref | None = None) -> None:
        """Note what ``owner`` does at its step."""
        name = parse(owner)
        where = (name.stem, name.step) if ref is None else ref
        if where in self.steps:
            raise refusal(owner, f"is {where[0]} of step {where[1]} a second time, after {self.steps[where].origin}")
        self.steps[where] = Step(kind, inputs, params, self.shapes[owner], owner)

    def only_source(self, name: str) -> str:
        """The one node that feeds ``name``."""
        sources = self.sources[name]
        if len(sources) != 1:
            raise refusal(name, f"has {len(sources)} sources instead of one")
        return sources[0]

    def value(self, name: str) -> Ref:
        """Which value a node's output is."""
        if name in self.filled:
            return self.cut_value(self.filled[name])
        parsed = parse(name)
        if self.graph.nodes[name].kind not in _NODES or parsed.part:
            raise refusal(name, "is read as if it were a whole value")
        return parsed.stem, parsed.step

    def cut_value(self, end: str) -> Ref:
        """Which value a cut's input is: an Output node's, or straight another cut's."""
        if end not in self.cuts:
            return self.value(self.only_source(end))
        cut, name = self.cuts[end], parse(end)
        if cut.op in NORMALISE:
            return IMAGE, name.step
        if cut.op == "memory_read":
            return state_name(cut.params["memory"]), name.step
        return f"{name.stem}.{name.part}", name.step

    def scale(self, name: str, fields: Fields | None = None) -> float:
        """The one value of a Scale node."""
        node = self.graph.nodes.get(name)
        if node is None or node.kind != "Scale":
            raise refusal(name, "is no Scale node")
        value = constant_value(compact((fields or Fields(name, node.params)).take("scale")))
        if value is None:
            raise refusal(name, "field 'scale' differs between elements")
        return value

    def membrane(self, neuron: str, junction: str) -> tuple[Ref, float]:
        """``x + sigma * m_before - sigma * s_before``: the drive x and sigma; m_before, s_before of the step before."""
        name = parse(neuron)
        before = f"{neuron.rpartition('@t')[0]}@t{name.step - 1}"
        leak, reset = f"{neuron}.leak", f"{neuron}.reset"
        if before not in self.graph.nodes or junction != f"{neuron}.m" or self.scale(junction) != 1.0:
            raise refusal(junction, f"is not the membrane of {neuron}, a plain sum behind step {name.step - 1}")
        drives = [source for source in self.sources[junction] if source not in (leak, reset)]
        if len(drives) != 1 or len(self.sources[junction]) != 3:
            raise refusal(junction, "is not drive, leak and reset of a NI-LIF membrane")
        sigma = self.scale(leak)
        if not 0 < sigma < 1 or self.scale(reset) != -sigma:
            raise refusal(leak, "is not the leak of a NI-LIF membrane (leak and reset by the same factor)")
        if self.only_source(reset) != before or self.only_source(leak) != self.only_source(f"{before}.k1"):
            raise refusal(neuron, f"its leak and reset are not fed by membrane and spikes of step {name.step - 1}")
        self.unclaimed -= {junction, leak, reset}
        return self.value(drives[0]), sigma


def check_id(cut: Cut) -> None:
    """Refuse an id that does not end in the operation, and a memory or step other than the one of the id."""
    reference = CUT_PREFIX + cut.id
    name = parse(reference)
    if not re.fullmatch(rf"{re.escape(cut.op)}(#\d+)?", name.part):
        raise refusal(reference, f"its id does not end in the operation, '.{cut.op}'")
    if cut.op == "decode" and name.step:
        raise refusal(reference, "its id names a step; the maps have one only")
    if cut.op in ("memory_write", "memory_read"):
        for field, want in (("step", name.step), ("memory", _memory_of(name.stem))):
            if cut.params.get(field) != want:
                raise refusal(reference, f"field '{field}' is {cut.params.get(field)}, not {want} as its id says")


def _memory_of(stem: str) -> int | None:
    found = re.fullmatch(r"encoder\.mrm\.(\d+)\.retriever", stem)
    return int(found[1]) if found else None


def _slot(fields: Fields) -> Ref:
    """Memory and step of a memory_write or memory_read (:func:`check_id` compared both with the id)."""
    return state_name(fields.take("memory")), fields.take("step")


def _read_conv(reader: PhaseReader, name: str, fields: Fields) -> None:
    """A convolution in (height, width) pairs; a Conv1d over (positions, channels) is a Conv2d of one column."""
    one_d = reader.graph.nodes[name].kind == "Conv1d"

    def pair(field: str, other: int) -> tuple[int, int]:
        value = fields.take(field)
        return (other, value) if one_d else (value[0], value[1])

    weight = np.asarray(fields.take("weight"), dtype=np.float64)
    params = {
        "weight": weight[:, :, None, :] if one_d else weight,
        "bias": np.asarray(fields.take("bias"), dtype=np.float64),
        "stride": pair("stride", 1),
        "padding": pair("padding", 0),
        "dilation": pair("dilation", 1),
        "groups": int(fields.take("groups")),
    }
    fields.take("input_shape")  # shape inference compared it
    reader.keep("conv", name, (reader.value(reader.only_source(name)),), params)


def _read_pool(reader: PhaseReader, name: str, fields: Fields) -> None:
    kernel, source = fields.take("kernel_size"), reader.only_source(name)
    if kernel[0] != kernel[1] or any(size % kernel[0] for size in reader.shapes[source][1:]):
        raise refusal(name, f"field 'kernel_size' is {kernel}: windows are square and divide {reader.shapes[source]}")
    fields.demand("stride", kernel, "windows lie side by side")
    fields.demand("padding", (0, 0), "every window is full")
    reader.keep("avg_pool", name, (reader.value(source),), {"kernel": int(kernel[0])})


def _read_scale(reader: PhaseReader, name: str, fields: Fields) -> None:
    """A bank of thresholds summed to quarters, or a plain sum of two values."""
    sources = reader.sources[name]
    bank = [f"{name}.k{k}" for k in range(1, LEVELS + 1)]
    if not any(source in bank for source in sources):
        if reader.scale(name, fields) != 1.0 or len(sources) != 2:
            raise refusal(name, f"is not a plain sum of two values (field 'scale', {len(sources)} sources)")
        reader.keep("add", name, tuple(reader.value(source) for source in sources), {})
        return
    if sorted(sources) != bank or reader.scale(name, fields) != 1.0 / LEVELS:
        raise refusal(name, "is not a bank of four thresholds in quarters (field 'scale')")
    junction = reader.only_source(bank[0])
    if any(reader.graph.nodes[b].kind != "Threshold" or reader.only_source(b) != junction for b in bank):
        raise refusal(name, "has thresholds on different sources")
    thresholds = [Fields(b, reader.graph.nodes[b].params) for b in bank]
    offset = _offset(name, [t.take("threshold") for t in thresholds])
    for one in thresholds:
        one.done()
    reader.unclaimed.difference_update(bank)
    if parse(name).step:
        drive, sigma = reader.membrane(name, junction)
    else:
        drive, sigma = reader.value(junction), 0.0
    reader.keep("ni_lif", name, (drive,), {"offset": offset, "sigma": sigma})


def _offset(name: str, thresholds: Sequence[FloatArray]) -> FloatArray | None:
    """What is added to the membrane before the comparison with the levels of a NI-LIF neuron; None for nothing.

    Every threshold is its level less that offset, to the last few bits: moving an offset into a threshold rounds once.
    """
    held = [compact(array) for array in thresholds]
    values = [constant_value(array) for array in held]
    if values == list(STRICT_THRESHOLDS):
        return None
    small = [array if v is None else np.full((1,) * array.ndim, v) for array, v in zip(held, values, strict=True)]
    offset = STRICT_THRESHOLDS[0] - small[0]
    rounding = 16 * np.spacing(np.abs(offset) + STRICT_THRESHOLDS[-1])
    for theta, array in zip(STRICT_THRESHOLDS, small, strict=True):
        far = np.abs(theta - array - offset) > rounding
        if far.any():
            at = tuple(int(i) for i in np.argwhere(far)[0])
            raise refusal(name, f"has thresholds (field 'threshold' of .k1 to .k4) that no NI-LIF neuron has, at {at}")
    return np.broadcast_to(offset, thresholds[0].shape) if np.any(offset) else None


_NODES: Mapping[str, Callable[[PhaseReader, str, Fields], None]] = {
    "Conv2d": _read_conv,
    "Conv1d": _read_conv,
    "AvgPool2d": _read_pool,
    "Scale": _read_scale,
}


def _cut_operation(kind: str, *kept: str, given: Sequence[str] = ()) -> Callable[[PhaseReader, Cut, Fields], None]:
    """A cut that is an operation with parameters ``kept``; those ``given`` are legal in one way only."""

    def read(reader: PhaseReader, cut: Cut, fields: Fields) -> None:
        for field in given:
            fields.take(field)
        params = {field: fields.take(field) for field in kept}
        inputs = tuple(reader.cut_value(end) for end in cut.inputs)
        reader.keep(kind, fields.owner, inputs, params, reader.cut_value(fields.owner))

    return read


def _read_normalise(reader: PhaseReader, cut: Cut, fields: Fields) -> None:
    fields.take("shape")  # shape inference compared it
    unit = 255.0 if cut.op == "normalise" else 1.0  # of a pixel, in the program's 0..255
    params = {field: unit * np.asarray(fields.take(field), dtype=np.float64) for field in ("mean", "std")}
    reader.keep("normalise", fields.owner, (), params, (IMAGE, parse(fields.owner).step))


def _read_memory_read(reader: PhaseReader, cut: Cut, fields: Fields) -> None:
    _slot(fields)


def _read_memory_write(reader: PhaseReader, cut: Cut, fields: Fields) -> None:
    reader.written[_slot(fields)] = reader.cut_value(cut.inputs[0])


def _read_decode(reader: PhaseReader, cut: Cut, fields: Fields) -> None:
    fields.demand("clamp", CLAMP, "that of the tracking loop, which decodes")
    if reader.outputs:
        raise refusal(fields.owner, "is a second decoding")
    reader.outputs = {public: reader.cut_value(end)[0] for public, end in zip(MAPS, cut.inputs, strict=True)}


_CUTS: Mapping[str, Callable[[PhaseReader, Cut, Fields], None]] = {
    **dict.fromkeys(NORMALISE, _read_normalise),
    "memory_read": _read_memory_read,
    "memory_write": _read_memory_write,
    "decode": _read_decode,
    "key_value": _cut_operation("key_value", "heads"),
    "query": _cut_operation("query", "heads", "gain", given=("head_dim",)),
    "upsample": _cut_operation("upsample", "factor", given=("mode", "align_corners")),
    "transpose": _cut_operation("gate_transpose", given=("perm",)),
    "gate": _cut_operation("gate", given=("steps",)),
}
