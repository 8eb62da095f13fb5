"""Parquet files: the columns image or x, and label where the samples have labels."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import read_image, stack_images
from graft.rewriter.data.labels import bad_labels, checked_labels, checked_names
from graft.rewriter.data.reading import BOMB_FACTOR, file_digest, reading, refuse_bomb
from graft.rewriter.data.split import Split, Storage, split_names
from graft.rewriter.errors import GraftError

DICTIONARY = 1 << 26
"""Bytes of values that are written once and repeated; programs that write such files stop far below."""
LOOKALIKES = {"labels", "y", "target", "targets", "class", "classes", "category", "fine_label"}
"""Columns that probably hold the labels, called otherwise."""

LABEL_BYTES = 8
LONGEST_NAME = 1000
NUMBERS = {
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "float",
    "double",
    "bool",
}
PLAIN = "write it again without compression and dictionaries"


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
        columns = reader.ParquetFile(path).schema_arrow.names
    column = next((each for each in ("image", "x") if each in columns), None)
    lookalike = next((each for each in columns if each.lower() in LOOKALIKES), None)
    if column is None or ("label" not in columns and lookalike):
        raise GraftError(
            "data-missing-key",
            f"{path}: expected the columns image or x, and label, found {', '.join(columns)}",
            "rename the columns",
        )
    file = _opened(reader, path, (column, "label"))
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
    labels, names = checked_labels(_labels(file, path), _names(file, path), f"{path}: label")
    return Split(name, labels, names, read)


def _opened(reader: Any, path: Path, used: Sequence[str]) -> Any:
    """Return a file whose columns take no more memory than the file is worth.

    A text or an image that is stored once for thousands of rows stays so in memory.
    """
    with reading(path):
        schema = reader.ParquetFile(path).schema
        leaves = [schema.column(place) for place in range(len(schema))]
        mine = [place for place, leaf in enumerate(leaves) if leaf.path.split(".")[0] in used]
        repeated = [
            leaves[place].path
            for place in mine
            if leaves[place].physical_type == "BYTE_ARRAY" and not leaves[place].max_repetition_level
        ]
        file = reader.ParquetFile(path, read_dictionary=repeated)
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        if file.metadata.num_rows != sum(group.num_rows for group in groups):
            raise ValueError("rows that are not counted right")
        largest = max((_group_bytes(group, leaves, mine) for group in groups), default=0)
    refuse_bomb(path, max(largest, file.metadata.num_rows * LABEL_BYTES), PLAIN)
    return file


def _group_bytes(group: Any, leaves: Sequence[Any], used: Sequence[int]) -> int:
    """Return what the used columns of a row group take in memory, as far as the file says it."""
    total = 0
    for place in used:
        chunk, leaf = group.column(place), leaves[place]
        width = leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else LABEL_BYTES
        size = chunk.total_uncompressed_size
        if chunk.has_dictionary_page and size > max(DICTIONARY, BOMB_FACTOR * chunk.total_compressed_size):
            size *= chunk.num_values  # each of them may be the whole dictionary
        total += max(size, chunk.num_values * width)
    return total


def _labels(file: Any, path: Path) -> Array:
    """Read the labels of all rows.

    Raises:
        GraftError: ``data-labels`` where one is empty, or ``data-unreadable``.
    """
    with reading(path):
        column = file.read(columns=["label"]).column(0)
        empty, texts = column.null_count, [chunk for chunk in column.chunks if hasattr(chunk, "dictionary")]
        longest = max((len(text or "") for each in texts for text in each.dictionary.to_pylist()), default=0)
    if empty:
        raise bad_labels(f"{path}: label", "a label in every row, found an empty one")
    refuse_bomb(path, longest * len(column) * np.dtype("U1").itemsize, PLAIN)
    with reading(path):
        if str(column.type) in NUMBERS:
            return np.asarray(column.to_numpy())
        return np.asarray(column.to_pylist())


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
        return file.read_row_group(group, columns=[column]).column(0)

    def cells(indices: Integers) -> list[Any]:
        groups = np.searchsorted(ends, indices, side="right")
        starts = ends[groups] - np.asarray(rows)[groups]
        with reading(path):
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


def _names(file: Any, path: Path) -> tuple[str, ...] | None:
    """The names that the Hugging Face data sets library leaves in the file's metadata."""
    text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    try:
        names = json.loads(text)["info"]["features"]["label"]["names"]
    except (TypeError, ValueError, KeyError, RecursionError):
        return None
    if not isinstance(names, list) or not all(
        isinstance(each, str) and len(each) <= LONGEST_NAME for each in names
    ):
        expected = f"a list of names of at most {LONGEST_NAME} characters"
        raise bad_labels(f"{path}: the names of its labels", expected)
    return checked_names(np.asarray(names, str), f"{path}: label")
