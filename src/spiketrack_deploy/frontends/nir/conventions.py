"""What NIR leaves open, as data: the step, integration, reset, comparison, initial state, spikes a step.

Decides the words of a :class:`Convention`, what each framework means (:data:`PRESETS`), and how a neuron's parameters
become the coefficients of one step (:func:`discretise`), which is all that the float64 reference and the lowering know
of them. Must not know files or integers.

One step of a neuron with summed input x, in this order (arrays of the neuron's shape):

    I  <- a I + g x                 (I = x where there is no synapse: a = 0, g = 1)
    v  <- b v + h I + c
    n   = spikes of v: [v > theta], or how often theta fits into v (several a step)
    v  <- v_reset where it fired, or v - n theta
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from spiketrack_deploy.errors import UsageError
from spiketrack_deploy.frontends.nir.network import FloatArray, Network, Node


@dataclass(frozen=True, slots=True)
class Convention:
    """How a NIR file is read in steps.

    ``dt``: seconds a step. ``integrate``: decay 1 - dt/tau (euler) or e^(-dt/tau) (exp). ``reset``: to v_reset
    (value), or minus the threshold per spike (subtract). ``compare``: fires where v > theta (gt) or v >= theta (ge).
    ``initial``: v before step 0: zero, v_leak (leak; zero where there is none) or v_reset (reset). ``several``: as many
    spikes a step as theta fits into v. ``if_unit``: an IF or I adds dt R x (dt) or R x (one) a step. ``gain``: what a
    membrane with a leak adds for an input I and a leak v_leak: (1 - b) (R I + v_leak) (r), or I + v_leak as they are
    (one; frameworks whose ``r`` says something else). ``synapse``: what a current adds for x: (1 - a) w_in x (w_in), x
    (one), or a x (decayed: the input decays in the step it arrives). ``late``: no; ``reset``: the threshold of a spike
    is subtracted in the next step, behind its decay; ``spike``: so, and the spike leaves a step late as well.
    """

    dt: float = 1e-4
    integrate: Literal["euler", "exp"] = "euler"
    reset: Literal["value", "subtract"] = "value"
    compare: Literal["gt", "ge"] = "gt"
    initial: Literal["zero", "leak", "reset"] = "zero"
    several: bool = False
    if_unit: Literal["dt", "one"] = "dt"
    gain: Literal["r", "one"] = "r"
    synapse: Literal["w_in", "one", "decayed"] = "w_in"
    late: Literal["no", "reset", "spike"] = "no"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.dt) and self.dt > 0):
            raise UsageError(f"--dt {self.dt}: a step needs a positive number of seconds")
        if self.late != "no" and self.reset != "subtract":
            raise UsageError(f"--late {self.late} is about subtracting the threshold; it needs --reset subtract")


PRESETS: dict[str, Convention] = {
    "euler": Convention(),
    "norse": Convention(dt=1e-3, initial="leak", if_unit="one", synapse="one"),
    "snntorch": Convention(),
    "spikingjelly": Convention(compare="ge", initial="reset"),
    "sinabs": Convention(
        dt=1.0,
        integrate="exp",
        reset="subtract",
        compare="ge",
        several=True,
        if_unit="one",
        gain="one",
        synapse="decayed",
    ),
    "rockpool": Convention(
        dt=1e-3, integrate="exp", reset="subtract", compare="ge", several=True, gain="one", synapse="decayed"
    ),
    "spyx": Convention(dt=1.0, reset="subtract", if_unit="one", gain="one", synapse="one", late="spike"),
    "lava-dl": Convention(),
}
"""What each framework does with the files it writes (docs/nir.md names the versions tried)."""

CHOICES: dict[str, tuple[str, ...]] = {
    "integrate": ("euler", "exp"),
    "reset": ("value", "subtract"),
    "compare": ("gt", "ge"),
    "initial": ("zero", "leak", "reset"),
    "if_unit": ("dt", "one"),
    "gain": ("r", "one"),
    "synapse": ("w_in", "one", "decayed"),
    "late": ("no", "reset", "spike"),
}
"""Words of each field that is no number and no flag."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Coefficients of one step of a neuron, float64 arrays of its shape (``a``, ``g`` None: there is no synapse).

    ``v0``: the membrane before step 0 (a current begins at 0). ``theta``, ``v_reset``: None where it does not spike.
    """

    b: FloatArray
    h: FloatArray
    c: FloatArray
    v0: FloatArray
    a: FloatArray | None = None
    g: FloatArray | None = None
    theta: FloatArray | None = None
    v_reset: FloatArray | None = None


def discretise(node: Node, convention: Convention) -> Step:
    """The coefficients of a neuron's step (equations in the module's text). ``node``: one of ``network.NEURONS``."""
    zero = np.zeros(node.shape)
    leak = node.array("v_leak") if "v_leak" in node.params else zero
    v_reset = node.array("v_reset") if "v_reset" in node.params else None
    v0 = {"zero": zero, "leak": leak, "reset": zero if v_reset is None else v_reset}[convention.initial]
    theta = node.array("v_threshold") if "v_threshold" in node.params else None
    if node.kind in ("I", "IF"):
        h = node.array("r") * (convention.dt if convention.if_unit == "dt" else 1.0)
        return Step(np.ones(node.shape), h, zero, v0, theta=theta, v_reset=v_reset)
    cuba = node.kind in ("CubaLI", "CubaLIF")
    b = _decay(node.array("tau_mem" if cuba else "tau"), convention)
    h, c = ((1 - b) * node.array("r"), (1 - b) * leak) if convention.gain == "r" else (np.ones(node.shape), leak)
    a = g = None
    if cuba:
        a = _decay(node.array("tau_syn"), convention)
        g = {"w_in": (1 - a) * node.array("w_in"), "one": np.ones(node.shape), "decayed": a}[convention.synapse]
    return Step(b, h, c, v0, a, g, theta, v_reset)


def _decay(tau: FloatArray, convention: Convention) -> FloatArray:
    return 1 - convention.dt / tau if convention.integrate == "euler" else np.exp(-convention.dt / tau)


def delay_steps(network: Network, node: Node, dt: float) -> npt.NDArray[np.int64]:
    """Whole steps that a Delay node holds each of its values: its seconds by ``dt``, rounded half up. A back edge out
    of it is one of these steps where all its edges are back."""
    steps = np.floor(node.array("delay") / dt + 0.5).astype(np.int64)
    out = network.out_of(node.name)
    if out and all(edge.back for edge in out):
        steps = np.maximum(steps - 1, 0)
    return steps
