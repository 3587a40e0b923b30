"""The NI-LIF neuron: ties, reset by a quarter, decays, the guessed time axis, the surrogate gradient, recording."""

from __future__ import annotations

import pytest
import torch

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.trackers.spiketrack.neuron import NILIF
from spiketrack_deploy.trackers.spiketrack.record import record_spikes


def spikes(x: torch.Tensor, decay: list[float] | None = None) -> torch.Tensor:
    """Integer output of a fresh float64 neuron."""
    neuron = NILIF().double()
    if decay is not None:
        neuron.decay.data = torch.tensor(decay, dtype=torch.float64)
    with torch.no_grad():
        return neuron(x.double()) * 4


def test_ties_round_to_even_and_the_range_is_clamped() -> None:
    x = torch.tensor([[-7.0, 0.0, 0.5, 0.500001, 1.5, 2.5, 3.5, 4.0, 99.0]])
    assert spikes(x).tolist() == [[0, 0, 0, 1, 2, 2, 4, 4, 4]]


def test_reset_removes_a_quarter_of_the_count() -> None:
    # m0 = 4 emits n = 4 and loses 1; half of the remaining 3 survives: m1 = 1.5 + 1.1.
    x = torch.tensor([[4.0], [1.1], [0.0]])
    # m2 = (2.6 - 3/4) * 1/4
    assert spikes(x, decay=[0.0, -1.0986122886681098, 50.0]).reshape(-1).tolist() == [4, 3, 0]


def test_step_t_uses_decay_t_minus_one_and_never_the_last() -> None:
    x = torch.full((3, 2), 2.0)
    assert torch.equal(spikes(x, [1.0, -1.0, 0.0]), spikes(x, [1.0, -1.0, 30.0]))
    assert not torch.equal(spikes(x, [9.0, -9.0, 0.0]), spikes(x, [-9.0, 9.0, 0.0]))


def test_one_step_ignores_decay_and_keeps_no_state() -> None:
    neuron, x = NILIF(), torch.rand(1, 2, 3) * 5
    with torch.no_grad():
        first = neuron(x)
        neuron.decay.fill_(20.0)
        assert torch.equal(first, neuron(x))


def test_a_long_first_axis_means_that_time_is_last() -> None:
    x = torch.rand(5, 4, 3) * 4
    assert torch.equal(spikes(x), spikes(x.permute(2, 0, 1)).permute(1, 2, 0))


@pytest.mark.parametrize("shape", [(4, 1, 8, 2, 2), (4, 3), (5, 2, 6)])
def test_more_steps_than_the_neuron_can_read_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="neuron got"):
        NILIF()(torch.zeros(shape))


def test_gradient_is_a_quarter_inside_and_nothing_outside() -> None:
    x = torch.tensor([[-0.1, 0.0, 2.3, 4.0, 4.1]], requires_grad=True)
    NILIF()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 0.25, 0.25, 0.25, 0.0]]


def test_gradient_reaches_the_decay_through_the_membrane() -> None:
    neuron = NILIF()
    neuron(torch.full((3, 1), 1.7)).sum().backward()
    assert neuron.decay.grad is not None
    assert neuron.decay.grad[:2].abs().min() > 0
    assert neuron.decay.grad[2] == 0


def test_recording_names_second_calls_and_ends_with_the_block() -> None:
    model = torch.nn.ModuleDict({"a": NILIF(), "b": NILIF()})
    with torch.no_grad(), record_spikes(model) as recorded:
        model["b"](torch.full((1, 2), 3.0))
        model["a"](torch.full((1, 2), 1.0))
        model["b"](torch.full((2, 2), 9.0))
    assert list(recorded) == ["b", "a", "b#2"]
    assert recorded["b"].dtype == torch.int8
    assert recorded["b"].tolist() == [[3, 3]]
    assert recorded["b#2"].shape == (2, 2)
    assert all(neuron.tap is None for neuron in model.values())
