"""What a parity result counts, on a network of twelve neurons where every figure can be written down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spiketrack_deploy.engines.base import ReferenceEngine
from spiketrack_deploy.engines.float_parity import Recording, layer_parity, summary
from spiketrack_deploy.engines.parity import compare
from spiketrack_deploy.errors import EngineError, VerificationError
from spiketrack_deploy.program.legality import check_program
from spiketrack_deploy.program.run import PhaseResult
from spiketrack_deploy.program.types import Op, Phase, Program, TensorSpec

from _programs import conv_attrs, spikes  # isort: skip

SHAPE = (2, 2, 1, 3)
X = np.array([0, 1, 2, 3, 4, 4, 1, 0, 0, 2, 4, 1]).reshape(SHAPE)


def echo() -> Program:
    """Two neurons in a row that repeat what they read: thresholds 1..4 of once, then 2..8 of twice the spike; nothing
    is left of a membrane."""
    stream = TensorSpec("stream", SHAPE, "unit")
    ops, values = [], {}
    for i, source in ((1, "x"), (2, "s1")):
        conv = {"weight": f"w{i}", "shift": "shift", "bias": "bias"}
        fire = {"thresholds": f"t{i}", "reset": "reset", "decay": "decay"}
        ops += [
            Op(f"c{i}", "conv", (source,), "block", conv_attrs(groups=2), conv),
            Op(f"s{i}", "ni_lif", (f"c{i}",), "block", {"steps": 2}, fire),
        ]
        values |= {f"c{i}": stream, f"s{i}": spikes(SHAPE)}
    phase = Phase("step", {"x": spikes(SHAPE)}, tuple(ops), values, {"again": "s2"})
    arrays = {
        "w1": np.ones((1, 2, 1, 1, 1), np.int8), "w2": np.full((1, 2, 1, 1, 1), 2, np.int8),
        "shift": np.zeros((1, 2), np.int8), "bias": np.zeros((1, 2), np.int32), "unit": np.zeros(2, np.int8),
        "t1": np.array([[1, 2, 3, 4]]), "t2": np.array([[2, 4, 6, 8]]), "reset": np.array([1]), "decay": np.array([0]),
    }  # fmt: skip
    program = Program({"step": phase}, arrays)
    check_program(program)
    return program


class Altered(ReferenceEngine):
    """Shows and returns other values than it computes: operation -> place -> added; ``hidden``: shown to nobody."""

    name = "altered"

    def __init__(self, program: Program, changes: dict[str, dict[tuple[int, ...], int]], hidden: str = "") -> None:
        super().__init__(program)
        self.changes, self.hidden = changes, hidden

    def _altered(self, name: str, value: np.ndarray) -> np.ndarray:
        value = value.copy()
        for place, change in self.changes.get(name, {}).items():
            value[place] += change
        return value

    def run(self, phase, inputs, *, count=True, watch=None):
        def shown(op, value):
            if watch is not None and op.name != self.hidden:
                watch(op, self._altered(op.name, value))

        result = super().run(phase, inputs, count=count, watch=shown)
        return PhaseResult({"again": self._altered("again", result.outputs["again"])}, result.counts)


RUNS = [("step", {"x": X}), ("step", {"x": X * 0})]


def test_equal_engines() -> None:
    """Per run four operations shown, and the output of the watched pair; each engine also against itself unwatched."""
    program = echo()
    found = compare(ReferenceEngine(program), ReferenceEngine(program), program, RUNS)
    assert (found.equal, found.runs, found.operations, found.integers) == (True, 2, 2 * (4 + 3), 2 * 7 * 12)
    assert (found.differing_integers, found.differing_counts) == (0, 0)
    assert found.counts % (2 * 3 * 4) == 0 and found.counts > 0
    assert set(found.seconds) == {"step"} and all(0 < s < 1 for s in found.seconds["step"])
    found.demand()
    untimed = compare(ReferenceEngine(program), ReferenceEngine(program), program, RUNS, timed=False)
    assert (untimed.operations, untimed.integers, untimed.seconds) == (2 * 5, 2 * 5 * 12, {})
    assert untimed.counts * 3 == found.counts


def test_differences_are_counted_and_the_first_is_named() -> None:
    program = echo()
    other = Altered(program, {"c2": {(1, 0, 0, 2): 5, (1, 1, 0, 0): -1}, "again": {(0, 0, 0, 1): 1}})
    found = compare(ReferenceEngine(program), other, program, RUNS, timed=False)
    assert found.differing_integers == 2 * 3 and found.engines == ("reference", "altered")
    first = found.first
    assert first is not None and (first.run, first.phase, first.op, first.kind) == (0, "step", "c2", "conv")
    assert (first.step, first.index, first.count) == (1, (0, 0, 2), "")
    assert (first.first, first.second) == (0, 5), "twice x[1,0,0,2] = 0, and five more"
    with pytest.raises(VerificationError, match=rf"differ in 6 of {found.integers + found.counts} integers"):
        found.demand()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_value_that_is_not_shown_differs_everywhere(swapped: bool) -> None:
    program = echo()
    engines = [ReferenceEngine(program), Altered(program, {}, hidden="s1")]
    found = compare(*(engines[::-1] if swapped else engines), program, RUNS[1:], timed=False)
    assert (found.differing_integers, found.integers) == (12, 5 * 12)
    assert found.first is not None and (found.first.op, found.first.count) == ("s1", "values shown")
    assert (found.first.first, found.first.second) == ((0, 12) if swapped else (12, 0))


# The float tracker's first layer: one spike less at a 4, one more at a 0; its second layer repeats the first.
SEEN = np.array([0, 1, 2, 3, 4, 3, 1, 1, 0, 2, 4, 1]).reshape(SHAPE)
SIGNAL = int((X * X).sum())


def recorded(x: np.ndarray, first: np.ndarray, second: np.ndarray) -> Recording:
    """As a front end hands spikes over: in the program's axes ``[T, C, H, W]``."""
    kept = {"s1": first, "s2": second}
    return Recording("step", {"x": x}, {name: value.astype(np.int8) for name, value in kept.items()})


def test_layers_against_the_float_tracker() -> None:
    """Free, the second layer repeats the two mistakes; fed with the tracker's own spikes, it makes none."""
    runs = [recorded(X, SEEN, SEEN), recorded(X * 0, X * 0, X * 0)]
    for forced, second in ((False, 2), (True, 0)):
        layers = layer_parity(ReferenceEngine(echo()), runs, teacher_forced=forced)
        one, two = layers
        assert (one.name, one.phase, one.neurons, one.mismatches) == ("s1", "step", 24, 2)
        assert (one.signal, one.noise, one.saturated) == (SIGNAL, 2, 3) and SIGNAL == 68
        assert one.rate == 2 / 24 and one.sqnr_db == pytest.approx(10 * math.log10(34))
        assert (two.name, two.neurons, two.mismatches, two.noise) == ("s2", 24, second, second)
        assert two.saturated == (2 if forced else 3), "the forced layer reads one 4 less"
        assert (two.sqnr_db is None) == forced
        assert summary(layers) == {
            "layers": 2,
            "mean_rate": pytest.approx((2 + second) / 48),
            "worst_rate": 2 / 24,
            "worst_layer": "step s1",
        }
    silent = layer_parity(ReferenceEngine(echo()), [recorded(X * 0, SEEN, X * 0)], teacher_forced=False)
    assert silent[0].sqnr_db is None and silent[0].mismatches == 10 and silent[0].noise == int((SEEN * SEEN).sum())
    assert summary([])["mean_rate"] is None


def test_an_engine_that_replaces_nothing_cannot_be_forced() -> None:
    engine = ReferenceEngine(echo())
    engine.can_replace = False
    with pytest.raises(EngineError, match="teacher-forced"):
        layer_parity(engine, [], teacher_forced=True)
    assert layer_parity(engine, [], teacher_forced=False) == []
