"""A file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from graft.rewriter.files.claim import claimed
from graft.rewriter.files.place import sync_file, sync_folder
from graft.rewriter.files.refusal import refuse_overwrite, unwritable


@contextlib.contextmanager
def writing(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place when the block ends without an error.

    A link at ``path`` is followed.

    Raises:
        GraftError: ``output-exists``, ``output-unwritable`` or ``output-busy``.
    """
    refuse_overwrite(path, force)
    with claimed(path) as place:
        refuse_overwrite(path, force)  # another run may have written it
        try:
            os.close(os.open(place.new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield place.new
            sync_file(place.new)
            place.new.replace(place.path)
            sync_folder(place.path.parent)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                place.new.unlink(missing_ok=True)
