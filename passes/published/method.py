"""What a published method is that makes masks: modules of the parent's own shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from graft.passes.base import Report
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device

CODE, PAPER = VARIANTS = ("code", "paper")
"""Where the authors' code and the text of their paper differ, both readings are there."""


@dataclass(frozen=True, eq=False)
class MaskInputs:
    """Inputs of a method: a parent, and the class that its module is for.

    Attributes:
        parent: the normalized parent, which is left as it is.
        name: the class.
        samples: labelled samples of the parent, in the order in which examples are taken.
        device: where the parent is run.
        once: returns what a function makes, for all modules of one parent and one key.
    """

    parent: Model
    name: str
    samples: Samples
    device: Device
    once: Callable[[Hashable, Callable[[], Any]], Any]

    @property
    def card(self) -> Card:
        """The parent's card."""
        return self.parent.require_card()

    @property
    def place(self) -> int:
        """The class among the parent's outputs."""
        return self.card.class_index(self.name)


@dataclass(frozen=True, kw_only=True)
class MaskReport(Report):
    """A mask; ``changed`` counts what was removed: edges of dense layers, units or gates of recurrent ones.

    Attributes:
        positives: number of examples of the class that were used.
        negatives: number of examples of other classes.
        negative: the output that takes the place of all other classes, where the method makes one.
    """

    positives: int
    negatives: int
    negative: int | None = None


class NamedMethod(ABC):
    """Base of what ``--method`` names: importance of channels, or masks."""

    name: ClassVar[str]
    """The word for ``--method``, which modules record, too."""


class MaskMethod(NamedMethod):
    """Base of published methods whose modules are masks over the parent, one for each class.

    A method is a frozen dataclass; the defaults of its fields are those of its authors.
    """

    variants: ClassVar[tuple[str, ...]] = VARIANTS
    """Readings that it has, the default first."""
    pair: ClassVar[bool] = False
    """Its modules have two outputs, the class and all others; else all outputs of the parent."""
    scores: ClassVar[str]
    """How its modules are compared in a composite, see :mod:`graft.passes.compare`."""

    @abstractmethod
    def mask(self, model: Model, inputs: MaskInputs) -> MaskReport:
        """Turn a copy of the parent into the module of a class.

        Args:
            model: the copy, changed in place; its outputs stay.
            inputs: parent, class and samples.

        Raises:
            GraftError: the method does not fit the parent, or there are no samples of the class.
        """

    def with_options(self, **options: object) -> Self:
        """Return the method with other values of its fields; those that are ``None`` stay.

        Raises:
            GraftError: it has no such field, or no such variant.
        """
        asked = {name: value for name, value in options.items() if value is not None}
        known = {each.name for each in fields(self)}  # type: ignore[arg-type]
        for name in asked:
            if name not in known:
                raise GraftError(
                    "method-option", f"the method {self.name} has no option --{name}", "leave it out"
                )
            if name == "variant" and asked[name] not in self.variants:
                raise GraftError(
                    "method-option",
                    f"the method {self.name} has no variant {asked[name]}",
                    f"choose from {', '.join(self.variants)}",
                )
        return replace(self, **asked)  # type: ignore[type-var]

    def options(self) -> dict[str, Any]:
        """Return the values of its fields, as modules record them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
