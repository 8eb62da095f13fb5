"""Outputs that cannot be written are refused: before the work, in one line."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from graft.rewriter.errors import GraftError
from graft.rewriter.files.place import Place
from graft.rewriter.regular_files import found_at


def unwritable(path: Path, error: OSError) -> GraftError:
    """Return the error for a ``path`` that cannot be written."""
    reason = error.strerror or str(error)
    return GraftError("output-unwritable", f"cannot write {path}: {reason}", "choose another -o")


def refuse_overwrite(path: Path, force: bool) -> None:
    """Raise unless a file can be written at ``path``, which is free or ``force`` allows to replace.

    Raises:
        GraftError: ``output-exists`` or ``output-unwritable``.
    """
    refuse_broken_links(path)
    found = found_at(path)
    if found.startswith("nothing that"):  # a name that is too long
        raise unwritable(path, OSError(errno.EINVAL, found))
    if found and found != "nothing":
        hint = "choose another -o" + (", or --dry-run" if found == "a device" else "")
        raise GraftError("output-exists", f"{path} is {found}, a file name was expected", hint)
    if not found and not force:
        raise GraftError("output-exists", f"{path} exists", "choose another -o or add --force")
    refuse_unwritable(path, Place.of(path).path.parent)


def refuse_unwritable(path: Path, folder: Path) -> None:
    """Raise unless files can be made in a folder, or in the one that it would be made in.

    Args:
        path: what is to be written, for the message.
        folder: the folder; may be missing.

    Raises:
        GraftError: ``output-unwritable``.
    """
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        for name in path.parts:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(folder / name)  # raises where a name is too long
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise unwritable(path, error) from error


def refuse_broken_links(path: Path) -> None:
    """Raise where ``path``, or a folder above it, is a link to nothing: its disk may not be there now.

    Links to what there is are followed.

    Raises:
        GraftError: ``output-unwritable``.
    """
    for part in (path, *path.absolute().parents):
        if os.path.islink(part) and not os.path.exists(part) and not os.path.lexists(Place.of(part).old):
            raise GraftError(
                "output-unwritable",
                f"cannot write {path}: {part} is a link to {os.readlink(part)}, which is not there",
                "choose another -o, or delete the link",
            )
