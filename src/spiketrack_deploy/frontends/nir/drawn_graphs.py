"""Small NIR graphs that together have every primitive: what the conformance suite consists of.

Decides the graphs. Must not know conventions or files. Every number is drawn from a fixed seed, so that a suite is the
same whoever writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from spiketrack_deploy.nir_graph.graph import FloatArray
from spiketrack_deploy.nir_graph.tree import Record, Tree, Value

Nodes = Mapping[str, "Record | Tree"]


def node(kind: str, **fields: Value | float | int) -> Record:
    """A record; numbers become 0-d arrays, integers tuples of one."""
    held: dict[str, Value] = {}
    for key, value in fields.items():
        if isinstance(value, float):
            held[key] = np.array(value)
        else:
            held[key] = (value,) if isinstance(value, int) else value
    return Record(kind, held)


def chain(*nodes: tuple[str, Record | Tree], more: Sequence[tuple[str, str]] = ()) -> Tree:
    """Nodes one behind the other, and ``more`` edges."""
    names = [name for name, _ in nodes]
    return Tree(dict(nodes), (*pairwise(names), *more))


def neuron(kind: str, shape: tuple[int, ...], seed: int, *, leak: float = 0.0, reset: float = 0.0) -> Record:
    """A neuron whose parameters differ from one to the next; time constants of 2 to 12 ms, r about tau / dt."""
    rng = np.random.default_rng(seed)
    tau = rng.uniform(0.002, 0.012, shape)
    fields: dict[str, Value] = {}
    if kind in ("I", "IF"):
        fields["r"] = rng.uniform(500, 1500, shape)
    elif kind in ("LI", "LIF"):
        fields |= {"tau": tau, "r": rng.uniform(0.5, 1.5, shape) * tau / 1e-3}
    else:
        fields |= {"tau_syn": rng.uniform(0.002, 0.006, shape), "tau_mem": tau}
        fields |= {"r": rng.uniform(0.5, 1.5, shape), "w_in": rng.uniform(2, 6, shape)}
    if kind not in ("I", "IF"):
        fields["v_leak"] = np.full(shape, leak)
    if kind in ("IF", "LIF", "CubaLIF"):
        fields |= {"v_threshold": rng.uniform(0.5, 1.5, shape), "v_reset": np.full(shape, reset)}
    return Record(kind, fields)


def weights(shape: tuple[int, ...], seed: int) -> FloatArray:
    """Weights of mixed signs, more positive than negative."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.15, 0.5, shape)


def _ends(given: tuple[int, ...], made: tuple[int, ...]) -> tuple[tuple[str, Record], tuple[str, Record]]:
    return ("input", Record("Input", {"shape": given})), ("output", Record("Output", {"shape": made}))


def _dense(kind: str, **options: float) -> Tree:
    first, last = _ends((6,), (4,))
    affine = ("fc", node("Affine", weight=weights((4, 6), 1), bias=weights((4,), 2) / 4))
    return chain(first, affine, ("neuron", neuron(kind, (4,), 3, **options)), last)


def _conv2d() -> Tree:
    first, last = _ends((2, 6, 7), (3,))
    conv = node("Conv2d", input_shape=(6, 7), weight=weights((4, 1, 3, 2), 4), stride=(1, 2), padding=(1, 0),
                dilation=(1, 2), groups=2, bias=weights((4,), 5) / 4)  # fmt: skip
    pool = node("SumPool2d", kernel_size=(2, 1), stride=(2, 1), padding=(0, 0))
    flat = node("Flatten", start_dim=0, end_dim=-1, input_type=(4, 3, 3))
    parts = (("conv", conv), ("lif", neuron("LIF", (4, 6, 3), 6)), ("pool", pool), ("flat", flat))
    fc = ("fc", node("Linear", weight=weights((3, 36), 7) / 3))
    return chain(first, *parts, fc, ("last", neuron("LIF", (3,), 8)), last)


def _conv1d() -> Tree:
    first, last = _ends((2, 9), (12,))
    conv = node("Conv1d", input_shape=9, weight=weights((4, 2, 3), 9), stride=2, padding="valid", dilation=2, groups=1,
                bias=weights((4,), 10) / 4)  # fmt: skip
    flat = node("Flatten", start_dim=0, end_dim=-1, input_type=(4, 3))
    return chain(first, ("conv", conv), ("lif", neuron("IF", (4, 3), 11)), ("flat", flat), last)


def _pooled() -> Tree:
    first, last = _ends((2, 4, 6), (2, 2, 3))
    pool = node("AvgPool2d", kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))
    scale = node("Scale", scale=weights((2, 2, 3), 12) * 4)
    return chain(first, ("pool", pool), ("scale", scale), ("lif", neuron("LIF", (2, 2, 3), 13)), last)


def _thresholds() -> Tree:
    """A graded neuron: the spikes of three thresholds add up behind an integrator."""
    first, last = _ends((5,), (5,))
    names = ("low", "middle", "high")
    nodes = {"input": first[1], "lif": neuron("LI", (5,), 14), "output": last[1]}
    nodes |= {name: node("Threshold", threshold=np.full(5, 0.4 * (k + 1))) for k, name in enumerate(names)}
    edges = (("input", "lif"), *((("lif", name)) for name in names), *((name, "output") for name in names))
    return Tree(nodes, edges)


def _delayed() -> Tree:
    first, last = _ends((4,), (4,))
    delay = node("Delay", delay=np.array([0.0, 0.001, 0.002, 0.005]))
    return chain(first, ("delay", delay), ("lif", neuron("LIF", (4,), 15)), last)


def _recurrent(nested: bool) -> Tree:
    """A biased recurrent layer: its bias acts from step 0, its weights see the spikes of the step before."""
    first, last = _ends((6,), (5,))
    inner = Tree(
        {
            "input": Record("Input", {"shape": (5,)}),
            "lif": neuron("CubaLIF", (5,), 16),
            "w_rec": node("Affine", weight=weights((5, 5), 17) / 2, bias=weights((5,), 18) / 4),
            "output": Record("Output", {"shape": (5,)}),
        },
        (("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")),
    )
    fc = ("fc", node("Linear", weight=weights((5, 6), 19)))
    if nested:
        return chain(first, fc, ("layer", inner), last)
    lif, w_rec = inner.nodes["lif"], inner.nodes["w_rec"]
    tree = chain(first, fc, ("lif", lif), last, more=(("lif", "w_rec"), ("w_rec", "lif")))
    return Tree({**tree.nodes, "w_rec": w_rec}, tree.edges)


def _feedback() -> Tree:
    """A later layer feeds an earlier one through a delay; two inputs and two outputs."""
    nodes: dict[str, Record | Tree] = {
        "left": Record("Input", {"shape": (4,)}),
        "right": Record("Input", {"shape": (3,)}),
        "a": node("Linear", weight=weights((5, 4), 20)),
        "b": node("Linear", weight=weights((5, 3), 21)),
        "first": neuron("LIF", (5,), 22, leak=0.1, reset=-0.1),
        "c": node("Linear", weight=weights((3, 5), 23)),
        "second": neuron("LIF", (3,), 24),
        "delay": node("Delay", delay=np.array([0.001, 0.002, 0.003])),
        "back": node("Linear", weight=weights((5, 3), 25) / 2),
        "spikes": Record("Output", {"shape": (3,)}),
        "hidden": Record("Output", {"shape": (5,)}),
    }
    edges = (("left", "a"), ("right", "b"), ("a", "first"), ("b", "first"), ("first", "c"), ("c", "second"),
             ("second", "delay"), ("delay", "back"), ("back", "first"), ("second", "spikes"),
             ("first", "hidden"))  # fmt: skip
    return Tree(nodes, edges)


def _grouped() -> Tree:
    """Affine with a leading axis: a matrix of its own for each of two groups."""
    first, last = _ends((2, 4), (2, 3))
    affine = node("Affine", weight=weights((2, 3, 4), 26), bias=weights((2, 3), 27) / 4)
    return chain(first, ("fc", affine), ("lif", neuron("LIF", (2, 3), 28)), last)


def _old() -> Tree:
    """As written before NIR 1.0.6: no v_reset; a batch axis in the stored shapes."""
    lif = neuron("LIF", (4,), 29)
    old = Record("LIF", {key: value for key, value in lif.fields.items() if key != "v_reset"})
    first, last = _ends((1, 6), (1, 4))
    return chain(first, ("fc", node("Affine", weight=weights((4, 6), 30), bias=np.zeros(4))), ("lif", old), last)


GRAPHS: dict[str, tuple[str, Callable[[], Tree]]] = {
    **{f"dense_{kind.lower()}": (f"Affine and {kind}, parameters that differ", partial(_dense, kind))
       for kind in ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")},
    "leak_and_reset": ("LIF with v_leak and v_reset", partial(_dense, "LIF", leak=0.2, reset=-0.3)),
    "conv2d": ("grouped Conv2d with a 3x2 kernel, stride and dilation; SumPool2d, Flatten, Linear", _conv2d),
    "conv1d": ("Conv1d with stride and dilation, IF, Flatten", _conv1d),
    "pooled": ("AvgPool2d, Scale and LIF on maps", _pooled),
    "thresholds": ("LI read by three Thresholds that add up", _thresholds),
    "delay": ("a Delay of 0 to 5 steps, one for each neuron", _delayed),
    "recurrent": ("CubaLIF with a biased recurrent Affine", partial(_recurrent, False)),
    "nested": ("the same as a nested graph", partial(_recurrent, True)),
    "feedback": ("two inputs, two outputs, a later layer feeding an earlier one through a Delay", _feedback),
    "leading_axis": ("Affine with a leading axis", _grouped),
    "old_file": ("no v_reset, a batch axis in the stored shapes", _old),
}  # fmt: skip
"""Name -> what it shows, and the graph."""
