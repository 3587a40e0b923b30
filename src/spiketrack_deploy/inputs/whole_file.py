"""A file that is the old one or the whole new one, never a part: written beside its place, synced, renamed.

This module decides how that is done and what a failed write is called. It must not know what a file means.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spiketrack_deploy.errors import InputError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A free hidden name beside ``path``, with its suffix: what the block leaves there as a file becomes ``path``.

    Where the block fails the hidden file goes and ``path`` stays what it was. Missing folders are made. Two writers of
    one path never share a hidden name; the last one to end is kept. InputError where ``path`` cannot be written; what
    else the block raises, an unreadable input of its own included, stays what it is.
    """
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())  # the rename may reach the disk before the content does
        part.replace(path)
    except OSError as error:
        # A full disk names no file; an error that names another file is not about this one.
        if isinstance(error, BrokenPipeError) or error.filename not in (None, *map(str, (part, path, path.parent))):
            raise
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Make ``content`` (text as UTF-8, newlines as they are) the file ``path``; see :func:`whole`."""
    with whole(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def cannot_write(path: Path, error: OSError) -> InputError:
    """The sentence for a failed write: disk full, no permission, a folder in the way."""
    reason = error.strerror or str(error)
    room = "free some space or " if error.errno in _NO_SPACE else ""
    return InputError(f"{path}: cannot be written ({reason}); {room}choose another place with -o")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()
