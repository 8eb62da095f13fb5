"""Measure what docs/accuracy.md reports: accuracy of modules and of baselines at the same budget.

    python -m benchmarks.accuracy --json accuracy.json
    python -m benchmarks.accuracy --json accuracy.json --only pairs --few 9

With ``--onnxsim``, the Python of an environment that has onnxsim 0.8 or newer, the tables get a row for its
structured pruning, which knows no classes: the parent pruned once to the same budget.

Budgets, methods, sets and seeds are fixed. Figures of the JSON file are not measured again.
"""  # fmt: skip

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    DENSE,
    DEVICE,
    EFFICIENTNET,
    RESNET,
    Bench,
    Run,
    difference,
    mean_over,
    percent,
    points,
    start,
    time_ratio,
    top1,
)
from graft.passes.identify import DEFAULT, MEASURED
from graft.passes.select.budget import dead_channels
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import CostModel, cost_of

ONE_PLAN = "one plan for all classes"
METHODS = (MEASURED, ONE_PLAN, DEFAULT, "activity", "magnitude", "random")
ONNXSIM = "onnxsim"
STEPS = 8
"""Steps of the search for the sparsity that meets a budget."""


@dataclass(frozen=True)
class Way:
    """A way to make a module.

    Attributes:
        method: importance method, one plan for all classes, or onnxsim.
        compensate: step of compensation.
        mirror: images count as in a mirror, too.
    """

    method: str
    compensate: str = "refit"
    mirror: bool = False

    def cut(self, bench: Bench, classes: Sequence[str], keep: float, unit: str = "macs") -> Model:
        """Cut the module for ``classes``, a set if there are several.

        Args:
            bench: the parent.
            classes: of the module.
            keep: share of the parent's cost that it may have.
            unit: of the cost.
        """
        plan = one_plan(bench, keep, unit) if self.method == ONE_PLAN else None
        options: dict[str, Any] = {
            "keep": keep,
            "unit": unit,
            "method": MEASURED if self.method == ONE_PLAN else self.method,
            "compensate": self.compensate,
            "together": len(classes) > 1,
            "round_to": 1,
            "mirror": self.mirror,
        }
        return bench.cut(classes, plan, **options).model

    @property
    def compensation(self) -> str:
        """The step of compensation, as tables name it."""
        return f"{self.compensate}, mirrored" if self.mirror else self.compensate


@functools.cache
def one_plan(bench: Bench, keep: float, unit: str) -> Plan:
    """Return the plan for all classes that have samples, as one set.

    Args:
        bench: the parent.
        keep: share of its cost.
        unit: of the cost.
    """
    return bench.plan(bench.trained, keep=keep, unit=unit, method=MEASURED, together=True, round_to=1)


@functools.cache
def pruned(bench: Bench, keep: float, python: Path) -> Model:
    """Return the parent, pruned by onnxsim to a share of its MACs that is as large as ``keep`` allows.

    Args:
        bench: the parent.
        keep: share of its MACs.
        python: of an environment that has onnxsim.

    Raises:
        ValueError: onnxsim does not reach the budget.
    """
    best, (low, high) = None, (0.0, 1.0)
    most = keep * cost_of(bench.model).macs
    with tempfile.TemporaryDirectory() as folder:
        source, target = (str(Path(folder) / name) for name in ("parent.onnx", "pruned.onnx"))
        bench.model.save(source)
        script = str(Path(__file__).with_name("structured.py"))
        for _ in range(STEPS):
            sparsity = (low + high) / 2
            subprocess.run([str(python), script, source, target, str(sparsity)], check=True)
            model = Model.load(target)
            if cost_of(model).macs <= most:
                best, high = model, sparsity
            else:
                low = sparsity
    if best is None:
        raise ValueError(f"onnxsim does not reach {keep:.0%} of the MACs of {bench.name}")
    best.card = bench.card
    return best


def wanted(run: Run, *ways: Way) -> list[Way]:
    """Return the ``ways`` that ``--methods`` names."""
    return [way for way in ways if way.method in run.options.methods]


def key(run: Run, *parts: object) -> str:
    """Name a figure in the file of results; trials have names of their own."""
    return "/".join(map(str, (*parts, *([f"{run.samples} samples"] if run.samples else []))))


# ------------------------------------------------------------------------------- sets of classes

Measured = dict[tuple[Way, float], list[float]]


@dataclass(frozen=True)
class Table:
    """Modules for sets of classes: one row a way, one column a budget.

    Attributes:
        title: of the table.
        chosen: the sets.
        keeps: the budgets, shares of the MACs.
        ways: how modules are made.
    """

    title: str
    chosen: Sequence[Sequence[str]]
    keeps: Sequence[float]
    ways: Sequence[Way]

    def measure(self, run: Run, bench: Bench) -> None:
        """Measure and print the table."""
        ways = [*self.ways, Way(ONNXSIM, "none")] if run.options.onnxsim else self.ways
        run.output.section(f"{bench.name}: {self.title}")
        titles = [f"difference at {keep:.0%}" for keep in self.keeps]
        run.output.header("method", "compensation", *titles, f"against {ONE_PLAN}")
        measured: Measured = {}
        for way in ways:
            for keep in self.keeps:
                measured[way, keep] = [self._one(run, bench, way, keep, classes) for classes in self.chosen]
        for way in ways:
            cells = [points(mean_over(measured[way, keep])) for keep in self.keeps]
            run.output.row(way.method, way.compensation, *cells, self._lead(measured, way))

    def _one(self, run: Run, bench: Bench, way: Way, keep: float, classes: Sequence[str]) -> float:
        """The difference of one module to the parent that chooses among the same classes, in points."""
        mirror = ["mirror"] if way.mirror else []
        name = key(run, bench.name, way.method, way.compensate, keep, "+".join(classes), *mirror)

        def measure() -> dict[str, Any]:
            python = run.options.onnxsim
            model = pruned(bench, keep, python) if way.method == ONNXSIM else way.cut(bench, classes, keep)
            whole, found = (bench.score(each, classes) for each in (bench.parent.model, model))
            mean, error = difference(found, whole)
            return {"difference": mean, "standard_error": error, "top1": top1(found)}

        return float(run.output.measured(name, measure)["difference"])

    def _lead(self, measured: Measured, way: Way) -> str:
        """Format the difference to the one plan, paired by set."""
        cells = []
        for keep in self.keeps:
            other = measured.get((Way(ONE_PLAN, way.compensate), keep))
            if other is None or way.method == ONE_PLAN:
                return ""
            leads = [own - theirs for own, theirs in zip(measured[way, keep], other, strict=True)]
            cells.append(points(mean_over(leads)))
        return "; ".join(cells)


def pairs(run: Run) -> None:
    """ResNet-20, two classes."""
    bench = run.bench(RESNET)
    chosen = list(itertools.combinations(bench.card.labels, 2))
    if run.few:
        picked = np.random.default_rng(0).permutation(len(chosen))[: run.few]
        chosen = [chosen[number] for number in sorted(picked.tolist())]
    others = (Way(MEASURED, "fold"), Way(MEASURED, "mean"), Way(MEASURED, "none"))
    ways = wanted(run, *map(Way, METHODS), *others)
    Table(f"two classes, {len(chosen)} pairs", chosen, (0.5, 0.3), ways).measure(run, bench)


def fives(run: Run) -> None:
    """ResNet-20, five classes."""
    bench = run.bench(RESNET)
    draw, labels = np.random.default_rng(0), bench.card.labels
    chosen = run.some([labels[n] for n in sorted(draw.permutation(10)[:5].tolist())] for _ in range(10))
    ways = wanted(run, *map(Way, METHODS))
    Table(f"five classes, {len(chosen)} sets, seed 0", chosen, (0.5,), ways).measure(run, bench)


def efficientnet(run: Run) -> None:
    """EfficientNet-Lite0, the ten imagenette classes together."""
    bench = run.bench(EFFICIENTNET)
    ways = wanted(run, *map(Way, METHODS), Way(MEASURED, mirror=True))
    Table("ten classes together", [bench.trained], (0.6, 0.4), ways).measure(run, bench)


# ------------------------------------------------------------------------------- modules joined


def joined(run: Run, bench: Bench, keeps: Sequence[float], unit: str, title: str) -> None:
    """Measure a table of ten one-class modules side by side.

    Args:
        run: the call.
        bench: the parent.
        keeps: budgets.
        unit: of the budgets.
        title: of the table.
    """
    run.output.section(f"{bench.name}: {title}")
    run.output.header("method", "compensation", *[f"difference at {keep:.1%}" for keep in keeps])
    for way in wanted(run, *map(Way, METHODS), Way(MEASURED, "fold")):
        cells = []
        for keep in keeps:
            name = key(run, bench.name, "joined", way.method, way.compensate, unit, f"{keep:.4f}")
            found = run.output.measured(name, functools.partial(_joined, bench, way, keep, unit))
            cells.append(points((found["difference"], found["standard_error"])))
        run.output.row(way.method, way.compensate, *cells)


def _joined(bench: Bench, way: Way, keep: float, unit: str) -> dict[str, Any]:
    """Compare as branches of one parent are: by the log-odds that each module gives its class."""
    columns = []
    for name in bench.card.labels:
        model = way.cut(bench, [name], keep, unit)
        scores = bench.score(model).scores.astype(np.float64)
        if model.require_card().output.kind == "probabilities":
            scores = np.log(np.maximum(scores, 1e-7))
        columns.append(scores[:, 0] - scores[:, 1])
    correct = np.stack(columns, axis=1).argmax(axis=1) == bench.whole.labels
    mean, error = metrics.paired_difference(correct, bench.whole.correct)
    return {"difference": 100 * mean, "standard_error": 100 * error, "top1": float(correct.mean())}


def branches(run: Run) -> None:
    """ResNet-20, ten modules."""
    joined(run, run.bench(RESNET), (0.7, 0.5), "macs", "ten one-class modules joined as branches")


def dense(run: Run) -> None:
    """Dense networks at half of the parameters that remain without dead channels."""
    for name in DENSE:
        bench = run.bench(name)
        dead = dead_channels(bench.parent.groups, bench.profile)
        cost = CostModel(bench.parent.groups)
        keep = 0.5 * cost.parameters(~dead) / cost.parameters()
        joined(run, bench, (keep,), "parameters", "ten modules joined, half of the living parameters")


# ------------------------------------------------------------------------------- time


def speed(run: Run) -> None:
    """Cutting one two-class module over a plain inference pass over the samples that it uses."""
    bench, classes = run.bench(RESNET), ("cat", "dog")
    own = Samples.match(bench.train.split, bench.card, classes)
    session = DEVICE.open(bench.parent.model)
    ratios = []
    for seed in range(3):  # with another seed nothing is remembered of the run before
        start = time.perf_counter()
        for inputs, _ in own.batches(64):
            session.run(inputs)
        plain = time.perf_counter() - start
        start = time.perf_counter()
        bench.cut(classes, keep=0.5, method=MEASURED, compensate="refit", together=True, seed=seed + 1)
        ratios.append((time.perf_counter() - start) / plain)
    run.output.section(f"{bench.name}: time to cut a module")
    run.output.note(
        f"cutting {'/'.join(classes)} takes {statistics.median(ratios):.1f} inference passes over its "
        f"{len(own)} samples (median of 3)"
    )


def latency(run: Run) -> None:
    """Measured latency of modules at ``--keep-by latency --keep 0.5``."""
    run.output.section("`--keep-by latency --keep 0.5`")
    for name in (RESNET, EFFICIENTNET):
        bench = run.bench(name)
        classes = bench.trained if len(bench.card.labels) > 100 else ("cat", "dog")
        model = bench.cut(classes, keep=0.5, unit="latency", together=True, compensate="refit").model
        ratio = time_ratio(model, bench.parent.model, bench.test)
        run.output.note(
            f"{bench.name}, {len(classes)} classes: measured latency {percent(ratio, 0)} of the parent's "
            "(batch 32, 2 threads)"
        )


SECTIONS: dict[str, Callable[[Run], None]] = {
    each.__name__: each for each in (pairs, fives, branches, dense, efficientnet, speed, latency)
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--onnxsim", type=Path, metavar="PYTHON", help="Python of an environment with onnxsim"
    )
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS, help="rows of the tables")


if __name__ == "__main__":
    start(__doc__, SECTIONS, options)
