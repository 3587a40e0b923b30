"""The four kinds of Lava Process: source, block, state, sink; zero latency, int32 ports, fixed_pt.

This module decides how a Process takes part in a step. It must not know how an operation computes (``segment``). A step
is one run of one phase: the source tells every Process its mode first; a Process that has no part in the mode neither
sends nor waits, so every channel is empty between steps. One step of the template phase holds all its T templates
(arrays ``[T,...]``): membranes live and die within a step, as in ``program.ops.neuron.ni_lif``; the only state that
survives a step is a state's Var.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from spiketrack_deploy.engines.lava_worker.plan import LOAD, REPORT, SINK, SOURCE, Plan, Port
from spiketrack_deploy.engines.lava_worker.segment import check_range

MODE_SHAPE = (3,)
"""Mode number, counts wanted, values wanted."""


class Fused(AbstractProcess):
    """A Process with the ports that the plan gives it: ``in_0..`` and ``out_0..``, in the plan's order.

    ``work``: what the model needs of the host (a ``Segment`` or a ``Channel``), inherited by fork.
    """

    def __init__(self, *, name: str, plan: Plan, work: Any) -> None:
        received, sent = plan.inputs(name), plan.outputs(name)
        super().__init__(name=name, modes=plan.modes, received=received, sent=sent, work=work)
        for index, port in enumerate(received):
            setattr(self, f"in_{index}", InPort(shape=port.shape))
        for index, port in enumerate(sent):
            setattr(self, f"out_{index}", OutPort(shape=port.shape))
        if name == SOURCE:
            self.mode_out = OutPort(shape=MODE_SHAPE)
        else:
            self.mode_in = InPort(shape=MODE_SHAPE)
        if name in plan.states:
            self.held = Var(shape=plan.states[name], init=0)

    def in_port(self, port: Port) -> Any:
        """The InPort of a plan's port."""
        return getattr(self, f"in_{self.proc_params['received'].index(port)}")

    def out_port(self, port: Port) -> Any:
        """The OutPort of a plan's port."""
        return getattr(self, f"out_{self.proc_params['sent'].index(port)}")


class FusedModel(PyLoihiProcessModel):
    """What all four models share: the mode word, receiving and sending by value name. Undecorated: it is subclassed."""

    def run_spk(self) -> None:
        """One step: learn the mode, then the part of this Process in it."""
        word = self.mode_in.recv()
        self.act(self.proc_params["modes"][int(word[0])], bool(word[1]), bool(word[2]))

    def act(self, mode: str, count: bool, watch: bool) -> None:
        """The part of this Process in a mode."""
        raise NotImplementedError

    def receive(self, mode: str, value: str) -> Any:
        """Wait for a value (int64)."""
        index = next(i for i, p in enumerate(self.proc_params["received"]) if (p.mode, p.value) == (mode, value))
        return getattr(self, f"in_{index}").recv().astype(np.int64)

    def send(self, mode: str, value: str, array: Any) -> None:
        """Send a value that was checked to fit signed 24 bits."""
        index = next(i for i, p in enumerate(self.proc_params["sent"]) if (p.mode, p.value) == (mode, value))
        getattr(self, f"out_{index}").send(array.astype(np.int32))


class SourceModel(FusedModel):
    """Takes mode and arrays from the host's pipe, tells every Process the mode, sends the arrays to their readers."""

    def run_spk(self) -> None:
        """One step."""
        header, arrays = self.proc_params["work"].recv()
        mode = header["mode"]
        word = [self.proc_params["modes"].index(mode), header["count"], header["watch"]]
        self.mode_out.send(np.array(word, dtype=np.int32))
        for port in self.proc_params["sent"]:
            if port.mode == mode:
                check_range(port.value, arrays[port.value])
                self.send(mode, port.value, arrays[port.value])


class BlockModel(FusedModel):
    """A block of the network: its operations of this mode, through ``Segment.step``."""

    def act(self, mode: str, count: bool, watch: bool) -> None:
        """Compute, if this block occurs in the phase."""
        segment = self.proc_params["work"]
        if mode in segment.work:
            sent = frozenset(p.value for p in self.proc_params["sent"] if p.mode == mode)
            segment.step(mode, count, watch, lambda v: self.receive(mode, v), lambda v, a: self.send(mode, v, a), sent)


class StateModel(FusedModel):
    """Holds a state in its Var: a mode that reads gets it, a mode that writes rewrites it, in this order.

    What it just rewrote it also sends to the sink: the host sees what is stored, not the message that brought it.
    """

    def act(self, mode: str, count: bool, watch: bool) -> None:
        """Send, then rewrite, then report."""
        sent = [port.value for port in self.proc_params["sent"] if port.mode == mode]
        for value in sent:
            if not value.startswith(REPORT):
                self.send(mode, value, self.held)
        for port in self.proc_params["received"]:
            if port.mode == mode:
                self.held[:] = self.receive(mode, port.value)
        for value in sent:
            if value.startswith(REPORT):
                self.send(mode, value, self.held)


class SinkModel(FusedModel):
    """Hands the outputs of a phase to the host's pipe."""

    def act(self, mode: str, count: bool, watch: bool) -> None:
        """Collect and report; in :data:`LOAD` mode there is nothing to collect."""
        if mode != LOAD:
            values = [p.value for p in self.proc_params["received"] if p.mode == mode]
            self.proc_params["work"].send({"done": SINK}, {v: self.receive(mode, v) for v in values})


def _role(name: str, plan: Plan) -> type[FusedModel]:
    if name in plan.states:
        return StateModel
    return {SOURCE: SourceModel, SINK: SinkModel}.get(name, BlockModel)


def _classes(role: type[FusedModel], received: int, sent: int) -> type[Fused]:
    """A Process class and its model with this number of ports.

    Lava reads ports off the model's *class*, and finds a model by looking through the module of the Process's class.
    """
    label = f"{role.__name__}_{received}_{sent}"
    if label in globals():
        known: type[Fused] = globals()[label].implements_process
        return known
    process = type(f"{label}_Process", (Fused,), {"__module__": __name__})
    ports: dict[str, Any] = {"__module__": __name__}
    for index in range(received):
        ports[f"in_{index}"] = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    for index in range(sent):
        ports[f"out_{index}"] = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    mode = (PyOutPort if role is SourceModel else PyInPort).VEC_DENSE
    ports["mode_out" if role is SourceModel else "mode_in"] = LavaPyType(mode, np.int32, precision=24)
    if role is StateModel:
        ports["held"] = LavaPyType(np.ndarray, np.int32, precision=24)
    plain = type(label, (role,), ports)
    model = implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(tag("fixed_pt")(plain)))
    globals()[process.__name__], globals()[label] = process, model
    return process


def build(plan: Plan, work: dict[str, Any]) -> dict[str, Fused]:
    """All Processes of a plan, connected; ``work``: Process name -> its ``Segment`` or ``Channel``."""
    made = {}
    for name in plan.processes:
        kind = _classes(_role(name, plan), len(plan.inputs(name)), len(plan.outputs(name)))
        made[name] = kind(name=name, plan=plan, work=work.get(name))
    for name, process in made.items():
        if name != SOURCE:
            made[SOURCE].mode_out.connect(process.mode_in)
    for wire in plan.wires:
        made[wire.source].out_port(wire.port).connect(made[wire.target].in_port(wire.port))
    return made
