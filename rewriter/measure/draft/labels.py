"""Names of the columns of an output: what the file says, what lies beside it, what the data call them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Integers
from graft.rewriter.card.card import OTHER
from graft.rewriter.card.part import some
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.draft.written import Written

FEW_TWICE = 0.1
"""Up to this share of names may be there twice; they get the number of their column, as ImageNet's cranes."""


@dataclass(frozen=True)
class Labels:
    """Names of the columns.

    Attributes:
        names: in the order of the columns.
        source: where they come from.
        place: column of each class of the data, -1 where the model lacks it; ``None`` without data.
        certain: the order of the columns is known, not assumed.
        notes: what was not taken, and why.
    """

    names: tuple[str, ...]
    source: str
    place: Integers | None = None
    certain: bool = True
    notes: tuple[str, ...] = ()


def choose_labels(
    own: tuple[str | int, ...] | None, written: Written, part: Split | None, columns: int
) -> Labels:
    """Choose the names of the columns.

    Args:
        own: classes that the graph itself names.
        written: names in the metadata and beside the model.
        part: labelled samples; ``None``: none.
        columns: of the output; 2 for a single one of two classes.

    Raises:
        GraftError: ``data-labels`` where the graph numbers its classes otherwise than the data can mean.
    """
    _refuse_other_numbers(own, part)
    notes: list[str] = []
    in_data = part.class_names if part is not None else None
    for source, given in _sources(own, written, in_data):
        names = _usable(source, given, columns, notes)
        if names is None:
            continue
        if in_data is not None and not set(names) & set(in_data):
            notes.append(f"{source} and the data have no class name in common")
            continue
        missing = [name for name in in_data or () if name not in names]
        if missing:
            some = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            notes.append(f"{source}: {len(missing)} classes of the data are not among them: {some}")
        return Labels(names, source, _place(names, part), notes=tuple(notes))
    if in_data is not None and len(in_data) <= columns:
        names = (*in_data, *(_free(str(n), in_data) for n in range(len(in_data), columns)))
        names = _usable("the data", names, columns, notes) or tuple(map(str, range(columns)))
        if len(in_data) < columns:
            notes.append(f"the data name {len(in_data)} of {columns} classes; the others have numbers")
        return Labels(names, "the data", _place(names, part), certain=False, notes=tuple(notes))
    if in_data is not None:
        notes.append(f"the data name {len(in_data)} classes, the output has {columns} columns")
    numbers = tuple(map(str, range(columns)))
    place = None if part is None else np.arange(int(part.labels.max(initial=0)) + 1)
    if in_data is not None and not set(in_data) & set(numbers):
        return Labels(in_data[:columns], "the data", place, certain=False, notes=tuple(notes))
    return Labels(numbers, "numbers", place, notes=tuple(notes))


def moved(labels: Labels, part: Split, columns: Integers) -> Labels:
    """Return the labels with the names of the data at other columns.

    Args:
        labels: as chosen.
        part: the data.
        columns: column of each class of the data; -1 where it is not known.
    """
    in_data = part.class_names or ()
    names = [_free(str(number), in_data) for number in range(len(labels.names))]
    for name, column in zip(in_data, columns.tolist(), strict=True):
        if column >= 0:
            names[column] = name
    note = "the columns were matched to the classes of the data by what the model says of the samples"
    return Labels(tuple(names), "the data", columns, False, (*labels.notes, note))


def _refuse_other_numbers(own: tuple[str | int, ...] | None, part: Split | None) -> None:
    """Raise where the numbers in the data are those of the graph, and do not count its columns."""
    if own is None or part is None or part.class_names is not None or own == tuple(range(len(own))):
        return
    if not set(np.unique(part.labels).tolist()) <= set(own):
        return
    highest = max(each for each in own if isinstance(each, int))
    raise GraftError(
        "data-labels",
        f"the model's columns are the classes {some(list(map(str, own)))}, but numbers without names count"
        " columns from 0",
        f"store class_names with the data, '0' to '{highest}': numbers are matched by name then",
    )


def _sources(
    own: tuple[str | int, ...] | None, written: Written, in_data: tuple[str, ...] | None
) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    if own is not None:
        numbers = [each for each in own if isinstance(each, int)]
        named = in_data is not None and len(numbers) == len(own) and not set(map(str, own)) & set(in_data)
        if named and in_data is not None and all(0 <= number < len(in_data) for number in numbers):
            own = tuple(in_data[number] for number in numbers)  # the numbers in y, which the data name
        found.append(("the model's class labels", tuple(map(str, own))))
    return [*found, *written.labels]


def _usable(source: str, given: Sequence[str], columns: int, notes: list[str]) -> tuple[str, ...] | None:
    """Return names that a card can have, or ``None`` with the reason in ``notes``."""
    if len(given) != columns:
        notes.append(f"{source}: {len(given)} names for {columns} columns, not taken")
        return None
    names = [re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]+", " ", name).strip() for name in given]
    names = [name if name and name != OTHER else str(number) for number, name in enumerate(names)]
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if len(twice) > FEW_TWICE * columns:
        notes.append(f"{source}: '{twice[0]}' is there {counts[twice[0]]} times, not taken")
        return None
    if twice:
        names = [f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(names)]
        notes.append(f"{source}: '{twice[0]}' is there twice; such names have the number of their column")
    return tuple(names) if len(set(names)) == columns else None


def _place(names: tuple[str, ...], part: Split | None) -> Integers | None:
    if part is None:
        return None
    if part.class_names is None:
        return np.arange(len(names))
    at = {name: column for column, name in enumerate(names)}
    return np.array([at.get(name, -1) for name in part.class_names], np.int64)


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
