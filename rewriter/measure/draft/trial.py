"""Run a model on samples in all the ways that its input may be meant, and keep the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.run.session import Session

BATCH = 32
FAILURES = (
    "run-failed",
    "input-constant",
    "output-rows",
    "data-shape",
    "data-type",
    "data-nan",
    "output-nan",
)
"""What makes one way to feed a model fail, and says nothing of the others."""


@dataclass
class Way:
    """One way to feed the model.

    Attributes:
        inputs: cards of all inputs.
        scores: output to arrays of a batch each, samples first.
        error: why it failed; ``""``: it did not.
    """

    inputs: tuple[InputCard, ...]
    scores: dict[str, list[Array]] = field(default_factory=dict)
    error: str = ""

    def rows(self, output: str) -> Array:
        """Return all numbers of an output so far, samples first."""
        return np.concatenate(self.scores[output])

    @property
    def samples(self) -> int:
        """Number of samples that ran."""
        return sum(map(len, next(iter(self.scores.values())))) if self.scores else 0


class Trial:
    """Feeds samples to a session.

    Args:
        session: of the model, with all outputs that may be wanted.
        outputs: their names.
        part: the samples.
    """

    def __init__(self, session: Session, outputs: Sequence[str], part: Split) -> None:
        self.session = session
        self.outputs = list(outputs)
        self.part = part
        self.singly = False

    def run(self, ways: Sequence[Way], positions: Integers) -> None:
        """Run the samples at some positions in all ways; those that failed before are left out."""
        size = self.session.batch or BATCH
        for start in range(0, len(positions), size):
            batch = positions[start : start + size]
            read: dict[tuple[Any, ...], Mapping[str, Array]] = {}
            for way in ways:
                if not way.error:
                    self._step(way, batch, read)

    def _step(self, way: Way, batch: Integers, read: dict[tuple[Any, ...], Mapping[str, Array]]) -> None:
        try:
            raw = self._raw(way, batch, read)
            found = self._outputs(prepared(way.inputs, raw), len(batch))
        except GraftError as error:
            if error.code not in FAILURES:
                raise
            way.error = error.message
            return
        for name, values in found.items():
            if np.isnan(values).any() or np.isposinf(values).any():
                way.error = f"output '{name}' holds NaN or infinity"
                return
        for name, values in found.items():
            way.scores.setdefault(name, []).append(values)

    def _raw(
        self, way: Way, batch: Integers, read: dict[tuple[Any, ...], Mapping[str, Array]]
    ) -> Mapping[str, Array]:
        """Read a batch; ways that differ in numbers alone share what was read."""
        fed = [card for card in way.inputs if card.constant is None]
        card = fed[0] if len(fed) == 1 else None
        key: tuple[Any, ...] = ()
        if card is not None and card.kind == "image":
            key = (card.color == "GRAY", card.size, card.resize, card.crop_fraction, card.interpolation)
        if key not in read:
            read[key] = self.part.raw(batch, card)
        return read[key]

    def _outputs(self, inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
        """Return the outputs of a batch; one sample after the other where the model takes no more."""
        if not self.singly:
            try:
                feed = self.session.feed(inputs)
                size = self.session.count(feed)
                found = self.session.run(feed, self.outputs)
                if all(values.ndim and len(values) == size for values in found.values()):
                    return {name: values[:count] for name, values in found.items()}
                error = _other_rows(found, size)
            except GraftError as failed:
                error = failed
            if self.session.batch is not None or count == 1:
                raise error
        singles = []
        for place in range(count):
            one = {name: values[place : place + 1] for name, values in inputs.items()}
            found = self.session.run(self.session.feed(one), self.outputs)
            if any(not values.ndim or len(values) != 1 for values in found.values()):
                raise _other_rows(found, 1)
            singles.append(found)
        self.singly = True
        return {name: np.concatenate([each[name] for each in singles]) for name in self.outputs}


def prepared(cards: Sequence[InputCard], raw: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    """Return the inputs of a model.

    Raises:
        GraftError: ``data-inputs`` where the data lack one, or as ``InputCard.prepare``.
    """
    found = {}
    fed = [card for card in cards if card.constant is None]
    for card in fed:
        array = raw.get(card.name, raw.get("") if len(fed) == 1 else None)
        if array is None:
            raise GraftError(
                "data-inputs",
                f"the data have nothing for input '{card.name}'",
                f"name it in the .npz file: x_train.{card.name}",
            )
        found[card.name] = card.prepare(array)
    return found


def _other_rows(found: Mapping[str, Array], samples: int) -> GraftError:
    rows = ", ".join(str(len(values)) if values.ndim else "no" for values in found.values())
    return GraftError(
        "output-rows",
        f"the model gives {rows} rows of scores for {samples} samples; where samples lie on another axis "
        "of an input, write a card with batch_axis: 1",
        "",
    )
