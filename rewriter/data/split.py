"""One part of a data set: labels in memory, samples read when they are needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images
from graft.rewriter.errors import GraftError

Indices = Sequence[int] | npt.NDArray[np.integer[Any]]
Reader = Callable[[Integers, InputCard | None], dict[str, Array]]
UNLABELLED = -1
"""What stands for the labels of samples that have none: no number of a class."""
NUMBER = re.compile("0|[1-9][0-9]{0,9}")
"""A class name that is the number of the class in the data."""
TRAIN, VALIDATION, TEST = "train", "val", "test"
SYNONYMS = {"training": TRAIN, "valid": VALIDATION, "validation": VALIDATION, "testing": TEST}
"""Other names that people give to splits, in lower case."""


def split_name(name: str) -> str:
    """Return the name of a split as Graft says it.

    >>> split_name("Train"), split_name("validation"), split_name("dev")
    ('train', 'val', 'dev')
    """
    known = SYNONYMS.get(name.lower(), name.lower())
    return known if known in (TRAIN, VALIDATION, TEST) else name


def split_names(found: Iterable[str]) -> dict[str, str]:
    """Return each name as Graft says it, and the name in the data; names that would meet stay as they are.

    >>> split_names(["training", "valid"])
    {'train': 'training', 'val': 'valid'}
    """
    names = list(found)
    said = [split_name(name) for name in names]
    return {own if said.count(own) == 1 else name: name for own, name in zip(said, names, strict=True)}


@dataclass(frozen=True)
class DrawnSplit:
    """Training and test samples that were drawn from data without splits.

    Attributes:
        train: number of training samples.
        test: number of test samples.
        seed: that they were drawn by.
    """

    train: int
    test: int
    seed: int


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: labels in memory, samples read when they are needed.

    Attributes:
        name: its name in the data, e.g. ``train``.
        labels: int64 (N,), or (N, T) for one label a time step.
        class_names: names of the numbers; None: they count the card's labels.
        reader: reads the samples at some positions.
        ignore: a class whose labels do not count, as that of padding.
        labelled: the samples have labels; without, ``labels`` is :data:`UNLABELLED` throughout.
        predicted: the labels are predictions of a model, at least of some samples.
        drawn: how the split was drawn, where the data has none of its own.
        label_classes: the only classes that labels were predicted among; ``None``: all of the model.
        predicted_outside: with ``label_classes``, the share of samples, or time steps, that the model
            gives to other classes when it decides among all.
    """

    name: str
    labels: Integers
    class_names: tuple[str, ...] | None
    reader: Reader
    ignore: str | None = None
    labelled: bool = True
    predicted: bool = False
    drawn: DrawnSplit | None = None
    label_classes: tuple[str, ...] | None = None
    predicted_outside: float | None = None

    @classmethod
    def without_labels(cls, name: str, count: int, reader: Reader) -> Split:
        """Return ``count`` samples that have no labels.

        Args:
            name: of the split.
            count: number of samples.
            reader: reads the samples at some positions.
        """
        return cls(name, np.full(count, UNLABELLED, np.int64), None, reader, labelled=False)

    def __len__(self) -> int:
        return len(self.labels)

    def require_labels(self) -> None:
        """Raise unless the samples have labels.

        Raises:
            GraftError: ``data-unlabelled``.
        """
        if not self.labelled:
            raise GraftError(
                "data-unlabelled",
                f"the samples of split '{self.name}' have no labels",
                "add labels (y_SPLIT, folders of classes), or name a model whose predictions are the labels",
            )

    def named_by(self, names: Sequence[str]) -> Split:
        """Return the split with its numbers read as names of classes, where they count no columns.

        scikit-learn keeps the numbers of the data, as 3, 5 and 8, and numbers its columns by their order.

        Args:
            names: of the columns of a model.

        Returns:
            The split itself where its classes have names, where its numbers may count columns, and where
            one of them is no name.
        """
        numbered = {int(name): place for place, name in enumerate(names) if NUMBER.fullmatch(name)}
        if self.class_names is not None or self.labels.max(initial=0) < len(names):
            return self
        found, inverse = np.unique(self.labels, return_inverse=True)
        if not set(found.tolist()) <= set(numbered):
            return self
        labels = np.array([numbered[number] for number in found.tolist()], np.int64)[inverse]
        return replace(self, labels=labels.reshape(self.labels.shape), class_names=tuple(names))

    def describe(self) -> dict[str, Any]:
        """Return where labels and split are from: ``label_source``, and ``split`` where it was drawn.

        Predictions also have ``label_classes``, a list, or ``None`` for all classes of the model.
        """
        found: dict[str, Any] = {"label_source": "predictions" if self.predicted else "data"}
        if self.predicted:
            found["label_classes"] = None if self.label_classes is None else list(self.label_classes)
        if self.predicted_outside is not None:
            found["predicted_outside"] = self.predicted_outside
        if self.drawn is not None:
            found["split"] = {"train": self.drawn.train, "test": self.drawn.test, "seed": self.drawn.seed}
        return found

    def describe_held_out(self) -> dict[str, Any]:
        """Return where the labels are from, as :meth:`describe`, with keys that begin with ``test_``."""
        keys = ("label_source", "label_classes")
        return {f"test_{key}": value for key, value in self.describe().items() if key in keys}

    def part(self, name: str, positions: Integers, drawn: DrawnSplit) -> Split:
        """Return some of the samples as a split of their own.

        Args:
            name: of the part.
            positions: integers (n,).
            drawn: how they were drawn.
        """

        def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
            return self.reader(positions[indices], card)

        return replace(self, name=name, labels=self.labels[positions], reader=read, drawn=drawn)

    def raw(self, indices: Indices, input_card: InputCard | None = None) -> dict[str, Array]:
        """Read samples as they are, before any card prepares them.

        Args:
            indices: positions in the split, integers (n,).
            input_card: the size, colour and resizing that files of images are brought to.

        Returns:
            One array (n, ...) for each input of the model, with the key "" where there is one
            without a name. Image files: uint8 (n, H, W, 3) in RGB order, or (n, H, W) where the
            colour of the card is GRAY. Arrays of images come the same way where the card says
            ``resize``, and as they are where it does not.

        Raises:
            GraftError: ``data-unreadable``, ``data-image`` or ``data-shape``.
        """
        raw = self.reader(np.asarray(indices, np.int64), input_card)
        if input_card is None or input_card.kind != "image" or input_card.resize is None:
            return raw
        return {name: fit_images(array, input_card) for name, array in raw.items()}

    @staticmethod
    def join(parts: Sequence[Split]) -> Split:
        """Return the samples of several data sets, one after the other; classes of one name are one class.

        Raises:
            GraftError: ``data-names`` where the numbers of one of them have no names, ``data-labels``
                where samples differ in their number of labels, ``data-unlabelled``.
        """
        if len(parts) == 1:
            return parts[0]
        for part in parts:
            part.require_labels()
            if part.class_names is None:
                raise GraftError(
                    "data-names",
                    "several data sets are matched by the names of their classes, and one has numbers only",
                    "add class_names to the .npz file",
                )
        names = tuple(dict.fromkeys(name for part in parts for name in part.class_names or ()))
        labels = [part.labels[:, 0] if part.labels.shape[1:] == (1,) else part.labels for part in parts]
        if len({each.shape[1:] for each in labels}) > 1:
            raise GraftError(
                "data-labels",
                "several data sets are joined, and they differ in the labels that a sample has",
                "name data sets with as many labels a sample",
            )
        renumbered = [
            np.array([names.index(name) for name in part.class_names or ()], np.int64)[own]
            for part, own in zip(parts, labels, strict=True)
        ]
        starts = np.cumsum([0, *map(len, parts)])

        def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
            owners = np.searchsorted(starts, indices, side="right") - 1
            runs = np.split(np.arange(len(indices)), np.flatnonzero(np.diff(owners)) + 1)
            found = [
                parts[owners[run[0]]].raw(indices[run] - starts[owners[run[0]]], card)
                for run in runs
                if len(run)
            ]
            return _concatenated(found)

        drawn = _together([part.drawn for part in parts if part.drawn])
        joined = Split(parts[0].name, np.concatenate(renumbered), names, read, drawn=drawn)
        return replace(joined, **_predictions([part for part in parts if part.predicted]))


@dataclass(frozen=True)
class Storage:
    """The splits of a data set where it lies.

    Attributes:
        splits: name to what opens the split.
        digest: computes the fingerprint of the data.
        incomplete: name to what is wrong with a split that cannot be opened.
    """

    splits: Mapping[str, Callable[[], Split]]
    digest: Callable[[], str]
    incomplete: Mapping[str, GraftError] = field(default_factory=dict)


def _together(drawn: Sequence[DrawnSplit]) -> DrawnSplit | None:
    if not drawn:
        return None
    return DrawnSplit(sum(each.train for each in drawn), sum(each.test for each in drawn), drawn[0].seed)


def _predictions(parts: Sequence[Split]) -> dict[str, Any]:
    """Return what is said of the labels of several data sets, some of which were predicted."""
    if not parts or any(part.label_classes is None for part in parts):
        return {"predicted": bool(parts)}
    names = dict.fromkeys(name for part in parts for name in part.label_classes or ())
    share = np.average([part.predicted_outside or 0.0 for part in parts], weights=[*map(len, parts)])
    return {"predicted": True, "label_classes": tuple(names), "predicted_outside": float(share)}


def _concatenated(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    first = parts[0]
    for part in parts[1:]:
        if {name: array.shape[1:] for name, array in part.items()} != {
            name: array.shape[1:] for name, array in first.items()
        }:
            raise GraftError(
                "data-shape",
                "the data sets hold samples of different shapes, and the card does not say how to bring "
                "them together",
                "say resize: squash and a size in the card, or evaluate one data set at a time",
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in first}
