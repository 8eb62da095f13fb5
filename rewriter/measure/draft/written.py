"""What the files beside a model, and its metadata, say of labels and preprocessing."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.rewriter.measure.draft.preprocessing import Preprocessing, hugging_face, timm
from graft.rewriter.regular_files import found_at, read_regular

LABEL_KEYS = (
    "names",
    "labels",
    "classes",
    "classnames",
    "classlabels",
    "id2label",
    "labelnames",
    "categories",
    "character",
    "label2id",
    "labelmap",
    "idxtoclass",
    "classtoidx",
)
"""Keys of the metadata that hold class names, without case and marks; ultralytics writes ``names``,
PaddleOCR ``character``."""
LABEL_FILES = ("labels.txt", "classes.txt", "class_names.txt", "labels.json", "class_names.json")
SEPARATORS = ("\n", "\t", ";", "|", ",")
NUMBERED = re.compile(r"(\d+)[\s:.,)-]+(\S.*)")
"""A line of a list that counts its names."""
LONGEST_TEXT = 1 << 22
LONGEST_COUNT = 20
"""Digits of a number that can count lines."""


@dataclass(frozen=True)
class Written:
    """Labels and preprocessing that are written down, each with its source.

    Attributes:
        labels: (source, names in the order of the columns), the most trustworthy first.
        preprocessing: of images, or ``None``.
        task: what the model is for, as its metadata says; ``""`` where they do not.
        notes: files that lie beside the model and cannot be used, with the reason.
    """

    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    preprocessing: Preprocessing | None = None
    task: str = ""
    notes: tuple[str, ...] = ()


def read_written(metadata: Mapping[str, str], path: Path | None) -> Written:
    """Read what is written down of a model.

    Args:
        metadata: of the model.
        path: its file, beside which configurations of Hugging Face and timm may lie; ``None``: none.
    """
    labels: list[tuple[str, tuple[str, ...]]] = []
    notes: list[str] = []
    folded = {re.sub(r"[^a-z0-9]", "", key.casefold()): (key, value) for key, value in metadata.items()}
    for wanted in LABEL_KEYS:
        key, value = folded.get(wanted, ("", ""))
        names = parse_names(value)
        if names:
            labels.append((f"the model's metadata ({key})", names))
    nested = _config_names(_parsed(folded.get("config", ("", ""))[1]))
    if nested:
        labels.append(("the model's metadata (config)", nested))
    preprocessing = None
    for folder in _folders(path):
        found, own = _beside(folder, notes)
        labels += found
        preprocessing = preprocessing or own
    task = folded.get("task", ("", ""))[1].strip().casefold()
    return Written(tuple(labels), preprocessing, task, tuple(notes))


def _beside(folder: Path, notes: list[str]) -> tuple[list[tuple[str, tuple[str, ...]]], Preprocessing | None]:
    """Return labels with their sources, and preprocessing, of the files in a folder."""
    labels = []
    config = _json(folder / "config.json", notes)
    processor = _json(folder / "preprocessor_config.json", notes) or _json(
        folder / "processor_config.json", notes
    )
    inner = processor.get("image_processor")
    names = _config_names(config)
    if names:
        labels.append((str(folder / "config.json"), names))
    for name in LABEL_FILES:
        path = folder / name
        text = _text(path, notes)
        names = parse_names(text) if path.suffix == ".json" else _lines(text)
        if names:
            labels.append((str(path), names))
        elif text.strip():
            notes.append(f"{path} holds no list of class names, not taken")
    preprocessing = None
    for name, read, content in (
        ("preprocessor_config.json", hugging_face, inner if isinstance(inner, Mapping) else processor),
        ("config.json", timm, config),
    ):
        try:
            preprocessing = preprocessing or read(content)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            notes.append(f"{folder / name} has preprocessing that no card can have, not taken: {error}")
    return labels, preprocessing


def parse_names(text: str) -> tuple[str, ...]:
    """Return class names from JSON, a Python literal, lines, or words between commas; () for other text.

    >>> parse_names("{0: 'cat', 1: 'dog'}")
    ('cat', 'dog')
    """
    if not text.strip() or len(text) > LONGEST_TEXT:
        return ()
    for parse in (json.loads, ast.literal_eval):
        try:
            found = _names(parse(text.strip()))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, OverflowError):
            continue
        if found:
            return found
    if text.strip()[0] in "{[(" and "\n" not in text.strip():
        return ()
    separator = next((each for each in SEPARATORS if each in text.strip()), ",")
    listed = tuple(each.strip() for each in text.strip("\r\n").split(separator))
    return listed if len(listed) > 1 else ()


def _names(value: Any) -> tuple[str, ...]:
    """Return names from a list, or from a dictionary by number (or from names to numbers)."""
    if isinstance(value, Mapping):
        if value and all(isinstance(each, int) for each in value.values()):
            value = {number: name for name, number in value.items()}
        numbered = {int(key): name for key, name in value.items()}
        if sorted(numbered) != list(range(len(numbered))):
            return ()
        value = [numbered[number] for number in range(len(numbered))]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        value = [each.get("name") for each in value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str | int) for each in value):
        return ()
    return tuple(str(each) for each in value)


def _config_names(config: Any) -> tuple[str, ...]:
    if not isinstance(config, Mapping):
        return ()
    inner = config.get("pretrained_cfg")
    places = (config, inner if isinstance(inner, Mapping) else {})
    for key in ("id2label", "label_names", "label2id"):
        for place in places:
            try:
                found = _names(place.get(key))
            except (ValueError, TypeError, OverflowError):
                found = ()
            if found and not all(name == f"LABEL_{number}" for number, name in enumerate(found)):
                return found
    return ()


def _folders(path: Path | None) -> list[Path]:
    """Return where configurations may lie: beside the model, and above a folder ``onnx`` as of optimum."""
    if path is None:
        return []
    folder = path.resolve().parent
    return [folder, *([folder.parent] if folder.name == "onnx" else [])]


def _json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    text = _text(path, notes)
    found = _parsed(text)
    if text and found is None:
        notes.append(f"{path} is not JSON, not taken")
    return found if isinstance(found, Mapping) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lines(text: str) -> tuple[str, ...]:
    """Return the names of a list, one a line; lines that count them lose their number."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    counted = [NUMBERED.fullmatch(line) for line in lines]
    numbers = [int(each[1][:LONGEST_COUNT]) for each in counted if each is not None]
    if len(numbers) == len(lines) and numbers in (
        list(range(len(lines))),
        list(range(1, len(lines) + 1)),
    ):
        lines = [each[2] for each in counted if each is not None]
    return tuple(line.split("\t")[0] for line in lines)


def _text(path: Path, notes: list[str]) -> str:
    try:
        return "" if found_at(path) == "nothing" else read_regular(path, LONGEST_TEXT).decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{path} is not text in UTF-8, not taken")
    except OSError as error:
        notes.append(f"{path} cannot be read, not taken: {error.strerror}")
    return ""
