"""Run by an interpreter that has lava-dl 0.6.0: what ``lava.lib.dl.netx.hdf5.Network`` gives for a ``.net`` file.

    python benchmarks/netx_worker.py NETWORK.net IN.npz OUT.npz

IN: ``x`` [T, C, H, W]. OUT: ``out`` [T, N], what its last layer sends at Lava's steps 1 to T, row-major.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from typing import Any

import numpy as np


def adapt() -> None:
    """Python 3.11 refuses one dataclass of lava-nc 0.10.0 unless it is hashable."""
    plain = dataclasses.dataclass
    changed: Any = functools.partial(plain, unsafe_hash=True)
    dataclasses.dataclass = changed
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = plain


def main(network: str, given: str, result: str) -> None:
    """One run; Lava orders its axes (width, height, channel)."""
    adapt()
    import torch
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.conv import utils
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    torch.set_num_threads(1)
    utils.TORCH_IS_AVAILABLE = False
    x = np.load(given)["x"]
    net = hdf5.Network(net_config=network)
    fed = net.in_layer.neuron.a_in if hasattr(net.in_layer, "transform") else net.in_layer.synapse.s_in
    data = x.transpose(3, 2, 1, 0) if len(fed.shape) == 3 else x.reshape(len(x), -1).T
    source = Source(data=data.astype(np.int32))
    sink = Sink(shape=net.out_layer.neuron.s_out.shape, buffer=len(x))
    source.s_out.connect(fed)
    net.out_layer.neuron.s_out.connect(sink.a_in)
    source.run(condition=RunSteps(num_steps=len(x)), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    out = sink.data.get()
    source.stop()
    out = out.transpose(3, 2, 1, 0) if out.ndim == 4 else out.T
    np.savez(result, out=out.reshape(len(x), -1).astype(np.int64))


if __name__ == "__main__":
    main(*sys.argv[1:])
