"""A lock between processes that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems say that have no locks."""
FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
POLL = 0.05
"""Seconds between two tries."""


class BusyError(Exception):
    """Another process, or another thread, holds the lock."""


@contextlib.contextmanager
def locked(path: Path, wait: float) -> Iterator[bool]:
    """Hold the lock of the file ``path``, which is made, and deleted at the end.

    Yields true, or false on a file system without locks, where another one may be at work all the same.

    Args:
        path: of the file; nothing is written to it.
        wait: seconds to wait for another holder.

    Raises:
        BusyError: another one held it all the time.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + wait
    while (taken := _taken(path)) is None:
        if time.monotonic() >= end:
            raise BusyError
        time.sleep(POLL)
    handle, sure = taken
    try:
        yield sure
    finally:
        if sys.platform == "win32":  # an open file cannot be deleted there
            os.close(handle)
        with contextlib.suppress(OSError):
            os.unlink(path)
        if sys.platform != "win32":
            os.close(handle)


def _taken(path: Path) -> tuple[int, bool] | None:
    """Return the open file whose lock was taken, and whether there are locks; None where another holds it."""
    handle = os.open(path, FLAGS, 0o666)
    try:
        _lock(handle)
        if os.path.samestat(os.fstat(handle), os.stat(path)):  # else its last holder deleted it
            return handle, True
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(handle)
            raise
        return handle, False
    os.close(handle)
    return None


def _lock(handle: int) -> None:
    """Lock an open file, or raise BlockingIOError."""
    if sys.platform == "win32":
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(errno.EAGAIN, str(error)) from error
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
