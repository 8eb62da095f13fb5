"""The card file: YAML for people to read and edit, or JSON in a model; where a model's card lies."""

from __future__ import annotations

import errno
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from graft.rewriter.card.part import describe, invalid
from graft.rewriter.card.safe_yaml import load_yaml, written_as
from graft.rewriter.errors import GraftError
from graft.rewriter.regular_files import found_at, is_regular, read_regular

CARD_FORMAT = 1
CARD_BYTES = 1 << 20
LABEL_BYTES = 16 << 20


def read_card(path: Path) -> dict[str, Any]:
    """Read the content of a card file, and of the label file that it may name.

    Raises:
        GraftError: ``card-missing``, ``card-invalid`` or ``card-labels``.
    """
    text = _read_text(path, CARD_BYTES, "card", "write it with `graft card MODEL -o NAME.yaml`")
    with located(path):
        data = _parse_yaml(text)
        if isinstance(data.get("labels"), str):
            data = {**data, **_read_labels(path.parent / data["labels"])}
        _check_labels_are_quoted(data.get("labels"), text)
        return data


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Name the file in errors that its content raises.

    Raises:
        GraftError: as inside, with ``path`` before the message.
    """
    try:
        yield
    except GraftError as error:
        raise GraftError(error.code, f"{path}: {error.message}", error.hint) from None


def find_card(model_path: Path) -> Path:
    """Return NAME.yaml beside NAME.onnx.

    Raises:
        GraftError: ``card-missing`` where there is none.
    """
    beside = model_path.with_suffix(".yaml")
    if not is_regular(beside):
        raise GraftError(
            "card-missing",
            f"{model_path} has no card: expected {beside}",
            f"draft one with `graft card {model_path} -o {beside}`, or name it with --card",
        )
    return beside


def parse_json(text: str) -> dict[str, Any]:
    """Read a card in JSON.

    Raises:
        GraftError: ``card-invalid``.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"expected a card in JSON: {error}", "write the model again") from None
    if not isinstance(data, dict):
        raise invalid(f"expected a card in JSON, found {describe(data)}", "write the model again")
    return data


def to_yaml(content: Mapping[str, Any]) -> str:
    """Return a card as a file for people to read and edit: one line a key, one an input."""
    lines = []
    for key, value in content.items():
        if key == "inputs":
            lines.append("inputs:")
            for each in value:
                inner = {name: entry for name, entry in each.items() if name != "name"}
                lines.append(f"  {_yaml_line(each['name'], inner)}")
        else:
            lines.append(_yaml_line(key, value))
    return "\n".join(lines) + "\n"


def arranged(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a card in the form of :class:`graft.rewriter.card.card.Card`.

    One ``input``, or ``inputs`` by their names, become a list of inputs.

    Raises:
        GraftError: ``card-format`` (a newer format), ``card-invalid`` or ``card-labels``.
    """
    version = data.get("graft", CARD_FORMAT)
    if isinstance(version, int) and version > CARD_FORMAT:
        raise GraftError(
            "card-format",
            f"the card has format {version}, this version of Graft reads up to {CARD_FORMAT}",
            "update onnx-graft",
        )
    arranged = dict(data)
    if "input" in arranged:
        if "inputs" in arranged:
            raise invalid("the card has both 'input' and 'inputs'", "keep one of them")
        arranged["inputs"] = [arranged.pop("input")]
    elif isinstance(arranged.get("inputs"), Mapping):
        arranged["inputs"] = _named_inputs(arranged["inputs"])
    for key in ("labels", "display_names"):
        if arranged.get(key) is not None:
            _check_labels(key, arranged[key])
    return arranged


def _read_text(path: Path, limit: int, what: str, hint: str) -> str:
    found = found_at(path)
    if found:
        found = "none" if found == "nothing" else f"{found} instead"
        raise GraftError("card-missing", f"expected a {what} file, found {found} at {path}", hint)
    try:
        return read_regular(path, limit).decode("utf-8-sig")
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise invalid(
                f"{path}: expected a {what} file that can be read: {error.strerror}",
                "make it readable by you",
            ) from None
        raise invalid(
            f"{path}: a {what} file has at most {limit} bytes, {error.strerror}", "is this the right file?"
        ) from None
    except UnicodeDecodeError as error:
        raise invalid(
            f"{path}: expected a readable {what} file in UTF-8: {error}", "save it as text in UTF-8"
        ) from None


def _parse_yaml(text: str) -> dict[str, Any]:
    try:
        data = load_yaml(text)
    except ValueError as error:
        raise invalid(str(error), "correct the card") from None
    if not isinstance(data, dict):
        raise invalid(
            f"expected the keys input, output and labels, found {describe(data)}",
            "see `graft card` for a draft",
        )
    strange = next((key for key in data if not isinstance(key, str)), None)
    if strange is not None:
        raise invalid(f"expected keys that are words, found {describe(strange)}", "remove it")
    return data


def _read_labels(path: Path) -> dict[str, list[str] | None]:
    text = _read_text(path, LABEL_BYTES, "label", "list the labels in the card, or name the file")
    rows = [line.strip().split("\t", maxsplit=1) for line in text.rstrip().split("\n")]
    if rows == [[""]]:
        rows = []
    labels = [row[0].strip() for row in rows]
    if "" in labels:
        raise GraftError("card-labels", f"{path}: line {labels.index('') + 1} is empty", "one label a line")
    display = [row[-1].strip() for row in rows]
    return {"labels": labels, "display_names": display if display != labels else None}


def _check_labels_are_quoted(labels: Any, text: str) -> None:
    if not isinstance(labels, list) or all(isinstance(label, str) for label in labels):
        return
    place = next(index for index, label in enumerate(labels) if not isinstance(label, str))
    written = written_as(text, "labels", place)
    if isinstance(written, str):
        raise GraftError(
            "card-labels",
            f"label {place + 1} is written {written or 'as nothing'}, which YAML reads as"
            f" {describe(labels[place])}",
            f"quote it: '{written}'",
        )


def _check_labels(key: str, labels: Any) -> None:
    if not isinstance(labels, list | tuple):
        hint = "write [FIRST, SECOND, ...]"
        raise GraftError("card-labels", f"{key}: expected a list, found {describe(labels)}", hint)
    if not labels:
        raise GraftError("card-labels", f"{key}: the list is empty", "a classifier has labels")
    for place, label in enumerate(labels, start=1):
        if not isinstance(label, str):
            raise GraftError(
                "card-labels",
                f"{key}: number {place} is {describe(label)}, expected text",
                "quote it",
            )
        # A label has to fit on one line of any table, and into UTF-8.
        if not label.strip() or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", label):
            raise GraftError(
                "card-labels",
                f"{key}: number {place} is {label!r:.40}, expected text that can be shown",
                "give it a name without control characters",
            )
    if key == "labels" and len(set(labels)) < len(labels):
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        raise GraftError(
            "card-labels",
            f"label '{twice}' is there twice",
            "give each class a name of its own",
        )


def _named_inputs(inputs: Mapping[Any, Any]) -> list[Any]:
    named = []
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise invalid(f"inputs: expected a name, found {describe(name)}", "quote it")
        if not isinstance(value, Mapping):
            raise invalid(
                f"key 'inputs.{name}': expected keys and values in braces, found {describe(value)}",
                "write {kind: ...}",
            )
        if value.get("name", name) != name:
            raise invalid(f"input '{name}' has another name inside", "remove the key 'name'")
        named.append({**value, "name": name})
    return named


def _yaml_line(key: str, value: Any) -> str:
    # The braces of the flow style are cut off, so that each key has a line of its own.
    width = 100 if isinstance(value, list) else 1 << 30
    text: str = yaml.safe_dump(
        {key: value}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=width
    )
    return text.strip()[1:-1]
