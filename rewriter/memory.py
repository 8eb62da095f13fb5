"""How much memory is free, and the one line about a lack of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from graft.rewriter.errors import GraftError

HINT = "close other programs, use a smaller model, or a machine with more memory"
OF_ITS_OWN = 1 << 20
"""After :func:`give_back` allocations of so many bytes are of their own, and go back when they are freed."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of glibc's mallopt."""
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}
_CGROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


@contextlib.contextmanager
def collected_rarely(nodes: int) -> Iterator[None]:
    """Look for cycles less often inside of the block: a few times for each copy of a large graph.

    A copy makes ten objects of a node or more, and Python looks every 700 objects otherwise, a quarter of the
    time of a graph of 10,000 nodes.

    Args:
        nodes: of the graph.
    """
    first, *others = gc.get_threshold()
    if not 0 < first < nodes // 2:
        yield
        return
    freeze = not gc.get_freeze_count()
    gc.set_threshold(nodes // 2, *others)
    if freeze:
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(first, *others)
        if freeze:
            gc.unfreeze()


def free_bytes() -> int:
    """Return the bytes that this process may still take: of the machine, its container and its own limit."""
    found = [_machine(), *_container(), *_own_limit()]
    return max(0, min(found))


def require(needed: float, what: str, hint: str = HINT) -> None:
    """Raise unless so many bytes are free.

    Args:
        needed: bytes.
        what: takes them, for the message.
        hint: what to do about it.

    Raises:
        GraftError: ``memory``.
    """
    free = free_bytes()
    if needed > free:
        raise shortage(needed, what, free, hint)


def shortage(needed: float, what: str = "", free: float | None = None, hint: str = HINT) -> GraftError:
    """Return the error for memory that is not there.

    Args:
        needed: bytes; 0 where that is not known.
        what: takes them.
        free: bytes; ``None``: not known.
        hint: what to do about it.
    """
    amount = f": {gigabytes(needed)} needed" if needed else ""
    whom = f" for {what}" if what else ""
    left = f", {gigabytes(free)} free" if free is not None else ""
    return GraftError("memory", f"not enough memory{amount}{whom}{left}", hint)


def lacking(error: BaseException, needed: float = 0, what: str = "") -> GraftError:
    """Return the one line about a failed allocation; numpy says how much it asked for.

    Args:
        error: was raised by numpy, Python, protobuf, onnx or onnxruntime.
        needed: bytes, where the message of the error does not say it.
        what: takes them.
    """
    asked = re.search(r"([\d.]+) (bytes|[KMGTP]iB)", str(error))
    known = float(asked[1]) * _UNITS[asked[2]] if asked else 0.0
    return shortage(known or needed, what)


def give_back() -> None:
    """Give the operating system what is freed, now and later, where the C library is glibc.

    It keeps what is freed in pieces below 32 MB, which is as much as a whole copy of the weights of a large
    model after each session. Giving it back takes time with many short runs: it is for large models.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, OF_ITS_OWN)
        library.mallopt(_TRIM_THRESHOLD, OF_ITS_OWN)
    trim()


def trim() -> None:
    """Give the operating system what was freed; glibc keeps some of it."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def gigabytes(count: float) -> str:
    """Return a number of bytes in GB, with one digit behind the point below ten."""
    value = count / 1e9
    return f"{value:,.0f} GB" if value >= 10 else f"{max(value, 0.1):.1f} GB"


def _machine() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) << 10
    if sys.platform == "win32":
        return _windows()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # macOS gives away what is cached
    return sys.maxsize


def _windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)]
        _fields_ += [(f"bytes_{number}", ctypes.c_ulonglong) for number in range(7)]

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009  # there is none elsewhere
    return int(status.bytes_1) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else sys.maxsize


def _container() -> list[int]:
    """Return what a control group leaves; pages of files count as used there, though they can go."""
    found = []
    for limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or one without a limit
            most = int((Path("/sys/fs/cgroup") / limit).read_text())
            stat = (Path("/sys/fs/cgroup") / used).with_name("memory.stat").read_text().split()
            pages = dict(zip(stat[::2], map(int, stat[1::2]), strict=False)).get("inactive_file", 0)
            found.append(most - int((Path("/sys/fs/cgroup") / used).read_text()) + pages)
    return found


def _own_limit() -> list[int]:
    """Return what a limit on the address space of this process leaves."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            return [most - taken]
    return []
