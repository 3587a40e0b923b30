"""Run by the Lava interpreter: neurons as the *stock* fixed-point LIF Process, parameters different for every neuron.

``python _lava_lif.py WORKER IN.npz OUT.npz``. IN: ``a`` [T,N] activations; ``du``, ``dv``, ``vth``, ``bias`` [N]. OUT:
``n`` [T,N] spikes, ``u``, ``v`` [N] after the last step.
"""

from __future__ import annotations

import runpy
import sys

import numpy as np


def main(worker: str, given: str, result: str) -> None:
    """A source that feeds the neurons, which feed a sink, all in the same step."""
    runpy.run_path(worker)["adapt_lava"]()
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF

    case = np.load(given)
    steps, count = case["a"].shape
    source = Source(data=case["a"].T.astype(np.int32))
    lif = LIF(
        shape=(count,),
        du=case["du"],
        dv=case["dv"],
        vth=case["vth"],
        bias_mant=case["bias"].astype(np.int32),
        bias_exp=6,
    )
    sink = Sink(shape=(count,), buffer=steps)
    source.s_out.connect(lif.a_in)
    lif.s_out.connect(sink.a_in)
    cfg = Loihi2SimCfg(select_tag="fixed_pt")
    source.run(condition=RunSteps(num_steps=steps), run_cfg=cfg, compile_config={"pypy_channel_size": 2})
    n, u, v = sink.data.get().T, lif.u.get(), lif.v.get()
    source.stop()
    np.savez(result, n=n.astype(np.int64), u=u.astype(np.int64), v=v.astype(np.int64))


if __name__ == "__main__":
    main(*sys.argv[1:])
