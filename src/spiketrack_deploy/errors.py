"""The error tree: one class per person who must act, each carrying the exit code of the command.

This module decides what a failure is called and how the process ends; it knows nothing of what failed.

    SpiketrackError            1   never raised itself
    |- UsageError              2   the command line (wrong option, unknown target, output exists)
    |- InputError              3   a file, checkpoint, video or box cannot be used
    |  `- ProfileError         3   a hardware profile is malformed
    |- FitError                4   the network does not fit the target
    |- VerificationError       5   something that must be equal is not
    `- EngineError             6   an engine or a dependency is missing, hangs or died
    Interrupted                130 Ctrl-C (KeyboardInterrupt, mapped by the command line; 143 and 129: other signals)
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_OK = 0
EXIT_INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a command to end; its exit code is then 128 and the signal's number."""


@contextmanager
def interruption_leaves(what: Callable[[], str]) -> Iterator[None]:
    """Whatever ends the block carries ``what()``: the words of an interruption for what is left of the work.

    Any exception may have an interruption behind it (see ``cli.main``). A KeyboardInterrupt says it by itself too, to
    those who call from Python.
    """
    try:
        yield
    except BaseException as end:
        end.leaves = what()  # type: ignore[attr-defined]
        if isinstance(end, KeyboardInterrupt):
            end.args = (end.leaves,)  # type: ignore[attr-defined]
        raise


class SpiketrackError(Exception):
    """A failure that one sentence explains: which input, what is wrong with it, what to do."""

    exit_code = 1


class UsageError(SpiketrackError):
    """The command was called in a way that cannot work."""

    exit_code = 2


class InputError(SpiketrackError):
    """A file, checkpoint, video, bundle or box cannot be used."""

    exit_code = 3


class ProfileError(InputError):
    """A hardware profile is malformed: unknown key, value without unit, tag or source."""


class FitError(SpiketrackError):
    """The network does not fit the target."""

    exit_code = 4


class VerificationError(SpiketrackError):
    """Two things that must be equal are not: a digest, an integer, a box."""

    exit_code = 5


class EngineError(SpiketrackError):
    """An engine or one of its dependencies is missing, hangs or died; the message says how to get it."""

    exit_code = 6
