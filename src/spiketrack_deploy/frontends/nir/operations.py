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
        windows = _windows(x, node.ints("kernel_size"), node.ints("stride"), node.ints("padding"), (1, 1))
        total = windows.sum(axis=(3, 4))
        return total if node.kind == "SumPool2d" else total / np.prod(node.ints("kernel_size"))
    raise AssertionError(f"{node.kind} has a state")


def _conv(node: Node, x: FloatArray, weight: FloatArray) -> FloatArray:
    """Cross-correlation [in, H, W] -> [out, H', W'], group by group; one dimension is a map of height 1."""
    flat = weight.shape[2] == 1 and node.kind == "Conv1d"
    lead, pad = ((1,), (0, 0)) if flat else ((), ())
    windows = _windows(
        x,
        weight.shape[2:],
        (*lead, *node.ints("stride")),
        (*pad, *node.ints("padding")),
        (*lead, *node.ints("dilation")),
    )  # [in, H', W', kh, kw]
    parts = zip(np.split(windows, node.groups), np.split(weight, node.groups))
    out = np.concatenate([np.tensordot(w, part, axes=((1, 2, 3), (0, 3, 4))) for part, w in parts])
    return out + node.array("bias")[:, None, None]


def _windows(
    x: FloatArray, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...]
) -> FloatArray:
    """Views [C, H', W', kh, kw] of the zero-padded map."""
    padded = np.pad(x, ((0, 0), padding[:2], padding[2:]))
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
    return views[:, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
