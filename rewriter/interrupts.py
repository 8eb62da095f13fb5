"""Let Ctrl-C and other signals stop what onnxruntime computes.

Python hears of a signal between two of its own instructions, which is never while onnxruntime computes. So a
thread listens for signals, and tells the runs to end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

PATIENCE = 1.5
"""Seconds after which a program that has not come back from a library of its own accord is ended."""
INTERRUPTED = 130
"""Exit code of a program that was asked to end."""
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Stoppable(Protocol):
    """Options of a run of onnxruntime, which ends where ``terminate`` is set."""

    terminate: bool


_running: set[Any] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def stopped_with(options: Stoppable) -> Iterator[None]:
    """Let signals that arrive inside of the block end the run with these ``options``."""
    with _lock:
        _running.add(options)
    try:
        yield
    finally:
        with _lock:
            _running.discard(options)


def stop_runs() -> None:
    """Let every run of onnxruntime end, with an error, before its next node."""
    with _lock:
        for options in _running:
            options.terminate = True


def listen() -> None:
    """Listen for Ctrl-C and SIGTERM from now on; call it in the main thread of a program.

    What Python does on a signal stays. Where it cannot, since a library computes and does not end within
    :data:`PATIENCE` seconds, the program says that it was interrupted, and exits with
    :data:`INTERRUPTED`.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    main = threading.get_ident()
    ends = (reader, writer, main)
    threading.Thread(target=_listen, args=ends, daemon=True, name="signals").start()


def _listen(reader: socket.socket, _writer: socket.socket, main: int) -> None:
    # the writer is held, so that it stays open
    while True:
        heard = [number for number in reader.recv(64) if number in _ENDING]
        if not heard:
            continue
        place = _place(main)
        stop_runs()
        deadline = time.monotonic() + PATIENCE
        while _place(main) == place and time.monotonic() < deadline:
            time.sleep(0.02)
        if _place(main) == place:
            os.write(2, b"graft: interrupted\n")
            os._exit(INTERRUPTED)


def _place(thread: int) -> tuple[int, int] | None:
    """Return where a thread is: the same as before where it is still inside of the same call."""
    frame = sys._current_frames().get(thread)
    return (id(frame), frame.f_lasti) if frame else None
