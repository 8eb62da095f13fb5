"""Classify single samples."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.image_folder import IMAGE_SUFFIXES, list_files, subfolders
from graft.rewriter.data.images import fit_images, read_image
from graft.rewriter.data.npy import read_npy
from graft.rewriter.data.npz import open_samples
from graft.rewriter.data.ranges import Ranges
from graft.rewriter.data.reading import require_file
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import check_finite, columns
from graft.rewriter.measure.speed import Timed
from graft.rewriter.run.session import Device

TOP = 5
log = logging.getLogger("graft")
FEW = 8
"""Samples by which all are timed."""
ONE = np.zeros(1, np.int64)
"""The label of a sample that has none."""


@dataclass(frozen=True)
class Prediction:
    """The classes of one sample.

    Attributes:
        sample: its file.
        top: the most likely labels, each with its probability, the most likely first.
        index: position in a file of several samples; ``None``: it is the only one.
    """

    sample: Path
    top: tuple[tuple[str, float], ...]
    index: int | None = None

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


def predict(
    model: Model, files: Sequence[Path], device: Device, top: int = TOP, timed: Timed | None = None
) -> Predictions:
    """Classify samples in files.

    Args:
        model: with a card of one input.
        files: images, ``.npy`` files of one raw sample each, ``.npz`` files of several, or folders of images
            and ``.npy`` files, which may lie in folders of classes.
        device: where the model runs.
        top: the largest number of labels that are returned.
        timed: is called once a few samples ran, with the number of all samples and the seconds of one.

    Raises:
        GraftError: ``data-inputs`` where the model has several inputs, ``output-nan``, and whatever
            is wrong with a file.
    """
    card = model.require_card()
    if len(card.fed) != 1:
        raise GraftError("data-inputs", "predict takes models with one input", "use 'graft evaluate'")
    session, output = device.open(model), card.output
    ranges, found = Ranges(card), list[Prediction]()
    sources = _sources(files)
    begun = time.perf_counter()
    for path, index, sample in _each_sample(sources, card.fed[0]):
        if timed is not None and len(found) == FEW:
            timed(sum(each.count for each in sources), (time.perf_counter() - begun) / FEW)
        ranges.see({"": sample})
        inputs = session.feed(card.prepare({"": sample[None]}))
        rows = session.rows(session.run(inputs, [output.name])[output.name], output.name, ONE)
        scores = check_finite(rows, f"{output.name} for {path}")
        scores = columns(scores, output.kind, len(card.labels), None if output.steps else ONE)
        last = scores.reshape(-1, scores.shape[-1])[-1]
        likely = softmax(last, axis=-1) if output.kind == "logits" else last
        order = np.argsort(-likely, kind="stable")[:top]
        best = tuple((card.labels[i], float(likely[i])) for i in order)
        found.append(Prediction(path, best, index))
    ranges.warn()
    return Predictions(tuple(found), session.providers)


@dataclass(frozen=True)
class _Source:
    """A file of samples.

    Attributes:
        path: of the file.
        several: number of samples of an ``.npz`` file; ``None``: the file is one sample.
    """

    path: Path
    several: int | None = None

    @property
    def count(self) -> int:
        """Number of samples."""
        return 1 if self.several is None else self.several


def _sources(files: Sequence[Path]) -> list[_Source]:
    """Return the files of samples, those in folders as well."""
    sources: list[_Source] = []
    for path in files:
        if os.path.isdir(path):
            inside = [path, *subfolders(path)]
            found = [file for folder in inside for file in list_files(folder, IMAGE_SUFFIXES | {".npy"})]
            if not found:
                raise GraftError(
                    "data-empty",
                    f"{path}: expected images or .npy files in the folder, found none",
                    f"Graft reads {', '.join(sorted(IMAGE_SUFFIXES))}",
                )
            sources += map(_Source, found)
        else:
            sources.append(_Source(path, len(open_samples(path)) if path.suffix.lower() == ".npz" else None))
    return sources


def _each_sample(sources: Sequence[_Source], card: InputCard) -> Iterator[tuple[Path, int | None, Array]]:
    """Yield every raw sample with its file, and its position in an ``.npz`` file."""
    for source in sources:
        if source.several is None:
            yield source.path, None, read_sample(source.path, card)
            continue
        split = open_samples(source.path)  # no more than one of them is held
        for index in range(len(split)):
            yield source.path, index, _one_input(split.raw([index], card), card)[0]


def _one_input(raw: Mapping[str, Array], card: InputCard) -> Array:
    """Return the samples of the only input.

    Raises:
        GraftError: ``data-inputs`` where there are several, or of another name.
    """
    if {*raw} not in ({""}, {card.name}):
        raise GraftError(
            "data-inputs",
            f"expected samples of the input '{card.name}', found {', '.join(raw)}",
            f"save them as x or x.{card.name}",
        )
    return next(iter(raw.values()))


def read_sample(path: Path, card: InputCard) -> Array:
    """Read one raw sample: an image file, or a ``.npy`` file.

    Args:
        path: the file.
        card: the input that takes it.

    Raises:
        GraftError: ``data-missing``, ``data-unreadable``, ``data-format`` or ``data-image``.
    """
    require_file(path, "a sample")
    if path.suffix.lower() != ".npy":
        return _any_size(path, card)
    sample = read_npy(path)
    return fit_images(sample[None], card)[0] if card.kind == "image" and card.resize else sample


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
