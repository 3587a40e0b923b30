"""Entry points of the commands: one place where an outcome becomes an exit code and one sentence.

This module decides how a process ends (errors.py has the codes). It must not know what the commands do, and it imports
none of the heavy libraries, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from spiketrack_deploy.errors import EXIT_INTERRUPTED, EXIT_OK, SpiketrackError, UsageError

EXIT_BUG = 1
EXIT_BROKEN_PIPE = 128 + signal.SIGPIPE
EXIT_TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """``spiketrack``: the command with the stages."""
    _leave(_start("group", "spiketrack", argv))


def export_main(argv: Sequence[str] | None = None) -> NoReturn:
    """``spiketrack-export``: everything in one command."""
    _leave(_start("export_command", "spiketrack-export", argv))


def _start(attribute: str, name: str, argv: Sequence[str] | None) -> int:
    """Signals first, imports then, so that Ctrl-C right after the start ends as tidily as later on."""
    _end_tidily()
    try:
        from spiketrack_deploy.cli import commands
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", EXIT_INTERRUPTED, False)
    command: click.Command = getattr(commands, attribute)
    return run(command, name, argv)


def _leave(code: int) -> NoReturn:
    """End the process. Where Ctrl-C fell into an ``exec()`` of some library, CPython remembers it as unhandled although
    it was handled, and kills itself by SIGINT after ``sys.exit``: then the exit code would depend on the instant."""
    if code == EXIT_INTERRUPTED:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(command: click.Command, name: str, argv: Sequence[str] | None = None) -> int:
    """Run ``command`` and return its exit code; every failure prints one sentence and no traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    # OpenMP threads that wait in a loop slow a busy machine down by a factor of ten; read when PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _end_tidily()
    _keep_quiet()
    try:
        with command.make_context(name, args) as context:
            context.obj = [name, *args]
            command.invoke(context)
        sys.stdout.flush()
        return EXIT_OK
    except click.exceptions.Exit as stop:
        return _flushed(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error))
        return _flushed(UsageError.exit_code)
    except click.ClickException as error:
        return _fail(_usage_sentence(error), UsageError.exit_code, as_json)
    except SpiketrackError as error:
        return _fail(str(error), error.exit_code, as_json, error)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted; nothing half-written is left", EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _broken_pipe()
        from spiketrack_deploy.bundle.layout import write_failure

        failure = write_failure(_place(error), error)
        if failure is None:
            return _bug(error, as_json)
        return _fail(str(failure), failure.exit_code, as_json, error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug still ends with one sentence
        return _bug(error, as_json)


def _place(error: OSError) -> Path:
    return Path(str(error.filename)) if error.filename else Path("output")


def _usage_sentence(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text}; see {context.command_path} --help" if context is not None else text


def _fail(sentence: str, code: int, as_json: bool, error: BaseException | None = None) -> int:
    sentence = " ".join(sentence.split())
    if error is not None and os.environ.get("SPIKETRACK_DEBUG"):
        traceback.print_exception(error)
    print(f"error: {sentence}" if code != EXIT_INTERRUPTED else sentence, file=sys.stderr)
    if as_json:
        print(json.dumps({"error": sentence, "exit_code": code}))
    return _flushed(code)


def _bug(error: Exception, as_json: bool) -> int:
    sentence = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    hint = "this is a bug of spiketrack-deploy; SPIKETRACK_DEBUG=1 shows the traceback for a report"
    return _fail(f"{sentence}; {hint}", EXIT_BUG, as_json, error)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    return code


def _broken_pipe() -> int:
    """The reader of our output went away; the interpreter must not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _keep_quiet() -> None:
    """HDF5 objects of a half-written file complain while they are destroyed; the one sentence says it already."""
    if not os.environ.get("SPIKETRACK_DEBUG"):
        sys.unraisablehook = lambda event: None
        sys.excepthook = lambda kind, error, trace: None


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
    for number, handler in ((signal.SIGINT, interrupted), (signal.SIGTERM, terminated), (signal.SIGHUP, terminated)):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background jobs ask to be left alone
            signal.signal(number, handler)
