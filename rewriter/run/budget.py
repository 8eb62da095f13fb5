"""How much memory a process may take: ``--memory``, or half of what is free."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from graft.rewriter.errors import GraftError
from graft.rewriter.memory import free_bytes, gigabytes
from graft.rewriter.memory import require as memory_free

SHARE = 0.5
"""Of what is free, where nothing else was said."""
USUAL = 35 * 10**8
"""Bytes that the process takes at most, where nothing else was said: what is kept in a file is in the memory
of the operating system as long as nothing else needs it, and hardly slower."""
POWERS = ("", "k", "m", "g", "t")
SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kmgt]?)(i?)b?|(%))", re.IGNORECASE)
LARGEST = 2.0**62
"""More digits say no more."""


def parse_size(text: str) -> int:
    """Return a number of bytes: ``4GB``, ``1.5 GiB``, ``500MB``, or a share of what is free, ``50%``.

    >>> parse_size("4GB"), parse_size("1.5GiB"), parse_size("500m")
    (4000000000, 1610612736, 500000000)

    Raises:
        GraftError: ``memory-size``.
    """
    found = SIZE.fullmatch(text.strip())
    number = min(float(found[1]), LARGEST) if found else 0.0
    if not found or not number:
        raise GraftError(
            "memory-size",
            f"expected a size of memory, found '{text}'",
            "write 4GB, 500MB or 50% (of what is free)",
        )
    if found[4]:
        if number > 100:
            raise GraftError(
                "memory-size", f"expected at most 100% of what is free, found {text}", "write 50%"
            )
        return resident_bytes() + int(free_bytes() * number / 100)
    return int(number * (1024 if found[3] else 1000) ** POWERS.index((found[2] or "").lower()))


def room_left(memory: int | None) -> int:
    """Return the bytes that may still be taken.

    Args:
        memory: what the process may take altogether; ``None``: half of what is free, at most 3.5 GB.
    """
    has = resident_bytes()
    return min(int(free_bytes() * SHARE), USUAL - has) if memory is None else memory - has


def left(memory: int | None) -> int:
    """Return the bytes that work may take that cannot do with less.

    Args:
        memory: what the process may take altogether; ``None``: all that is free.
    """
    return free_bytes() if memory is None else memory - resident_bytes()


def require(needed: int, memory: int | None, what: str, otherwise: str = "compensate by fold") -> None:
    """Raise unless work that takes ``needed`` bytes more fits.

    Args:
        needed: bytes.
        memory: see :func:`room_left`.
        what: the work, for the message.
        otherwise: what to do where there is no more memory.

    Raises:
        GraftError: ``memory``.
    """
    if memory is None:
        memory_free(needed, what, f"use a machine with more memory, or {otherwise}")
        return
    total = needed + resident_bytes()
    if total > memory:
        raise GraftError(
            "memory",
            f"{what} takes {gigabytes(total)} of memory, and --memory allows {gigabytes(memory)}",
            f"give --memory {gigabytes(total).replace(' ', '')} or more, or {otherwise}",
        )


def resident_bytes() -> int:
    """Return the memory that this process has now; where the system does not say so, the most it had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return _most()
    import resource

    return pages * resource.getpagesize()


def _most() -> int:
    if sys.platform == "win32":
        return _windows()
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def _windows() -> int:
    class Counters(ctypes.Structure):
        _fields_ = [("size", ctypes.c_ulong), ("faults", ctypes.c_ulong), ("most", ctypes.c_size_t)]
        _fields_ += [("now", ctypes.c_size_t), *((f"more_{number}", ctypes.c_size_t) for number in range(6))]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # there is none elsewhere
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    known = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return int(counters.now) if known else 0
