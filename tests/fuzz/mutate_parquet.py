"""Mutants of Parquet files: other columns, types and cells, changed bytes, values that unpack to a lot."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutate_files import replace_file
from tests.fuzz.mutate_text import NUMBERS, WORDS, mutate_bytes

CODECS = ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
NAMES = ("x", "image", "label", "labels", "y", "class", "", "image.bytes", "x" * 300, "\x1b[31m", "é")


def mutate_parquet(rng: random.Random, path: Path) -> str:
    """Change a Parquet file in place; what was done.

    Threads are not used: the process that makes mutants is forked for every one.
    """
    how = rng.choice(
        [
            *("bytes", "bytes", "cell", "cell", "cell", "labels", "labels", "images", "columns", "schema"),
            *("rows", "bomb", "other"),
        ]
    )
    if how == "bytes":
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return how
    if how == "other":
        return f"other: {replace_file(rng, path)}"
    with pq.ParquetFile(path) as file:
        table = file.read(use_threads=False)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    changed = pa.table(CHANGES[how](rng, columns))
    if how == "schema":
        changed = changed.replace_schema_metadata({rng.choice(["huggingface", "pandas"]): rng.choice(WORDS)})
    pq.write_table(changed, path, compression=rng.choice(CODECS), row_group_size=rng.choice([1, 7, 1000]))
    return how


Columns = dict[str, Any]


def _cell(rng: random.Random, columns: Columns) -> Columns:
    """Another image in one row: changed bytes, none, not even bytes."""
    images = list(columns["image"])
    at = rng.randrange(len(images))
    content = images[at]["bytes"]
    images[at] = rng.choice(
        [
            {"bytes": mutate_bytes(rng, content), "path": rng.choice(WORDS).replace("\0", "")},
            {"bytes": None, "path": rng.choice(["/etc/passwd", "../outside.bin", "model.onnx"])},
            None,
        ]
    )
    return columns | {"image": images}


def _labels(rng: random.Random, columns: Columns) -> Columns:
    """Labels of another type, of other classes, or missing."""
    labels = list(columns["label"])
    at, how = (
        rng.randrange(len(labels)),
        rng.choice(["one", "none", "float", "text", "list", "large", "same"]),
    )
    if how == "one":
        labels[at] = rng.choice([-1, 4, 99, 2**62])
    elif how == "none":
        labels[at] = None
    elif how == "large":
        labels = [2**40 + label for label in labels]
    elif how == "same":
        labels = [0] * len(labels)
    else:
        kinds: Any = {
            "float": lambda each: each + rng.choice([0, 0.5]),
            "text": str,
            "list": lambda each: [each],
        }
        labels = [*map(kinds[how], labels)]
        if how == "text":
            labels[at] = rng.choice(WORDS)
    return columns | {"label": labels}


def _images(rng: random.Random, columns: Columns) -> Columns:
    """Images as bare bytes, as lists of numbers, as text; as arrays in the column x."""
    count = len(columns["label"])
    how = rng.choice(["bare", "numbers", "ragged", "text", "x", "nested"])
    if how == "bare":
        return columns | {"image": [each["bytes"] for each in columns["image"]]}
    if how == "text":
        return columns | {"image": [rng.choice(WORDS) for _ in range(count)]}
    value = rng.choice([each for each in NUMBERS if isinstance(each, float)])
    rows: list[Any] = [[value] * (n % 3 if how == "ragged" else 16) for n in range(count)]
    if how == "nested":
        rows = [[[value] * 4] * 4] * count
    kept = {"label": columns["label"]}
    return kept | {"x" if how in ("x", "nested") else "image": rows}


def _columns(rng: random.Random, columns: Columns) -> Columns:
    """A column away, twice, or called otherwise."""
    found = dict(columns)
    key = rng.choice([*found])
    values = found[key] if rng.random() < 0.3 else found.pop(key)
    if rng.random() < 0.7:
        found[rng.choice(NAMES)] = values
    return found


def _rows(rng: random.Random, columns: Columns) -> Columns:
    count = rng.choice([0, 1, 2, 5])
    return {name: values[:count] for name, values in columns.items()}


def _bomb(rng: random.Random, columns: Columns) -> Columns:
    """One value that is stored once and read for every row: 2.3 GB, if all are held.

    No more rows than a command works through in the time of a mutant: it says how long more would take.
    """
    count = 4_000
    large = rng.choice([b"\0" * 600_000, columns["image"][0]["bytes"] + b"\0" * 570_000])
    bare = pa.array([large]).dictionary_encode()
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), bare.dictionary)
    return {"image": cells, "label": [0] * count}


CHANGES = {
    "cell": _cell,
    "labels": _labels,
    "images": _images,
    "columns": _columns,
    "schema": lambda rng, columns: columns,
    "rows": _rows,
    "bomb": _bomb,
}
