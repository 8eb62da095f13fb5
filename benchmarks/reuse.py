"""Measure what docs/reuse.md reports: classes of two networks in one, without and with data.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/reuse.py ../shared/bench/vision

Nothing is chosen on test images: they only report. Takes about two hours on two cores.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import combinations, product
from pathlib import Path

import numpy as np
from bench import DEVICE, Bench, mean_over, points, row
from numpy.typing import NDArray

from graft.passes.base import Context
from graft.passes.compare import COMPARISONS
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.replace import Replace
from graft.passes.trunk import Source
from graft.rewriter.arrays import Array
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import Scored, score

FITTED = [each.name for each in COMPARISONS if each.needs_data]
DENSE = (("dense_mnist_4", "mnist"), ("dense_fmnist_4", "fmnist"))
IMAGES = (("resnet20_cifar10", "cifar10"), ("efficientnet_lite0_imagenet", "imagenette"))
FEW = 200
"""Samples of a class."""
OWN = ("mnist_torch", "fashion_keras")
"""Bundled with Graft."""
BUNDLED = Path(str(import_module("graft.models").__path__[0]))
KEEP, WHOLE = 0.6, 1.0
TESTED = 100
"""Test images of a class, where the networks are large."""
SMALL = 32
"""Height and width of CIFAR-10's images."""


class Reuse:
    """Two parents, and the samples of both."""

    def __init__(self, folder: Path, names: Sequence[tuple[str, str]]) -> None:
        self.benches = [Bench(folder, model, data) for model, data in names]
        self.train, self.test = (self._both(split) for split in ("train", "test"))

    def _both(self, name: str) -> Split:
        splits = [getattr(bench, name).split for bench in self.benches]
        names = [bench.card.labels for bench in self.benches]
        return Split.join([replace(part, class_names=part.class_names or own)
                           for part, own in zip(splits, names, strict=True)])  # fmt: skip

    def accuracy(self, model: Model, test: Split | None = None, most: int | None = None) -> float:
        """On all test samples of the model's classes, or ``most`` of each, in percent."""
        card = model.require_card()
        found = score(model, Samples.match(test or self.test, card, card.labels, most), DEVICE)
        return 100 * float(found.correct.mean())

    def sets(self, chosen: Sequence[Sequence[str]], keep: float) -> list[Model]:
        """A module of several classes from each parent."""
        decompose = Decompose(keep, together=True, compensate="refit", method="ablation")
        return [
            decompose(bench.parent, bench.profile, classes, data=bench.train, device=DEVICE).model
            for bench, classes in zip(self.benches, chosen, strict=True)
        ]

    def own(self, chosen: Sequence[Sequence[str]]) -> list[float]:
        """How good each parent is among its own classes, in percent."""
        found = []
        for bench, classes in zip(self.benches, chosen, strict=True):
            samples = Samples.match(bench.test.split, bench.card, classes)
            found.append(100 * float(score(bench.parent.model, samples, DEVICE, classes).correct.mean()))
        return found


def pairs(folder: Path) -> None:
    """One class of each parent, all 100 pairs."""
    reuse = Reuse(folder, DENSE)
    print(f"\n## One class of each parent, all 100 pairs, modules at `--keep {KEEP:g}`\n")
    row("scores", "samples of a class", "mean", "worst pair")
    row("---", "---", "---", "---")
    modules = [[report.model for report in bench.modules(Decompose(KEEP))] for bench in reuse.benches]
    sources = {bench.parent.sha256: Source(bench.parent, bench.profile) for bench in reuse.benches}
    for scores, continuous in (
        *((each.name, False) for each in sorted(COMPARISONS, key=lambda each: each.needs_data)),
        *((scores, True) for scores in ("vote", "typicality")),
    ):
        data = reuse.train if scores in FITTED or continuous else None
        compose = Compose(scores=scores, continuous=continuous, samples_per_class=FEW)
        parents = sources if continuous else {}
        context = Context(data=data, device=DEVICE)
        found = [reuse.accuracy(compose(Modules(pair, parents), context).model) for pair in product(*modules)]
        used = "all, as unconcerned" if continuous else FEW if data else "-"
        title = f"`{scores}`, continuous learning" if continuous else f"`{scores}`"
        row(title, used, f"{statistics.mean(found):.2f} %", f"{min(found):.2f} %")


def fives(folder: Path) -> None:
    """Five classes of each parent, whole, 10 draws."""
    reuse = Reuse(folder, DENSE)
    print(
        "\n## Five classes of each parent, 10 draws (seed 0), all of the parent kept, all training samples\n"
    )
    row("scores", "mean", "parents among their own five", "mean of the parents")
    row("---", "---", "---", "---")
    draw, labels = np.random.default_rng(0), [bench.card.labels for bench in reuse.benches]
    chosen = [
        [[names[n] for n in sorted(draw.permutation(10)[:5].tolist())] for names in labels] for _ in range(10)
    ]
    modules = [reuse.sets(sets, 1.0) for sets in chosen]
    own = np.array([reuse.own(sets) for sets in chosen])
    for scores in ("typicality", *FITTED):
        data = reuse.train if scores in FITTED else None
        compose = Compose(scores=scores)
        context = Context(data=data, device=DEVICE)
        found = [reuse.accuracy(compose(Modules(pair), context).model) for pair in modules]
        parents = "; ".join(f"{mean:.2f} %" for mean in own.mean(axis=0))
        row(f"`{scores}`", f"{statistics.mean(found):.2f} %", parents, f"{own.mean():.2f} %")


def twenty(folder: Path) -> None:
    """All classes of both parents."""
    reuse = Reuse(folder, DENSE)
    chosen = [bench.card.labels for bench in reuse.benches]
    own = reuse.own(chosen)
    print(f"\n## All 20 classes; the parents have {own[0]:.2f} and {own[1]:.2f} %, on average "
          f"{statistics.mean(own):.2f} %\n")  # fmt: skip
    row("modules", "scores", "top-1", "MACs over both parents'")
    row("---", "---", "---", "---")
    whole = sum(bench.parent.cost.macs for bench in reuse.benches)
    for keep in (1.0, 0.65):
        modules = reuse.sets(chosen, keep)
        for scores in ("typicality", *FITTED):
            data = reuse.train if scores in FITTED else None
            model = Compose(scores=scores)(Modules(modules), Context(data=data, device=DEVICE)).model
            share = cost_of(model).macs / whole
            row(f"`--keep {keep:g}`", f"`{scores}`", f"{reuse.accuracy(model):.2f} %", f"{share:.2f}")


def images(folder: Path) -> None:
    """A class of CIFAR-10 and one of imagenette, all 100 pairs."""
    reuse = Reuse(folder, IMAGES)
    chosen = [tuple(bench.train.counts()) for bench in reuse.benches]
    modules = [
        [Decompose(WHOLE)(bench.parent, bench.profile, [name]).model for name in classes]
        for bench, classes in zip(reuse.benches, chosen, strict=True)
    ]
    print(f"\n## A class of CIFAR-10 and one of imagenette, all 100 pairs, modules at `--keep {WHOLE:g}`, "
          f"at most {FEW} training and {TESTED} test images of a class\n")  # fmt: skip
    row("imagenette", "joint", "worst pair", "typicality, training images")
    row("---", "---", "---", "---")
    for size, title in ((None, "as it is, 224 x 224"), (SMALL, f"brought down to {SMALL} x {SMALL}")):
        train, test = (_shrunk(part, size) if size else part for part in (reuse.train, reuse.test))
        compose, found, before = Compose(scores="joint", samples_per_class=FEW), [], []
        for pair in product(*modules):
            report = compose(Modules(pair), Context(data=train, device=DEVICE))
            found.append(reuse.accuracy(report.model, test, TESTED))
            before.append(100 * report.joint.before if report.joint else float("nan"))
        means = [f"{value:.2f} %" for value in (statistics.mean(found), min(found), statistics.mean(before))]
        row(title, *means)


def same(folder: Path) -> None:
    """Two classes of one parent, all 45 pairs."""
    print(f"\n## Two classes of one parent, all 45 pairs, `--together --keep {KEEP:g} --compensate refit`\n")
    row("parent", "points lost", "worst pair")
    row("---", "---", "---")
    decompose = Decompose(KEEP, together=True, compensate="refit", method="ablation")
    for names in (IMAGES[0], *DENSE):
        bench, lost = Bench(folder, *names), []
        for pair in combinations(bench.card.labels, 2):
            found = decompose(bench.parent, bench.profile, pair, data=bench.train, device=DEVICE).model
            right = [
                score(model, Samples.match(bench.test.split, model.require_card(), pair,
                                           names=bench.card.labels), DEVICE, pair).correct.mean()
                for model in (bench.parent.model, found)
            ]  # fmt: skip
            lost.append(100 * float(right[0] - right[1]))
        row(bench.name, points(mean_over(lost)), f"{max(lost):+.2f}")


def replaced(folder: Path) -> None:
    """Classes of a weak network, decided by modules of a strong one for the same classes."""
    print(f"\n## Classes of a weak network decided by a strong one, modules at `--keep {KEEP:g}`\n")
    row("weak, strong", "data", "before; strong", "one class: mean", "worst change of a class", "all ten",
        "worst change of a class")  # fmt: skip
    row(*["---"] * 7)
    for (weak, data), strong in zip(DENSE, OWN, strict=True):
        bench = Bench(folder, weak, data)
        better = Bench(BUNDLED, strong, str((folder / data).resolve()))
        modules = [report.model for report in better.modules(Decompose(KEEP))]
        train = replace(bench.train.split, class_names=bench.card.labels)
        before = bench.whole
        for given in (None, train):
            single, worst, whole = [], [], bench.model
            for name, module in zip(bench.card.labels, modules, strict=True):
                newcomer = Newcomer(module, name, name)
                found = _again(
                    bench,
                    Replace()(Patch(bench.model, newcomer, name), Context(data=given, device=DEVICE)).model,
                )
                single.append(100 * float(found.correct.mean()))
                worst.append(_worst(before, found))
                whole = Replace()(Patch(whole, newcomer, name), Context(data=given, device=DEVICE)).model
            last = _again(bench, whole)
            accuracies = [f"{100 * each.correct.mean():.2f}" for each in (before, better.whole)]
            row(f"{weak}, {strong}", "all training images" if given else "-", "; ".join(accuracies),
                f"{statistics.mean(single):.2f}", f"{min(worst):+.2f}",
                f"{100 * last.correct.mean():.2f}", f"{_worst(before, last):+.2f}")  # fmt: skip


def _again(bench: Bench, model: Model) -> Scored:
    return score(
        model, Samples.match(bench.test.split, model.require_card(), names=bench.card.labels), DEVICE
    )


def _worst(before: Scored, after: Scored) -> float:
    """The lowest change of a class's recall, in points."""
    changes = [
        float(after.correct[after.labels == label].mean() - before.correct[before.labels == label].mean())
        for label in range(len(before.names))
    ]
    return 100 * min(changes)


def foreign(folder: Path) -> None:
    """A digit replaced by a piece of clothing, all 100 pairs, and the reverse."""
    reuse = Reuse(folder, DENSE)
    print(
        f"\n## A class replaced by one of the other network, 100 pairs each, modules at `--keep {KEEP:g}`\n"
    )
    row("network", "newcomer of", "data", "mean", "worst pair", "the network among its other nine")
    row(*["---"] * 6)
    for base, other in (reuse.benches, reuse.benches[::-1]):
        modules = [report.model for report in other.modules(Decompose(KEEP))]
        nine = []
        for name in base.card.labels:
            rest = [each for each in base.card.labels if each != name]
            samples = Samples.match(base.test.split, base.card, rest)
            nine.append(100 * float(score(base.parent.model, samples, DEVICE, rest).correct.mean()))
        for given in (None, reuse.train):
            found = [
                reuse.accuracy(
                    Replace(samples_per_class=FEW)(
                        Patch(base.model, Newcomer(module, label, label), name),
                        Context(data=given, device=DEVICE),
                    ).model
                )
                for name in base.card.labels
                for module, label in zip(modules, other.card.labels, strict=True)
            ]
            row(base.name, other.name, f"{FEW} a class" if given else "-", f"{statistics.mean(found):.2f} %",
                f"{min(found):.2f} %", f"{statistics.mean(nine):.2f} %")  # fmt: skip


def rejected(folder: Path) -> None:
    """Images of the one data set on a composite of the other's classes."""
    reuse = Reuse(folder, DENSE)
    print(f"\n## What no class owns: test images of the other data set, ten modules at `--keep {KEEP:g}`, "
          "`--other`, 5 % false alarms wanted\n")  # fmt: skip
    row("composite of", "as", "fitted to", "AUROC", "FPR at 95 % recall", "false alarms", "top-1 of all")
    row(*["---"] * 7)
    for bench in reuse.benches:
        modules = [
            report.model for report in bench.modules(Decompose(KEEP, compensate="refit", method="ablation"))
        ]
        train = replace(bench.train.split, class_names=bench.card.labels)
        sources = {bench.parent.sha256: Source(bench.parent, bench.profile, bench.train)}
        for strategy, data in product(("trunk", "branches"), (None, train)):
            compose = Compose(strategy, other=True)
            at_hand = sources if strategy == "trunk" else {}
            model = compose(Modules(modules, at_hand), Context(data=data, device=DEVICE)).model
            found = score(model, Samples.match(reuse.test, model.require_card()), DEVICE)
            said, known = found.summary(), found.labels != len(found.names) - 1
            alarms = float((found.predictions[known] == len(found.names) - 1).mean())
            row(bench.name, strategy, "its training images" if data else "-", f"{said['auroc']:.4f}",
                f"{100 * said['fpr_at_95_recall']:.2f} %", f"{100 * alarms:.2f} %",
                f"{100 * said['top1']:.2f} %")  # fmt: skip


def _shrunk(split: Split, size: int) -> Split:
    """The images of ``split``, brought to ``size`` first."""

    def read(indices: NDArray[np.int64], card: InputCard | None) -> dict[str, Array]:
        small = card.model_copy(update={"size": (size, size), "resize": "squash"}) if card else None
        return {name: fit_images(values, small) if small else values
                for name, values in split.raw(indices, small).items()}  # fmt: skip

    return replace(split, reader=read)


SECTIONS = {each.__name__: each for each in (pairs, fives, twenty, images, same, replaced, foreign, rejected)}


def main() -> None:
    """Run everything, or the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=[*SECTIONS])
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0.")
    for section in chosen.only:
        SECTIONS[section](chosen.folder)


if __name__ == "__main__":
    main()
