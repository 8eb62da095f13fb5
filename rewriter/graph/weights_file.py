"""The file of weights beside a large model: both are replaced, or none."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import onnx

from graft.rewriter.files import claimed, refuse_overwrite, unwritable
from graft.rewriter.files.place import delete, sync_file, sync_folder
from graft.rewriter.graph.file_size import files_beside
from graft.rewriter.graph.weights import DIGITS, in_own_file, write_external


@contextlib.contextmanager
def weights_beside(proto: onnx.ModelProto, path: Path, force: bool) -> Iterator[None]:
    """Put the weights that a model refers to in place, before its file is written in the block.

    Their name is of their own content: the old model and its weights stay as they are until the new model
    replaces the old one, and its weights go last.

    Args:
        proto: the model; it refers to the file when the block begins.
        path: of the model.
        force: replace a model that is there.

    Raises:
        GraftError: ``output-exists``, ``output-unwritable`` or ``output-busy``.
    """
    refuse_overwrite(path, force)
    with claimed(path) as place:
        refuse_overwrite(path, force)
        before, made = _beside(place.path), None
        try:
            if in_own_file(proto):
                data = place.path.with_name(write_external(proto, place.data, place.path.name))
                sync_file(place.data)
                made = None if os.path.lexists(data) else data
                place.data.replace(data)
                sync_folder(data.parent)
                before.discard(data)
            yield
            made = None
            for file in before:
                delete(file)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                delete(place.data)
                if made and made not in files_beside(place.path):  # the new model did not get there
                    delete(made)


def _beside(path: Path) -> set[Path]:
    """Return the files of weights that only the model at ``path`` can have: those that Graft named for it."""
    own = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{DIGITS}}}\.data")
    found = [each for each in path.parent.iterdir() if each.name.startswith(f"{path.name}.")]
    plain = path.with_name(f"{path.name}.data")  # earlier versions called them so, and others do
    named = files_beside(path) if plain in found and path.is_file() else set()
    return {each for each in found if own.fullmatch(each.name) or (each == plain and each in named)}
