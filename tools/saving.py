"""Write the one model that a command makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graft.rewriter.graph.file_size import stored_bytes
from graft.rewriter.graph.model import Model
from graft.tools import options


def save(model: Model, path: Path, output: options.OutputOptions) -> dict[str, Any]:
    """Save a model; return its size, and whether this was a dry run.

    Args:
        model: with its card.
        path: where it goes.
        output: whether it replaces a file, and whether this is a dry run.

    Raises:
        GraftError: the file cannot be written.
    """
    with output.target(path) as target:
        model.save(target, output.force)
        return {"bytes": sum(stored_bytes(target)), **output.dry()}
