"""A folder that is the old one or the whole new one, never a part: filled beside its place, then put there at once.

This module decides how that is done, and what becomes of folders whose writer was killed. It must not know what a
folder holds. POSIX alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spiketrack_deploy.errors import InputError
from spiketrack_deploy.inputs.whole_file import cannot_write

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_HERE, _EXCHANGE = -100, 2
"""``AT_FDCWD`` and ``RENAME_EXCHANGE`` of Linux's ``renameat2``."""


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A hidden sibling of ``target`` that becomes ``target`` when the block ends well and disappears when it does not.

    What was in ``target`` goes. Hidden siblings whose writer was killed are cleared first. InputError where the place
    cannot be written, the disk being full included; what else the block raises stays what it is.
    """
    target = target.resolve()
    folder = target.with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    lock = None
    try:  # the name is known before the folder is there: a signal at any instant finds it to be removed
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _clear_abandoned(target)
            lock = _claim(folder)
        except OSError as error:
            raise cannot_write(target, error) from None
        yield folder
        folder.chmod(0o777 & ~_umask())
        _replace(folder, target)
    except (OSError, RuntimeError, InputError) as error:
        # A writer may have wrapped the cause in a sentence about a temporary file that nobody will find.
        cause = error.__cause__ or error.__context__ if isinstance(error, InputError) else error
        if is_full(cause):
            raise cannot_write(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        if isinstance(error, OSError) and _lies_in(error.filename, folder):
            raise cannot_write(target, error) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def is_full(error: BaseException | None) -> bool:
    """Whether a write failed for want of space; HDF5 tells the number in its text alone."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or any(f"errno = {n}," in str(error) for n in _FULL)


def _lies_in(name: object, folder: Path) -> bool:
    return isinstance(name, (str, os.PathLike)) and Path(name).is_relative_to(folder)


def _claim(folder: Path) -> int:
    """Make the hidden folder; returns the lock that says that its writer lives: the system frees it in any case."""
    while True:
        folder.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # somebody cleared it in the instant before the lock
            lock = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks: then nobody clears either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.is_dir():
                return lock
            os.close(lock)


def _clear_abandoned(target: Path) -> None:
    """Remove hidden siblings without a living writer; what a replacement had put aside goes back where none stands."""
    name = re.compile(re.escape(f".{target.name}-") + r"[a-z0-9_]{8}(\.old)?\.tmp")
    for path in _siblings(target):
        match = name.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(OSError):  # its writer lives, or it is not ours
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if match[1] and not target.exists():
                    path.replace(target)
                else:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _siblings(target: Path) -> list[Path]:
    try:
        return list(target.parent.iterdir())
    except OSError:  # a folder may be writable and not readable
        return []


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _replace(new: Path, target: Path) -> None:
    if not target.is_dir() or not any(target.iterdir()):
        new.replace(target)
    elif not _exchanged(new, target):
        retired = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".old.tmp", dir=target.parent))
        target.replace(retired)
        try:
            new.replace(target)
        except BaseException:
            retired.replace(target)
            raise
        shutil.rmtree(retired, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that there is no instant without either; false where the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)
