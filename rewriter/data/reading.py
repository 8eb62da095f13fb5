"""Reading data files: errors in one line, and hashes of the content."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graft.rewriter.errors import GraftError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise whatever goes wrong in reading a data file as an error of one line.

    Raises:
        GraftError: ``data-unreadable``.
    """
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        found = str(error) or type(error).__name__
        raise GraftError(
            "data-unreadable",
            f"{path}: expected a complete, readable data file, found: {found}",
            "save or download it again",
        ) from error


def file_digest(*paths: Path) -> str:
    """Return SHA-256 in hex over the content of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with reading(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
