"""What is claimed of a lowered NIR network, measured: engines integer by integer, spikes against float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from _nir_drawn import Drawn

from spiketrack_deploy.engines.factory import make_engine
from spiketrack_deploy.errors import FitError
from spiketrack_deploy.frontends.nir.conventions import Convention
from spiketrack_deploy.frontends.nir.lower import InputKind, Lowered, LowerOptions, lower_network
from spiketrack_deploy.frontends.nir.network import SPIKING, FloatArray, Network
from spiketrack_deploy.frontends.nir.observe import draw
from spiketrack_deploy.frontends.nir.reference import simulate
from spiketrack_deploy.program.types import Program

DEPTH = 12
BITS = (8, 12, 16)


@dataclass(frozen=True)
class Case:
    """A network with what runs on it."""

    network: Network
    convention: Convention
    kinds: Mapping[str, InputKind]
    inputs: Mapping[str, FloatArray]

    def lowered(self, bits: int) -> Lowered:
        return lower_network(self.network, self.convention, LowerOptions(weight_bits=bits, kinds=self.kinds))

    def encoded(self, lowered: Lowered, step: int) -> dict[str, np.ndarray]:
        return {name: lowered.encode(name, array[step]) for name, array in self.inputs.items()}


def drawn_case(seed: int, steps: int) -> Case:
    """Network ``seed`` of the drawn ones, 1 to 12 nodes deep besides what is summed in, and drawn input."""
    drawn = Drawn(seed, 1 + seed % DEPTH)
    network = drawn.network()
    kinds = {name: (kind.top, kind.limit) for name, kind in drawn.kinds.items()}
    return Case(network, drawn.convention, drawn.kinds, draw(network, kinds, steps, seed + 1000))


def integers_compared(program: Program, steps: Sequence[Mapping[str, np.ndarray]], engines: Sequence[str]) -> int:
    """How many integers and counts of outputs and states were equal on all engines; AssertionError at the first that
    is not."""
    made = [make_engine(name, program) for name in ("reference", *engines)]
    sessions, compared = [engine.session() for engine in made], 0
    try:
        for number, given in enumerate(steps):
            results = [session.step("step", given) for session in sessions]
            for name, session, result in zip(engines, sessions[1:], results[1:]):
                for kind, wanted, got in (
                    ("output", results[0].outputs, result.outputs),
                    ("state", sessions[0].states, session.states),
                ):
                    for key, value in wanted.items():
                        assert np.array_equal(value, got[key]), f"{name}, step {number}, {kind} {key}"
                        compared += value.size
                assert results[0].counts == result.counts, f"{name}, step {number}: counts"
                compared += sum(len(one.to_dict()) for one in result.counts.values())
    finally:
        for engine in made:
            engine.close()
    return compared


def agreement(seed: int, engines: Sequence[str], steps: int) -> tuple[int, str]:
    """Integers compared on drawn network ``seed``, or 0 and the sentence with which it is refused."""
    case = drawn_case(seed, steps)
    try:
        lowered = case.lowered(BITS[seed % len(BITS)])
    except FitError as error:
        return 0, str(error)
    return integers_compared(lowered.program, [case.encoded(lowered, t) for t in range(steps)], engines), ""


@dataclass(frozen=True)
class Share:
    """Spike values of all neurons that differ from the float reference, of how many; values that were clipped."""

    differing: int
    values: int
    clipped: int

    @property
    def share(self) -> float:
        return self.differing / max(self.values, 1)


def spike_share(case: Case, bits: int) -> Share:
    """FitError where the network is refused."""
    lowered = case.lowered(bits)
    differing = values = clipped = 0
    with make_engine("reference", lowered.program) as engine:
        session = engine.session()
        for step, moment in enumerate(simulate(case.network, case.convention, case.inputs)):
            seen = dict(session.states)
            counts = session.step(
                "step", case.encoded(lowered, step), watch=lambda op, value, into=seen: into.update({op.name: value})
            ).counts
            clipped += sum(one.saturated for one in counts.values())
            for name, value in moment.values.items():
                if case.network.nodes[name].kind in SPIKING:
                    got = seen[lowered.values[name].value].reshape(value.shape)
                    differing += int((got != value).sum())
                    values += value.size
    return Share(differing, values, clipped)
