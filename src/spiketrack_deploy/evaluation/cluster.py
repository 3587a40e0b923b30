"""The same tasks on a Dask cluster.

This module decides how an address becomes a client and what a lost worker or a lost cluster means. It must not know
what a task computes. Workers need this package and the same paths to models and frames; Dask is imported on use.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from spiketrack_deploy.errors import EngineError
from spiketrack_deploy.evaluation.pool import ATTEMPTS, Done
from spiketrack_deploy.evaluation.run import Failure, Task, attempt

CONNECT_S = 10
_POLL_S = 0.05


def check_cluster(address: str) -> None:
    """EngineError where :func:`run_cluster` could not even begin."""
    _connect(address).close(timeout=2)


def run_cluster(tasks: Sequence[Task], address: str, done: Done) -> None:
    """All tasks on the cluster whose scheduler listens at ``address`` (``tcp://host:8786``, or a scheduler file).

    A sequence whose worker is lost goes to another. EngineError where Dask is missing, the cluster cannot be reached,
    has no worker, or it ends before the work does; finished sequences were handed to ``done`` by then.
    """
    client, run = _connect(address), uuid.uuid4().hex
    try:
        futures = {
            client.submit(attempt, task, pure=False, key=f"spiketrack-{i}-{run}"): i for i, task in enumerate(tasks)
        }
        _gather(client, futures, tasks, address, done)
    finally:
        client.close(timeout=2)


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise EngineError(
            "--dask needs Dask: pip install 'spiketrack-deploy[dask]' (or distributed), here and on every worker"
        ) from None
    connect: Any = Client  # Dask's own code is not annotated
    options: dict[str, Any] = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = connect(**options, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError, ImportError, RuntimeError) as error:
        raise EngineError(
            f"Dask cluster {address} cannot be reached ({_brief(error)}); check the address, or start one "
            "(dask scheduler, dask worker)"
        ) from None
    if not client.scheduler_info()["workers"]:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            client.close(timeout=2)
            raise EngineError(f"Dask cluster {address} has no worker; start one with: dask worker {address}") from None
    return client


def _gather(client: Any, futures: dict[Any, int], tasks: Sequence[Task], address: str, done: Done) -> None:
    # Polled: waiting on a future of a cluster that is gone would never end.
    left = dict(futures)
    idle_since = time.monotonic()
    while left:
        finished = [future for future in left if future.done()]
        for future in finished:
            index = left.pop(future)
            if future.status == "finished":
                done(index, future.result())
            elif future.status == "error":
                done(index, _failure(future, tasks[index]))
            else:
                raise EngineError(
                    f"Dask cluster {address} dropped {len(left) + 1} sequences ({future.status}); "
                    "run the same command again to go on"
                )
            future.release()
            idle_since = time.monotonic()
        if client.status not in ("running", "connecting"):
            raise EngineError(f"Dask cluster {address} ended before the work did; run the same command again to go on")
        if time.monotonic() - idle_since > CONNECT_S:
            _check_workers(client, address)
            idle_since = time.monotonic()
        time.sleep(_POLL_S)


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=3 * CONNECT_S)
    except (TimeoutError, OSError):
        raise EngineError(
            f"Dask cluster {address} lost its scheduler or its last worker; run the same command again to go on"
        ) from None


def _failure(future: Any, task: Task) -> Failure:
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return Failure(
            task.sequence.name,
            f"its Dask worker died more than {ATTEMPTS} times; is there enough memory?",
            EngineError.exit_code,
        )
    return Failure(
        task.sequence.name,
        f"the Dask worker failed ({_brief(error)}); has it the same spiketrack-deploy?",
        EngineError.exit_code,
    )


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
