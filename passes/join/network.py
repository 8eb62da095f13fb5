"""One network of a composite: a trunk, or a module as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graft.passes.base import Declined
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import KEY, Mahalanobis


@dataclass(frozen=True)
class Network:
    """One network of the composite, in a model of its own until networks are joined.

    Attributes:
        model: the network; it may be changed.
        trunk: it is all that runs of a parent that is at hand.
        members: numbers of the modules that it is for.
        most: multiply-accumulates of the parent that a trunk must not exceed; ``None``: no limit.
        declined: options of the modules that could not be kept.
        columns: positions of the classes that it is for among the columns; ``None``: all but ``(other)``.
    """

    model: Model
    trunk: bool
    members: Sequence[int]
    most: int | None = None
    declined: tuple[Declined, ...] = ()
    columns: tuple[int, ...] | None = None

    @property
    def card(self) -> Card:
        """The card of the network."""
        return self.model.require_card()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it is for: the columns without ``(other)``, unless they are given."""
        labels = self.card.labels
        if self.columns is not None:
            return tuple(labels[column] for column in self.columns)
        return tuple(name for name in labels if name != OTHER)

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename classes, old name to new name, in the card and in the statistics."""
        if not names:
            return
        labels = tuple(names.get(name, name) for name in self.card.labels)
        self.model.card = self.card.replace(labels=labels)
        statistics = Mahalanobis.of(self.model)
        if statistics:
            classes = tuple(names.get(name, name) for name in statistics.classes)
            replace(statistics, classes=classes).attach(self.model)

    def drop_costly_distances(self) -> Declined | None:
        """Remove the statistics where distances would make the network cost more than its parent."""
        if self.most is None or KEY not in self.model.metadata:
            return None
        if macs_with_distances(self.model) <= self.most:
            return None
        del self.model.metadata[KEY]
        return Declined(
            class_summary(self.card),
            "compared by softmax: typicality would cost more than the whole parent",
        )


def macs_with_distances(module: Model) -> int:
    """Return the multiply-accumulates of a module and of distances to its classes."""
    statistics = Mahalanobis.of(module)
    return cost_of(module).macs + (statistics.directions.size if statistics else 0)


def class_summary(card: Card) -> str:
    """Return the first classes of a card."""
    names = [name for name in card.labels if name != OTHER]
    return ", ".join(names[:2]) + (" ..." if len(names) > 2 else "")
