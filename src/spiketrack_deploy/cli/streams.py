"""Standard output and error where nobody listens, the disk is full, or the terminal cannot show a letter.

This module decides that a closed stream is a full one, never a crash. It must not know what is printed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any

from spiketrack_deploy.inputs.untrusted import shown


class _Closed(io.RawIOBase):
    """A stream that was closed before we began: writing to it fails, as it does for other programs."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def prepare() -> None:
    """Letters that a stream cannot show become escapes. The numbers of closed streams are taken, so that no file gets
    them: a library that prints would write into it."""
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Closed()), encoding="utf-8", line_buffering=True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close() -> None:
    """After a failure: what still waits to be printed goes where it can, else nowhere, and the interpreter does not
    complain about it at its end."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            stream.flush()
        except (OSError, ValueError):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
            with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
                os.dup2(getattr(sys, name).fileno(), stream.fileno())
                stream.flush()


__all__ = ["close", "prepare", "shown"]
