"""Measure what docs/results.md reports of composites of several parents and of many classes.

    python -m benchmarks.composites [--json composites.json] [--only trunk]

Times are ratios within one run. Takes about 10 minutes on two cores.
"""  # fmt: skip

from __future__ import annotations

import statistics
from importlib import resources
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.common import (
    DENSE,
    DEVICE,
    EFFICIENTNET,
    RESNET,
    WITHOUT_DATA,
    Bench,
    Run,
    compose,
    difference,
    percent,
    points,
    start,
    time_ratio,
    top1,
)
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import score

NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
BUNDLED = (
    ("mnist_torch", "mnist_sample"),
    ("fashion_keras", "fashion_sample"),
    ("digits_sklearn", "digits_sample"),
)
DRAWS = 50
KEEP = 0.85


def accuracy(model: Model, split: Split) -> float:
    """Percent of all samples of the model's classes that it classifies right."""
    card = model.require_card()
    return 100 * top1(score(model, Samples.match(split, card, card.labels), DEVICE))


def pairs(run: Run) -> None:
    """One MNIST class with one Fashion-MNIST class, all 100 pairs, no data given to compose."""
    run.output.section("One MNIST class with one Fashion-MNIST class: all 100 pairs, no data")
    run.output.header("images", "modules", "`--scores`", "mean", "worst pair")
    parents = [run.bench(name) for name in DENSE]
    for split, keep in product(("train", "test"), (1.0, 0.6)):
        both = Split.join([bench.named(split) for bench in parents])
        modules = [[report.model for report in bench.modules(keep=keep, rest=True)] for bench in parents]
        for scores in WITHOUT_DATA:
            found = [
                accuracy(compose(pair, scores=scores).model, both) for pair in run.some(product(*modules))
            ]
            mean, worst = f"{statistics.mean(found):.2f} %", f"{min(found):.1f} %"
            run.output.row(split, f"`--keep {keep:g}`", scores, mean, worst)


def frameworks(run: Run) -> None:
    """Two random classes of each of the three bundled models, 50 draws."""
    run.output.section("Two classes each of the bundled PyTorch, Keras and scikit-learn models: random draws")
    run.output.header("images", "`--scores`", "mean", "from", "to")
    folder = Path(str(resources.files("graft.models")))
    parents = [Bench(folder / f"{model}.onnx", folder / data, run.samples) for model, data in BUNDLED]
    modules = [
        dict(zip(bench.card.labels, (r.model for r in bench.modules(keep=0.6)), strict=True))
        for bench in parents
    ]
    sources = {key: source for bench in parents for key, source in bench.source().items()}
    draws = run.some(_draws(parents))
    for split in ("train", "test"):
        both = Split.join([bench.named(split) for bench in parents])
        for scores in ("softmax", "typicality"):
            found = []
            for draw in draws:
                chosen = [part[name] for part, some in zip(modules, draw, strict=True) for name in some]
                found.append(accuracy(compose(chosen, sources, scores=scores).model, both))
            cells = [f"{statistics.mean(found):.2f} %", f"{min(found):.1f} %", f"{max(found):.1f} %"]
            run.output.row(split, scores, *cells)


def _draws(parents: list[Bench]) -> list[list[list[str]]]:
    """Two classes of each parent, again and again; never one digit of two networks."""
    random, draws = np.random.default_rng(0), []
    while len(draws) < DRAWS:
        draw = [[str(name) for name in random.choice(b.card.labels, 2, replace=False)] for b in parents]
        if not {NUMERALS[int(name)] for name in draw[0]} & set(draw[2]):
            draws.append(draw)
    return draws


def trunk(run: Run) -> None:
    """All ten modules of ResNet-20 as one trunk and as ten branches, beside the parent."""
    run.output.section(f"ResNet-20: ten modules of `--keep {KEEP}` as one trunk and as ten branches")
    run.output.header("", "MACs", "latency over the parent's", "difference")
    bench = run.bench(RESNET)
    modules = [report.model for report in bench.modules(keep=KEEP)]
    for name, strategy, round_to in run.some(
        (
            ("trunk", "trunk", None),
            ("trunk, `--round-to 8`", "trunk", 8),
            ("trunk, `--round-to 1`", "trunk", 1),
            ("ten branches", "branches", None),
        )
    ):
        model = compose(modules, bench.source(), strategy=strategy, round_to=round_to).model
        ratios = [time_ratio(model, bench.parent.model, bench.test) for _ in range(7)]
        run.output.row(
            name,
            percent(cost_of(model).macs / bench.parent.cost.macs, 0),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            points(bench.difference(score(model, bench.test, DEVICE))),
        )


def thousand(run: Run) -> None:
    """Ten of the 1,000 classes of EfficientNet-Lite0."""
    run.output.section(f"EfficientNet-Lite0: the ten classes of imagenette, `--together --keep {KEEP}`")
    bench = run.bench(EFFICIENTNET)
    classes = bench.trained
    report = bench.cut(classes, keep=KEEP, together=True)
    whole, found = (bench.score(model, classes) for model in (bench.parent.model, report.model))
    run.output.note(
        f"{found.samples} test images: parent restricted to the ten {percent(top1(whole))}, module "
        f"{percent(top1(found))}; difference {points(difference(found, whole))}; "
        f"{percent(report.cost.macs / bench.parent.cost.macs, 1)} of the MACs, "
        f"{percent(report.cost.parameters / bench.parent.cost.parameters, 1)} of the parameters"
    )


SECTIONS = {each.__name__: each for each in (pairs, frameworks, trunk, thousand)}

if __name__ == "__main__":
    start(__doc__, SECTIONS)
