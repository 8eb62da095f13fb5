"""Figures of a classifier of one class: the class against the rest, which most samples are of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.measure.evaluation import Scored

MOST = 10_000
"""Each module of one class is measured on so many held-out samples; the rest is thinned out to that."""


@dataclass(frozen=True)
class AgainstRest:
    """A class against the rest, on held-out samples.

    Attributes:
        samples: number of samples.
        precision: share of the samples that are said to be of the class, and are.
        recall: share of the samples of the class that are said to be.
        f1: harmonic mean of both.
        top1: share of the samples that are said to be what they are; most are of the rest.
        balanced_accuracy: mean of the recalls of the class and of the rest: 0.5 where the class is never, or
            always, said.
        auroc: probability that a sample of the class scores higher than one of the rest.
        said: number of samples that are said to be of the class.
    """

    samples: int
    precision: float
    recall: float
    f1: float
    top1: float
    balanced_accuracy: float
    auroc: float
    said: int

    @classmethod
    def of(cls, scored: Scored) -> AgainstRest | None:
        """Return the figures of a class and ``(other)``; ``None`` where one of them has no samples."""
        if len(np.unique(scored.labels)) < 2:
            return None
        found, name = scored.summary(), scored.names[0]
        own = found["per_class"][name]
        return cls(
            *(scored.samples, own["precision"], own["recall"], own["f1"]),
            *(
                found["top1"],
                found["balanced_accuracy"],
                found["auroc"],
                int((scored.predictions == 0).sum()),
            ),
        )

    def plain(self) -> dict[str, Any]:
        """Return the figures as JSON has them."""
        return asdict(self)


def is_one_class(names: tuple[str, ...]) -> bool:
    """Return ``True`` for the columns of a class against the rest."""
    return len(names) == 2 and names[1] == OTHER


def with_few_of_the_rest(samples: Samples, name: str, seed: int, most: int = MOST) -> Samples:
    """Return all samples of a class and, where there are more than ``most``, some of the rest.

    Args:
        samples: matched to the card of the parent, one label each.
        name: of the class.
        seed: chooses them.
        most: as many as that at most, but at least as many of the rest as of the class.
    """
    labels = samples.labels.reshape(len(samples), -1)
    own = (labels == samples.card.class_index(name)).any(axis=1)
    rest = np.flatnonzero(~own)
    left = max(most - int(own.sum()), int(own.sum()))
    if len(rest) <= left:
        return samples
    chosen = np.random.default_rng(seed).permutation(rest)[:left]
    return samples.take(np.sort(np.concatenate([np.flatnonzero(own), chosen])))
