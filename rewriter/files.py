"""Write files whole or not at all, and never over others unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graft.rewriter.errors import GraftError


@contextlib.contextmanager
def writing(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place when the block ends without an error.

    Raises:
        GraftError: ``output-exists`` or ``output-unwritable``.
    """
    refuse_overwrite(path, force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> GraftError:
    """Return the error for a ``path`` that cannot be written."""
    reason = error.strerror or str(error)
    return GraftError("output-unwritable", f"cannot write {path}: {reason}", "choose another -o")


def refuse_overwrite(path: Path, force: bool) -> None:
    """Raise unless a file can be written at ``path``, which is free or ``force`` allows to replace.

    Raises:
        GraftError: ``output-exists`` or ``output-unwritable``.
    """
    try:
        folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # a name that is too long
        raise unwritable(path, error) from error
    if folder:
        raise GraftError(
            "output-exists", f"{path} is a folder, a file name was expected", "choose another -o"
        )
    if exists and not force:
        raise GraftError("output-exists", f"{path} exists", "choose another -o or add --force")
    refuse_unwritable(path, path.absolute().parent)


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
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise unwritable(path, error) from error
