"""A model measured on labelled samples, with a baseline beside it on the same ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.sizes import sizes_of
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.file_size import stored_bytes
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sizes import Sizes, check_asked
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.decoded import decoded
from graft.rewriter.measure.evaluation import BATCH, Scored, latencies, score
from graft.rewriter.record.provenance import numbering
from graft.rewriter.run.session import Device, Session

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with the name of a model and the number of samples; gives what is called with those done."""


def _silent(name: str, samples: int) -> AbstractContextManager[Callable[[int], None]]:
    return contextlib.nullcontext(lambda done: None)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to be measured.

    Attributes:
        model: with a card.
        files: that hold it; their sizes, and those of external data, add up.
        name: shown with the progress.
        asked: sizes of free axes that samples must have.
    """

    model: Model
    files: tuple[Path, ...] = ()
    name: str = "the model"
    asked: Sizes = field(default_factory=dict)

    @property
    def card(self) -> Card:
        """The card of the model."""
        return self.model.require_card()

    def measure(
        self, samples: Samples, columns: Sequence[str], device: Device, progress: Progress = _silent
    ) -> tuple[dict[str, Any], Scored]:
        """Measure accuracy, cost and size.

        Args:
            samples: matched to the card of the model.
            columns: the classes that are compared.
            device: where the model runs.
            progress: shows how far it is.

        Returns:
            The figures, and the scores behind them, one column for each of ``columns``.

        Raises:
            GraftError: the model cannot be run, its outputs are not numbers, or the samples are not of the
                size that was asked for.
        """
        with progress(self.name, len(samples)) as step:
            every = score(self.model, samples, device, progress=step)
        written: dict[str, Any] = {}
        if self.card.decoder is not None:
            with progress(f"{self.name} word by word", len(samples)) as step:
                answers = decoded(self.model, samples, device, step)
            written = {"languages": {each.language: each.figures() for each in answers}}
        scored = every.restricted(columns, self.card.output.kind)
        sized = self.model.copy()
        sized.sizes = sizes_of(self.model, samples)
        check_asked(self.asked, sized.sizes)
        cost = cost_of(sized)
        sizes = list(map(stored_bytes, self.files))
        figures = {
            **scored.summary(),
            "left_out": samples.left_out,
            "macs": cost.known_macs,
            "parameters": cost.parameters,
            "bytes": sum(map(sum, sizes)),
            "external_bytes": sum(beside for _, beside in sizes),
            "providers": list(scored.providers),
            "labels": list(columns),
            **written,
        }
        return figures, scored

    def timed(self, samples: Samples, batch: int, device: Device) -> tuple[Session, dict[str, Array]]:
        """Return a session and the batch that it is timed on.

        Args:
            samples: the first of them are the batch.
            batch: number of samples, unless the model fixes it.
            device: where the model runs.
        """
        session = device.open(self.model)
        feed, _ = next(session.batches(samples.take(np.arange(min(batch, len(samples)))), batch))
        return session, feed

    def samples(
        self, part: Split, classes: Sequence[str] | None, per_class: int | None = None, seed: int = 0
    ) -> Samples:
        """Match the samples of a split to the card.

        Args:
            part: the data.
            classes: only samples of these; ``None``: of all that the model has.
            per_class: at most so many of each class.
            seed: chooses among them.

        Raises:
            GraftError: as :meth:`Samples.match`.
        """
        return Samples.match(part, self.card, classes, per_class, seed, numbering(self.model))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A candidate and a baseline, measured on the same classes.

    Attributes:
        candidate: the model in question.
        baseline: measured beside it; ``None``: alone.
        classes: to which both are restricted, languages of an encoder-decoder; ``None``: those of the
            candidate.

    Raises:
        GraftError: ``baseline-class`` where the baseline lacks a class.
    """

    candidate: Candidate
    baseline: Candidate | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.baseline is None:
            return
        asked = (self.classes or self.candidate.card.classes) if self._writes else self.columns
        lacking = set(asked) - {*self.baseline.card.classes, OTHER}
        if lacking:
            raise GraftError(
                "baseline-class",
                f"the baseline has no class '{min(lacking)}'",
                "choose another baseline, or --classes that both have",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The classes that are compared; of an encoder-decoder all of its words."""
        return self.candidate.card.labels if self._writes else self.classes or self.candidate.card.labels

    @property
    def _writes(self) -> bool:
        """Whether the candidate writes words, and its classes are languages."""
        return self.candidate.card.decoder is not None

    def samples(self, part: Split, per_class: int | None = None, seed: int = 0) -> Samples:
        """Return the samples of the candidate; classes without any are left out, with one warning.

        Args:
            part: the data.
            per_class: at most so many of each class.
            seed: chooses among them.

        Raises:
            GraftError: ``one-class``, and as :meth:`Samples.match`.
        """
        chosen = None
        if self._writes:
            samples = self.candidate.samples(part, None, per_class, seed)
            return samples if self.classes is None else samples.speaking(self.classes)
        if self.classes is not None:
            chosen = [name for name in self.classes if name != OTHER]
            meaning = numbering(self.candidate.model)
            found = Samples.present(part, self.candidate.card, chosen, meaning, needed=True)
            chosen = [name for name in chosen if found is None or name in found.counts()]
        samples = self.candidate.samples(part, chosen, per_class, seed)
        if len(self.columns) < 2:
            raise GraftError(
                "one-class",
                f"with the class '{self.columns[0]}' alone every answer is right",
                "name two classes or more, or a module with (other)",
            )
        return samples

    def measure(
        self,
        samples: Samples,
        part: Split,
        device: Device,
        batch: int = BATCH,
        progress: Progress = _silent,
    ) -> dict[str, Any]:
        """Measure the candidate and the baseline on the same samples, and time them in turn.

        Args:
            samples: of the candidate, by :meth:`samples`.
            part: the data that they are from.
            device: where both run.
            batch: samples a run that is timed.
            progress: shows how far it is.

        Returns:
            The figures of the candidate with ``latency_ms``; with a baseline its figures as
            ``baseline``, ``agreement``, and ``delta``: accuracy of the candidate minus that of the
            baseline on the same samples, with its standard error.

        Raises:
            GraftError: a model cannot be run, or its outputs are not numbers.
        """
        figures, scored = self.candidate.measure(samples, self.columns, device, progress)
        timed = [self.candidate.timed(samples, batch, device)]
        if self.baseline:
            same = self._of_baseline(self.baseline, samples, part)
            columns = self.baseline.card.labels if self._writes else self.columns
            beside, reference = self.baseline.measure(same, columns, device, progress)
            timed.append(self.baseline.timed(same, batch, device))
            figures["agreement"] = metrics.agreement(_named(scored), _named(reference))
            figures["delta"], figures["delta_standard_error"] = metrics.paired_difference(
                scored.correct.ravel(), reference.correct.ravel()
            )
            figures["baseline"] = beside
        times = latencies(timed, device.threads)
        figures["latency_ms"] = times[0]
        if self.baseline:
            figures["baseline"]["latency_ms"] = times[1]
        return figures

    def _of_baseline(self, baseline: Candidate, samples: Samples, part: Split) -> Samples:
        """Return the samples of the candidate as the baseline takes them.

        Args:
            baseline: measured beside it.
            samples: of the candidate.
            part: the data that they are from.
        """
        having = samples.counts()
        whole = self._writes or OTHER in self.columns
        classes = None if whole else [name for name in self.columns if name in having]
        same = baseline.samples(part, classes)
        return same.take(np.isin(same.indices, samples.indices))


def _named(scored: Scored) -> Array:
    """Return the name of each prediction: columns of encoder-decoders differ where words were removed."""
    return np.asarray(scored.names)[scored.predictions.ravel()]
