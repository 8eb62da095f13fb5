"""Reading data files: errors in one line, no more memory than a file is worth, and hashes of the content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.rewriter.errors import GraftError
from graft.rewriter.regular_files import found_at, require_regular

BOMB_BYTES = 1 << 29
BOMB_FACTOR = 100
"""More than :data:`BOMB_BYTES` are read only where they are at most so many times what the file takes."""


AGAIN = "save or download it again"


@contextmanager
def reading(path: Path, hint: str = AGAIN) -> Iterator[None]:
    """Raise whatever goes wrong in reading a data file as an error of one line.

    Args:
        path: the file.
        hint: what to do about it.

    Raises:
        GraftError: ``data-unreadable``; ``memory`` where there is not enough of it.
    """
    try:
        yield
    except GraftError:
        raise
    except MemoryError as error:
        raise GraftError(
            "memory",
            f"not enough memory to read {path}",
            "use fewer samples, or store them as smaller numbers",
        ) from error
    except Exception as error:  # parsers raise whatever a broken file leads them into
        found = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise unreadable(path, found, hint) from error


def unreadable(path: Path, found: str, hint: str = AGAIN) -> GraftError:
    """Return the error for a data file that cannot be read.

    Args:
        path: the file.
        found: what is wrong with it.
        hint: what to do about it.
    """
    return GraftError(
        "data-unreadable", f"{path}: expected a complete, readable data file, found: {found}", hint
    )


def require_file(path: Path, what: str) -> None:
    """Raise unless a regular file, or a link to one, lies at ``path``.

    Args:
        path: the file.
        what: what was expected there.

    Raises:
        GraftError: ``data-missing``, or ``data-unreadable`` for a pipe, a device and the like.
    """
    found = found_at(path)
    if found == "nothing":
        raise GraftError("data-missing", f"expected {what} at {path}, found nothing", "check the path")
    if found:
        raise GraftError("data-unreadable", f"expected {what} at {path}, found {found}", "name a file")


def refuse_bomb(path: Path, size: int, hint: str) -> None:
    """Raise where a file would take far more memory than it takes on disk.

    Args:
        path: the file.
        size: of its content in memory, in bytes, as the file declares it.
        hint: how to save it so that it is read.

    Raises:
        GraftError: ``data-unreadable``.
    """
    if size <= BOMB_BYTES:
        return
    with reading(path):
        own = min(require_regular(path), getattr(os.stat(path), "st_blocks", 1 << 60) * 512)
    if size > BOMB_FACTOR * own:
        found = f"content of {size / 1e9:.1f} GB in a file that takes {own / 1e6:.3f} MB of the disk"
        raise unreadable(path, found, hint)


def file_digest(*paths: Path) -> str:
    """Return SHA-256 in hex over the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with reading(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
