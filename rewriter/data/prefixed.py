"""Data sets whose classes get a prefix, so that classes of one name in several of them stay apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import TEST, Split
from graft.rewriter.errors import GraftError


def prefixed(prefix: str, label: str) -> str:
    """Return the name of a class with a prefix.

    >>> prefixed("k", "3"), prefixed("", "3")
    ('k:3', '3')
    """
    return f"{prefix}:{label}" if prefix else label


@dataclass(frozen=True)
class PrefixedData:
    """A data set, and the prefix of the names of its classes.

    Attributes:
        dataset: labelled samples.
        prefix: of the names; ``""``: they stay as they are.
    """

    dataset: Dataset
    prefix: str = ""

    def name(self, label: str) -> str:
        """Return the name of one of its classes."""
        return prefixed(self.prefix, label)

    def split(self, name: str, numbers: Mapping[str, Sequence[str]]) -> Split:
        """Return one split with prefixed names.

        Args:
            name: of the split.
            numbers: by prefix, what class numbers mean where the data has no names.

        Raises:
            GraftError: there is no such split, or names are needed and are not known.
        """
        part = self.dataset.split(name).named_by(numbers.get(self.prefix, ()))
        names = part.class_names or numbers.get(self.prefix)
        if names is None and self.prefix:
            raise GraftError(
                "data-names",
                f"the classes of {self.dataset.name} are numbers, and what they mean is not known",
                "add class_names to the .npz file",
            )
        among = None if part.label_classes is None else tuple(map(self.name, part.label_classes))
        return replace(part, class_names=tuple(map(self.name, names)) if names else None, label_classes=among)


def tested(data: Sequence[PrefixedData], split: str) -> list[PrefixedData]:
    """Return the data sets that have held-out samples; all where none has a split that was named.

    Args:
        data: may be empty.
        split: name of the split.
    """
    having = [each for each in data if each.dataset.has(split)]
    return having if having or split == TEST else list(data)


def joined_split(
    data: Sequence[PrefixedData],
    split: str,
    ignore: str | None = None,
    numbers: Mapping[str, Sequence[str]] | None = None,
) -> Split:
    """Return one split of one or several data sets, one after the other.

    Args:
        data: at least one.
        split: its name.
        ignore: a class whose labels do not count.
        numbers: by prefix, what class numbers mean where the data has no names.

    Raises:
        GraftError: see :meth:`PrefixedData.split` and :meth:`Split.join`.
    """
    parts = [each.split(split, numbers or {}) for each in data]
    return replace(Split.join(parts), ignore=ignore)
