"""The samples on which runtimes are compared: seeded ones, or those of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.scores import PASSING
from graft.rewriter.graph.sizes import Sizes
from graft.rewriter.record.provenance import numbering
from graft.rewriter.run.session import Device

FREE = 8
"""Size of free axes beside that of the samples, where nothing says another."""
SINGLES = 3
"""So many samples are run one at a time, too."""
PIXELS = 256
OTHER_INTEGERS = 2
"""Integers that look nothing up are drawn below this."""

Batch = dict[str, Array]


@dataclass(frozen=True)
class Trial:
    """Raw samples, as a card prepares them; for a model without a card, as it takes them.

    Attributes:
        raw: input name to array (N, ...), samples first; the array of a single input may have the key "".
        source: ``seeded``, or the name of the data.
    """

    raw: Mapping[str, Array]
    source: str = "seeded"

    @classmethod
    def drawn(cls, model: Model, count: int, seed: int = 0, asked: Sizes | None = None) -> Trial:
        """Draw samples: pixels of all levels, tokens that the model knows, normally distributed numbers.

        Args:
            model: with or without a card, which says what its inputs are.
            count: number of samples.
            seed: of the draw.
            asked: sizes of free axes of inputs.

        Raises:
            GraftError: ``input-shape`` where the rank of an input is not known.
        """
        random, axes = np.random.default_rng(seed), model.sample_axes()
        sizes = {**model.fitting_sizes(), **(asked or {})}
        cards = {card.name: card for card in model.card.inputs} if model.card else {}
        raw: dict[str, Array] = {}
        for name, (dtype, shape) in model.inputs().items():
            card = cards.get(name)
            if card is not None and card.constant is not None:
                continue
            if shape is None or dtype is None:
                raise GraftError(
                    "input-shape", f"the model says no type or shape of input {name}", "export it with both"
                )
            known = sizes.get(name, (None,) * len(shape))
            inner = [
                size if isinstance(size, int) and size > 0 else known[axis] or FREE
                for axis, size in enumerate(shape)
                if axis != axes.get(name)
            ]
            raw[name] = _draw(random, card, np.dtype(dtype), (count, *inner), _vocabulary(model, name))
        return cls(raw)

    @classmethod
    def read(cls, model: Model, split: Split, count: int, seed: int = 0) -> Trial:
        """Take samples out of a data set, of the classes that the model has if the labels say them.

        Args:
            model: with a card.
            split: where the samples are.
            count: at most so many.
            seed: chooses them.

        Raises:
            GraftError: the model has no card, or the samples cannot be read.
        """
        card = model.require_card()
        places = _suitable(split, model)
        chosen = np.sort(np.random.default_rng(seed).permutation(places)[:count])
        only = card.fed[0] if len(card.fed) == 1 else None
        return cls(split.raw(chosen, only), split.name)

    def __len__(self) -> int:
        return len(next(iter(self.raw.values()))) if self.raw else 1

    def batches(self, model: Model, size: int) -> list[Batch]:
        """Return what a model is fed with: all samples in batches of ``size``, then a few one at a time.

        A batch that the file fixes is kept, and then none is run one at a time.

        Args:
            model: takes the samples.
            size: samples in a batch.

        Raises:
            GraftError: the samples do not fit the card, or onnxruntime cannot load the model.
        """
        raw = self._named(model)
        prepared = model.card.prepare(raw) if model.card else raw
        session = Device(("cpu",)).open(model)
        count, step = len(self), session.batch or size
        starts = [*range(0, count, step)]
        parts = [slice(start, start + step) for start in starts]
        if session.batch is None and size > 1:
            parts += [slice(place, place + 1) for place in range(min(SINGLES, count, size))]
        return [session.feed({name: array[part] for name, array in prepared.items()}) for part in parts] or [
            session.feed({})
        ]

    def _named(self, model: Model) -> dict[str, Array]:
        """Return the samples; a single input by the model's own name for it: parents have others."""
        names = [each.name for each in model.card.fed] if model.card else list(model.inputs())
        if len(self.raw) == len(names) == 1:
            return {names[0]: next(iter(self.raw.values()))}
        return dict(self.raw)


def _draw(
    random: np.random.Generator,
    card: InputCard | None,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    vocabulary: int | None,
) -> Array:
    """Return seeded values of one input, samples first."""
    if card is not None and card.kind == "image" and card.size is not None:
        pixels = (shape[0], *card.size, *((card.channels,) if card.channels > 1 else ()))
        return random.integers(0, PIXELS, pixels).astype(np.uint8)
    if dtype.kind == "f":
        return random.normal(size=shape).astype(dtype)
    if dtype.kind == "b":
        return random.random(shape) < 0.5
    high = PIXELS if dtype == np.uint8 and vocabulary is None else vocabulary or OTHER_INTEGERS
    return random.integers(0, high, shape).astype(dtype)


def _vocabulary(model: Model, name: str) -> int | None:
    """Return how many rows the smallest table has that an input looks up; ``None``: it looks nothing up."""
    waiting: list[gs.Tensor] = [tensor for tensor in model.graph.inputs if tensor.name == name]
    seen, found = {name}, []
    while waiting:
        tensor = waiting.pop()
        for node in tensor.outputs:
            table = node.inputs[0]
            if node.op == "Gather" and len(node.inputs) > 1 and node.inputs[1] is tensor:
                if isinstance(table, gs.Constant) and table.shape:
                    found.append(int(table.shape[int(node.attrs.get("axis", 0))]))
            elif node.op in PASSING or node.op in ("Clip", "Concat", "Slice", "Split", "Expand"):
                fresh = [each for each in node.outputs if each.name not in seen]
                seen.update(each.name for each in fresh)
                waiting += fresh
    return min(found, default=None)


def _suitable(split: Split, model: Model) -> Integers:
    """Return the positions of samples whose classes the model has; of all where labels say nothing of it."""
    try:
        return Samples.match(split, model.require_card(), names=numbering(model)).indices
    except GraftError as error:
        if error.code not in ("data-unlabelled", "data-labels", "data-classes", "class-empty"):
            raise
        return np.arange(len(split))
