"""Measure what docs/research/new_class.md reports: a class is left out, and added again from a few images.

    python -m benchmarks.new_class --json new_class.json
    python -m benchmarks.new_class --only networks --few 2

Each class of each network is left out once: the columns of the others stay, that of the class is fitted to
5, 20 or 100 training images. Features of all images are computed once; that the command writes the same
numbers, and leaves the other columns as they are bit for bit, is checked on one class of each network.
"""  # fmt: skip

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import graft.models
from benchmarks.common import DATA, DEVICE, EFFICIENTNET, RESNET, Run, bench_folder, mean_over, percent, start
from graft.passes.base import Context
from graft.passes.discriminant.evidence import Evidence
from graft.passes.discriminant.linear import SHRINKAGES, fit_column
from graft.passes.discriminant.opened import Opened
from graft.passes.discriminant.others import HEAD, SAMPLES, STATISTICS, draw_others
from graft.passes.new_class import NewClass
from graft.passes.parent import Parent
from graft.passes.remove import Remove
from graft.passes.select.observe import Observe
from graft.rewriter.arrays import Integers, Table
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from graft.rewriter.record.mahalanobis import KEY, Mahalanobis

COUNTS = (5, 20, 100)
SEEDS = 3
BUNDLED = "mnist_torch"
NETWORKS = (RESNET, EFFICIENTNET, "dense_mnist_4", BUNDLED)
MODES = (SAMPLES, STATISTICS, HEAD)
NEAREST = "nearest mean"
HELD_OUT = "held-out part of the training images"


@dataclass(frozen=True)
class Seen:
    """Images of one split as a network sees them.

    Attributes:
        features: float64 (samples, values).
        logits: float64 (samples, classes).
        labels: int64 (samples,).
    """

    features: Table
    logits: Table
    labels: Integers

    def take(self, places: Integers) -> Seen:
        """Return some of the images."""
        return Seen(self.features[places], self.logits[places], self.labels[places])


@dataclass(frozen=True)
class Network:
    """A network with its images.

    Attributes:
        model: with ten classes.
        data: training and test images.
        train: the training images.
        test: the test images.
        statistics: what ``decompose`` would store in a module of all classes; ``""``: not measured.
    """

    model: Model
    data: tuple[Split, Split]
    train: Seen
    test: Seen
    statistics: str

    @classmethod
    def load(cls, name: str) -> Network:
        """Load a network and run it on its images."""
        folder = bench_folder("vision")
        path = Path(graft.models.__path__[0]) if name == BUNDLED else folder
        model = Model.load(path / f"{name}.onnx")
        place = folder / DATA.get(name, "mnist")
        dataset = Dataset.load(place if place.is_dir() else place.with_suffix(".npz"))
        splits = [dataset.split(each) for each in ("train", "test")]
        labels = model.require_card().labels
        data = tuple(replace(each, class_names=each.class_names or labels) for each in splits)
        known = [each for each in labels if each in (data[0].class_names or ())]
        if len(known) < len(labels):
            model = Remove([each for each in labels if each not in known])(model, Context()).model
        opened = Opened.of(model, "seen")
        card = model.require_card()
        samples = [Samples.match(each, card) for each in data]
        seen = [Seen(*opened.read(each, DEVICE), each.labels) for each in samples]
        statistics = "" if name == EFFICIENTNET else _statistics(model, opened, samples[0])
        return cls(model, (data[0], data[1]), seen[0], seen[1], statistics)


def _statistics(model: Model, opened: Opened, samples: Samples) -> str:
    """Return what the metadata of a module holds: centres and covariance; nothing of so wide features."""
    profile = Observe()(Parent(model), Context(samples=samples, device=DEVICE)).profile
    source, marked = opened.source, model.copy()
    if source is not None:
        stays = np.ones(opened.widths[0], bool)
        found = Mahalanobis.fit(profile, source.name, stays, model.require_card().labels)
        if found is not None:
            found.attach(marked)
    return marked.metadata.get(KEY, "")


@functools.cache
def _network(name: str) -> Network:
    return Network.load(name)


@dataclass(frozen=True)
class Trial:
    """A class that is left out, and images that it is added from.

    Attributes:
        network: the network.
        left_out: the class.
        new: its images, positions in the training images.
        old: as many of each other class.
    """

    network: Network
    left_out: int
    new: Integers
    old: Integers

    @classmethod
    def draw(cls, network: Network, left_out: int, count: int, seed: int) -> Trial:
        """Draw ``count`` training images of each class."""
        draw, labels = np.random.default_rng([seed, left_out, count]), network.train.labels
        chosen = [
            draw.permutation(np.flatnonzero(labels == label))[:count] for label in range(labels.max() + 1)
        ]
        old = np.concatenate([each for label, each in enumerate(chosen) if label != left_out])
        return cls(network, left_out, chosen[left_out], old)

    @property
    def stay(self) -> list[int]:
        """The columns of the other classes."""
        return [each for each in range(self.network.train.logits.shape[1]) if each != self.left_out]

    def column(self, mode: str, seed: int, images: Seen) -> Table:
        """Return the logit of the class (images,), as :class:`NewClass` fits it."""
        network, draw = self.network, np.random.default_rng(seed)
        train = network.train.take(self.new if mode != SAMPLES else np.concatenate([self.old, self.new]))
        place = {label: number for number, label in enumerate([*self.stay, self.left_out])}
        labels = np.array([place[label] for label in train.labels.tolist()], np.int64)
        doubt = 0.0
        evidence = Evidence.of(train.features, train.logits[:, self.stay], labels, draw)
        if mode != SAMPLES:
            model = network.model.copy()
            if mode == STATISTICS:
                model.metadata[KEY] = network.statistics
            opened = Opened.of(model, "new")
            drawn = draw_others(model, opened, train.features, self.stay, DEVICE, draw)
            evidence, doubt = evidence.with_drawn(drawn, self.stay, draw), drawn.doubt
        found = fit_column(evidence, SHRINKAGES[:1] if mode == HEAD else SHRINKAGES, doubt)
        return images.features @ found.weights - found.threshold

    def scores(self, mode: str, seed: int, images: Seen) -> Table:
        """Return the scores of all classes (images, classes)."""
        if mode != NEAREST:
            found = images.logits.copy()
            found[:, self.left_out] = self.column(mode, seed, images)
            return found
        train = self.network.train.take(np.concatenate([self.old, self.new]))
        rows = train.features / np.linalg.norm(train.features, axis=1, keepdims=True)
        means = np.stack(
            [rows[train.labels == label].mean(axis=0) for label in range(train.labels.max() + 1)]
        )
        return images.features @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T

    def figures(self, mode: str, seed: int, images: Seen) -> dict[str, float]:
        """Return accuracy of all, its difference from the network, recall and precision of the class."""
        best, labels = self.scores(mode, seed, images).argmax(axis=1), images.labels
        before, own = images.logits.argmax(axis=1), labels == self.left_out
        decided = best == self.left_out
        return {
            "top1": float((best == labels).mean()),
            "difference": 100 * float((best == labels).mean() - (before == labels).mean()),
            "recall": float(decided[own].mean()),
            "precision": float(own[decided].mean()) if decided.any() else 0.0,
        }

    def others(self) -> Integers:
        """Return the training images that were not used."""
        used = np.concatenate([self.old, self.new])
        return np.setdiff1d(np.arange(len(self.network.train.labels)), used)


def trials(run: Run, name: str, count: int, seeds: int = SEEDS) -> Iterator[tuple[int, Trial]]:
    """Yield each class with each seed."""
    network = _network(name)
    for left_out in run.some(range(network.train.logits.shape[1])):
        for seed in range(seeds):
            yield seed, Trial.draw(network, left_out, count, seed)


def measure(run: Run, name: str, count: int, mode: str, held_out: bool) -> dict[str, Any]:
    """Return means over classes and seeds, and the standard error of the difference over classes."""
    found: list[dict[str, float]] = []
    classes: dict[int, list[float]] = {}
    for seed, trial in trials(run, name, count):
        network = trial.network
        images = network.train.take(trial.others()) if held_out else network.test
        found.append(trial.figures(mode, seed, images))
        classes.setdefault(trial.left_out, []).append(found[-1]["difference"])
    result: dict[str, Any] = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
    result["error"] = mean_over([float(np.mean(each)) for each in classes.values()])[1]
    return result


def networks(run: Run) -> None:
    """Accuracy on test images, and on training images that were not used, which alone chose the method."""
    for held_out in (False, True):
        for name in NETWORKS:
            _table(run, name, held_out)


def _table(run: Run, name: str, held_out: bool) -> None:
    network = _network(name)
    images = network.train if held_out else network.test
    original = float((images.logits.argmax(axis=1) == images.labels).mean())
    run.output.section(f"{name}, {HELD_OUT if held_out else 'test images'}")
    run.output.header("images", "others", "all classes", "difference", "recall", "precision")
    run.output.row("-", "the network itself", percent(original), "-", *_own(network, images))
    most = int(np.bincount(network.train.labels).min())
    for count in dict.fromkeys(min(each, most // 2 if held_out else most) for each in COUNTS):
        for mode in (*MODES, NEAREST):
            if mode == STATISTICS and not network.statistics:
                continue
            found = run.output.measured(
                f"{name} {count} {mode} {held_out} {run.few}",
                functools.partial(measure, run, name, count, mode, held_out),
            )
            difference = f"{found['difference']:+.2f} ± {found['error']:.2f}"
            shares = [percent(found[key]) for key in ("recall", "precision")]
            run.output.row(count, mode, percent(found["top1"]), difference, *shares)


def _own(network: Network, images: Seen) -> Sequence[str]:
    """Return recall and precision of the network itself, means over its classes."""
    best, count = images.logits.argmax(axis=1), network.train.logits.shape[1]
    recall = [(best == label)[images.labels == label].mean() for label in range(count)]
    precision = [(images.labels == label)[best == label].mean() for label in range(count)]
    return percent(float(np.mean(recall))), percent(float(np.mean(precision)))


def command(run: Run) -> None:
    """What the command writes: other columns are equal bit for bit, and accuracy is that of the tables."""
    run.output.section("as the command writes it, one class from 20 images")
    run.output.header("network", "others", "others equal", "all classes", "all classes, by the tables")
    for name in run.some(NETWORKS):
        network, seed = _network(name), 0
        trial = Trial.draw(network, 3, 20, seed)
        card = network.model.require_card()
        left_out = card.labels[3]
        model = Remove([left_out])(network.model, Context(device=DEVICE)).model
        for mode in (SAMPLES, HEAD):
            places = np.concatenate([trial.old, trial.new]) if mode == SAMPLES else trial.new
            train = Samples.match(network.data[0], card).take(places)
            split = _part(network.data[0], train.indices)
            made = NewClass(left_out)(model, Context(data=split, device=DEVICE, seed=seed))
            test = Samples.match(network.data[1], made.model.require_card())
            top1 = score(made.model, test, DEVICE).summary()["top1"]
            expected = trial.figures(mode, seed, network.test)["top1"]
            run.output.row(name, mode, made.others_equal, percent(float(top1)), percent(expected))


def _part(split: Split, places: Integers) -> Split:
    return replace(
        split, labels=split.labels[places], reader=lambda wanted, card: split.reader(places[wanted], card)
    )


SECTIONS = {"networks": networks, "command": command}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
