"""The NIR primitives this tool writes, reads and executes: one table of fields and shape rules.

Decides which node kinds exist and what each needs; the writer, the reader, shape inference and the tests all
go through :data:`KINDS`. Must not know files, cuts or the tracker. Meaning of each primitive: NIR 1.0.8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.nir_graph.graph import Graph, Node, Shape, valid_name

FieldType = Literal["array", "ints", "int"]
ShapeRule = Callable[[str, Node, "Shape | None"], Shape]


@dataclass(frozen=True, slots=True)
class Field:
    """One stored field: a float64 array of ``ndim`` axes (None: any), ``length`` integers, or one integer."""

    name: str
    type: FieldType
    ndim: int | None = None
    length: int | None = None
    minimum: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """A primitive: its equation, its fields, and the rule from input shape to output shape."""

    equation: str
    fields: tuple[Field, ...]
    shape: ShapeRule


def _need(name: str, node: Node, got: Shape | None) -> Shape:
    if got is None:
        raise InputError(f"node '{name}' ({node.kind}): nothing feeds it; connect it or remove it")
    return got


def _declared(name: str, node: Node, got: Shape | None) -> Shape:
    shape = node.ints("shape")
    if got is not None and got != shape:
        raise InputError(f"node '{name}' ({node.kind}): declares shape {shape} but receives {got}")
    return shape


def _elementwise(field: str) -> ShapeRule:
    def rule(name: str, node: Node, got: Shape | None) -> Shape:
        shape, want = _need(name, node, got), tuple(node.array(field).shape)
        if shape != want:
            raise InputError(f"node '{name}' ({node.kind}): field '{field}' has shape {want} but the input is {shape}")
        return shape

    return rule


def _window(name: str, node: Node, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        raise InputError(f"node '{name}' ({node.kind}): a window of {kernel} does not fit into {size} positions")
    return out


def _pair(name: str, node: Node, got: Shape, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Shape:
    stride, padding = node.ints("stride"), node.ints("padding")
    return tuple(
        _window(name, node, got[1 + axis], kernel[axis], stride[axis], padding[axis], dilation[axis]) for axis in (0, 1)
    )


def _check_channels(name: str, node: Node, got: Shape) -> int:
    weight, bias, groups = node.array("weight"), node.array("bias"), node.integer("groups")
    out = int(weight.shape[0])
    if bias.shape != (out,):
        raise InputError(
            f"node '{name}' ({node.kind}): field 'bias' has shape {tuple(bias.shape)}, the {out} output "
            "channels of 'weight' need one value each"
        )
    if out % groups or got[0] != weight.shape[1] * groups:
        raise InputError(
            f"node '{name}' ({node.kind}): {got[0]} input channels do not fit field 'weight' of shape "
            f"{tuple(weight.shape)} with groups {groups}"
        )
    return out


def _conv2d(name: str, node: Node, got: Shape | None) -> Shape:
    shape = _need(name, node, got)
    if len(shape) != 3 or shape[1:] != node.ints("input_shape"):
        raise InputError(
            f"node '{name}' (Conv2d): field 'input_shape' is {node.ints('input_shape')} but the input is {shape}"
        )
    out = _check_channels(name, node, shape)
    return (out, *_pair(name, node, shape, node.array("weight").shape[2:], node.ints("dilation")))


def _conv1d(name: str, node: Node, got: Shape | None) -> Shape:
    shape = _need(name, node, got)
    if len(shape) != 2 or shape[1] != node.integer("input_shape"):
        raise InputError(
            f"node '{name}' (Conv1d): field 'input_shape' is {node.integer('input_shape')} but the input is {shape}"
        )
    out = _check_channels(name, node, shape)
    kernel = int(node.array("weight").shape[2])
    stride, padding, dilation = (node.integer(field) for field in ("stride", "padding", "dilation"))
    return (out, _window(name, node, shape[1], kernel, stride, padding, dilation))


def _pool(name: str, node: Node, got: Shape | None) -> Shape:
    shape = _need(name, node, got)
    if len(shape) != 3:
        raise InputError(f"node '{name}' ({node.kind}): needs (channels, height, width) but the input is {shape}")
    return (shape[0], *_pair(name, node, shape, node.ints("kernel_size"), (1, 1)))


def _pair_field(name: str, minimum: int) -> Field:
    return Field(name, "ints", length=2, minimum=minimum)


KINDS: dict[str, Kind] = {
    "Input": Kind("y = what a cut puts here", (Field("shape", "ints", minimum=1),), _declared),
    "Output": Kind("what a cut takes from here = x", (Field("shape", "ints", minimum=1),), _declared),
    "Scale": Kind("y = s * x, element by element", (Field("scale", "array"),), _elementwise("scale")),
    "Threshold": Kind(
        "y = 1 where x > theta, else 0 (strict)", (Field("threshold", "array"),), _elementwise("threshold")
    ),
    "Conv2d": Kind(
        "y = w (*) x + b, zero padding, cross-correlation, groups",
        (
            _pair_field("input_shape", 1),
            Field("weight", "array", ndim=4),
            _pair_field("stride", 1),
            _pair_field("padding", 0),
            _pair_field("dilation", 1),
            Field("groups", "int", minimum=1),
            Field("bias", "array", ndim=1),
        ),
        _conv2d,
    ),
    "Conv1d": Kind(
        "y = w (*) x + b along the last axis",
        (
            Field("input_shape", "int", minimum=1),
            Field("weight", "array", ndim=3),
            Field("stride", "int", minimum=1),
            Field("padding", "int"),
            Field("dilation", "int", minimum=1),
            Field("groups", "int", minimum=1),
            Field("bias", "array", ndim=1),
        ),
        _conv1d,
    ),
    "AvgPool2d": Kind(
        "y = mean over the full window",
        (_pair_field("kernel_size", 1), _pair_field("stride", 1), _pair_field("padding", 0)),
        _pool,
    ),
}

OTHER_NIR_KINDS = frozenset(
    {
        "Affine", "CubaLI", "CubaLIF", "Delay", "Flatten", "I", "IF", "LI", "LIF", "Linear", "NIRGraph", "SumPool2d",
    }
)  # fmt: skip
"""Primitives of NIR 1.0.8 that no tracker graph contains; named so that a refusal can tell them from nonsense."""


def check_nodes(graph: Graph) -> None:
    """Raise InputError naming the first node, field or edge that does not follow :data:`KINDS`."""
    for name, node in graph.nodes.items():
        if not valid_name(name):
            raise InputError(f"node name '{name}' is no legal name: use letters, digits and _.@#- only")
        if node.kind not in KINDS:
            raise InputError(f"node '{name}': kind '{node.kind}' is none of {', '.join(KINDS)}")
        fields = {field.name for field in KINDS[node.kind].fields}
        if fields != node.params.keys():
            raise InputError(f"node '{name}' ({node.kind}): has the fields {sorted(node.params)}, not {sorted(fields)}")
    for edge in graph.edges:
        for end in edge:
            if end not in graph.nodes:
                raise InputError(f"edge {edge}: there is no node '{end}'")
