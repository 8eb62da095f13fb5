"""The place of an output: its path with links followed, and the hidden names beside it."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

LONGEST = 200
"""Bytes of a name that hidden names repeat; file systems allow 255."""


@dataclass(frozen=True)
class Place:
    """Where an output goes.

    The hidden names follow from the path: a run finds there what an earlier one, which was killed, left.

    Attributes:
        path: absolute, without links.
    """

    path: Path

    @classmethod
    def of(cls, path: str | Path) -> Place:
        """Return the place that ``path`` leads to, whether something lies there or not."""
        return cls(Path(os.path.realpath(path)))

    @property
    def new(self) -> Path:
        """Where the new file or folder is written."""
        return self._beside("new")

    @property
    def data(self) -> Path:
        """Where the weights of a new model are written that go to a file of their own."""
        return self._beside("data")

    @property
    def old(self) -> Path:
        """Where the old folder lies from when it was moved away until it is deleted."""
        return self._beside("old")

    @property
    def lock(self) -> Path:
        """The file whose lock a writer holds."""
        return self._beside("lock")

    def is_left(self) -> bool:
        """Return whether a run left something beside, or is at work."""
        hidden = (self.new, self.data, self.old, self.lock) if self.path.name else ()
        return any(map(os.path.lexists, hidden))

    def _beside(self, what: str) -> Path:
        name = self.path.name
        if len(os.fsencode(name)) > LONGEST:
            name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
        return self.path.with_name(f".{name}.graft-{what}")


def is_folder(path: str | Path) -> bool:
    """Return whether a folder lies at ``path``, and no link to one (nor a junction)."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and not getattr(found, "st_reparse_tag", 0)


def delete(path: Path) -> None:
    """Delete what lies at ``path``, if anything does: a folder with its content, of a link only the link.

    Raises:
        OSError: it cannot be deleted.
    """
    if is_folder(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk.

    Raises:
        OSError: it did not get there, for example because the disk is full.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
