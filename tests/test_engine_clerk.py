"""The thread that counts beside the kernels: jobs in order, and an error comes back to the caller."""

from __future__ import annotations

import threading

import pytest
import torch

from spiketrack_deploy.engines.sim_clerk import Beside, InLine


@pytest.mark.parametrize("make", [InLine, Beside])
def test_jobs_are_done_in_order_before_finish_returns(make) -> None:
    clerk, done = make(), []
    for number in range(200):
        clerk.do(lambda number=number: done.append(number))
    clerk.finish()
    assert done == list(range(200))


def test_an_error_in_a_job_reaches_the_caller_and_later_jobs_are_left() -> None:
    clerk, done = Beside(), []

    def fail() -> None:
        raise ArithmeticError("counted wrong")

    clerk.do(fail)
    clerk.do(lambda: done.append(1))
    with pytest.raises(ArithmeticError, match="counted wrong"):
        clerk.finish()
    assert not done


def test_the_thread_ends_and_leaves_the_number_of_threads_alone() -> None:
    before = torch.get_num_threads(), threading.active_count()
    clerk = Beside()
    clerk.do(lambda: None)
    clerk.finish()
    assert (torch.get_num_threads(), threading.active_count()) == before
