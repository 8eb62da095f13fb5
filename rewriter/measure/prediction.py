"""Classify single samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images, read_image
from graft.rewriter.data.ranges import Ranges
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import check_finite, columns
from graft.rewriter.run.session import Device

TOP = 5
log = logging.getLogger("graft")
ONE = np.zeros(1, np.int64)
"""The label of a sample that has none."""


@dataclass(frozen=True)
class Prediction:
    """The classes of one sample.

    Attributes:
        sample: its file.
        top: the most likely labels, each with its probability, the most likely first.
    """

    sample: Path
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most likely label."""
        return self.top[0][0]


@dataclass(frozen=True)
class Predictions:
    """The classes of several samples.

    Attributes:
        predictions: in the order of the samples.
        providers: short names of the providers that ran.
    """

    predictions: tuple[Prediction, ...]
    providers: tuple[str, ...]


def predict(model: Model, files: Sequence[Path], device: Device, top: int = TOP) -> Predictions:
    """Classify samples in files.

    Args:
        model: with a card of one input.
        files: images, or ``.npy`` files of one raw sample each.
        device: where the model runs.
        top: the largest number of labels that are returned.

    Raises:
        GraftError: ``data-inputs`` where the model has several inputs, ``output-nan``, and whatever
            is wrong with a file.
    """
    card = model.require_card()
    if len(card.fed) != 1:
        raise GraftError("data-inputs", "predict takes models with one input", "use 'graft evaluate'")
    samples = [read_sample(path, card.fed[0]) for path in files]
    ranges = Ranges(card)
    for sample in samples:
        ranges.see({"": sample})
    ranges.warn()
    session, output = device.open(model), card.output
    found = []
    for path, sample in zip(files, samples, strict=True):
        inputs = session.feed(card.prepare({"": sample[None]}))
        rows = session.rows(session.run(inputs, [output.name])[output.name], output.name, ONE)
        scores = check_finite(rows, f"{output.name} for {path}")
        scores = columns(scores, output.kind, len(card.labels), None if output.steps else ONE)
        last = scores.reshape(-1, scores.shape[-1])[-1]
        likely = softmax(last, axis=-1) if output.kind == "logits" else last
        order = np.argsort(-likely, kind="stable")[:top]
        found.append(Prediction(path, tuple((card.labels[i], float(likely[i])) for i in order)))
    return Predictions(tuple(found), session.providers)


def read_sample(path: Path, card: InputCard) -> Array:
    """Read one raw sample: an image file, or a ``.npy`` file.

    Args:
        path: the file.
        card: the input that takes it.

    Raises:
        GraftError: ``data-missing``, ``data-unreadable`` or ``data-image``.
    """
    if not path.is_file():
        raise GraftError("data-missing", f"no sample at {path}", "check the path")
    if path.suffix.lower() != ".npy":
        return _any_size(path, card)
    try:
        sample: Array = np.asarray(np.load(path, allow_pickle=False))
        return fit_images(sample[None], card)[0] if card.kind == "image" and card.resize else sample
    except (ValueError, EOFError, OSError) as error:
        raise GraftError(
            "data-unreadable", f"{path} is no .npy file of numbers", "save it with numpy.save"
        ) from error


def _any_size(path: Path, card: InputCard) -> Array:
    """Read an image file; one of another size is squashed, with a warning unless the card asks for it."""
    try:
        return read_image(path, card)
    except GraftError as error:
        if error.code != "data-shape" or card.size is None or card.resize is not None:
            raise
    height, width = card.size
    log.warning(
        "%s is squashed to %dx%d: the card says nothing of images of other sizes (resize: squash or crop)",
        *(path, height, width),
    )
    return read_image(path, card.model_copy(update={"resize": "squash"}))
