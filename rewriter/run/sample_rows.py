"""Whether the rows of an output are the samples that were fed: a few are run before the first batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graft.rewriter.arrays import Integers
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError

FEW = (2, 3, 5)
"""Numbers of samples that a model is tried with; one that no other axis has."""
NODE = re.compile(r"running (\w+) node\. Name:'([^']*)'")
"""How onnxruntime names the node that failed."""
Run = Callable[[Mapping[str, NDArray[Any]], Integers], NDArray[Any]]
"""Returns an output for prepared samples and their labels."""


@dataclass
class RowTrial:
    """A few samples, run to see what the rows of an output are.

    Attributes:
        samples: matched to the card of the model, at least two.
        name: of the output.
        run: runs some of them.
        failed: why several at once did not run, where they did not.
    """

    samples: Samples
    name: str
    run: Run
    failed: GraftError | None = None

    def takes_several(self) -> bool:
        """Return whether the model takes several samples at once; ``False``: one alone.

        Raises:
            GraftError: ``output-rows``, or ``run-failed`` where not even one sample runs.
        """
        inputs, labels = self._first(max(FEW))
        others = {size for array in inputs.values() for size in array.shape[1:]}
        count = next((number for number in FEW if number not in others and number <= len(labels)), 2)
        for number in (count, 1):
            part = {key: array[:number] for key, array in inputs.items()}
            try:
                shape = self.run(part, labels[:number]).shape
            except GraftError as error:
                if number == 1 or error.code != "run-failed":
                    raise self.failed or error from None
                self.failed = error
                continue
            if shape[:1] == (number,):
                if number > 1 and self.samples.card.output.steps:  # steps taken for samples make as many rows
                    self.check_apart(number)
                return number > 1
        raise self.failed or other_rows(self.name, shape, 1)

    def check_apart(self, fed: int) -> None:
        """Check that rows depend on one sample each: change one of a batch, compare the others.

        Args:
            fed: samples in a batch.

        Raises:
            GraftError: ``output-rows``.
        """
        inputs, labels = self._first(fed)
        whole = self.run(inputs, labels)
        for place, other in ((0, -1), (-1, 0)):  # a recurrence reaches one way
            changed = {key: array.copy() for key, array in inputs.items()}
            for array in changed.values():
                array[place] = array[other]
            found = self.run(changed, labels)
            kept = np.delete(np.arange(len(labels)), place)
            fits = len(whole) == len(found) == fed
            if not fits or not np.allclose(found[kept], whole[kept], rtol=1e-3, atol=1e-4, equal_nan=True):
                raise other_rows(self.name, whole.shape, fed)

    def _first(self, count: int) -> tuple[Mapping[str, NDArray[Any]], Integers]:
        """Return the first samples, prepared, and their labels."""
        few = self.samples.take(np.arange(min(count, len(self.samples))))
        return next(few.batches(len(few)))


def failing_node(failed: GraftError | None) -> str:
    """Return the node that onnxruntime names in an error."""
    named = NODE.search(failed.message) if failed else None
    return f"{named[1]} {named[2]}" if named else "a node"


def other_rows(name: str, shape: Sequence[int | str | None], fed: int) -> GraftError:
    """Return the error for an output whose rows are not the samples that were fed.

    Args:
        name: of the output.
        shape: that it has.
        fed: number of samples.
    """
    alone = len(shape) == 1 and fed == 1
    return GraftError(
        "output-rows",
        f"output {name} has shape {list(shape)} for a batch of {fed} samples: its rows are not samples",
        "export the model with the axis of the samples in its output: without a squeeze at the end"
        if alone
        else "where samples lie on another axis of an input, say so in the card: batch_axis: 1 (data keep"
        " samples first); outputs have samples first, also with one label a time step",
    )
