"""What a NIR file suggests about its convention, and where a convention and a file contradict each other.

Decides both from the parameters alone: frameworks leave marks in ``r`` and ``w_in``. Must not know files or integers.
A suggestion is said, never followed: who runs a network states the convention or reads what was assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.frontends.nir.conventions import Convention, discretise
from spiketrack_deploy.frontends.nir.diagnose import Diagnostic, gathered
from spiketrack_deploy.frontends.nir.network import NEURONS, FloatArray, Network, Node

DECAY_STEPS = 4096
"""A decay is a whole number of 4096ths on chips of the Loihi family."""
MAX_DELAYED = 1 << 26


@dataclass(frozen=True, slots=True)
class Mark:
    """Preset that a mark speaks for, and what it is."""

    preset: str
    why: str


def marks(network: Network) -> tuple[Mark, ...]:
    """What the parameters look like, best evidence first; empty where nothing is characteristic."""
    leaky = [n for n in network.nodes.values() if n.kind in ("LI", "LIF", "CubaLI", "CubaLIF")]
    plain = [n for n in network.nodes.values() if n.kind in ("I", "IF")]
    found = []
    tau = {n.name: n.array("tau_mem" if n.kind.startswith("Cuba") else "tau") for n in leaky}
    if leaky and all(_near(n.array("r") * 1e-4, tau[n.name]) for n in leaky):
        found.append(Mark("snntorch", "r = tau / dt for dt = 1e-4 s"))
    steps = [step for n in leaky if (step := _rockpool_dt(n.array("r"), tau[n.name])) is not None]
    if leaky and not found and len(steps) == len(leaky) and np.ptp(steps) <= 1e-4 * max(steps):
        found.append(Mark("rockpool", f"r = tau e^(-dt/tau) / dt for dt = {steps[0]:.4g} s"))
    if plain and all(_near(n.array("r"), np.full(n.shape, 1e4)) for n in plain):
        found.append(Mark("spikingjelly", "IF with r = 1 / dt for dt = 1e-4 s"))
    if plain and all(_near(n.array("r"), np.ones(n.shape)) for n in plain):
        found.append(Mark("sinabs", "IF with r = 1: one unit a step (norse writes the same)"))
    if leaky and not found and any("v_reset" in n.params for n in leaky):
        same = all(_near(n.array("v_leak"), n.array("v_reset")) for n in leaky if "v_reset" in n.params)
        if same and any(n.array("v_leak").any() for n in leaky):
            found.append(Mark("spikingjelly", "v_leak = v_reset, not 0"))
    if leaky and not found and all(float(t.min()) >= 1 for t in tau.values()):
        found.append(Mark("sinabs", "time constants of 1 and more: counted in steps"))
    return tuple(found)


def _near(one: FloatArray, other: FloatArray) -> bool:
    return bool(np.allclose(one, other, rtol=1e-4, atol=0))


def _rockpool_dt(r: FloatArray, tau: FloatArray) -> float | None:
    """dt where r = tau e^(-dt/tau) / dt for every neuron, by bisection in u = dt / tau (e^-u / u falls); else None."""
    low, high = np.full(r.shape, 1e-9), np.full(r.shape, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = np.exp(-middle) / middle > r
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    steps = low * tau
    if not np.isfinite(steps).all() or steps.min() <= 0 or np.ptp(steps) > 1e-4 * steps.max():
        return None
    rounded = float(f"{steps.flat[0]:.2g}")
    return rounded if abs(rounded - steps.flat[0]) <= 1e-4 * rounded else None


def check(network: Network, convention: Convention) -> tuple[Diagnostic, ...]:
    """Refuse what cannot be run so (InputError, every node at once); what is doubtful comes back as diagnostics."""
    problems: list[str] = []
    found: list[tuple[str, str, str]] = []
    for node in network.nodes.values():
        if node.kind in NEURONS:
            problems.extend(_impossible(node, convention))
            found.extend((code, node.name, text) for code, text in _doubtful(node, convention))
        elif node.kind == "Delay":
            steps = node.array("delay") / convention.dt
            if float(steps.max()) * steps.size > MAX_DELAYED:
                problems.append(f"node '{node.name}' (Delay): {steps.max():.4g} steps are more than can be held")
            elif bool((np.abs(steps - np.floor(steps + 0.5)) > 1e-6).any()):
                worst = float(np.abs(steps - np.floor(steps + 0.5)).max())
                text = (
                    f"its delays are no whole steps of {convention.dt:g} s and were rounded, by up to {worst:.2g} steps"
                )
                found.append(("delay-rounded", node.name, text))
    if problems:
        raise InputError(f"{network.name}: {'; '.join(problems[:40])}")
    return gathered(found)


def _impossible(node: Node, convention: Convention) -> Iterator[str]:
    where = f"node '{node.name}' ({node.kind})"
    for name in ("tau", "tau_mem", "tau_syn"):
        if convention.integrate == "exp" or name not in node.params:
            continue
        least = float(node.array(name).min())
        if least < convention.dt * (1 - 1e-6):
            yield (
                f"{where}: field '{name}' is {least:.4g} s, less than the step of {convention.dt:g} s, where an Euler "
                "step does not decay; give a smaller --dt or --integrate exp"
            )
    if convention.several and "v_threshold" in node.params and float(node.array("v_threshold").min()) <= 0:
        yield f"{where}: field 'v_threshold' is not above 0, so that several spikes a step have no number"
    if convention.reset == "subtract" and "v_reset" in node.params and node.array("v_reset").any():
        value = float(node.array("v_reset").flat[np.argmax(np.abs(node.array("v_reset")))])
        yield f"{where}: field 'v_reset' is {value:g}, which the convention (reset subtract) contradicts"


def _doubtful(node: Node, convention: Convention) -> Iterator[tuple[str, str]]:
    step = discretise(node, convention)
    for name, decay in (("membrane", step.b), ("current", step.a)):
        if decay is None or node.kind in ("I", "IF"):
            continue
        slow = (1 - decay) * DECAY_STEPS < 0.5
        if slow.any():
            yield (
                "decay-rounds-to-zero",
                f"{int(slow.sum())} of {slow.size} neurons: the {name} loses {float((1 - decay)[slow].max()):.2g} of "
                f"itself a step, less than half of 1/{DECAY_STEPS}; in integers it loses nothing (an error of 100 %)",
            )
    if step.theta is not None and convention.reset == "value" and step.v_reset is not None:
        fires = step.v_reset >= step.theta if convention.compare == "ge" else step.v_reset > step.theta
        if fires.any():
            yield "v-reset-fires", f"{int(fires.sum())} neurons are reset to where they fire"
    if convention.gain == "one" and "v_leak" in node.params and node.array("v_leak").any():
        yield "convention-contradicted", "v_leak is not 0; under gain one it is added whole in every step"
    if node.kind in ("I", "IF") and convention.if_unit == "one" and not _near(node.array("r"), np.ones(node.shape)):
        yield "convention-contradicted", f"r is {node.array('r').flat[0]:g}, not 1, but an IF adds r x a step here"


def assumed(network: Network, preset: str | None, given: Iterable[str], convention: Convention) -> list[Diagnostic]:
    """What was not said: the convention, the step, whether spikes subtracted; and marks of another framework."""
    found, seen, given = list[Diagnostic](), marks(network), set(given)
    says = "; ".join(f"the file suggests {mark.preset} ({mark.why})" for mark in seen)
    if preset is None:
        found.append(
            Diagnostic(
                "convention-assumed",
                "",
                f"read as euler ({describe(convention)}); {says or 'the file suggests none'}; say --convention",
            )
        )
    if "dt" not in given and preset in (None, "euler", "norse", "rockpool", "lava-dl"):
        found.append(
            Diagnostic("dt-assumed", "", f"a step of {convention.dt:g} s was taken; NIR states none; say --dt")
        )
    if seen and preset not in (None, "euler") and preset not in {mark.preset for mark in seen}:
        strong = [mark for mark in seen if mark.preset in ("snntorch", "rockpool", "spikingjelly")]
        if strong:
            text = f"read as {preset}, but the file suggests {strong[0].preset} ({strong[0].why})"
            found.append(Diagnostic("convention-contradicted", "", text))
    zero = all(not n.array("v_reset").any() for n in network.nodes.values() if "v_reset" in n.params)
    if zero and "reset" not in given and preset in (None, "euler", "snntorch") and any(
        "v_reset" in n.params for n in network.nodes.values()
    ):  # fmt: skip
        text = "v_reset is 0 everywhere, which snnTorch also writes for a subtracting network; say --reset"
        found.append(Diagnostic("reset-unknown", "", text))
    return found


def describe(convention: Convention) -> str:
    """A convention in one line."""
    spikes = "several spikes a step" if convention.several else "one spike a step"
    late = "" if convention.late == "no" else f", late {convention.late}"
    return (
        f"dt {convention.dt:g} s, {convention.integrate}, reset {convention.reset}, "
        f"fires at {'>=' if convention.compare == 'ge' else '>'}, v(0) {convention.initial}, {spikes}, "
        f"IF unit {convention.if_unit}, gain {convention.gain}, synapse {convention.synapse}{late}"
    )
