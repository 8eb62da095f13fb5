"""Draft a card: what the graph shows of input and output, and the scale of pixels that suits samples best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.run.session import Device

TRIES = 500
"""Samples that a draft is tried on."""
SIDE = 224
"""Height and width of images where the model leaves them free."""
SCALES: tuple[tuple[str, float, tuple[float, ...], tuple[float, ...]], ...] = (
    ("0..1", 1 / 255, (0.0,), (1.0,)),
    ("-1..1", 1 / 255, (0.5,), (0.5,)),
    ("0..255", 1.0, (0.0,), (1.0,)),
    ("(p - 127) / 128", 1.0, (127.0,), (128.0,)),
    ("ImageNet mean and std", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ("MNIST mean and std", 1 / 255, (0.1307,), (0.3081,)),
)
"""How trainers commonly scale pixels; a draft takes the first, or with samples the best."""


@dataclass(frozen=True)
class CardDraft:
    """A card to be checked by a person: a wrong card looks nearly right.

    Attributes:
        card: the draft.
        top1: accuracy with it on some samples; ``None`` without samples.
        providers: what ran, where samples were tried.
    """

    card: Card
    top1: float | None = None
    providers: tuple[str, ...] = ()


def draft_card(model: Model, part: Split | None, device: Device) -> CardDraft:
    """Draft the card of ``model``, with the best of the usual scales of pixels on up to 500 samples.

    Args:
        model: a classifier with one input.
        part: labelled samples, also for the names of the classes; ``None``: the first scale is taken.
        device: where the model runs.

    Raises:
        GraftError: ``card-draft`` where the model has several inputs or no output of numbers, and
            whatever is wrong with the samples.
    """
    cards = candidate_cards(model, part)
    if part is None:
        return CardDraft(cards[0])
    tried = [(_accuracy(model, card, part, device), card) for card in cards]
    accuracy, best = max(tried, key=lambda pair: pair[0])
    return CardDraft(best, accuracy, device.open(model).providers)


def candidate_cards(model: Model, part: Split | None) -> list[Card]:
    """Return the cards that fit ``model``, one for each way to scale pixels.

    Raises:
        GraftError: ``card-draft``.
    """
    if len(model.inputs()) != 1:
        raise GraftError("card-draft", "a draft is made for models with one input", "write the card by hand")
    ((name, (dtype, shape)),) = model.inputs().items()
    output = _output(model)
    labels = _labels(part, model.outputs()[output.name][1][-1])
    if dtype is not None and dtype.kind in "iu":
        inputs = [InputCard(name=name, kind="tokens")]
    elif len(shape) != 4 or not {shape[1], shape[3]} & {1, 3}:
        inputs = [InputCard(name=name, kind="tensor")]
    else:
        inputs = _images(name, shape)
    return [Card(inputs=(each,), output=output, labels=labels) for each in inputs]


def _labels(part: Split | None, size: Any) -> tuple[str, ...]:
    """The names of the classes in the data, or numbers as many as the output has columns."""
    if part is not None and part.class_names:
        return part.class_names
    number = size if isinstance(size, int) else int(part.labels.max()) + 1 if part else 2
    return tuple(str(label) for label in range(number))


def _images(name: str, shape: tuple[Any, ...]) -> list[InputCard]:
    channels_last = shape[3] in (1, 3)
    channels = shape[3] if channels_last else shape[1]
    sides = shape[1:3] if channels_last else shape[2:4]
    height, width = (side if isinstance(side, int) else SIDE for side in sides)
    return [
        InputCard(
            name=name,
            kind="image",
            layout="NHWC" if channels_last else "NCHW",
            color="GRAY" if channels == 1 else "RGB",
            size=(height, width),
            scale=scale,
            mean=mean,
            std=std,
        )
        for _, scale, mean, std in SCALES
        if len(mean) in (1, channels)
    ]


def _output(model: Model) -> OutputCard:
    """The first output of numbers; probabilities where a Softmax makes it."""
    for tensor in model.graph.outputs:
        if tensor.dtype is not None and np.dtype(tensor.dtype).kind == "f":
            softmax = bool(tensor.inputs) and tensor.inputs[0].op == "Softmax"
            return OutputCard(name=tensor.name, kind="probabilities" if softmax else "logits")
    raise GraftError("card-draft", "the model has no output of numbers", "write the card by hand")


def _accuracy(model: Model, card: Card, part: Split, device: Device) -> float:
    """Accuracy on some samples; 0 where the model cannot take what the card makes of them."""
    try:
        samples = Samples.match(part, card)
        picked = np.random.default_rng(0).permutation(len(samples))[:TRIES]
        return float(score(model, samples.take(np.sort(picked)), device).summary()["top1"])
    except GraftError as error:
        if error.code in ("output-nan", "run-failed"):
            return 0.0
        raise
