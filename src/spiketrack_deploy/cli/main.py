"""Entry points of the commands: one place where an outcome becomes an exit code and one sentence.

This module decides how a process ends (errors.py has the codes). It must not know what the commands do, and it imports
none of the heavy libraries, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from spiketrack_deploy.cli import streams
from spiketrack_deploy.errors import EXIT_INTERRUPTED, EXIT_OK, SIGNALS, InputError, SpiketrackError, UsageError

EXIT_BUG = 1
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE
ENDED_BY_SIGNAL = tuple(128 + number for number in SIGNALS)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """``spiketrack``: the command with the stages."""
    _leave(_start("group", "spiketrack", argv))


def export_main(argv: Sequence[str] | None = None) -> NoReturn:
    """``spiketrack-export``: everything in one command."""
    _leave(_start("export_command", "spiketrack-export", argv))


def _start(attribute: str, name: str, argv: Sequence[str] | None) -> int:
    """Signals are in order before the first larger import, so that an interruption right after the start ends as tidily
    as later on."""
    _end_tidily()
    try:
        from spiketrack_deploy.cli import commands
    except BaseException as error:
        if (code := _signal_behind(error)) is None:
            raise
        return _stopped(code, error, False)
    command: click.Command = getattr(commands, attribute)
    return run(command, name, argv)


def _leave(code: int) -> NoReturn:
    """End the process; a signal that comes now finds nothing left to tidy up and ends it at once.

    Where Ctrl-C fell into an ``exec()`` of some library, CPython remembers it as unhandled although it was handled, and
    kills itself by SIGINT after ``sys.exit``: then the exit code would depend on the instant.
    """
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if code == EXIT_INTERRUPTED:
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def run(command: click.Command, name: str, argv: Sequence[str] | None = None) -> int:
    """Run ``command`` and return its exit code; every failure prints one sentence and no traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    # OpenMP threads that wait in a loop slow a busy machine down by a factor of ten; read when PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _end_tidily()
    _mind_what_python_ignores()
    streams.prepare()
    try:
        _check_text(args)
        with command.make_context(name, args) as context:
            context.obj = [name, *args]
            command.invoke(context)
        return _flushed(EXIT_OK)
    except click.exceptions.Exit as stop:
        return _flushed(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error))
        return _flushed(UsageError.exit_code)
    except click.ClickException as error:
        return _fail(_usage_sentence(error), UsageError.exit_code, as_json)
    except BaseException as error:  # noqa: BLE001 - the last line of defence: a bug still ends with one sentence
        code = _signal_behind(error)
        return _failed(error, as_json) if code is None else _stopped(code, error, as_json)


def _failed(error: BaseException, as_json: bool) -> int:
    """The sentence and code of what no signal is behind."""
    if isinstance(error, SpiketrackError):
        return _fail(_gone() or str(error), error.exit_code, as_json, error)
    if isinstance(error, MemoryError):
        return _fail("there is not enough memory for this input", InputError.exit_code, as_json, error)
    if isinstance(error, OSError):
        return _system(error, as_json)
    return _bug(error, as_json)


def _signal_behind(error: BaseException | None) -> int | None:
    """Exit code of the signal that an exception is or came from, see :func:`_end_tidily`.

    Python and libraries turn an interruption into exceptions of their own: a class in the making into a RuntimeError
    (below 3.12), a text being decoded into a KeyboardInterrupt with words of the decoder, click into an Abort.
    """
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, click.Abort)):
            return EXIT_INTERRUPTED
        if isinstance(error, SystemExit) and error.code in ENDED_BY_SIGNAL:
            return int(error.code)
        error = error.__cause__ or error.__context__
    return None


def _stopped(code: int, error: BaseException, as_json: bool) -> int:
    """The sentence of a signal: which kind, and what is left of the work (``errors.interruption_leaves``)."""
    what = "interrupted" if code == EXIT_INTERRUPTED else "terminated"
    left = getattr(error, "leaves", "nothing half-written is left")
    return _fail(f"{what}; {left}", code, as_json)


def _check_text(args: Sequence[str]) -> None:
    """UsageError for bytes that are no UTF-8: OpenCV ends the process over them, and no report can hold them."""
    for arg in args:
        try:
            arg.encode("utf-8")
        except UnicodeEncodeError:
            said = f"{streams.shown(arg)}: holds bytes that are no UTF-8; rename the file or folder"
            raise UsageError(said) from None


def _system(error: OSError, as_json: bool) -> int:
    """What the operating system refused and no room turned into a sentence of its own."""
    if error.errno == errno.EPIPE:
        return _fail("", EXIT_BROKEN_PIPE, as_json)
    reason = error.strerror or str(error)
    sentence = f"{error.filename}: cannot be used ({reason}); check the path"
    if error.filename is None:
        sentence = f"a write failed ({reason}); check where the output goes and whether there is space"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        sentence = f"{error.filename}: cannot be written ({reason}); free some space or choose another folder with -o"
    return _fail(_gone() or sentence, InputError.exit_code, as_json, error)


def _gone() -> str | None:
    """Why nothing is found where the current folder does not exist any more."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the current folder was deleted; change to another one"
    return None


def _usage_sentence(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see {context.command_path} --help" if context is not None else text


def _fail(sentence: str, code: int, as_json: bool, error: BaseException | None = None) -> int:
    """Say ``sentence`` where anybody listens; the exit code is the same where nobody does."""
    sentence = streams.shown(" ".join(sentence.split()))
    if error is not None and os.environ.get("SPIKETRACK_DEBUG"):
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        if sentence:
            print(f"error: {sentence}" if code < 128 else sentence, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        if as_json and sentence:
            print(json.dumps({"error": sentence, "exit_code": code}), flush=True)
    streams.close()
    return code


def _bug(error: BaseException, as_json: bool) -> int:
    sentence = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    hint = "this is a bug of spiketrack-deploy; SPIKETRACK_DEBUG=1 shows the traceback for a report"
    return _fail(f"{sentence}; {hint}", EXIT_BUG, as_json, error)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return _system(error, False)
    return code


def _mind_what_python_ignores() -> None:
    """Exceptions of finalisers and weak references, which Python prints and forgets.

    A signal may arrive in one: then its end of the command must come again. HDF5 objects of a half-written file
    complain while they are destroyed; the one sentence says it already.
    """

    def hook(event: sys.UnraisableHookArgs) -> None:
        if isinstance(event.exc_value, (SystemExit, KeyboardInterrupt)):
            _raise_soon(event.exc_value)
        elif "decrement id ref count" not in str(event.exc_value) or os.environ.get("SPIKETRACK_DEBUG"):
            sys.__unraisablehook__(event)

    sys.unraisablehook = hook


def _raise_soon(end: BaseException) -> None:
    """Raise ``end`` in the main thread once more, behind what runs there now; nothing else here uses SIGALRM."""

    def again(number: int, frame: FrameType | None) -> None:
        raise end

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


def _end_tidily() -> None:
    """Ctrl-C once unwinds (temporary folders and child processes go); a second one must not disturb that."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    def terminated(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background jobs ask to be left alone
            signal.signal(number, interrupted if number == signal.SIGINT else terminated)
