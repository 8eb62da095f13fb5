"""Measure what docs/research/unlabelled.md reports: modules cut with the parent's predictions as labels.

    python -m benchmarks.unlabelled --json unlabelled.json

Every module is cut twice or more from the same samples, at 50 % of the MACs, and measured on the same test
samples with true labels: with true labels to cut with, and with the predictions of the parent. Where the
classes of the modules are not all of the parent's, a third module is cut with predictions among these classes
only, as by ``--labels-among asked``. On samples that a network was trained on, predictions are nearly always
right; so the same is done with samples that it has not seen: half of the test samples, drawn by seed 0,
measured on the other half. They choose nothing.
"""  # fmt: skip

from __future__ import annotations

import functools
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
WAYS = {"unlabelled": "all classes", "asked": "the classes asked for"}


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

    def only(self, classes: Sequence[str]) -> Subject:
        """Return the same with samples of some classes only to cut with."""
        places = Samples.match(self.train, self.parent.card, classes).indices
        return replace(self, train=_part(self.train, places))


def _part(split: Split, places: Integers) -> Split:
    return replace(
        split, labels=split.labels[places], reader=lambda own, card: split.reader(places[own], card)
    )


def _subject(run: Run, model: Path, data: Path) -> Subject:
    loaded = Model.load(model)
    loaded.card = loaded.require_card()
    dataset = Dataset.load(data)
    return Subject(Parent(loaded), limited(dataset.split("train"), run.samples), dataset.split("test"))


def _predicted(own: Subject, classes: Sequence[str], every: bool) -> dict[str, Split]:
    """Return the samples with labels predicted among all classes, and among those asked for if fewer."""
    found = {"unlabelled": predicted_labels(own.train, own.parent.model, DEVICE)}
    if not every:
        found["asked"] = predicted_labels(own.train, own.parent.model, DEVICE, among=classes)
    return found


def _right(split: Split, own: Subject) -> float:
    """Return the share of labels that are the true ones, of samples that can have these."""
    samples = Samples.match(own.train, own.parent.card, split.label_classes)
    return float(np.mean(split.labels[samples.indices] == samples.labels))


def _figures(own: Subject, classes: Sequence[str], together: bool, apart: bool) -> dict[str, float]:
    """Return accuracies with true labels and with predictions, among all classes and those asked for.

    Args:
        own: the parent and the samples.
        classes: of the modules.
        together: one module for all of them.
        apart: labels are predicted among the classes, too.
    """
    truth = Samples.match(own.test, own.parent.card, classes)
    whole = score(own.parent.model, truth, DEVICE, classes)
    labelled = own.scored(own.train, classes, together)
    found = {"parent": top1(whole), "labelled": difference(labelled, whole)[0]}
    for way, split in _predicted(own, classes, not apart).items():
        scored = own.scored(split, classes, together)
        mean, error = difference(scored, labelled)
        found |= {
            f"{way}_right": _right(split, own),
            way: difference(scored, whole)[0],
            f"{way}_lost": mean,
            f"{way}_error": error,
        }
    return found


def _measure(
    run: Run, name: str, subject: Subject, sets: Sequence[Sequence[str]], together: bool, only: bool = False
) -> None:
    """Print rows for each origin of the samples.

    Args:
        run: where figures go.
        name: of the network.
        subject: the parent and the samples.
        sets: the classes of each cut.
        together: one module for all of a set.
        only: cut with samples of the classes of a set only.
    """
    for origin, half in (("trained on", subject), ("not seen", subject.halves(run.samples))):
        rows: list[dict[str, float]] = []
        for classes in sets:
            own = half.only(classes) if only else half
            apart = len(classes) < len(own.parent.card.labels)
            key = "/".join([name, origin, "+".join(classes[:3]), *map(str, filter(None, [run.samples]))])
            measure = functools.partial(_figures, own, classes, together, apart)
            rows.append(run.output.measured(key, measure))
            if len(sets) > 1:
                _rows(run, f"{name}, {'/'.join(classes)}", origin, rows[-1:])
        _rows(run, name if len(sets) == 1 else f"{name}, mean of {len(sets)} pairs", origin, rows)


def _rows(run: Run, name: str, origin: str, found: Sequence[dict[str, float]]) -> None:
    """Print a row for each way to predict labels: the means over sets of classes."""
    means = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
    for way, words in WAYS.items():
        if way not in means:
            continue
        lost: Pair = (means[f"{way}_lost"], means[f"{way}_error"])
        if len(found) > 1:
            lost = mean_over([each[f"{way}_lost"] for each in found])
        run.output.row(
            *(name, origin, words, percent(means[f"{way}_right"], 1), percent(means["parent"])),
            *(f"{means['labelled']:+.2f}", f"{means[way]:+.2f}", points(lost)),
        )


def _table(run: Run, network: str) -> None:
    run.output.section(f"predictions as labels, `--keep {KEEP}`, {network}")
    run.output.header(
        *("network", "samples to cut with", "predicted among", "predictions that are right", "parent"),
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
    pairs = run.some([every[number] for number in picked])
    _measure(run, "ResNet-20", subject, pairs, together=True)
    _measure(run, "ResNet-20 from samples of the pair only", subject, pairs, together=True, only=True)


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
