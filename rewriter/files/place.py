"""The place of an output: its path with links followed, and the hidden names beside it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

LONGEST = 200
"""Bytes of a name that hidden names repeat; file systems allow 255."""
TOO_DEEP = {errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG}
"""What systems say of folders in folders in folders."""


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
        try:
            shutil.rmtree(path)
        except (RecursionError, OSError) as error:  # it holds one folder for each level open
            if isinstance(error, OSError) and error.errno not in TOO_DEEP:
                raise
            _delete_deep(path)
    elif os.path.lexists(path):
        path.unlink()


def _delete_deep(folder: Path) -> None:
    """Delete a folder of any depth: what lies below the folders in it is moved up, level by level."""
    number = 0
    while inner := [entry.path for entry in os.scandir(folder) if is_folder(entry.path)]:
        for each in inner:
            for entry in list(os.scandir(each)):
                if is_folder(entry.path):
                    while os.path.lexists(folder / str(number)):
                        number += 1
                    os.rename(entry.path, folder / str(number))
                else:
                    os.unlink(entry.path)
            os.rmdir(each)
    shutil.rmtree(folder)


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
