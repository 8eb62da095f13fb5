"""Parquet files: the columns image or x, and label where the samples have labels."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import read_image, stack_images
from graft.rewriter.data.labels import bad_labels, checked_labels, checked_names
from graft.rewriter.data.reading import file_digest, reading
from graft.rewriter.data.split import Split, Storage, split_names
from graft.rewriter.errors import GraftError

LOOKALIKES = {"labels", "y", "target", "targets", "class", "classes", "category", "fine_label"}
"""Columns that probably hold the labels, called otherwise."""


def open_parquet(files: Mapping[str, Path]) -> Storage:
    """Open Parquet files, by the names of their splits.

    Raises:
        GraftError: ``extra-missing`` where pyarrow is not installed.
    """
    reader = _pyarrow()
    return Storage(
        {name: partial(_split, reader, name, files[own]) for name, own in split_names(files).items()},
        lambda: file_digest(*files.values()),
    )


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise GraftError(
            "extra-missing",
            "Parquet files need pyarrow, which is not installed",
            "pip install 'onnx-graft[parquet]'",
        ) from None


def _split(reader: Any, name: str, path: Path) -> Split:
    with reading(path):
        file = reader.ParquetFile(path)
        columns = file.schema_arrow.names
    column = next((each for each in ("image", "x") if each in columns), None)
    lookalike = next((each for each in columns if each.lower() in LOOKALIKES), None)
    if column is None or ("label" not in columns and lookalike):
        raise GraftError(
            "data-missing-key",
            f"{path}: expected the columns image or x, and label, found {', '.join(columns)}",
            "rename the columns",
        )
    cells = _cells(file, column, path)

    def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
        found = cells(indices)
        if column == "x":
            with reading(path):
                return {"": np.asarray(found)}
        named = [(f"{path} row {index}", cell) for index, cell in zip(indices, found, strict=True)]
        return {"": stack_images((read_image(_content(cell, row), card, row), row) for row, cell in named)}

    if "label" not in columns:
        return Split.without_labels(name, _rows(file, path), read)
    with reading(path):
        label_cells = file.read(columns=["label"]).column(0).to_pylist()
    if None in label_cells:
        raise bad_labels(f"{path}: label", "a label in every row, found an empty one")
    with reading(path):
        y = np.asarray(label_cells)
    labels, names = checked_labels(y, _names(file), f"{path}: label")
    return Split(name, labels, names, read)


def _rows(file: Any, path: Path) -> int:
    count = int(file.metadata.num_rows)
    if not count:
        raise GraftError("data-empty", f"{path}: expected samples, found none", "add samples")
    return count


def _cells(file: Any, column: str, path: Path) -> Callable[[Integers], list[Any]]:
    """Reads cells of a column, keeping no more than two row groups in memory."""
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum(rows)

    @lru_cache(maxsize=2)
    def group_cells(group: int) -> Any:
        with reading(path):
            return file.read_row_group(group, columns=[column]).column(0)

    def cells(indices: Integers) -> list[Any]:
        groups = np.searchsorted(ends, indices, side="right")
        starts = ends[groups] - np.asarray(rows)[groups]
        return [
            group_cells(int(group))[int(index - start)].as_py()
            for group, index, start in zip(groups, indices, starts, strict=True)
        ]

    return cells


def _content(cell: Any, name: str) -> bytes:
    content = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(content, bytes):
        raise GraftError(
            "data-image",
            f"{name}: expected the bytes of an image, found {type(content).__name__}",
            "store the content of the file in the column image",
        )
    return content


def _names(file: Any) -> tuple[str, ...] | None:
    """The names that the Hugging Face data sets library leaves in the file's metadata."""
    text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(text)["info"]["features"]["label"]["names"]
    except (TypeError, ValueError, KeyError):
        return None
    return checked_names(np.asarray(names, str), "label")
