"""Run a function in a forked child of its own: limits of time and memory, output captured.

A fork starts in a few milliseconds with everything imported. It needs a parent without threads that hold
locks, so a campaign is a process of its own, and Linux.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

if sys.platform != "win32":
    import resource

SECONDS = 10.0
"""Most seconds of processor time."""
WAITING = 30.0
"""Most seconds altogether, without those in which other programs had the processor."""
PEAK = 2 << 30
"""Most bytes of resident memory."""
ADDRESSES = 12 << 30
"""Most bytes of address space: more at once is refused, as by a machine that has not so much."""
FILE = 1 << 30
"""Most bytes of a file."""
FAILED = 99
"""Exit code of a child whose function raised."""


def supported() -> str:
    """Why children cannot be forked here; empty where they can."""
    if sys.platform != "linux":
        return f"forks with a limit of memory need Linux, this is {sys.platform}"
    return ""


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; negative: the signal.
        seconds: of processor time; of one that was ended: from start to end.
        peak: bytes of resident memory.
        out: standard output.
        err: standard error.
        hung: it was ended since it took too long.
        grown: it was ended since it took too much memory.
    """

    code: int
    seconds: float
    peak: int
    out: str
    err: str
    hung: bool = False
    grown: bool = False


class Child:
    """A running child.

    Args:
        work: what it does; returns its exit code.
        folder: where its output goes and its temporary files lie; ``work`` runs in ``folder/work``.
    """

    def __init__(self, work: Callable[[], int], folder: Path) -> None:
        self._folder = folder
        self._looked, self._lived = time.monotonic(), 0.0
        self._hung = self._grown = False
        (folder / "tmp").mkdir(exist_ok=True)
        self._pid = os.fork()
        if self._pid == 0:
            _live(work, folder)

    def poll(self) -> Ended | None:
        """End it where it has to be; how it ended, or ``None`` while it runs."""
        pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        seconds = self._age()
        if pid == 0:
            seconds -= _queued(self._pid)
            self._hung = self._hung or seconds > WAITING or (seconds > SECONDS < _busy(self._pid))
            self._grown = self._grown or _resident(self._pid) > PEAK
            if self._hung or self._grown:
                os.killpg(self._pid, signal.SIGKILL)
            return None
        out, err = ((self._folder / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
        code = os.waitstatus_to_exitcode(status)
        if not self._hung:
            seconds = usage.ru_utime + usage.ru_stime
        return Ended(code, seconds, usage.ru_maxrss << 10, out, err, self._hung, self._grown)

    def _age(self) -> float:
        """Seconds since it was started, without those in which this process was stopped itself."""
        now = time.monotonic()
        self._lived += min(now - self._looked, 1.0)
        self._looked = now
        return self._lived

    def wait(self) -> Ended:
        """Wait for its end."""
        while (ended := self.poll()) is None:
            time.sleep(0.002)
        return ended


def _busy(pid: int) -> float:
    """Seconds of processor time that a child took so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended just now
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _queued(pid: int) -> float:
    """Seconds that a child waited for a processor."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # it ended just now, or this Linux does not count them
        return 0.0


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it ended just now
        return 0
    return pages * resource.getpagesize()


def _live(work: Callable[[], int], folder: Path) -> None:
    """Be the child; never returns."""
    code = FAILED
    try:
        os.setsid()
        for source, target in (("stdout", 1), ("stderr", 2)):
            opened = os.open(folder / source, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, target)
            os.close(opened)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for limit, most in (
            (resource.RLIMIT_AS, ADDRESSES),
            (resource.RLIMIT_FSIZE, FILE),
            (resource.RLIMIT_CORE, 0),
        ):
            allowed = resource.getrlimit(limit)[1]
            most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
            resource.setrlimit(limit, (most, most))
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
        os.chdir(folder / "work")
        code = work()
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code & 0xFF)
