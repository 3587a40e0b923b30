# mypy: ignore-errors
"""Builds a network of Lava Processes from ``PHASE.json`` and ``PHASE.npz``. Needs lava-nc 0.10.0 and NumPy alone.

    from stock_network import build
    network = build("step")                       # network.processes: by name, connected to one another
    network.feed("image", your_source.s_out)      # (width, height, channels), int32
    network.read("ctr", your_sink.a_in)           # right ``network.latency["ctr"]`` steps after its input

``play`` and ``run`` do without Processes of yours. This module decides how a node of the plan becomes a Process; which
Processes there are the plan says. Most are those that Lava ships (Conv, Dense, Sparse, DelaySparse, LIF, LIFReset,
GradedVec, RingBuffer). ``Own`` does what none of them does exactly; every node of that kind says why (``reason``).
Ports have Lava's axes (width, height, channels). Lava runs every file beside a Process: keep programs of yours outside
this folder.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from stock_processes import Feed, FeedModel, Own, OwnModel, Record, RecordModel, sized, whc


def failure(runtime):
    """What failed, and how: Lava itself says nothing and waits for ever."""
    names = [*(p.name for p in runtime._executable.proc_builders), "runtime service"]
    for name, actor in zip(names, runtime._messaging_infrastructure.actors):
        if actor.exception:
            return f"Lava Process {name} failed: {actor.exception[0]}"
        if not actor.is_alive():
            return f"Lava Process {name} died (exit code {actor.exitcode})"
    return None


class Network:
    """``processes``: by node's name. ``inputs``: name -> the ports that take it. ``latency``: name of a value -> steps
    after its input. ``plan``: what the files said."""

    def __init__(self, phase, folder):
        self.phase, self.folder = phase, Path(folder)
        self.plan = json.loads((self.folder / f"{phase}.json").read_text(encoding="utf-8"))
        with np.load(self.folder / f"{phase}.npz", allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.processes = {node["name"]: self._process(node) for node in self.plan["nodes"]}
        for edge in self.plan["edges"]:
            self._port(edge).connect(self._in_port(edge["target"], edge["port"]))
        self.inputs = {
            name: [(self._in_port(e["target"], e["port"]), e["views"]) for e in edges]
            for name, edges in self.plan["inputs"].items()
        }
        self.latency = self.plan["latency"]
        self.source, self.steps = None, 0

    def answers(self):
        """Recorded inputs, and what the program gives for them: name -> ``[T, C, H, W]`` each."""
        with np.load(self.folder / f"{self.phase}.answers.npz", allow_pickle=False) as file:
            kept = {name: file[name] for name in file.files}
        split = [{n[len(kind) :]: a for n, a in kept.items() if n.startswith(kind)} for kind in ("input:", "output:")]
        return split[0], split[1]

    def play(self, values):
        """Feed inputs ``[T, C, H, W]`` by name, step by step; the last step is held still."""
        data = [whc(np.asarray(values[name])) for name in self.inputs]
        self.source, self.steps = sized(Feed, FeedModel, 0, len(data))(name="feed", data=data), max(map(len, data))
        for index, name in enumerate(self.inputs):
            self.feed(name, getattr(self.source, f"out_{index}"))

    def run(self, *names, place=None, prepared=None):
        """Run what is played until these values are there: name -> ``[T, C, H, W]``. RuntimeError: a Process failed.
        ``place``: folder for the values; ``prepared``: called with Lava's runtime before the first step."""
        kept = Path(place or tempfile.mkdtemp())
        late = {name: self.latency[name] for name in names}
        shapes = {name: self.shape(name)[::-1] for name in names}
        wanted = [(shapes[name], late[name] + 1, late[name] + 1 + self.steps) for name in names]
        record = sized(Record, RecordModel, len(names), 0)(name="record", folder=str(kept), wanted=wanted)
        for index, name in enumerate(names):
            self.read(name, getattr(record, f"in_{index}"))
        record.create_runtime(run_cfg=Loihi2SimCfg(select_tag="fixed_pt"), compile_config={"pypy_channel_size": 2})
        if prepared:
            prepared(record.runtime)
        record.run(condition=RunSteps(num_steps=self.steps + max(late.values(), default=0), blocking=False))
        waiting = threading.Thread(target=record.wait, daemon=True)
        waiting.start()
        running = True
        while running:
            waiting.join(0.05)
            running, found = waiting.is_alive(), failure(record.runtime)
            if found:
                for actor in record.runtime._messaging_infrastructure.actors:
                    actor.kill()
                raise RuntimeError(found)
        values = {}
        for index, (name, shape) in enumerate(shapes.items()):
            raw = np.fromfile(kept / f"{index}.bin", dtype=np.int32).reshape(-1, *shape)
            values[name] = whc(raw)
        if not place:
            shutil.rmtree(kept)
        self.stop = record.stop
        return values

    def shape(self, name):
        """Channels, height, width of a value."""
        end = self.plan["values"][name][0]
        return [int(n) for n in (end["views"][-1] if end["views"] else end["shape"])]

    def feed(self, name, port):
        """Connect a port of yours (width, height, channels) to an input."""
        for target, views in self.inputs[name]:
            viewed(port, views).connect(target)

    def read(self, name, port):
        """Connect a value to a port of yours; what several Processes contribute is summed there."""
        for end in self.plan["values"][name]:
            self._port(end).connect(port)  # made here: Lava takes a reshaped port that leads nowhere for a target

    def _port(self, edge):
        process = self.processes[edge["source"]]
        kind = type(process).__name__
        port = (
            getattr(process, edge["out"])
            if edge.get("out")
            else process.a_out
            if hasattr(process, "a_out")
            else process.s_out
        )
        if kind in ("Dense", "Sparse", "DelaySparse"):
            port = unflattened(port, edge["shape"])
        return viewed(port, edge["views"])

    def _in_port(self, target, port):
        process = self.processes[target]
        if port:
            return getattr(process, port)
        found = process.s_in if hasattr(process, "s_in") else process.a_in
        return found

    def _process(self, node):
        array = {role: self.arrays[key] for role, key in node["arrays"].items()}
        return MAKERS[node["process"]](node, array)


def unflattened(port, chw):
    """A vector in (channels, height, width) order as a map of Lava."""
    return port.reshape(tuple(chw)).transpose((2, 1, 0))


def viewed(port, views):
    """A map through reshapes: each a list of three sizes (C, H, W), or one size for a vector in that order."""
    for sizes in views:
        port = port.transpose((2, 1, 0))
        port = port.reshape(tuple(sizes)).transpose((2, 1, 0)) if len(sizes) == 3 else port.flatten()
    return port


def _conv(node, array):
    from lava.proc.conv.process import Conv

    kernel = np.ascontiguousarray(array["weight"][:, :, ::-1, ::-1].transpose(0, 3, 2, 1)).astype(np.int64)
    p = node["params"]
    return Conv(name=node["name"], weight=kernel, input_shape=tuple(p["input_shape"]), stride=tuple(p["stride"]),
                padding=tuple(p["padding"]), dilation=tuple(p["dilation"]), groups=p["groups"],
                num_message_bits=24)  # fmt: skip


def _dense(node, array):
    """Eight-bit weights as 2 w: a matrix of both signs loses its lowest bit, the exponent takes the factor back."""
    from lava.proc.dense.process import Dense
    from lava.utils.weightutils import SignMode

    return Dense(name=node["name"], weights=2 * array["weight"].astype(np.int64), weight_exp=node["params"]["exp"] - 1,
                 sign_mode=SignMode.MIXED, num_message_bits=24)  # fmt: skip


def _csr(array):
    from scipy.sparse import csr_matrix

    return csr_matrix(
        (2 * array["data"].astype(np.int64), array["indices"], array["indptr"]), shape=tuple(array["shape"])
    )


def _sparse(node, array):
    from lava.proc.sparse.process import Sparse
    from lava.utils.weightutils import SignMode

    return Sparse(name=node["name"], weights=_csr(array), weight_exp=node["params"]["exp"] - 1,
                  sign_mode=SignMode.MIXED, num_message_bits=24)  # fmt: skip


def _delay(node, array):
    """One to one, each with its delay beside the step that every connection takes."""
    from lava.proc.sparse.process import DelaySparse
    from lava.utils.weightutils import SignMode
    from scipy.sparse import csr_matrix, identity

    steps = array["steps"].reshape(-1)
    one = 2 * identity(steps.size, dtype=np.int64, format="csr")
    delays = csr_matrix((steps.astype(np.int64), (np.arange(steps.size),) * 2), shape=(steps.size,) * 2)
    return DelaySparse(name=node["name"], weights=one, delays=delays, max_delay=int(steps.max()), weight_exp=-1,
                       sign_mode=SignMode.MIXED, num_message_bits=24)  # fmt: skip


def _lif(node, array):
    from lava.proc.lif.process import LIF, LIFReset

    p = dict(node["params"])
    shape = tuple(p.pop("shape"))
    start = p.pop("start", None)
    numbers = {role: _one(whc(np.broadcast_to(a, shape[::-1])).astype(np.int32)) for role, a in array.items()}
    if start is None:
        return LIF(name=node["name"], shape=shape, **numbers, **p)
    # Reset once, when the first input arrives: until then a bias has acted on its own.
    return LIFReset(name=node["name"], shape=shape, reset_interval=2**31 - 1, reset_offset=start, **numbers, **p)


def _one(a):
    """A number where all are equal: what Lava documents; arrays work as well, undocumented."""
    return int(a.flat[0]) if (a == a.flat[0]).all() else a


def _constant(node, array):
    from lava.proc.io.source import RingBuffer

    shape = tuple(node["params"]["shape"])
    return RingBuffer(data=whc(np.broadcast_to(array["value"], shape[::-1]))[..., None].astype(np.int32))


def _graded(node, array):
    from lava.proc.graded.process import GradedVec

    return GradedVec(shape=tuple(node["params"]["shape"]), vth=0)


def _own(node, array):
    work = dict(node["params"])
    work["ops"] = [
        {**op, **op["attrs"], **{role: array[key].astype(np.int64) for role, key in op["arrays"].items()}}
        for op in work["ops"]
    ]
    work["states"] = {
        name: np.full(shape, 0) + (array[start] if isinstance(start, str) else start)
        for name, (shape, start) in work["states"].items()
    }
    kind = sized(Own, OwnModel, len(work["inputs"]), len(work["outputs"]))
    return kind(name=node["name"], work=work)


MAKERS = {
    "Conv": _conv,
    "Dense": _dense,
    "Sparse": _sparse,
    "DelaySparse": _delay,
    "LIF": _lif,
    "LIFReset": _lif,
    "RingBuffer": _constant,
    "GradedVec": _graded,
    "Own": _own,
}


def build(phase, folder=Path(__file__).parent):
    """The Processes of a phase, connected to one another."""
    return Network(phase, folder)
