"""Reading an output that another run may replace meanwhile: all of the old one, or all of the new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from graft.rewriter.errors import GraftError
from graft.rewriter.files.swap import INDEX

TRIES = 5
"""Times that something is read which is replaced meanwhile."""
T = TypeVar("T")
State = tuple[int, ...] | None


@dataclass(frozen=True)
class Seen:
    """What lay at some paths, to be compared with what lies there later.

    Attributes:
        paths: files, and folders of modules.
        states: of each what tells one from another that took its place.
    """

    paths: tuple[Path, ...]
    states: tuple[State, ...]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Seen:
        """Return what lies at the paths now."""
        named = tuple(paths)
        return cls(named, tuple(map(_state, named)))

    def changed(self) -> Path | None:
        """Return the first path at which something else lies now."""
        now = map(_state, self.paths)
        pairs = zip(self.paths, self.states, now, strict=True)
        return next((path for path, before, after in pairs if before != after), None)

    def require_unchanged(self) -> None:
        """Raise where something else lies there now.

        Raises:
            GraftError: ``input-changed``.
        """
        path = self.changed()
        if path is not None:
            raise GraftError(
                "input-changed", f"{path} was replaced while it was read", "run the command again"
            )


def read_whole(paths: Iterable[Path], read: Callable[[], T]) -> T:
    """Return what ``read`` reads at the paths; it reads again where they were replaced meanwhile.

    Args:
        paths: files, and folders of modules, that it reads.
        read: reads them.

    Raises:
        GraftError: ``input-changed``: they are replaced all the time; and what ``read`` raises.
    """
    named = tuple(paths)
    for _ in range(TRIES):
        seen = Seen.of(named)
        try:
            found = read()
        except (GraftError, OSError):
            if seen.changed() is None:
                raise
            continue
        if seen.changed() is None:
            return found
    seen.require_unchanged()
    return read()


def _state(path: Path) -> State:
    """Return what tells a file or folder of modules from another that takes its place; ``None``: none there.

    Of a file its folder counts, too, where that is one of modules: they are replaced together.
    """
    parts: list[int] = []
    folder = path if path.is_dir() else path.parent
    for each in (path, folder, folder / INDEX):
        try:
            found = os.stat(each)
        except (OSError, ValueError):
            if each == path:
                return None
            continue
        parts += [found.st_dev, found.st_ino]
        if each != folder:  # others may write into a folder
            parts += [found.st_size, found.st_mtime_ns]
    return tuple(parts)
