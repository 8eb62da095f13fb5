"""Measure what docs/research/unlabelled.md reports: modules cut with the parent's predictions as labels.

    python -m benchmarks.unlabelled --json unlabelled.json

Every module is cut twice from the same samples, once with their true labels and once with the predictions of
the parent, at 50 % of the MACs, and both are measured on the same test samples with true labels. On samples
that a network was trained on, predictions are nearly always right; so the same is done with samples that it
has not seen: half of the test samples, drawn by seed 0, measured on the other half. They choose nothing.
"""  # fmt: skip

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.common import (
    DATA,
    DEVICE,
    EFFICIENTNET,
    RESNET,
    Pair,
    Run,
    bench_folder,
    compose,
    difference,
    limited,
    mean_over,
    percent,
    points,
    start,
    top1,
)
from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.identify import default_method
from graft.passes.parent import Parent
from graft.passes.select.profiling import profiled, rows_for
from graft.rewriter.arrays import Integers
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.measure.pseudo_labels import predicted_labels

KEEP = 0.5
PAIRS = 5
CLINC = "clinc_lstm1_published"


@dataclass(frozen=True, eq=False)
class Subject:
    """A parent, samples to cut with, and samples to measure on.

    Attributes:
        parent: the parent.
        train: samples with true labels.
        test: samples with true labels.
    """

    parent: Parent
    train: Split
    test: Split

    def context(self, split: Split, classes: Sequence[str]) -> Context:
        """Return the samples of a split and the profile of the parent on them."""
        context = Context(Samples.match(split, self.parent.card), device=DEVICE)
        rows = rows_for(self.parent, classes)
        return replace(context, profile=profiled(self.parent, context, rows=rows).profile)

    def scored(self, split: Split, classes: Sequence[str], together: bool) -> Scored:
        """Cut modules with a split; return their scores on the test samples, among the classes."""
        context, found = self.context(split, classes), []
        for own in [classes] if together else [[name] for name in classes]:
            decompose = Decompose(
                own,
                keep=KEEP,
                method=default_method(self.parent.groups, samples=True),
                compensate="refit",
                together=together,
            )
            found.append(decompose(self.parent, context).model)
        model = found[0] if together else compose(found, strategy="branches").model
        card = self.parent.card
        return score(
            model, Samples.match(self.test, model.require_card(), classes, names=card.labels), DEVICE
        )

    def halves(self, samples: int | None) -> Subject:
        """Return the same with one half of the test samples to cut with, measured on the other half.

        Args:
            samples: at most so many of a class to cut with.
        """
        order = np.random.default_rng(0).permutation(len(self.test))
        first, second = (_part(self.test, np.sort(half)) for half in np.array_split(order, 2))
        return Subject(self.parent, limited(first, samples), second)


def _part(split: Split, places: Integers) -> Split:
    return replace(
        split, labels=split.labels[places], reader=lambda own, card: split.reader(places[own], card)
    )


def _subject(run: Run, model: Path, data: Path) -> Subject:
    loaded = Model.load(model)
    loaded.card = loaded.require_card()
    dataset = Dataset.load(data)
    return Subject(Parent(loaded), limited(dataset.split("train"), run.samples), dataset.split("test"))


def _measure(run: Run, name: str, subject: Subject, sets: Sequence[Sequence[str]], together: bool) -> None:
    """Print a row for each origin of the samples."""
    for origin, own in (("trained on", subject), ("not seen", subject.halves(run.samples))):
        predicted = predicted_labels(own.train, own.parent.model, DEVICE)
        samples = Samples.match(own.train, own.parent.card)
        right = float(np.mean(predicted.labels[samples.indices] == samples.labels))
        rows: list[dict[str, float]] = []
        for classes in sets:

            def measure(
                own: Subject = own, classes: Sequence[str] = classes, predicted: Split = predicted
            ) -> dict[str, float]:
                truth = Samples.match(own.test, own.parent.card, classes)
                whole = score(own.parent.model, truth, DEVICE, classes)
                one, two = (own.scored(split, classes, together) for split in (own.train, predicted))
                mean, error = difference(two, one)
                return {
                    "parent": top1(whole),
                    "labelled": difference(one, whole)[0],
                    "unlabelled": difference(two, whole)[0],
                    "lost": mean,
                    "error": error,
                }

            key = "/".join([name, origin, "+".join(classes[:3]), *map(str, filter(None, [run.samples]))])
            found = run.output.measured(key, measure)
            rows.append(found)
            if len(sets) > 1:
                _row(run, f"{name}, {'/'.join(classes)}", origin, right, [found])
        _row(run, name if len(sets) == 1 else f"{name}, mean of {len(sets)} pairs", origin, right, rows)


def _row(run: Run, name: str, origin: str, right: float, rows: Sequence[dict[str, float]]) -> None:
    means = {key: float(np.mean([each[key] for each in rows])) for key in rows[0]}
    lost: Pair = (means["lost"], rows[0]["error"])
    if len(rows) > 1:
        lost = mean_over([each["lost"] for each in rows])
    run.output.row(
        *(name, origin, percent(right, 1), percent(means["parent"])),
        *(f"{means['labelled']:+.2f}", f"{means['unlabelled']:+.2f}", points(lost)),
    )


def _table(run: Run, network: str) -> None:
    run.output.section(f"predictions as labels, `--keep {KEEP}`, {network}")
    run.output.header(
        *("network", "samples to cut with", "predictions that are right", "parent"),
        *("with labels", "with predictions", "difference"),
    )


def clinc(run: Run) -> None:
    """Clinc LSTM-1, a module for each class."""
    _table(run, "Clinc LSTM-1")
    folder = bench_folder("rnn")
    subject = _subject(run, folder / f"{CLINC}.onnx", folder / "clinc.npz")
    _measure(run, "Clinc LSTM-1", subject, [tuple(_trained(subject))], together=False)


def resnet(run: Run) -> None:
    """ResNet-20, five pairs."""
    _table(run, "ResNet-20")
    folder = bench_folder("vision")
    subject = _subject(run, folder / f"{RESNET}.onnx", folder / f"{DATA[RESNET]}.npz")
    every = list(itertools.combinations(subject.parent.card.labels, 2))
    picked = sorted(np.random.default_rng(0).permutation(len(every))[:PAIRS].tolist())
    _measure(run, "ResNet-20", subject, run.some([every[number] for number in picked]), together=True)


def efficientnet(run: Run) -> None:
    """EfficientNet-Lite0, ten classes together."""
    _table(run, "EfficientNet-Lite0")
    folder = bench_folder("vision")
    subject = _subject(run, folder / f"{EFFICIENTNET}.onnx", folder / DATA[EFFICIENTNET])
    _measure(run, "EfficientNet-Lite0", subject, [tuple(_trained(subject))], together=True)


def _trained(subject: Subject) -> list[str]:
    return list(Samples.match(subject.train, subject.parent.card).counts())


SECTIONS = {each.__name__: each for each in (clinc, resnet, efficientnet)}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
