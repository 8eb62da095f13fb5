"""Bounds on what onnxruntime takes: a limit of memory, one of time for loops, and none of its own lines."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.errors import GraftError
from graft.rewriter.interrupts import stopped_with
from graft.rewriter.memory import free_bytes, gigabytes, shortage

QUIET = 4
"""Severity of onnxruntime's log: nothing but fatal. Errors are raised as a GraftError of one line."""
CONSTANT_BYTES = 128 << 20
"""Constants may be computed to so many bytes more than four times the weights."""
_ASKED = re.compile(r"requested (?:bytes of|buffer of size) (\d+)")
_NO_MEMORY = (
    "bad allocation",
    "bad_alloc",
    "Failed to allocate memory",
    "smaller than requested bytes",
    "size overflowed",
)


@dataclass(frozen=True)
class Bounds:
    """Limits of a session.

    Attributes:
        memory: bytes for values; ``None``: what is free.
        seconds: how long a graph with loops may run; ``None``: for ever.
        plain: the graph is run as it is written, and nothing is computed before the first run.
        lean: weights are not copied to a form that is faster to multiply by.
        quick: they are, however large they are.
    """

    memory: int | None = None
    seconds: float | None = None
    plain: bool = False
    lean: bool = False
    quick: bool = False


UNBOUNDED = Bounds()
TIMED = Bounds(quick=True)
"""Of a session whose latency is measured: as its users run it."""


def of_piece() -> Bounds:
    """Return the bounds of a part of a model that ran as a whole: all that is free.

    Sizes that follow from shapes there may look as if they followed from values here.
    """
    return Bounds(memory=free_bytes())


class Runnable(Protocol):
    """A session of onnxruntime."""

    def run(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]], options: Any) -> list[Any]:
        """Run one batch."""


def limited(options: ort.SessionOptions, memory: int) -> None:
    """Let a session that is opened next take so many bytes, in an arena of its own."""
    if _registered(memory):
        options.add_session_config_entry("session.use_env_allocators", "1")


def released() -> None:
    """Let the arena of the session that was opened last go with it: else onnxruntime keeps it."""
    _registered(CONSTANT_BYTES)


def _registered(memory: int) -> bool:
    """Replace the arena of sessions to come by an empty one; return whether onnxruntime can."""
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator(where, ort.OrtArenaCfg(memory, -1, -1, -1))
    except Exception:  # versions of onnxruntime that keep the first allocator
        return False
    return True


def run_stoppable(
    session: Runnable, names: Sequence[str], feed: Mapping[str, NDArray[Any]], seconds: float | None = None
) -> list[Any]:
    """Run one batch; signals end it.

    Args:
        session: of onnxruntime.
        names: of the wanted outputs.
        feed: input name to array.
        seconds: after which the run ends; ``None``: no limit.

    Raises:
        TimeoutError: it took longer.
    """
    options = ort.RunOptions()
    options.log_severity_level = QUIET
    with stopped_with(options), _ended_after(options, seconds) as late:
        try:
            return session.run(names, feed, options)
        except Exception:
            if late:
                raise TimeoutError from None
            raise


@contextlib.contextmanager
def _ended_after(options: ort.RunOptions, seconds: float | None) -> Iterator[list[bool]]:
    late: list[bool] = []
    if seconds is None:
        yield late
        return

    def end() -> None:
        late.append(True)
        options.terminate = True

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def out_of_memory(error: BaseException, most: int | None = None) -> GraftError | None:
    """Return the one line about memory where that is what ``error`` of onnxruntime is about.

    Args:
        error: of onnxruntime.
        most: bytes for a model whose sizes follow from values of samples; ``None``: all that is free.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
        return None
    asked = _ASKED.search(text)
    node = re.search(r"while running (\S+) node\. Name:'([^']*)'", text)
    what = f"{node[1]} {node[2]}".strip() if node else "the model"
    free = free_bytes() if asked else None
    if most is not None and (free is None or most < free):
        size = f" asks for {gigabytes(int(asked[1]))}" if asked else " asks for memory"
        return GraftError(
            "memory",
            f"{what}{size}: a model in which sizes follow from values of samples, or a Loop turns, may take "
            f"{gigabytes(most)} in all",
            "check the samples, or allow more with --memory SIZE",
        )
    return shortage(int(asked[1]) if asked else 0, what, free)
