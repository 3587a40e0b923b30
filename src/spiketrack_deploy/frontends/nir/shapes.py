"""Which shape every value of a flat graph has, and every node's parameters at full shape.

Decides the shape rule of each kind, from the graph alone: shapes stored in a file are hints, and where they disagree it
is reported. Must not know order or time. (NIR 1.0.8's own inference refuses grouped convolutions, non-square kernels,
nested graphs of several inputs; this one does not.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from spiketrack_deploy.frontends.nir.network import NEURONS, FloatArray, Param, Shape
from spiketrack_deploy.nir_graph.tree import Record

MAX_ELEMENTS = 1 << 24


class Misfit(Exception):
    """What is wrong with one node: field (or nothing) and sentence."""

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(f"field '{field}' {problem}" if field else problem)


Made = tuple[dict[str, Param], Shape]
Rule = Callable[[Record, Shape], Made]


def array(record: Record, field: str) -> FloatArray:
    """A parameter as stored."""
    value = record.fields[field]
    if not isinstance(value, np.ndarray):
        raise Misfit("is no array", field)
    return value


def _full(record: Record, field: str, shape: Shape) -> FloatArray:
    value = array(record, field)
    if value.shape == shape:
        return value
    if value.size != 1 and value.shape == (1, *shape):
        return value[0]
    if value.size != 1:
        raise Misfit(f"has shape {value.shape}, but the node's values have shape {shape}", field)
    return np.broadcast_to(value.reshape(()), shape)


def ints(record: Record, field: str, count: int, least: int) -> tuple[int, ...]:
    """``count`` integers, one standing for all."""
    value = record.fields[field]
    if not isinstance(value, tuple):
        raise Misfit("is no integer", field)
    numbers = value * count if len(value) == 1 else value
    if len(numbers) != count or any(number < least for number in numbers):
        raise Misfit(f"is {value}; {count} integers of at least {least} are needed", field)
    return numbers


def _elementwise(record: Record, got: Shape) -> Made:
    params: dict[str, Param] = {name: _full(record, name, got) for name in record.fields}
    return params, got


def neuron(record: Record, got: Shape) -> Made:
    """Full-shape parameters of a neuron, missing ones filled in (v_reset 0, w_in 1), time constants positive."""
    params: dict[str, Param] = {name: _full(record, name, got) for name in record.fields}
    if "v_threshold" in params:
        params.setdefault("v_reset", np.broadcast_to(np.float64(0), got))
    if record.kind in ("CubaLI", "CubaLIF"):
        params.setdefault("w_in", np.broadcast_to(np.float64(1), got))
    for name in ("tau", "tau_syn", "tau_mem"):
        if name in params and not bool((np.asarray(params[name]) > 0).all()):
            raise Misfit(f"holds {float(np.min(params[name])):g}; a time constant must be positive", name)
    return params, got


def _delay(record: Record, got: Shape) -> Made:
    params, shape = _elementwise(record, got)
    if bool((np.asarray(params["delay"]) < 0).any()):
        raise Misfit(f"holds {float(np.min(params['delay'])):g} s; a delay cannot be negative", "delay")
    return params, shape


def _dense(record: Record, got: Shape) -> Made:
    weight = array(record, "weight")
    if weight.ndim < 2:
        raise Misfit(f"has shape {weight.shape}; at least (outputs, inputs) is needed", "weight")
    want, out = (*weight.shape[:-2], weight.shape[-1]), weight.shape[:-1]
    if got != want:
        raise Misfit(f"of shape {weight.shape} takes values of shape {want}, but the input has shape {got}", "weight")
    params: dict[str, Param] = {"weight": weight}
    if record.kind == "Affine":
        bias = array(record, "bias")
        if bias.shape != out:
            raise Misfit(f"has shape {bias.shape}; the outputs of 'weight' need {out}", "bias")
        params["bias"] = bias
    return params, out


def _conv(record: Record, got: Shape) -> Made:
    axes = 1 if record.kind == "Conv1d" else 2
    weight = array(record, "weight")
    if weight.ndim != axes + 2:
        raise Misfit(f"has shape {weight.shape}; (out, in / groups, {'kernel' if axes == 1 else 'height, width'}) is "
                     "needed", "weight")  # fmt: skip
    if len(got) != axes + 1:
        raise Misfit(f"takes (channels, {'length' if axes == 1 else 'height, width'}), but the input has shape {got}")
    stride, dilation = ints(record, "stride", axes, 1), ints(record, "dilation", axes, 1)
    groups, out = ints(record, "groups", 1, 1)[0], weight.shape[0]
    if out % groups or got[0] != weight.shape[1] * groups:
        raise Misfit(f"of shape {weight.shape} with {groups} groups does not take {got[0]} channels", "weight")
    reach = tuple(d * (k - 1) for d, k in zip(dilation, weight.shape[2:]))
    padding = _padding(record, axes, reach, stride)
    bias = array(record, "bias") if "bias" in record.fields else np.zeros(out)
    if bias.shape != (out,):
        raise Misfit(f"has shape {bias.shape}; {out} output channels need one value each", "bias")
    params: dict[str, Param] = {"weight": weight, "bias": bias, "stride": stride, "padding": padding}
    params |= {"dilation": dilation, "groups": groups}
    spatial = tuple(
        _windows(got[1 + i], padding[2 * i] + padding[2 * i + 1], reach[i] + 1, stride[i]) for i in range(axes)
    )
    return params, (out, *spatial)


def _padding(record: Record, axes: int, reach: Shape, stride: Shape) -> tuple[int, ...]:
    """Before and after per axis. 'same' pads by the reach of the kernel, the odd one behind, as PyTorch does."""
    value = record.fields["padding"]
    if value == "valid":
        return (0, 0) * axes
    if value == "same":
        if any(step != 1 for step in stride):
            raise Misfit(f"is 'same' with a stride of {stride}, which has no agreed meaning; give numbers", "padding")
        return tuple(part for size in reach for part in (size // 2, size - size // 2))
    if isinstance(value, str):
        raise Misfit(f"is {value[:20]!r}; 'same', 'valid' or integers are needed", "padding")
    return tuple(part for size in ints(record, "padding", axes, 0) for part in (size, size))


def _windows(size: int, padding: int, window: int, stride: int) -> int:
    if size + padding < window:
        raise Misfit(f"a window of {window} does not fit into {size + padding} positions")
    return (size + padding - window) // stride + 1


def _pool(record: Record, got: Shape) -> Made:
    if len(got) != 3:
        raise Misfit(f"takes (channels, height, width), but the input has shape {got}")
    kernel, stride = ints(record, "kernel_size", 2, 1), ints(record, "stride", 2, 1)
    before = ints(record, "padding", 2, 0)
    if any(2 * pad > size for pad, size in zip(before, kernel)):
        raise Misfit(f"is {before}, more than half of the window {kernel}", "padding")
    padding = tuple(part for pad in before for part in (pad, pad))
    spatial = tuple(_windows(got[1 + i], 2 * before[i], kernel[i], stride[i]) for i in (0, 1))
    return {"kernel_size": kernel, "stride": stride, "padding": padding}, (got[0], *spatial)


def _flatten(record: Record, got: Shape) -> Made:
    start, end = (_axis(record, field) for field in ("start_dim", "end_dim"))
    hint = record.fields.get("input_type")
    if isinstance(hint, tuple) and len(hint) == len(got) + 1 and hint == (1, *got):
        start, end = (axis - 1 if axis > 0 else axis for axis in (start, end))  # counted with a batch axis
    first, last = (axis + len(got) if axis < 0 else axis for axis in (start, end))
    if not 0 <= first <= last < len(got):
        raise Misfit(f"from axis {start} to {end} do not exist in a value of shape {got}", "start_dim")
    return {}, (*got[:first], math.prod(got[first : last + 1]), *got[last + 1 :])


def _axis(record: Record, field: str) -> int:
    value = record.fields[field]
    if not isinstance(value, tuple) or len(value) != 1:
        raise Misfit("is no single integer", field)
    return value[0]


def _same(record: Record, got: Shape) -> Made:
    return {}, got


RULES: Mapping[str, Rule] = {
    "Input": _same,
    "Output": _same,
    "Affine": _dense,
    "Linear": _dense,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Scale": _elementwise,
    "Threshold": _elementwise,
    "Delay": _delay,
    **dict.fromkeys(NEURONS, neuron),
}


def own_shape(record: Record) -> Shape | None:
    """The shape that a node's output has whatever feeds it, where its parameters alone say so."""
    if record.kind in ("Affine", "Linear") and array(record, "weight").ndim >= 2:
        return array(record, "weight").shape[:-1]
    if record.kind in (*NEURONS, "Scale", "Threshold", "Delay"):
        sizes = {array(record, name).shape for name in record.fields if array(record, name).size > 1}
        return sizes.pop() if len(sizes) == 1 else None
    return None


def declared(record: Record) -> Shape:
    """The shape stored in an Input node."""
    value = record.fields.get("shape")
    if not isinstance(value, tuple) or not value or any(size < 1 for size in value):
        raise Misfit(f"is {value}; positive integers are needed", "shape")
    if math.prod(value) > MAX_ELEMENTS:
        raise Misfit(f"{value} has more than {MAX_ELEMENTS} elements", "shape")
    return value
