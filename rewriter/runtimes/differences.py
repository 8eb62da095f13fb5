"""How far outputs of one model are apart, and which decisions differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.measure.evaluation import columns


@dataclass(frozen=True)
class Difference:
    """Outputs against those that were expected.

    Attributes:
        largest: difference of numbers, relative to the largest number expected of the output, at least 1.
        changed: decisions that differ.
        error: outputs that cannot be compared: other shapes, or NaN where numbers were expected.
    """

    largest: float = 0.0
    changed: int = 0
    error: str | None = None

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            max(self.largest, other.largest), self.changed + other.changed, self.error or other.error
        )


@dataclass(frozen=True)
class Outputs:
    """The outputs of a file.

    Attributes:
        names: in the order of the file.
        card: of the scores; ``None``: the first output of numbers with several columns counts.
        labels: number of classes of the card.
    """

    names: tuple[str, ...]
    card: OutputCard | None = None
    labels: int = 0

    def compare(self, found: Sequence[Array], expected: Sequence[Array]) -> Difference:
        """Compare the outputs of one batch.

        Args:
            found: in the order of the file.
            expected: likewise.
        """
        if len(found) != len(expected):
            return Difference(error=f"it gives {len(found)} outputs, onnxruntime {len(expected)}")
        total = Difference()
        for name, one, other in zip(self.names, found, expected, strict=True):
            total += _numbers(name, one, other)
        scores = self.scores(expected)
        if scores is None or total.error:
            return total
        place = next(k for k, each in enumerate(expected) if each is scores)
        reached = found[place].reshape(scores.shape)
        changed = int((self.decisions(reached) != self.decisions(scores)).sum())
        return total + Difference(changed=changed)

    def scores(self, outputs: Sequence[Array]) -> Array | None:
        """Return the output that decides; ``None`` where there is none of several columns."""
        named = dict(zip(self.names, outputs, strict=True))
        if self.card is not None and self.card.name in named:
            return named[self.card.name]
        wide = (each for each in outputs if each.dtype.kind == "f" and each.ndim > 1 and _wide(each))
        return next(wide, None)

    def decisions(self, scores: Array) -> Integers:
        """Return the column with the highest score, for each sample or time step."""
        if self.card is not None:
            scores = columns(scores, self.card.kind, self.labels)
        while scores.ndim > 2 and scores.shape[-1] == 1:
            scores = scores[..., 0]
        return np.asarray(scores.argmax(axis=-1))


def _wide(array: Array) -> bool:
    return max(array.shape[1:], default=1) > 1


def _numbers(name: str, found: Array, expected: Array) -> Difference:
    """Compare one output; classes at minus infinity in both are alike."""
    if found.size != expected.size:
        return Difference(
            error=f"output {name} has shape {list(found.shape)}, in onnxruntime {list(expected.shape)}"
        )
    found = found.reshape(expected.shape)
    if expected.dtype.kind != "f":
        return Difference(changed=int((found != expected).sum()))
    return relative(found, expected, f"output {name}")


def relative(found: Array, expected: Array, what: str) -> Difference:
    """Return the largest difference, relative to the scale of what was expected.

    Args:
        found: numbers.
        expected: numbers of the same shape.
        what: they are.
    """
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # infinities
        apart = np.where(same, 0.0, np.abs(found - expected))
    wrong = ~np.isfinite(apart)
    if wrong.any():
        return Difference(error=f"{what}: {found[wrong][0]} where {expected[wrong][0]:.3g} was expected")
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0)))
    return Difference(float(apart.max(initial=0)) / scale)
