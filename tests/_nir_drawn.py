"""Drawn NIR networks of every primitive, flat as the front end makes them, and what runs on them.

A network is a chain of drawn nodes with side branches that are summed in again, back edges from later neurons and
Delays, odd maps. Parameters differ from neuron to neuron. Weights are scaled so that neurons fire now and then.
"""

from __future__ import annotations

from math import prod

import numpy as np

from spiketrack_deploy.frontends.nir.conventions import PRESETS, Convention
from spiketrack_deploy.frontends.nir.lower import InputKind
from spiketrack_deploy.frontends.nir.network import NEURONS, SPIKING, Edge, Network, Node
from spiketrack_deploy.frontends.nir.observe import draw
from spiketrack_deploy.frontends.nir.reference import simulate

DT = 1e-3


def conventions(rng: np.random.Generator) -> Convention:
    """A drawn convention, presets among them."""
    if rng.random() < 0.3:
        name = str(rng.choice(sorted(PRESETS)))
        return Convention(**{f: getattr(PRESETS[name], f) for f in Convention.__dataclass_fields__ if f != "dt"}, dt=DT)
    reset = str(rng.choice(["value", "subtract"]))
    return Convention(
        dt=DT,
        integrate=str(rng.choice(["euler", "exp"])),  # type: ignore[arg-type]
        reset=reset,  # type: ignore[arg-type]
        compare=str(rng.choice(["gt", "ge"])),  # type: ignore[arg-type]
        initial=str(rng.choice(["zero", "leak", "reset"])),  # type: ignore[arg-type]
        several=bool(rng.random() < 0.25),
        if_unit="one",
        late=str(rng.choice(["no", "no", "reset", "spike"])) if reset == "subtract" else "no",  # type: ignore[arg-type]
    )


class Drawn:
    """Draws one network node by node."""

    def __init__(self, seed: int, depth: int, kinds: tuple[str, ...] = ()) -> None:
        self.rng = np.random.default_rng(seed)
        self.convention = conventions(self.rng)
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.kinds: dict[str, InputKind] = {}
        self.wanted = kinds
        self.depth = depth

    def add(self, kind: str, params: dict, in_shape: tuple[int, ...], shape: tuple[int, ...], *sources: str) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes[name] = Node(name, kind, params, tuple(in_shape), tuple(shape))
        self.edges += [Edge(source, name) for source in sources]
        return name

    def around(self, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
        """Parameters alike, or different from element to element."""
        size = shape if self.rng.random() < 0.6 else (1,) * len(shape)
        return np.broadcast_to(self.rng.uniform(low, high, size), shape)

    def input(self, shape: tuple[int, ...]) -> str:
        name = self.add("Input", {}, shape, shape)
        kind = self.rng.random()
        self.kinds[name] = InputKind(1) if kind < 0.5 else InputKind(5) if kind < 0.7 else InputKind(limit=1.5)
        return name

    def level(self, *sources: str) -> float:
        """Root mean square of the summed values of some nodes on drawn input: a gain over it keeps activity even."""
        network = Network("so far", self.nodes, tuple(self.edges), tuple(self.kinds), ())
        kinds = {name: (kind.top, kind.limit) for name, kind in self.kinds.items()}
        moments = simulate(network, self.convention, draw(network, kinds, 16, 7))
        sums = [sum(moment.values[name] for name in sources) for moment in moments]
        return max(float(np.sqrt(np.mean(np.square(sums)))), 0.2)

    def neuron(self, kind: str, source: str, *more: str) -> str:
        shape, level = self.nodes[source].shape, self.level(source, *more)
        tau = lambda: self.around(shape, 1.5 * DT, 25 * DT)  # noqa: E731
        sign = -1.0 if self.rng.random() < 0.1 else 1.0
        gain = self.around(shape, 0.5, 2.0) * sign / level
        unit = DT if self.convention.if_unit == "dt" else 1.0
        params: dict[str, np.ndarray] = {"r": gain * 0.3 / unit}
        if kind in ("LI", "LIF"):
            params |= {"tau": tau(), "r": gain * 2}
        if kind in ("CubaLI", "CubaLIF"):
            params |= {"tau_syn": tau(), "tau_mem": tau(), "r": gain * 2, "w_in": self.around(shape, 0.5, 2.0)}
        if kind not in ("I", "IF"):
            params["v_leak"] = self.around(shape, -0.2, 0.2) if self.rng.random() < 0.5 else np.zeros(shape)
        if kind in SPIKING:
            params["v_threshold"] = self.around(shape, 0.4, 1.2)
            params["v_reset"] = self.around(shape, -0.3, 0.1) if self.rng.random() < 0.5 else np.zeros(shape)
        return self.add(kind, params, shape, shape, source, *more)

    def weights(self, kind: str, source: str, out: int = 0) -> str:
        rng, shape = self.rng, self.nodes[source].shape
        if kind in ("Linear", "Affine"):
            lead, out = shape[:-1], out or int(rng.integers(2, 9))
            weight = rng.normal(0.1, 1.2 / np.sqrt(shape[-1]), (*lead, out, shape[-1]))
            params = {"weight": weight}
            if kind == "Affine":
                params["bias"] = rng.normal(0, 0.1, (*lead, out))
            return self.add(kind, params, shape, (*lead, out), source)
        axes = 1 if kind == "Conv1d" else 2
        groups = int(rng.choice([g for g in (1, 2, shape[0]) if shape[0] % g == 0]))
        out = groups * int(rng.integers(1, 4))
        size, stride = [int(k) for k in rng.integers(1, 4, axes)], [int(s) for s in rng.integers(1, 3, axes)]
        dilation, padding = [int(d) for d in rng.integers(1, 3, axes)], [int(p) for p in rng.integers(0, 3, 2 * axes)]
        for i in range(axes):
            while shape[1 + i] + padding[2 * i] + padding[2 * i + 1] < dilation[i] * (size[i] - 1) + 1:
                size[i], dilation[i] = max(size[i] - 1, 1), 1
        made = [
            (shape[1 + i] + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (size[i] - 1) - 1) // stride[i] + 1
            for i in range(axes)
        ]
        fan_in = shape[0] // groups * prod(size)
        params = {
            "weight": rng.normal(0.1, 1.2 / np.sqrt(fan_in), (out, shape[0] // groups, *size)),
            "bias": rng.normal(0, 0.1, out) * (rng.random() < 0.5),
            "stride": tuple(stride), "dilation": tuple(dilation), "padding": tuple(padding), "groups": groups,
        }  # fmt: skip
        return self.add(kind, params, shape, (out, *made), source)

    def pool(self, kind: str, source: str) -> str:
        shape, rng = self.nodes[source].shape, self.rng
        size = tuple(int(min(k, n)) for k, n in zip(rng.integers(1, 4, 2), shape[1:]))
        padding = tuple(int(p) for p in rng.integers(0, 2, 4))
        stride = tuple(int(s) for s in rng.integers(1, 3, 2))
        made = [(shape[1 + i] + padding[2 * i] + padding[2 * i + 1] - size[i]) // stride[i] + 1 for i in (0, 1)]
        params = {"kernel_size": size, "stride": stride, "padding": padding}
        return self.add(kind, params, shape, (shape[0], *made), source)

    def element(self, kind: str, source: str) -> str:
        shape = self.nodes[source].shape
        if kind == "Scale":
            return self.add(kind, {"scale": self.around(shape, -0.5, 1.5)}, shape, shape, source)
        if kind == "Threshold":
            return self.add(kind, {"threshold": self.around(shape, -0.1, 0.6)}, shape, shape, source)
        if kind == "Delay":
            steps = self.rng.integers(0, 6, shape if self.rng.random() < 0.5 else (1,) * len(shape))
            return self.add(kind, {"delay": np.broadcast_to(steps * DT, shape)}, shape, shape, source)
        return self.add("Flatten", {}, shape, (prod(shape),), source)

    def one(self, source: str) -> str:
        """A drawn node that fits behind ``source``."""
        shape, rng = self.nodes[source].shape, self.rng
        fits = [*NEURONS, "LIF", "LIF", "CubaLIF", "Scale", "Threshold", "Delay", "Linear", "Affine"]
        fits += {
            1: [],
            2: ["Conv1d"] * 3 + ["Flatten"],
            3: ["Conv2d"] * 4 + ["SumPool2d", "AvgPool2d"] * 2 + ["Flatten"],
        }[len(shape)]
        kind = str(rng.choice([k for k in fits if not self.wanted or k in self.wanted] or fits))
        if kind in NEURONS:
            return self.neuron(kind, source)
        if kind in ("Linear", "Affine", "Conv1d", "Conv2d"):
            return self.weights(kind, source)
        return self.pool(kind, source) if kind.endswith("Pool2d") else self.element(kind, source)

    def recur(self, neuron: str) -> None:
        """Weights from a neuron back to itself: a cycle that costs a step."""
        shape = self.nodes[neuron].shape
        back = str(self.rng.choice(["direct", "Linear", "delay"]))
        place = list(self.nodes).index(neuron)
        if back == "direct":
            extra = Node(f"back{len(self.nodes)}", "Scale", {"scale": np.full(shape, -0.3)}, shape, shape)
        elif back == "delay":
            extra = Node(f"back{len(self.nodes)}", "Delay", {"delay": np.full(shape, 2 * DT)}, shape, shape)
        else:
            n = shape[-1]
            weight = self.rng.normal(-0.05, 0.5 / n, (*shape[:-1], n, n))
            extra = Node(f"back{len(self.nodes)}", "Linear", {"weight": weight}, shape, shape)
        listed = list(self.nodes.items())
        self.nodes = dict([*listed[:place], (extra.name, extra), *listed[place:]])
        self.edges += [Edge(neuron, extra.name, True, np.zeros(shape)), Edge(extra.name, neuron)]

    def network(self) -> Network:
        rng = self.rng
        shapes = [
            (int(rng.integers(2, 9)),),
            (3, int(rng.integers(5, 10))),
            (2, int(rng.integers(4, 9)), int(rng.integers(3, 8))),
        ]
        shape = shapes[int(rng.choice(3, p=[0.3, 0.25, 0.45]))]
        last = self.input(shape)
        if rng.random() < 0.7:
            last = self.weights({1: "Linear", 2: "Conv1d", 3: "Conv2d"}[len(shape)], last)
        made = []
        for _ in range(self.depth):
            before, last = last, self.one(last)
            made.append(last)
            if self.nodes[last].kind in SPIKING and rng.random() < 0.4:
                self.recur(last)
            if self.nodes[before].shape == self.nodes[last].shape and rng.random() < 0.25:
                last = self.neuron(str(rng.choice(NEURONS)), last, before)
        if not any(node.kind in NEURONS for node in self.nodes.values()):
            last = self.neuron("LIF", last)
        shown = {last, *(n for n in made if rng.random() < 0.1)}
        if rng.random() < 0.2 and len(self.nodes[last].shape) == 1:
            other = self.input((4,))
            last = self.neuron("LIF", last, self.weights("Linear", other, self.nodes[last].shape[0]))
            shown.add(last)
        outputs = [self.add("Output", {}, self.nodes[n].shape, self.nodes[n].shape, n) for n in sorted(shown)]
        inputs = sorted(self.kinds)
        return Network("drawn", self.nodes, tuple(self.edges), tuple(inputs), tuple(outputs))
