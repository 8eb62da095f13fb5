"""Measure what docs/reuse.md reports: classes of two networks in one, without and with data.

    python -m benchmarks.reuse [--json reuse.json] [--only pairs]

Takes about two hours on two cores.
"""  # fmt: skip

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    DATA,
    DENSE,
    DEVICE,
    EFFICIENTNET,
    RESNET,
    WITH_DATA,
    WITHOUT_DATA,
    Bench,
    Run,
    bench_folder,
    compose,
    difference,
    mean_over,
    points,
    start,
    top1,
)
from graft.passes.base import Context
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.replace import Replace
from graft.rewriter.arrays import Array, Integers
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.data.images import fit_images
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import Scored, score

FEW = 200
"""Training samples of a class."""
BETTER = {"dense_mnist_4": "mnist_torch", "dense_fmnist_4": "fashion_keras"}
"""Networks that come with Graft, better than those of the same data."""
KEEP = 0.6
TESTED = 100
"""Test images of a class, where the networks are large."""
SMALL = 32
"""Height and width of CIFAR-10's images."""
BEST = {"compensate": "refit", "method": "ablation"}


class Reuse:
    """Two parents, and the samples of both."""

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        self.benches = [run.bench(name) for name in names]
        self.train, self.test = (
            Split.join([bench.named(split) for bench in self.benches]) for split in ("train", "test")
        )

    def accuracy(self, model: Model, test: Split | None = None, most: int | None = None) -> float:
        """Percent of test samples that a model classifies right.

        Args:
            model: with some classes of both data sets.
            test: the samples; ``None``: the test samples of both.
            most: at most so many of a class; ``None``: all.
        """
        card = model.require_card()
        return percent_right(score(model, Samples.match(test or self.test, card, card.labels, most), DEVICE))

    def modules(self, **options: Any) -> list[list[Model]]:
        """One module a class of each parent."""
        return [[report.model for report in bench.modules(**options)] for bench in self.benches]

    def sets(self, chosen: Sequence[Sequence[str]], keep: float) -> list[Model]:
        """A module of several classes of each parent."""
        pairs = zip(self.benches, chosen, strict=True)
        return [bench.cut(classes, keep=keep, together=True, **BEST).model for bench, classes in pairs]

    def own(self, chosen: Sequence[Sequence[str]]) -> list[float]:
        """Percent right of each parent among its own classes."""
        pairs = zip(self.benches, chosen, strict=True)
        return [percent_right(bench.score(bench.parent.model, classes)) for bench, classes in pairs]


def percent_right(found: Scored) -> float:
    """Accuracy in percent."""
    return 100 * top1(found)


def mean_and_worst(found: Sequence[float]) -> list[str]:
    """Format mean and lowest accuracy."""
    return [f"{statistics.mean(found):.2f} %", f"{min(found):.2f} %"]


def pairs(run: Run) -> None:
    """One class of each parent, all 100 pairs."""
    reuse = Reuse(run, DENSE)
    run.output.section(f"One class of each parent, all 100 pairs, modules at `--keep {KEEP:g}`")
    run.output.header("scores", "samples of a class", "mean", "worst pair")
    modules = reuse.modules(keep=KEEP)
    sources = {key: source for bench in reuse.benches for key, source in bench.source().items()}
    ways = [(scores, False) for scores in (*WITHOUT_DATA, *WITH_DATA)]
    for scores, continuous in (*ways, *((scores, True) for scores in ("vote", "typicality"))):
        data = reuse.train if scores in WITH_DATA or continuous else None
        options = {"scores": scores, "continuous": continuous, "samples_per_class": FEW}
        known = sources if continuous else {}
        found = [
            reuse.accuracy(compose(pair, known, data, **options).model)
            for pair in run.some(product(*modules))
        ]
        used = "all, as unconcerned" if continuous else FEW if data else "-"
        title = f"`{scores}`, continuous learning" if continuous else f"`{scores}`"
        run.output.row(title, used, *mean_and_worst(found))


def fives(run: Run) -> None:
    """Five classes of each parent, whole, 10 draws."""
    reuse = Reuse(run, DENSE)
    run.output.section("Five classes of each parent, 10 draws, all of the parent kept, all training samples")
    run.output.header("scores", "mean", "parents among their own five", "mean of the parents")
    draw, labels = np.random.default_rng(0), [bench.card.labels for bench in reuse.benches]
    chosen = run.some(
        [[names[n] for n in sorted(draw.permutation(10)[:5].tolist())] for names in labels] for _ in range(10)
    )
    modules = [reuse.sets(sets, 1.0) for sets in chosen]
    own = np.array([reuse.own(sets) for sets in chosen])
    for scores in ("typicality", *WITH_DATA):
        data = reuse.train if scores in WITH_DATA else None
        found = [reuse.accuracy(compose(pair, {}, data, scores=scores).model) for pair in modules]
        parents = "; ".join(f"{mean:.2f} %" for mean in own.mean(axis=0))
        run.output.row(f"`{scores}`", f"{statistics.mean(found):.2f} %", parents, f"{own.mean():.2f} %")


def twenty(run: Run) -> None:
    """All classes of both parents."""
    reuse = Reuse(run, DENSE)
    chosen = [bench.card.labels for bench in reuse.benches]
    own = reuse.own(chosen)
    run.output.section(
        f"All 20 classes; the parents have {own[0]:.2f} and {own[1]:.2f} %, on average "
        f"{statistics.mean(own):.2f} %"
    )
    run.output.header("modules", "scores", "top-1", "MACs over both parents'")
    whole = sum(bench.parent.cost.macs for bench in reuse.benches)
    for keep in (1.0, 0.65):
        modules = reuse.sets(chosen, keep)
        for scores in ("typicality", *WITH_DATA):
            data = reuse.train if scores in WITH_DATA else None
            model = compose(modules, {}, data, scores=scores).model
            share = cost_of(model).macs / whole
            run.output.row(
                f"`--keep {keep:g}`", f"`{scores}`", f"{reuse.accuracy(model):.2f} %", f"{share:.2f}"
            )


def images(run: Run) -> None:
    """A class of CIFAR-10 and one of imagenette, all 100 pairs."""
    reuse = Reuse(run, (RESNET, EFFICIENTNET))
    modules = [[bench.cut([name], keep=1.0).model for name in bench.trained] for bench in reuse.benches]
    run.output.section(
        "A class of CIFAR-10 and one of imagenette, all 100 pairs, modules at `--keep 1`, "
        f"at most {FEW} training and {TESTED} test images of a class"
    )
    run.output.header("imagenette", "joint", "worst pair", "typicality, training images")
    for size, title in ((None, "as it is, 224 x 224"), (SMALL, f"brought down to {SMALL} x {SMALL}")):
        train, test = (_shrunk(part, size) if size else part for part in (reuse.train, reuse.test))
        found, before = [], []
        for pair in run.some(product(*modules)):
            report = compose(pair, {}, train, scores="joint", samples_per_class=FEW)
            found.append(reuse.accuracy(report.model, test, TESTED))
            before.append(100 * report.joint.before if report.joint else float("nan"))
        run.output.row(title, *mean_and_worst(found), f"{statistics.mean(before):.2f} %")


def same(run: Run) -> None:
    """Two classes of one parent, all 45 pairs."""
    run.output.section(f"Two classes of one parent, all 45 pairs, `--together --keep {KEEP:g}`")
    run.output.header("parent", "difference", "worst pair")
    for name in (RESNET, *DENSE):
        bench, found = run.bench(name), []
        for pair in run.some(combinations(bench.card.labels, 2)):
            model = bench.cut(pair, keep=KEEP, together=True, **BEST).model
            found.append(difference(bench.score(model, pair), bench.score(bench.parent.model, pair))[0])
        run.output.row(bench.name, points(mean_over(found)), f"{min(found):+.2f}")


# ------------------------------------------------------------------------------- replace


def substitute(
    base: Model, module: Model, classes: tuple[str, str], data: Split | None, **options: Any
) -> Model:
    """Let a module decide a class of ``base``.

    Args:
        base: a classifier.
        module: what decides.
        classes: the class of ``base``, and that of the module.
        data: samples of all classes, or ``None``.
        options: of :class:`graft.passes.replace.Replace`.
    """
    old, new = classes
    patch = Patch(base, Newcomer(module, new, new), old)
    return Replace(**options)(patch, Context(data=data, device=DEVICE)).model


def replaced(run: Run) -> None:
    """Classes of a weak network, decided by modules of a strong one for the same classes."""
    run.output.section(f"Classes of a weak network decided by a strong one, modules at `--keep {KEEP:g}`")
    run.output.header(
        *("weak, strong", "data", "before; strong", "one class: mean", "worst change of a class"),
        *("all ten", "worst change of a class"),
    )
    for weak, strong in BETTER.items():
        bench, data = run.bench(weak), bench_folder("vision") / DATA[weak]
        better = Bench(Path(str(resources.files("graft.models"))) / f"{strong}.onnx", data, run.samples)
        modules = [report.model for report in better.modules(keep=KEEP)]
        accuracies = "; ".join(f"{percent_right(each.whole):.2f}" for each in (bench, better))
        for given in (None, bench.named("train")):
            cells = _replaced(run, bench, modules, given)
            run.output.row(f"{weak}, {strong}", "all training images" if given else "-", accuracies, *cells)


def _replaced(run: Run, bench: Bench, modules: Sequence[Model], data: Split | None) -> list[str]:
    """One class at a time, and all one after the other."""
    single, worst, whole = [], [], bench.model
    for name, module in run.some(zip(bench.card.labels, modules, strict=True)):
        found = bench.score(substitute(bench.model, module, (name, name), data))
        single.append(percent_right(found))
        worst.append(_worst(bench.whole, found))
        whole = substitute(whole, module, (name, name), data)
    last = bench.score(whole)
    return [
        *(f"{statistics.mean(single):.2f}", f"{min(worst):+.2f}"),
        *(f"{percent_right(last):.2f}", f"{_worst(bench.whole, last):+.2f}"),
    ]


def _worst(before: Scored, after: Scored) -> float:
    """The lowest change of a class's recall, in points."""
    changes = [
        float(after.correct[after.labels == label].mean() - before.correct[before.labels == label].mean())
        for label in range(len(before.names))
    ]
    return 100 * min(changes)


def foreign(run: Run) -> None:
    """A digit replaced by a piece of clothing, all 100 pairs, and the reverse."""
    reuse = Reuse(run, DENSE)
    run.output.section(
        f"A class replaced by one of the other network, 100 pairs each, modules at `--keep {KEEP:g}`"
    )
    run.output.header(
        *("network", "newcomer of", "data", "mean", "worst pair", "the network among its other nine")
    )
    for base, other in (reuse.benches, reuse.benches[::-1]):
        modules = [report.model for report in other.modules(keep=KEEP)]
        nine = []
        for name in base.card.labels:
            rest = [each for each in base.card.labels if each != name]
            nine.append(percent_right(base.score(base.parent.model, rest)))
        choices = list(product(base.card.labels, zip(modules, other.card.labels, strict=True)))
        for given in (None, reuse.train):
            found = [
                reuse.accuracy(substitute(base.model, module, (name, label), given, samples_per_class=FEW))
                for name, (module, label) in run.some(choices)
            ]
            data, mean = f"{FEW} a class" if given else "-", f"{statistics.mean(nine):.2f} %"
            run.output.row(base.name, other.name, data, *mean_and_worst(found), mean)


# ------------------------------------------------------------------------------- out-of-distribution


def rejected(run: Run) -> None:
    """Images of the one data set on a composite of the other's classes."""
    reuse = Reuse(run, DENSE)
    run.output.section(
        "Out-of-distribution: test images of the other data set, ten modules at "
        f"`--keep {KEEP:g}`, `--other`, 5 % false positives wanted"
    )
    run.output.header(
        *("composite of", "as", "fitted to", "AUROC", "FPR at 95 % recall", "false positives", "top-1 of all")
    )
    for bench in reuse.benches:
        modules = [report.model for report in bench.modules(keep=KEEP, **BEST)]
        for strategy, data in product(("trunk", "branches"), (None, bench.named("train"))):
            sources = bench.source(samples=True) if strategy == "trunk" else {}
            model = compose(modules, sources, data, strategy=strategy, other=True).model
            found = score(model, Samples.match(reuse.test, model.require_card()), DEVICE)
            summary, known = found.summary(), found.labels != len(found.names) - 1
            alarms = float((found.predictions[known] == len(found.names) - 1).mean())
            shares = (summary["fpr_at_95_recall"], alarms, summary["top1"])
            run.output.row(
                *(bench.name, strategy, "its training images" if data else "-", f"{summary['auroc']:.4f}"),
                *(f"{100 * share:.2f} %" for share in shares),
            )


def _shrunk(split: Split, size: int) -> Split:
    """The images of ``split``, brought to ``size`` first."""

    def read(indices: Integers, card: InputCard | None) -> dict[str, Array]:
        small = card.model_copy(update={"size": (size, size), "resize": "squash"}) if card else None
        return {
            name: fit_images(values, small) if small else values
            for name, values in split.raw(indices, small).items()
        }

    return replace(split, reader=read)


SECTIONS = {each.__name__: each for each in (pairs, fives, twenty, images, same, replaced, foreign, rejected)}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
