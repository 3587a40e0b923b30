"""What a node without state answers to its input, in float64.

Decides the arithmetic of every stateless kind, written to be read. Must not know time, files or integers, and shares
nothing with the lowering or the engines.
"""

from __future__ import annotations

import numpy as np

from spiketrack_deploy.frontends.nir.network import FloatArray, Node


def respond(node: Node, x: FloatArray) -> FloatArray:
    """The value of a stateless node for the summed input ``x`` of shape ``node.in_shape``. (A Threshold is strict
    under every convention, as NIR says.)"""
    if node.kind in ("Input", "Output"):
        return x
    if node.kind in ("Linear", "Affine"):
        y = np.matmul(node.array("weight"), x[..., None])[..., 0]
        return y if node.kind == "Linear" else y + node.array("bias")
    if node.kind == "Scale":
        return node.array("scale") * x
    if node.kind == "Threshold":
        return (x > node.array("threshold")).astype(np.float64)
    if node.kind == "Flatten":
        return x.reshape(node.shape)
    if node.kind == "Conv1d":
        return _conv(node, x[:, None, :], node.array("weight")[:, :, None, :])[:, 0, :]
    if node.kind == "Conv2d":
        return _conv(node, x, node.array("weight"))
    if node.kind in ("SumPool2d", "AvgPool2d"):
        total = _pool(node, x)
        return total if node.kind == "SumPool2d" else total / np.prod(node.ints("kernel_size"))
    raise AssertionError(f"{node.kind} has a state")


def _conv(node: Node, x: FloatArray, weight: FloatArray) -> FloatArray:
    """Cross-correlation [in, H, W] -> [out, H', W'], tap by tap; one dimension is a map of height 1."""
    lead, flat = ((1,), (0, 0)) if node.kind == "Conv1d" else ((), ())
    stride, dilation = (*lead, *node.ints("stride")), (*lead, *node.ints("dilation"))
    padded = _pad(x, (*flat, *node.ints("padding")))
    size = (1, *node.shape[1:]) if lead else node.shape[1:]
    grouped = padded.reshape(node.groups, -1, *padded.shape[1:])
    taps = weight.reshape(node.groups, -1, *weight.shape[1:])
    total = np.zeros((node.groups, taps.shape[1], *size))
    for row, column in np.ndindex(weight.shape[2:]):
        seen = _tap(grouped, row * dilation[0], column * dilation[1], stride, size)
        total += np.einsum("goi,gihw->gohw", taps[:, :, :, row, column], seen, optimize=True)
    return total.reshape(-1, *size) + node.array("bias")[:, None, None]


def _pool(node: Node, x: FloatArray) -> FloatArray:
    padded, stride = _pad(x, node.ints("padding")), node.ints("stride")
    total = np.zeros(node.shape)
    for row, column in np.ndindex(node.ints("kernel_size")):
        total += _tap(padded, row, column, stride, node.shape[1:])
    return total


def _pad(x: FloatArray, padding: tuple[int, ...]) -> FloatArray:
    return np.pad(x, ((0, 0), padding[:2], padding[2:]))


def _tap(x: FloatArray, row: int, column: int, stride: tuple[int, ...], size: tuple[int, ...]) -> FloatArray:
    """What one element of a window sees: [..., H', W']."""
    return x[..., row :: stride[0], column :: stride[1]][..., : size[0], : size[1]]
