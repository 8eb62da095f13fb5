"""Measure composites of several parents and of many classes, and print it as Markdown.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/composites.py ../shared/bench/vision

Nothing is chosen here: test images only report. Times are ratios within one run. Takes about 10 minutes
on two cores.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np
from bench import DEVICE, Bench, points, row

from graft.passes.base import Context
from graft.passes.compare import COMPARISONS
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose
from graft.passes.trunk import Source
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import latencies, score
from graft.rewriter.run.session import Device

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def accuracy(model: Model, split: Split) -> float:
    """On all samples of the model's classes."""
    card = model.require_card()
    return float(score(model, Samples.match(split, card, card.labels), DEVICE).summary()["top1"])


def pairs(folder: Path) -> None:
    """One MNIST class with one Fashion-MNIST class, all 100 pairs, no data given to compose."""
    print("\n## One MNIST class with one Fashion-MNIST class: mean over all 100 pairs, no data\n")
    parents = [Bench(folder, "dense_mnist_4", "mnist"), Bench(folder, "dense_fmnist_4", "fmnist")]
    for split in ("train", "test"):
        parts = [getattr(bench, split).split for bench in parents]
        named = [
            Split(part.name, part.labels, bench.card.labels, part.reader)
            for part, bench in zip(parts, parents, strict=True)
        ]
        both = Split.join(named)
        for keep in (1.0, 0.6):
            modules = [
                [report.model for report in bench.modules(Decompose(keep, rest=True))] for bench in parents
            ]
            for scores in [each.name for each in COMPARISONS if not each.needs_data]:
                found = [
                    accuracy(Compose(scores=scores)(Modules([one, two]), Context()).model, both)
                    for one, two in product(*modules)
                ]
                print(
                    f"- {split} images, modules at `--keep {keep:g}`, `--scores {scores}`: "
                    f"{100 * statistics.mean(found):.2f} % (worst pair {100 * min(found):.1f} %)",
                    flush=True,
                )


def frameworks() -> None:
    """Two random classes of each of the three bundled models, 50 draws."""
    print("\n## Two classes each of the bundled PyTorch, Keras and scikit-learn models: 50 random draws\n")
    models = Path(str(resources.files("graft.models")))
    names = (
        ("mnist_torch", "mnist_sample"),
        ("fashion_keras", "fashion_sample"),
        ("digits_sklearn", "digits_sample"),
    )
    parents = [Bench(models, model, data) for model, data in names]
    modules = [
        dict(zip(bench.card.labels, (r.model for r in bench.modules(Decompose(0.6))), strict=True))
        for bench in parents
    ]
    sources = {bench.parent.sha256: Source(bench.parent, bench.profile) for bench in parents}
    random = np.random.default_rng(0)
    draws: list[list[list[str]]] = []
    while len(draws) < 50:
        draw = [[str(name) for name in random.choice(b.card.labels, 2, replace=False)] for b in parents]
        if not {NUMERALS[int(name)] for name in draw[0]} & set(draw[2]):  # two networks for one digit
            draws.append(draw)
    for split in ("train", "test"):
        both = Split.join([getattr(bench, split).split for bench in parents])
        for scores in ("softmax", "typicality"):
            found = []
            for draw in draws:
                chosen = [part[name] for part, some in zip(modules, draw, strict=True) for name in some]
                found.append(
                    accuracy(Compose(scores=scores)(Modules(chosen, sources), Context()).model, both)
                )
            print(
                f"- {split} images, `--scores {scores}`: {100 * statistics.mean(found):.2f} % "
                f"(from {100 * min(found):.1f} to {100 * max(found):.1f} %)",
                flush=True,
            )


def ten_classes(folder: Path) -> None:
    """All ten modules of ResNet-20 as one trunk and as ten branches, beside the parent."""
    print("\n## ResNet-20: ten modules of `--keep 0.85` as one trunk and as ten branches\n")
    bench = Bench(folder, "resnet20_cifar10", "cifar10")
    sources = {bench.parent.sha256: Source(bench.parent, bench.profile)}
    row("", "MACs", "latency over the parent's", "loss")
    row("---", "---", "---", "---")
    timer = Device(("cpu",), threads=2)
    inputs = next(bench.test.take(np.arange(32)).batches(32))[0]
    whole = timer.open(bench.parent.model)
    for name, strategy, round_to in (
        ("trunk", "trunk", None),
        ("trunk, `--round-to 8`", "trunk", 8),
        ("trunk, `--round-to 1`", "trunk", 1),
        ("ten branches", "branches", None),
    ):
        modules = [report.model for report in bench.modules(Decompose(0.85))]
        model = Compose(strategy, round_to=round_to)(Modules(modules, sources), Context()).model
        session = timer.open(model)
        ratios = []
        for _ in range(7):
            ours, theirs = latencies([(session, inputs), (whole, inputs)], 2)
            ratios.append(ours["median"] / theirs["median"])
        found = score(model, bench.test, DEVICE)
        row(
            name,
            f"{100 * cost_of(model).macs / bench.parent.cost.macs:.0f} %",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            points(bench.loss(found)),
        )


def thousand(folder: Path) -> None:
    """Ten of the 1,000 classes of EfficientNet-Lite0."""
    print("\n## EfficientNet-Lite0: the ten classes of imagenette, `--together --keep 0.85`\n")
    dataset = Dataset.load(folder / "imagenette")
    names = dataset.split("train").class_names or ()
    bench = Bench(folder, "efficientnet_lite0_imagenet", "imagenette", names)
    test = Samples.match(dataset.split("test"), bench.card, names)
    whole = score(bench.parent.model, test, DEVICE, names)
    report = Decompose(0.85, together=True)(bench.parent, bench.profile, names)
    card = report.model.require_card()
    found = score(report.model, Samples.match(dataset.split("test"), card, names), DEVICE, names)
    lost, error = metrics.paired_difference(whole.correct, found.correct)
    print(
        f"- {len(test)} test images: parent restricted to the ten {whole.summary()['top1']:.4f}, module "
        f"{found.summary()['top1']:.4f}; loss {points((100 * lost, 100 * error))}; "
        f"{100 * report.cost.macs / bench.parent.cost.macs:.1f} % of the MACs, "
        f"{100 * report.cost.parameters / bench.parent.cost.parameters:.1f} % of the parameters"
    )


def main() -> None:
    """Run everything, or the section that is named."""
    sections = {
        "pairs": lambda folder: pairs(folder),
        "frameworks": lambda folder: frameworks(),
        "trunk": lambda folder: ten_classes(folder),
        "thousand": lambda folder: thousand(folder),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=list(sections))
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU, 2 threads. Seed 0.")
    for name, section in sections.items():
        if chosen.only in (None, name):
            section(chosen.folder)


if __name__ == "__main__":
    main()
