"""Accuracy and latency of a model on labelled samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.plausible import OutputCheck
from graft.rewriter.run.session import Device, Session

BATCH = 32
WARM_UPS, RUNS, BLOCKS = 3, 20, 4
LATENCY_SECONDS = 5.0
"""Seconds for which the latency of a model is measured: large ones have fewer runs in them."""


@dataclass(frozen=True)
class Scored:
    """Scores of a model for labelled samples.

    Attributes:
        scores: float (N, classes), or (N, T, classes) for one label a time step; where some of these are
            ignored, (N, classes) of those that count.
        labels: int64 (N,) or (N, T), positions in ``names``.
        names: names of the columns.
        providers: short names of the providers that ran.
        samples: number of samples.
    """

    scores: NDArray[Any]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    providers: tuple[str, ...]
    samples: int

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Column with the highest score: (N,) or (N, T)."""
        return np.asarray(self.scores.argmax(axis=-1))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Predictions that are the label: (N,) or (N, T)."""
        return np.asarray(self.predictions == self.labels)

    def summary(self) -> dict[str, Any]:
        """Return ``samples, top1, top5, per_class``; with ``(other)`` ``auroc`` and ``fpr_at_95_recall``.

        Top-5 is ``None`` where there are five classes or fewer.
        The last two are of detecting out-of-distribution samples: the highest score of a named class
        against that of ``(other)``.
        """
        flat = self.scores.reshape(-1, self.scores.shape[-1])
        labels = self.labels.reshape(-1)
        result: dict[str, Any] = {
            "samples": self.samples,
            "top1": metrics.accuracy(flat.argmax(axis=1), labels),
            "top5": metrics.top_k(flat, labels, 5) if flat.shape[1] > 5 else None,
            "per_class": metrics.per_class(flat.argmax(axis=1), labels, self.names),
        }
        if OTHER in self.names:
            place = self.names.index(OTHER)
            known = np.delete(flat, place, axis=1).max(axis=1) - flat[:, place]
            result["auroc"] = metrics.auroc(known, labels != place)
            result["fpr_at_95_recall"] = metrics.false_positives(known, labels != place)
        if len(self.names) == 2 and self.names[1] == OTHER:
            result["balanced_accuracy"] = metrics.balanced_accuracy(flat.argmax(axis=1), labels)
        return result

    def restricted(self, columns: Sequence[str], kind: str) -> Scored:
        """Return the scores of some classes, for the samples that have a label among them.

        Args:
            columns: the classes, in order. The column of ``(other)``, where the model lacks it, is
                that of all other classes together.
            kind: of the output, as in the card.
        """
        if tuple(columns) == self.names:
            return self
        places = [self.names.index(name) for name in columns if name in self.names]
        scores = self.scores[..., places]
        position = np.full(len(self.names), len(columns) - 1 if OTHER in columns else -1)
        position[places] = np.arange(len(places))
        if OTHER in columns and OTHER not in self.names:
            rest = np.delete(self.scores, places, axis=-1)
            together = np.sum if kind == "probabilities" else logsumexp
            rest = together(rest, axis=-1, keepdims=True)
            scores = np.concatenate([scores, rest], axis=-1)
        scores, labels = counted(scores, position[self.labels])
        return replace(self, scores=scores, labels=labels, names=tuple(columns))


def score(
    model: Model,
    samples: Samples,
    device: Device,
    classes: Sequence[str] | None = None,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """Run ``samples`` through ``model``.

    Args:
        model: a classifier.
        samples: labelled samples, matched to its card.
        device: where it runs.
        classes: the only ones whose scores and samples count; ``None``: all.
        batch: samples a run, unless the model fixes it.
        progress: called with the number of samples done after each batch.

    Raises:
        GraftError: the outputs are not numbers, or a class is unknown.
    """
    card = samples.card
    session, check = device.open(model), OutputCheck(card.output)
    parts, labels = [], []
    name = card.output.name
    for feed, truth in session.batches(samples, batch):
        found = session.rows(session.run(feed, [name])[name], name, truth)
        scores = check_finite(found, name)
        parts.append(columns(scores, card.output.kind, len(card.labels), truth))
        check.see(parts[-1])
        labels.append(truth)
        if progress:
            progress(len(truth))
    check.warn()
    scores, truth = np.concatenate(parts), np.concatenate(labels)
    scores, truth = counted(scores, truth)
    names = card.labels
    if classes is not None:
        places = [card.class_index(name) for name in classes]
        position = np.full(len(names), -1)
        position[places] = np.arange(len(places))
        scores, truth = counted(scores[..., places], position[truth])
        names = tuple(classes)
    return Scored(scores, truth, names, session.providers, len(samples))


def counted(scores: NDArray[Any], labels: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return scores and labels without those that are :data:`IGNORED`."""
    counts = labels != IGNORED
    return (scores, labels) if counts.all() else (scores[counts], labels[counts])


def check_finite(scores: NDArray[Any], name: str) -> NDArray[Any]:
    """Return ``scores``, if all of them are numbers; a class at minus infinity has probability 0.

    Raises:
        GraftError: NaN, infinity, a row of nothing but minus infinity, or no floating-point numbers.
    """
    rows = scores
    while rows.ndim > 2 and rows.shape[-1] == 1:
        rows = rows[..., 0]
    if scores.dtype.kind != "f" or (scores.size and not np.isfinite(rows.max(axis=-1)).all()):
        raise GraftError(
            "output-nan",
            f"output {name} of the model holds NaN, infinity or no numbers",
            "check the model and the scale, mean and std of its card",
        )
    return scores


def latencies(runs: Sequence[tuple[Session, dict[str, NDArray[Any]]]], threads: int) -> list[dict[str, Any]]:
    """Measure milliseconds a run: median and 90th percentile of 20 runs, of fewer where these take long.

    Models that are to be compared take turns in blocks of 5 runs after 3 warm-ups, so that a machine
    that changes its speed is fair to all. Single runs in turn would not be: the waiting threads of one
    session take time from the next. A model has :data:`LATENCY_SECONDS` altogether; one run always counts.

    Args:
        runs: a session and the batch that it is timed on, for each model.
        threads: of the sessions, for the record.
    """
    times: list[list[float]] = [[] for _ in runs]
    left = [LATENCY_SECONDS for _ in runs]
    for _ in range(BLOCKS):
        for place, (session, inputs) in enumerate(runs):
            if left[place] > 0:
                warm, found = _block(session, inputs, left[place])
                left[place] -= warm + sum(found)
                times[place] += [seconds * 1e3 for seconds in found]
    return [
        {
            "median": float(np.median(found)),
            "p90": float(np.quantile(found, 0.9)),
            "batch": session.count(inputs),
            "threads": threads,
            "runs": len(found),
        }
        for (session, inputs), found in zip(runs, times, strict=True)
    ]


def _block(session: Session, inputs: dict[str, NDArray[Any]], most: float) -> tuple[float, list[float]]:
    """Return the seconds of the warm-ups, and those of each run after them, about ``most`` altogether."""
    warm, found = 0.0, list[float]()
    for _ in range(WARM_UPS):
        warm += _seconds(session, inputs)
        if warm > most / RUNS * WARM_UPS:
            break
    while len(found) < RUNS // BLOCKS and (not found or warm + sum(found) < most):
        found.append(_seconds(session, inputs))
    return warm, found


def _seconds(session: Session, inputs: dict[str, NDArray[Any]]) -> float:
    start = time.perf_counter()
    session.run(inputs)
    return time.perf_counter() - start


def columns(
    scores: NDArray[Any], kind: str, classes: int, labels: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Return scores with one column a class on the last axis.

    Other axes of size 1 go where there is one label a sample, (N, K, 1, 1) or (N, 1, K), and behind the
    classes; a single binary output becomes two columns.

    Args:
        scores: the output of a model.
        kind: of the output, as in the card.
        classes: number of labels.
        labels: of the samples, (N,) or (N, T); ``None``: not known.

    Raises:
        GraftError: ``output-rows`` where there are more or fewer rows than labels.
    """
    if labels is not None and labels.ndim == 1 and scores.size == len(scores) * classes:
        scores = scores.reshape(len(scores), classes)
    while scores.ndim > 2 and scores.shape[-1] == 1 and scores.shape[-1] != classes:
        scores = scores[..., 0]
    if kind == "binary" and (scores.ndim == 1 or scores.shape[-1] != classes):
        scores = scores.reshape(len(scores), 1)
        scores = np.concatenate([1 - scores, scores], axis=1)
    if labels is not None and scores.shape[:-1] != labels.shape:
        raise GraftError(
            "output-rows",
            f"the output has shape {list(scores.shape)} for labels of shape {list(labels.shape)}",
            "say steps: true in the card where there is one label a time step, or name another output",
        )
    return scores
