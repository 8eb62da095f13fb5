"""The range of raw numbers, compared with what a card expects: pixels 0..1 where it says 0..255."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from graft.rewriter.arrays import Array
from graft.rewriter.card.card import Card

log = logging.getLogger("graft")


class Ranges:
    """Lowest and highest number of every input over all batches.

    Args:
        card: of the model that the samples are for.
    """

    def __init__(self, card: Card) -> None:
        self.inputs = {each.name: each for each in card.inputs if each.kind == "image"}
        self.found: dict[str, tuple[float, float]] = {}

    def see(self, raw: Mapping[str, Array]) -> None:
        """Look at a batch of raw samples; a single input may have the name ""."""
        for name, card in self.inputs.items():
            array = raw.get(name, raw.get(""))
            if array is None or not array.size or array.dtype.kind not in "uif":
                continue
            low, high = self.found.get(name, (float("inf"), float("-inf")))
            self.found[card.name] = min(low, float(array.min())), max(high, float(array.max()))

    def warn(self) -> None:
        """Warn of inputs whose numbers are not those that the card expects."""
        for name, (low, high) in self.found.items():
            doubt = self.inputs[name].doubt(low, high)
            if doubt:
                log.warning(doubt)
