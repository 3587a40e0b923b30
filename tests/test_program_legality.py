"""What is legal and, one step further, what is not: every limit of every operation from both sides.

A limit that is off by one either lets a file through whose numbers nothing has proved, or refuses a good program.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.program.legality import check_program, op_defect, spec_defect
from spiketrack_deploy.program.types import Cadence, Op, Phase, Program, State, TensorSpec

from _programs import conv_attrs, random_program, spikes  # isort: skip


def stream(*shape: int) -> TensorSpec:
    return TensorSpec("stream", shape)


def memory(*shape: int) -> TensorSpec:
    return TensorSpec("memory", shape)


def defect(
    kind: str, inputs: list[TensorSpec], out: TensorSpec, attrs: dict[str, int] | None = None, **arrays: Any
) -> str | None:
    """What is wrong with one operation, alone in its phase."""
    names = tuple(f"x{i}" for i in range(len(inputs)))
    held = {key: value if isinstance(value, np.ndarray) else np.array(value) for key, value in arrays.items()}
    op = Op("y", kind, names, "block", attrs or {}, {key: key for key in held})
    phase = Phase("phase", dict(zip(names, inputs)), (op,), {"y": out}, {"y": "y"})
    return op_defect(op, phase, Program({"phase": phase}, held))


def conv(
    size: tuple[int, int] = (5, 7), out: tuple[int, int] = (3, 5), kernel: tuple[int, int] = (3, 3), *, steps: int = 2,
    shared: int = 1, outputs: int = 6, per_group: int = 2, shift: Any = 0, bias: Any = None, kind: str = "conv",
    dtype: Any = np.int8, **attrs: int,
) -> str | None:  # fmt: skip
    """4 channels in two groups, 6 out."""
    weight = np.ones((shared, outputs, per_group, *kernel), dtype)
    held = {
        "weight": weight,
        "shift": np.full(weight.shape[:2], shift) if np.ndim(shift) == 0 else shift,
        "bias": np.zeros(weight.shape[:2], int) if bias is None else bias,
    }
    x = TensorSpec("image", (steps, 4, *size), top=255) if kind == "image_conv" else spikes((steps, 4, *size))
    return defect(kind, [x], stream(steps, outputs, *out), conv_attrs() | {"groups": 2} | attrs, **held)


CONVS: dict[str, tuple[bool, dict[str, Any]]] = {
    "plain": (True, {}),
    "a kernel for every step": (True, {"shared": 2}),
    "a kernel too many": (False, {"shared": 3}),
    "weights of 16 bits": (True, {"dtype": np.int16}),
    "weights of 32 bits": (False, {"dtype": np.int32}),
    "groups that do not fit the inputs": (False, {"per_group": 3}),
    "groups that do not divide the outputs": (False, {"outputs": 5}),
    "the largest shift": (True, {"shift": 24}),
    "a larger shift": (False, {"shift": 25}),
    "a negative shift": (False, {"shift": -1}),
    "a shift of another length": (False, {"shift": np.zeros((1, 5), int)}),
    "a bias of another length": (False, {"bias": np.zeros((1, 5), int)}),
    "another output size": (False, {"out": (3, 4)}),
    "a kernel as high as its input": (True, {"kernel": (5, 3), "out": (1, 5)}),
    "a kernel higher than its input": (False, {"kernel": (6, 3), "out": (1, 5)}),
    "a kernel wider than its input": (False, {"kernel": (3, 8), "out": (3, 1)}),
    "a padded input as high as the kernel": (True, {"kernel": (7, 3), "padding_h": 1, "out": (1, 5)}),
    "dilation up to the input": (True, {"dilation_w": 3, "out": (3, 1)}),
    "dilation beyond the input": (False, {"dilation_w": 4, "out": (3, 1)}),
    "padding as wide as the input": (True, {"padding_w": 7, "out": (3, 19)}),
    "padding wider than input and kernel": (True, {"padding_w": 8, "out": (3, 21)}),
    "padding that fills the memory": (False, {"padding_w": 4096, "padding_h": 4096, "out": (8195, 8197)}),
    "padding as high as a dilated kernel": (True, {"padding_h": 6, "dilation_h": 2, "out": (13, 5)}),
    "padding higher than that": (True, {"padding_h": 7, "dilation_h": 2, "out": (15, 5)}),
    "a stride": (True, {"stride_h": 2, "out": (2, 5)}),
    "no stride": (False, {"stride_w": 0}),
    "no dilation": (False, {"dilation_h": 0}),
    "negative padding": (False, {"padding_h": -1}),
    "an image with a map of biases": (True, {"kind": "image_conv", "bias": np.zeros((6, 3, 5), int)}),
    "an image with one bias a channel": (False, {"kind": "image_conv"}),
    "an image with kernels by step": (False, {"kind": "image_conv", "shared": 2, "bias": np.zeros((6, 3, 5), int)}),
}


@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str) -> None:
    legal, changes = CONVS[name]
    assert (conv(**changes) is None) == legal, conv(**changes)


def neuron(steps: int = 3, given: int = 3, *, top: int = 4, without: str = "", **arrays: Any) -> str | None:
    """Two channels of 2 x 3; ``given``: steps of the stream; ``without``: an array left out."""
    held = {"thresholds": [[1, 2, 3, 4]] * 2, "reset": [1, 1], "decay": [4096] * (steps - 1)} | arrays
    held = {key: np.array(value) for key, value in held.items() if value is not None and key != without}
    out = replace(spikes((steps, 2, 2, 3)), top=top)
    return defect("ni_lif", [stream(given, 2, 2, 3)], out, {"steps": steps}, **held)


NEURONS: dict[str, tuple[bool, dict[str, Any]]] = {
    "plain": (True, {}),
    "one row of thresholds and one reset for all": (True, {"thresholds": [[1, 2, 3, 4]], "reset": [0]}),
    "one stream for all steps": (True, {"given": 1}),
    "a stream of other steps": (False, {"given": 2}),
    "equal thresholds": (True, {"thresholds": [[1, 1, 1, 1]]}),
    "falling thresholds": (False, {"thresholds": [[1, 2, 4, 3]]}),
    "three rows of thresholds": (False, {"thresholds": [[1, 2, 3, 4]] * 3}),
    "fewer thresholds than levels": (False, {"thresholds": [[1, 2, 3]]}),
    "binary spikes": (True, {"thresholds": [[1]], "top": 1}),
    "an offset": (True, {"offset": np.zeros((3, 2, 2, 3), int)}),
    "an offset of another size": (False, {"offset": np.zeros((3, 2, 3, 2), int)}),
    "no decay at all": (False, {"without": "decay"}),
    "no reset": (False, {"without": "reset"}),
    "one step needs neither": (True, {"steps": 1, "given": 1, "reset": None, "decay": None}),
    "a decay above one": (False, {"decay": [4096, 4097]}),
    "a negative decay": (False, {"decay": [0, -1]}),
    "a decay for the last step too": (False, {"decay": [0, 0, 0]}),
    "a negative reset": (False, {"reset": [0, -1]}),
    "resets of three channels": (False, {"reset": [1, 1, 1]}),
    "thresholds that are no integers": (False, {"thresholds": [[1.0, 2, 3, 4]]}),
}


@pytest.mark.parametrize("name", NEURONS)
def test_neurons(name: str) -> None:
    legal, changes = NEURONS[name]
    assert (neuron(**changes) is None) == legal, neuron(**changes)


def key_value(k: tuple[int, ...], v: tuple[int, ...], out: tuple[int, ...], heads: int = 2) -> str | None:
    return defect("key_value", [spikes(k), spikes(v)], memory(*out), {"heads": heads})


def query(q: tuple[int, ...], m: tuple[int, ...], heads: int = 2, shift: int = 0) -> str | None:
    out = stream(q[0], m[1] * m[3], *q[2:])
    return defect("query", [spikes(q), memory(*m)], out, {"heads": heads, "shift": shift})


def gate(logits: tuple[int, ...], n: tuple[int, ...], table: Any = (3, 0), shift: int = 0, top: int = 4) -> str | None:
    inputs = [stream(*logits), replace(spikes(n), top=top)]
    return defect("gate", inputs, stream(1, *n[1:]), {"shift": shift}, table=np.array(table))


def pool(kernel: int, height: int, width: int) -> str | None:
    size = (height // max(kernel, 1), width // max(kernel, 1))
    return defect("avg_pool", [stream(1, 2, height, width)], stream(1, 2, *size), {"kernel": kernel})


def requantise(shift: Any) -> str | None:
    return defect("requantise", [stream(1, 2, 3, 1)], stream(1, 2, 3, 1), shift=np.array(shift))


def add(a: int, b: int, width: int = 3) -> str | None:
    return defect("add", [stream(a, 2, 2, 3), stream(b, 2, 2, width)], stream(max(a, b), 2, 2, 3))


@pytest.mark.parametrize(
    ("legal", "found"),
    [
        (True, key_value((2, 4, 3, 1), (2, 6, 3, 1), (2, 2, 2, 3))),
        (False, key_value((2, 4, 3, 1), (1, 6, 3, 1), (2, 2, 2, 3))),
        (False, key_value((2, 4, 3, 1), (2, 6, 1, 3), (2, 2, 2, 3))),
        (False, key_value((2, 5, 3, 1), (2, 6, 3, 1), (2, 2, 2, 3))),
        (False, key_value((2, 4, 3, 1), (2, 7, 3, 1), (2, 2, 2, 3))),
        (True, query((2, 4, 3, 1), (2, 2, 2, 3))),
        (True, query((2, 4, 3, 1), (2, 2, 2, 3), shift=24)),
        (False, query((2, 4, 3, 1), (2, 2, 2, 3), shift=25)),
        (False, query((2, 4, 3, 1), (2, 2, 2, 3), heads=4)),
        (False, query((2, 5, 3, 1), (2, 2, 2, 3))),
        (False, query((3, 4, 3, 1), (2, 2, 2, 3))),
        (True, gate((2, 1, 1, 5), (2, 5, 3, 4))),
        (True, gate((2, 1, 1, 5), (2, 5, 3, 4), table=[0], shift=24)),
        (False, gate((2, 1, 1, 5), (2, 5, 3, 4), shift=25)),
        (False, gate((2, 1, 1, 4), (2, 5, 3, 4))),
        (False, gate((1, 1, 1, 5), (2, 5, 3, 4))),
        (False, gate((2, 1, 5, 1), (2, 5, 3, 4))),
        (False, gate((2, 1, 1, 5), (2, 5, 3, 4), table=[3, -1])),
        (False, gate((2, 1, 1, 5), (2, 5, 3, 4), table=[[3, 1]])),
        (False, gate((2, 1, 1, 5), (2, 5, 3, 4), table=np.zeros(0, int))),
        (False, gate((2, 1, 1, 5), (2, 5, 3, 4), top=3)),
        (True, pool(3, 6, 9)),
        (False, pool(3, 6, 10)),
        (False, pool(3, 7, 9)),
        (True, pool(1, 2, 3)),
        (True, pool(64, 64, 128)),
        (False, pool(65, 65, 130)),
        (True, requantise([0, 24])),
        (False, requantise([0, 25])),
        (False, requantise([0, -1])),
        (False, requantise([0, 0, 0])),
        (True, add(3, 3)),
        (True, add(1, 3)),
        (True, add(3, 1)),
        (False, add(2, 3)),
        (False, add(3, 3, width=4)),
        (True, defect("gate_transpose", [spikes((3, 2, 4, 5))], spikes((3, 20, 1, 2)))),
        (False, defect("gate_transpose", [spikes((3, 2, 4, 5))], spikes((3, 20, 2, 1)))),
        (True, defect("upsample", [stream(1, 2, 3, 4)], stream(1, 2, 6, 8), {"factor": 2})),
        (False, defect("upsample", [stream(1, 2, 3, 4)], stream(1, 2, 6, 4), {"factor": 2})),
        (False, defect("upsample", [stream(1, 2, 3)], stream(1, 2, 6), {"factor": 2})),
        (False, defect("upsample", [stream(1, 2, 3, 4)], stream(1, 2, 6, 8), {"factor": 2, "turbo": 1})),
        (False, defect("upsample", [stream(1, 2, 3, 4)], memory(1, 2, 6, 8), {"factor": 2})),
        (False, defect("upsample", [stream(1, 2, 3, 4)], stream(1, 2, 6, 8), {"factor": 2}, weight=[1])),
    ],
)  # fmt: skip
def test_other_operations(legal: bool, found: str | None) -> None:
    assert (found is None) == legal, found


UNITS = Program({}, {"three": np.zeros(3, np.int8), "real": np.zeros(3)})


@pytest.mark.parametrize(
    ("legal", "spec"),
    [
        (True, TensorSpec("stream", (1, 3), "three")),
        (False, TensorSpec("stream", (1, 2), "three")),
        (False, TensorSpec("stream", (1, 3), "real")),
        (False, TensorSpec("stream", (1, 3), "absent")),
        (True, TensorSpec("logits", (1, 3), "three")),
        (False, TensorSpec("memory", (1, 3), "three")),
        (True, TensorSpec("stream", (1, 1, 1, 1, 1))),
        (False, TensorSpec("stream", (3,))),
        (False, TensorSpec("stream", (1, 0))),
        (False, TensorSpec("current", (1, 3))),
        (False, TensorSpec("stream", (1, 3), scale=0.0)),
        (False, TensorSpec("stream", (1, 3), scale=-1.0)),
        (False, TensorSpec("stream", (1, 3), scale=float("inf"))),
        (True, TensorSpec("spikes", (1, 3), top=1)),
        (True, TensorSpec("image", (1, 3), top=255)),
        (False, TensorSpec("image", (1, 3), top=256)),
        (False, TensorSpec("spikes", (1, 3))),
        (True, TensorSpec("stream", (1, 3), top=1)),
        (False, TensorSpec("logits", (1, 3), top=1)),
    ],
)
def test_values(legal: bool, spec: TensorSpec) -> None:
    assert (spec_defect(spec, UNITS) is None) == legal


def changed(phase: str, **changes: Any) -> Program:
    program = random_program(0, 1)
    return replace(program, phases={**program.phases, phase: replace(program.phases[phase], **changes)})


@pytest.mark.parametrize(("width", "legal"), [(7, False), (8, True), (24, True), (32, True), (33, False)])
def test_widths(width: int, legal: bool) -> None:
    program = replace(random_program(0, 1), width=width)
    if legal:
        check_program(program)
    else:
        with pytest.raises(InputError, match=f"accumulators of {width} bits"):
            check_program(program)


@pytest.mark.parametrize("every", [None, 1, 25])
def test_cadences(every: int | None) -> None:
    check_program(changed("template", cadence=Cadence(start=True, every=every)))
    with pytest.raises(InputError, match="template runs every 0 results"):
        check_program(changed("template", cadence=Cadence(every=0)))


def test_states_are_written_once_read_and_of_one_shape() -> None:
    program = random_program(0, 1)
    name, state = next(iter(program.states.items()))
    template, search = program.phases["template"], program.phases["search"]
    both = {**program.phases, "search": replace(search, outputs={**search.outputs, name: search.ops[0].name})}
    wrong: dict[str, Program] = {
        "written by \\['template', 'search'\\]": replace(program, phases=both),
        "written by \\[\\]": changed("template", outputs={k: v for k, v in template.outputs.items() if k != name}),
        "not everywhere of its kind and shape": changed(
            "template", outputs={**template.outputs, name: template.ops[0].name}
        ),
        "begins with 'nothing'": replace(program, states={**program.states, name: replace(state, initial="nothing")}),
        "read by \\[\\]": replace(program, states={**program.states, "unread": State(state.spec)}),
    }
    for words, bad in wrong.items():
        with pytest.raises(InputError, match=words):
            check_program(bad)
    begun = {**program.states, name: replace(state, initial="content")}
    whole = np.zeros(state.spec.shape, np.int32)
    check_program(replace(program, states=begun, arrays={**program.arrays, "content": whole}))
    for content in (whole[..., :-1], whole.astype(float)):
        with pytest.raises(InputError, match="begins with 'content'"):
            check_program(replace(program, states=begun, arrays={**program.arrays, "content": content}))
