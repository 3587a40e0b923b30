"""Run by the Lava interpreter: one convolution and a one-step NI-LIF as *stock* Lava Processes.

``python _lava_stock.py WORKER IN.npz OUT.npz``. IN: ``x`` [T,C,H,W] spikes, ``weight`` [O,C,kh,kw], ``bias`` [O],
``thresholds`` [4], ``stride``, ``padding`` (height, width). OUT: ``n`` [T,O,Ho,Wo].
"""

from __future__ import annotations

import runpy
import sys

import numpy as np


def main(worker: str, given: str, result: str) -> None:
    """Lava wants (width, height, channel) and a true convolution; a convolution answers one step later."""
    # What lets lava-nc run above Python 3.10 is the worker's business; nothing else of the package is used.
    runpy.run_path(worker)["adapt_lava"]()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.conv.process import Conv
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    case = np.load(given)
    x, weight, bias = case["x"], case["weight"], case["bias"]
    steps = x.shape[0]
    source = Source(data=np.moveaxis(x.transpose(0, 3, 2, 1), 0, -1).astype(np.int32))
    conv = Conv(
        weight=weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1).astype(np.int32),
        input_shape=(x.shape[3], x.shape[2], x.shape[1]),
        stride=tuple(int(n) for n in case["stride"][::-1]),
        padding=tuple(int(n) for n in case["padding"][::-1]),
        num_message_bits=8,
    )
    sink = Sink(shape=conv.output_shape, buffer=steps + 1)
    source.s_out.connect(conv.s_in)
    for threshold in case["thresholds"]:
        # du = 4095 and dv = 4096 forget at once; LIF fires strictly above vth; bias_exp 6 is the activation's scale.
        mant = np.broadcast_to(bias, conv.output_shape).astype(np.int32)
        lif = LIF(shape=conv.output_shape, du=4095, dv=4096, vth=int(threshold) - 1, bias_mant=mant, bias_exp=6)
        conv.a_out.connect(lif.a_in)
        lif.s_out.connect(sink.a_in)
    cfg = Loihi2SimCfg(select_tag="fixed_pt")
    source.run(condition=RunSteps(num_steps=steps + 1), run_cfg=cfg, compile_config={"pypy_channel_size": 2})
    n = sink.data.get()[..., 1:]
    source.stop()
    np.savez(result, n=np.moveaxis(n, -1, 0).transpose(0, 3, 2, 1).astype(np.int64))


if __name__ == "__main__":
    main(*sys.argv[1:])
