"""Calibration data: labelled samples of one split, matched to a card by the names of the classes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.languages import as_written, first_words, unspoken
from graft.rewriter.data.ranges import Ranges
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError, nearest

log = logging.getLogger("graft")
SHOWN = 3
"""Names of classes in messages."""
IGNORED = -1
"""The label of a time step that does not count: of a class that the model lacks, or that was left out."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of one split with labels that count the card's labels.

    Attributes:
        split: where the samples are read from.
        indices: int64 (N,), positions in the split.
        labels: int64 (N,), or (N, T) for one label a time step: positions in ``card.labels``.
        card: preparation of samples, and names of labels.
        left_out: the number of samples of the split whose class the model lacks.
        mirrored: bool (N,), images that are turned left to right; ``None``: none.
    """

    split: Split
    indices: Integers
    labels: Integers
    card: Card
    left_out: int = 0
    mirrored: npt.NDArray[np.bool_] | None = None

    @classmethod
    def match(
        cls,
        split: Split,
        card: Card,
        classes: Sequence[str] | None = None,
        per_class: int | None = None,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> Samples:
        """Find the samples of a split that a model has classes for.

        With one label a time step, a sample stays if the model has a class for any of its steps, and
        belongs to every class that one of its steps has; the other steps are :data:`IGNORED`. Of a decoder,
        padding is ignored, and so are targets in languages that the model does not speak.

        Args:
            split: the data.
            card: the model's card.
            classes: keep only samples of these classes; None: all.
            per_class: keep at most this many samples of each class: a random choice that depends
                on seed and class only, in the order of the data; None: all.
            seed: 0 or more.
            names: of class numbers where the data has none; None: they count the
                card's labels. A module needs its parent's labels here.

        A card with the label ``(other)`` takes the samples of all classes that it does not name as
        ``(other)``.

        Raises:
            GraftError: ``data-unlabelled``, ``data-labels`` (labels do not fit the card),
                ``data-classes`` (no class in common), ``class-unknown``, ``class-empty`` (a class
                without samples), ``bad-request``.
        """
        split.require_labels()
        split = split.named_by(names or card.labels)
        if split.class_names is None and names is not None:
            split = replace(split, class_names=tuple(names))
        labels, ignored = _card_labels(split, card), _ignored(split, card)
        if OTHER in card.labels:
            labels = np.where(labels < 0, card.labels.index(OTHER), labels)
        if card.decoder is not None:
            labels = as_written(labels, card)
            ignored |= unspoken(labels, split, card)
        labels = np.where(ignored, IGNORED, labels)
        known = _by_sample(labels >= 0).any(axis=1)
        samples = cls(split, np.flatnonzero(known), labels[known], card, int(len(labels) - known.sum()))
        if classes is not None:
            samples = samples._restricted(classes)
        if per_class is not None:
            samples = samples._at_most(per_class, seed)
        if not len(samples):
            raise GraftError(
                "class-empty",
                f"split '{split.name}' has no sample of a class that the model has",
                "choose another split or other data",
            )
        return samples

    @classmethod
    def present(
        cls,
        split: Split,
        card: Card,
        classes: Sequence[str],
        names: Sequence[str] | None = None,
        needed: bool = False,
    ) -> Samples | None:
        """Find the held-out samples of classes, leaving out those without any, with one warning.

        Args:
            split: the data.
            card: the model's card.
            classes: which of them count.
            names: see :meth:`match`.
            needed: at least one class must have samples.

        Returns:
            The samples; ``None`` where no class has any.

        Raises:
            GraftError: as :meth:`match`; for classes without samples only where some are needed.
        """
        try:
            counts = cls.match(split, card, names=names).counts()
        except GraftError as error:
            if error.code != "class-empty":
                raise
            counts = {}
        having = [name for name in classes if name in counts]
        if needed and not having:
            return cls.match(split, card, classes, names=names)  # says which of them has none
        if len(having) < len(classes):
            lacking = [name for name in classes if name not in counts]
            number = "" if len(lacking) <= SHOWN else f"{len(lacking)} classes: "
            log.warning(
                "no held-out samples in split '%s' of %s%s: left out of the report",
                *(split.name, number, _some(lacking)),
            )
        return cls.match(split, card, having, names=names) if having else None

    def __len__(self) -> int:
        return len(self.indices)

    def counts(self) -> dict[str, int]:
        """Return the number of labels of each class that has any, in the order of the card."""
        counts = np.bincount(self.labels[self.labels != IGNORED], minlength=len(self.card.labels))
        return {name: int(count) for name, count in zip(self.card.labels, counts, strict=True) if count}

    def count_of(self, name: str) -> int:
        """Return the number of samples of a class.

        Raises:
            GraftError: ``class-unknown``.
        """
        return len(self._holding(self.card.class_index(name)))

    def speaking(self, languages: Sequence[str]) -> Samples:
        """Return the samples whose target begins with the first word of one of some languages.

        Args:
            languages: of the card's decoder.

        Raises:
            GraftError: ``class-empty`` where one of them has none.
        """
        decoder = self.card.decoder
        if decoder is None:
            raise ValueError("the model has no decoder")
        first = first_words(self.split, self.card, self.indices)
        for name in languages:
            if not (first == decoder.starts[name]).any():
                raise GraftError(
                    "class-empty",
                    f"no sample of split '{self.split.name}' begins with the first word of {name}, number "
                    f"{decoder.starts[name]}",
                    "leave it out, or correct decoder.starts in the card",
                )
        return self.take(np.isin(first, [decoder.starts[name] for name in languages]))

    def take(self, positions: npt.NDArray[np.bool_] | npt.NDArray[np.integer] | Sequence[int]) -> Samples:
        """Return the samples at some positions.

        Args:
            positions: integers (n,) below len(self), or bool (N,).
        """
        chosen = np.asarray(positions)
        if not chosen.size:
            chosen = chosen.astype(np.int64)
        mirrored = None if self.mirrored is None else self.mirrored[chosen]
        return replace(self, indices=self.indices[chosen], labels=self.labels[chosen], mirrored=mirrored)

    def with_mirrored(self) -> Samples:
        """Return the samples, and all of them once more as in a mirror.

        Raises:
            GraftError: ``mirror-input`` unless the input is one image of a known size.
        """
        first, *others = self.card.fed
        if others or first.kind != "image" or first.size is None:
            raise GraftError(
                "mirror-input", "only single images of a known size can be mirrored", "leave out --mirror"
            )
        return replace(
            self,
            indices=np.tile(self.indices, 2),
            labels=np.concatenate([self.labels, self.labels]),
            mirrored=np.repeat([False, True], len(self)),
        )

    def folds(self, k: int, seed: int = 0) -> list[tuple[Samples, Samples]]:
        """Divide the samples into k parts, each class spread evenly over them.

        Samples with one label a time step are spread at random.

        Args:
            k: 2 or more, at most the number of samples.
            seed: 0 or more.

        Returns:
            For each part: all the other samples, and the part; both in the order of the data.

        Raises:
            GraftError: ``bad-request`` where k does not fit.
        """
        if not 2 <= k <= len(self):
            raise GraftError(
                "bad-request",
                f"expected from 2 folds to one for each of the {len(self)} samples, found {k}",
                "give more samples, or fewer folds",
            )
        order = _generator(seed).permutation(len(self))
        if self.labels.ndim == 1:
            order = order[np.argsort(self.labels[order], kind="stable")]
        # Dealt out like cards, class after class: sizes differ by one at most, in every class.
        fold = np.empty(len(self), np.int64)
        fold[order] = np.arange(len(self)) % k
        return [(self.take(fold != part), self.take(fold == part)) for part in range(k)]

    def batches(self, size: int) -> Iterator[tuple[dict[str, Array], Integers]]:
        """Read and prepare the samples, in order.

        Args:
            size: the number of samples in a batch; the last one may have fewer.

        Yields:
            The model's inputs by name, each (n, ...), samples first, and the labels (n,) or (n, T).

        Raises:
            GraftError: ``bad-request`` where size is below 1, and whatever reading raises.
        """
        if size < 1:
            raise GraftError("bad-request", f"expected batches of 1 or more, found {size}", "")
        input_card = self.card.fed[0] if len(self.card.fed) == 1 else None
        ranges = Ranges(self.card)
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            raw = self.split.raw(self.indices[part], input_card)
            prepared = self.card.prepare(raw)
            ranges.see(raw)
            if input_card is not None and self.mirrored is not None and self.mirrored[part].any():
                ((name, values),) = prepared.items()
                prepared = {name: _mirrored(values, self.mirrored[part], input_card)}
            yield prepared, self.labels[part]
        ranges.warn()

    def _restricted(self, classes: Sequence[str]) -> Samples:
        wanted = [self.card.class_index(name) for name in classes]
        for number in wanted:
            if not self._holding(number).size:
                whose = ": the labels are the parent's predictions" if self.split.predicted else ""
                raise GraftError(
                    "class-empty",
                    f"class '{self.card.labels[number]}' has no sample in split '{self.split.name}'{whose}",
                    f"leave it out; there are samples of {', '.join(list(self.counts())[:10])}",
                )
        return self.take(self._membership(wanted))

    def _at_most(self, count: int, seed: int) -> Samples:
        if count < 1:
            raise GraftError(
                "bad-request", f"expected 1 sample a class or more, found {count}", "choose a larger number"
            )
        chosen = [
            # A generator for each class: its samples do not depend on the other classes.
            _generator(seed, int(number)).permutation(self._holding(number))[:count]
            for number in np.unique(self.labels[self.labels != IGNORED])
        ]
        return self.take(np.unique(np.concatenate(chosen))) if chosen else self

    def _membership(self, numbers: Sequence[int]) -> npt.NDArray[np.bool_]:
        return np.asarray(_by_sample(np.isin(self.labels, numbers)).any(axis=1))

    def _holding(self, number: int) -> Integers:
        return np.flatnonzero(self._membership([number]))


def _mirrored(values: Array, which: npt.NDArray[np.bool_], card: InputCard) -> Array:
    """Prepared images (N, ...), those of ``which`` turned left to right."""
    height, width = card.size or (1, 1)
    shape = (-1, height, width, card.channels) if card.layout == "flat" else values.shape
    images = values.reshape(shape).copy()
    images[which] = np.flip(images[which], axis=3 if card.layout == "NCHW" else 2)
    return images.reshape(values.shape)


def _card_labels(split: Split, card: Card) -> Integers:
    """The labels of a split as positions in the card's labels, -1 where the card lacks them."""
    labels = split.labels
    steps = card.output.steps
    if not steps and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and not steps and labels.shape[1] == len(card.labels) and labels.max(initial=0) == 1:
        raise _sets_of_classes(split)
    if labels.ndim != 1 + steps:
        raise GraftError(
            "data-labels",
            f"expected {'one label a time step (N, T)' if steps else 'one label a sample (N,)'},"
            f" found labels of shape {labels.shape} in split '{split.name}'",
            "correct steps in the card; one-hot labels become numbers with y.argmax(axis=1)",
        )
    known = card.labels if split.class_names is None else split.class_names
    if labels.max(initial=0) >= len(known):
        whose = "the card" if split.class_names is None else "the data"
        raise GraftError(
            "data-labels",
            f"expected class numbers from 0 to {len(known) - 1}, as many as {whose} has"
            f" labels, found {labels.max()} in split '{split.name}'",
            "store class_names with the data, or correct the labels of the card",
        )
    if split.class_names is None:
        return labels
    place = {name: index for index, name in enumerate(card.labels)}
    positions = np.array([place.get(name, -1) for name in split.class_names], np.int64)
    if (positions < 0).all():
        raise GraftError(
            "data-classes",
            f"the data and the model have no class in common: the data has"
            f" {_some(split.class_names)}, the model {_some(card.labels)}",
            "bring the names in the data and in the card together",
        )
    return positions[labels]


def _sets_of_classes(split: Split) -> GraftError:
    """Return the error for labels of 0 and 1 for each class: one-hot, or several classes a sample."""
    if (split.labels.sum(axis=1) == 1).all():
        return GraftError(
            "data-labels",
            f"expected one label a sample (N,), found one-hot labels of shape {split.labels.shape} in split"
            f" '{split.name}'",
            "one-hot labels become numbers with y.argmax(axis=1)",
        )
    return GraftError(
        "data-labels",
        f"multi-label models are not supported: in split '{split.name}' a sample has several classes or none",
        "give one label a sample; a sigmoid for each class is evaluated by its highest score then",
    )


def _ignored(split: Split, card: Card) -> npt.NDArray[np.bool_]:
    """Mask of the labels of a split that do not count."""
    if split.ignore is None:
        return np.zeros(split.labels.shape, bool).reshape(split.labels.shape[: 1 + card.output.steps])
    names = split.class_names or card.labels
    if split.ignore not in names:
        raise GraftError(
            "class-unknown",
            f"there is no class '{split.ignore}' to ignore{nearest(split.ignore, names)}",
            f"choose from {_some(names)}",
        )
    mask: npt.NDArray[np.bool_] = split.labels == names.index(split.ignore)
    return mask.reshape(mask.shape[: 1 + card.output.steps])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")


def _generator(*seeds: int) -> np.random.Generator:
    if min(seeds) < 0:
        raise GraftError("bad-request", f"expected a seed of 0 or more, found {min(seeds)}", "")
    return np.random.default_rng(seeds)


def _by_sample(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    # Spelt out, because an empty array leaves no length to infer.
    return values[:, None] if values.ndim == 1 else values
