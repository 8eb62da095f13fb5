"""One run at a time writes an output; what a killed one left is put right first."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from graft.rewriter.errors import GraftError
from graft.rewriter.files.lock import POLL, BusyError, locked
from graft.rewriter.files.place import Place
from graft.rewriter.files.refusal import refuse_broken_links, unwritable
from graft.rewriter.files.swap import is_left_over, settle

WAIT = 2.0
"""Seconds that a writer waits: for one that is just ending, or a reader that puts something right."""
READERS_WAIT = 10.0
"""Seconds that a reader waits for a writer that is between two renames."""

log = logging.getLogger("graft")

_held: set[tuple[Path, int]] = set()
"""Paths that this process has claimed, each with the thread that did."""


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[Place]:
    """Keep other runs from writing ``path`` until the block ends. Its thread may claim it again.

    Folders above it are made; those that are empty at the end go again.

    Raises:
        GraftError: ``output-busy`` or ``output-unwritable``.
    """
    place = Place.of(path)
    key = (place.path, threading.get_ident())
    if key in _held:
        yield place
        return
    refuse_broken_links(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_made(place.path.parent))
            if not stack.enter_context(locked(place.lock, WAIT)):
                folder = place.path.parent
                log.warning("%s has no locks: let no two runs write the same output at once", folder)
            settle(place)
        except BusyError:
            raise GraftError(
                "output-busy", f"another run writes {path} now", "let it end, or choose another -o"
            ) from None
        except OSError as error:
            raise unwritable(path, error) from error
        _held.add(key)
        stack.callback(_held.discard, key)
        yield place


def settled(path: Path) -> None:
    """Put right, for one who reads ``path``, what a killed run left there; a run at work is left alone.

    Raises:
        GraftError: ``directory-unfinished``: that cannot be done.
    """
    try:
        place = Place.of(path)
    except (OSError, ValueError):  # no path at all
        return
    if not place.is_left() or (place.path, threading.get_ident()) in _held:
        return
    try:
        with locked(place.lock, 0) as sure:
            if sure or (_is_away(place)):
                settle(place)
    except BusyError:
        _await(place)
    except OSError as error:
        if _is_away(place):
            raise GraftError(
                "directory-unfinished",
                f"a killed run left {path} as {place.old}: {error.strerror}",
                "rename it back",
            ) from error


def _is_away(place: Place) -> bool:
    """Return whether the old folder was moved away, and the new one is not in."""
    return not os.path.lexists(place.path) and is_left_over(place)


def _await(place: Place) -> None:
    """Wait while a writer is between its two renames."""
    end = time.monotonic() + READERS_WAIT
    while _is_away(place) and time.monotonic() < end:
        time.sleep(POLL)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; at the end those that were made and are empty go again."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in (*missing[:0:-1], folder):  # one by one: parents=True would call itself for each of them
        each.mkdir(exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()
