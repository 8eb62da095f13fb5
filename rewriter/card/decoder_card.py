"""The card of an encoder-decoder: how an answer begins, goes on and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from graft.rewriter.card.part import CardPart, Name, invalid, not_boolean

WordNumber = Annotated[int, BeforeValidator(not_boolean), Field(ge=0, lt=2**31)]


class DecoderCard(CardPart):
    """An output that is read word by word: each word is the next number of an input.

    ``input`` takes the words that are written so far. ``starts`` holds the first of them for each language
    (or whatever else the first word decides): these are the classes of the model as commands name them, and
    the labels of the card are its words. ``end`` is the word that ends an answer, ``padding`` the one that
    fills up targets and never counts. An answer has at most ``longest`` words.

    ``words`` holds, for each label, the number of the word in ``input``, where some words were removed;
    ``None``: label i is number i.
    """

    _place: ClassVar[str] = "decoder"

    input: Name
    starts: dict[Name, WordNumber]
    end: WordNumber
    padding: WordNumber | None = None
    longest: Annotated[int, BeforeValidator(not_boolean), Field(ge=1, le=4096)] = 64
    words: tuple[WordNumber, ...] | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """The classes of the model as commands name them."""
        return tuple(self.starts)

    @property
    def specials(self) -> frozenset[int]:
        """Numbers of words that belong to no language alone: the end, and padding."""
        return frozenset({self.end} if self.padding is None else {self.end, self.padding})

    def number_of(self, label: int) -> int:
        """Return the number in :attr:`input` of the word of a label."""
        return label if self.words is None else self.words[label]

    def label_of(self, number: int, labels: int) -> int | None:
        """Return the position of a word among the labels; ``None`` where it was removed.

        Args:
            number: in :attr:`input`.
            labels: how many there are.
        """
        if self.words is None:
            return number if number < labels else None
        return self.words.index(number) if number in self.words else None

    def with_labels(self, kept: Sequence[int]) -> DecoderCard:
        """Return the card of a model that keeps these labels, in this order."""
        return self.model_copy(update={"words": tuple(map(self.number_of, kept))})

    def only(self, languages: Sequence[str]) -> DecoderCard:
        """Return the card of a model for some of the languages."""
        return self.model_copy(update={"starts": {name: self.starts[name] for name in languages}})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.starts:
            raise invalid("decoder.starts is empty", "name the first word of each language: {French: 3}")
        if len(set(self.starts.values())) < len(self.starts):
            raise invalid("decoder.starts has two languages with one first word", "give each its own")
        if self.words is not None and len(set(self.words)) < len(self.words):
            raise invalid("decoder.words names a number twice", "give each word a number of its own")
        return self

    def check_labels(self, labels: int) -> None:
        """Check the numbers of words against the labels.

        Args:
            labels: number of labels of the card.

        Raises:
            GraftError: ``card-invalid``.
        """
        if self.words is not None and len(self.words) != labels:
            raise invalid(
                f"decoder.words has {len(self.words)} numbers for {labels} labels", "name one for each label"
            )
        for key, number in (("end", self.end), ("padding", self.padding)):
            if number is not None and self.label_of(number, labels) is None:
                raise invalid(
                    f"decoder.{key} is {number}, which is no word of the {labels} labels", f"correct {key}"
                )
