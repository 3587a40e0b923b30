"""The judge: a NIR network in float64, step by step, under a stated convention.

Decides what each node does in a step, from the equations of :mod:`conventions` alone. Must not know files or integers,
and shares no code with the lowering or the engines beyond the coefficients of a step.

    for each node in execution order:
        x = sum over its edges: the source's value of this step, or of the step before where the edge is back
        value = what the node answers to x (a neuron or Delay also changes its state)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.frontends.nir.conventions import Convention, delay_steps, discretise
from spiketrack_deploy.frontends.nir.network import NEURONS, FloatArray, Network, Node
from spiketrack_deploy.frontends.nir.operations import respond


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One step. ``values``: what every node sends, by name; ``membranes``: v of every neuron before its reset."""

    values: Mapping[str, FloatArray]
    membranes: Mapping[str, FloatArray]


class Neuron:
    """Current, membrane and last spikes of one node."""

    def __init__(self, node: Node, convention: Convention) -> None:
        self.step_, self.convention = discretise(node, convention), convention
        self.v, self.current = self.step_.v0.copy(), np.zeros(node.shape)
        self.fired = np.zeros(node.shape)

    def step(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What it sends for the summed input ``x``, and its membrane before the reset."""
        s = self.step_
        if s.a is None or s.g is None:
            self.current = x
        else:
            self.current = s.a * self.current + s.g * x
        v = s.b * self.v + s.h * self.current + s.c
        if s.theta is None:
            self.v = v
            return v, v
        late, before = self.convention.late, self.fired
        if late != "no":
            v = v - before * s.theta
        self.fired = spikes_of(v, s.theta, self.convention)
        if late != "no":
            self.v = v
        elif self.convention.reset == "subtract":
            self.v = v - self.fired * s.theta
        else:
            self.v = np.where(self.fired > 0, s.v_reset, v)
        return (before if late == "spike" else self.fired), v


def spikes_of(v: FloatArray, theta: FloatArray, convention: Convention) -> FloatArray:
    """Spikes of a membrane ``v``: one where it passes ``theta``, or as often as ``theta`` fits into it."""
    if not convention.several:
        return ((v >= theta) if convention.compare == "ge" else (v > theta)).astype(np.float64)
    times = np.floor(v / theta) if convention.compare == "ge" else np.ceil(v / theta) - 1
    fitted: FloatArray = np.maximum(times, 0.0)
    return fitted


class Delayed:
    """What a Delay node still holds: element ``i`` comes out ``steps[i]`` steps after it went in."""

    def __init__(self, network: Network, node: Node, dt: float) -> None:
        self.steps = delay_steps(network, node, dt)
        longest = int(self.steps.max())
        self.held = deque([np.zeros(node.shape)] * longest, maxlen=longest + 1)

    def step(self, x: FloatArray) -> FloatArray:
        """What comes out while ``x`` goes in."""
        self.held.append(x)
        past = np.stack(self.held)
        return np.take_along_axis(past, (len(self.held) - 1 - self.steps)[None], axis=0)[0]


class Simulation:
    """A network and its state. :meth:`step` runs one step."""

    def __init__(self, network: Network, convention: Convention) -> None:
        self.network = network
        nodes = network.nodes.values()
        self.neurons = {node.name: Neuron(node, convention) for node in nodes if node.kind in NEURONS}
        self.delays = {node.name: Delayed(network, node, convention.dt) for node in nodes if node.kind == "Delay"}
        self.into = {name: network.into(name) for name in network.nodes}
        self.before = {edge.source: edge.initial for edge in network.back_edges if edge.initial is not None}

    def step(self, inputs: Mapping[str, FloatArray]) -> Moment:
        """One step on an array of its shape for every Input node."""
        values: dict[str, FloatArray] = {}
        membranes: dict[str, FloatArray] = {}
        for name, node in self.network.nodes.items():
            if node.kind == "Input":
                values[name] = np.asarray(inputs[name], dtype=np.float64)
                continue
            x = np.zeros(node.in_shape)
            for edge in self.into[name]:
                arriving = self.before[edge.source] if edge.back else values[edge.source]
                x = x + arriving
            if name in self.neurons:
                values[name], membranes[name] = self.neurons[name].step(x)
            elif name in self.delays:
                values[name] = self.delays[name].step(x)
            else:
                values[name] = respond(node, x)
        self.before = {name: values[name] for name in self.before}
        return Moment(values, membranes)


def simulate(network: Network, convention: Convention, inputs: Mapping[str, FloatArray]) -> Iterator[Moment]:
    """Every step of ``inputs`` (one array ``[steps, *shape]`` per Input node), from the initial state on."""
    simulation = Simulation(network, convention)
    for step in range(len(next(iter(inputs.values())))):
        yield simulation.step({name: values[step] for name, values in inputs.items()})


def outputs(network: Network, convention: Convention, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """``[steps, *shape]`` of every Output node."""
    moments = list(simulate(network, convention, inputs))
    return {name: np.stack([moment.values[name] for moment in moments]) for name in network.outputs}
