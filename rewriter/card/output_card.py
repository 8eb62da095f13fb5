"""The card of the output that holds the classes."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from graft.rewriter.card.part import CardPart, Name, Shape, shape_text
from graft.rewriter.errors import GraftError


class OutputCard(CardPart):
    """The output that holds the classes.

    ``binary`` is one column with the probability of the second label, or two columns.
    ``steps`` is true where there is one label for each time step: (N, T, classes).
    """

    _place: ClassVar[str] = "output"

    name: Name
    kind: Literal["logits", "probabilities", "sigmoid", "binary"]
    steps: bool = False

    def plain(self) -> dict[str, Any]:
        """Return this output as the card file writes it."""
        return self.model_dump(mode="json", exclude=None if self.steps else {"steps"})

    def check_shape(self, shape: Shape | None, labels: int) -> None:
        """Check the class axis of the model's output; unknown dimensions fit anything.

        The class axis is the last one, or the last before trailing axes of size 1 (N, K, 1, 1).

        Args:
            shape: of the output; ``None`` is a shape of unknown rank.
            labels: number of labels of the card.

        Raises:
            GraftError: ``card-output`` where axes are missing, ``card-labels`` where sizes differ.
        """
        if shape is None:
            return
        binary = self.kind == "binary"
        rank = 2 + self.steps
        if len(shape) < rank - binary:
            raise GraftError(
                "card-output",
                f"output '{self.name}': expected {rank} axes or more, the model gives {shape_text(shape)}",
                "correct the name of the output or its steps in the card",
            )
        wanted = (1, 2) if binary else (labels,)
        while len(shape) > rank and shape[-1] == 1 and 1 not in wanted:
            shape = shape[:-1]
        # A binary output (N,) has no class axis at all.
        if len(shape) >= rank and isinstance(shape[-1], int) and shape[-1] not in wanted:
            raise GraftError(
                "card-labels",
                f"the card has {labels} labels, but output '{self.name}' of the"
                f" model gives {shape_text(shape)}: {shape[-1]} classes",
                "correct labels or the name of the output in the card",
            )
