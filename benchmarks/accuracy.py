"""Measure what docs/accuracy.md reports: what modules lose at a budget, beside baselines at the same budget.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/accuracy.py ../shared/bench/vision --results accuracy.json
    python benchmarks/accuracy.py ../shared/bench/vision --results accuracy.json --only pairs --few 9

With ``--onnxsim``, the Python of an environment that has onnxsim 0.8 or newer, the tables get a row for its
structured pruning, which knows no classes: the parent pruned once to the same budget.

Budgets, methods, sets and seeds are fixed; nothing is chosen on test images, they only report. Every
module measured is noted in the file of results, and what is noted there is not measured again: a run that
was broken off goes on. Tables are printed as Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench import DEVICE, Bench, mean_over, points, row

from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED
from graft.passes.select.budget import dead_channels
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.measure.evaluation import Scored, latencies, score
from graft.rewriter.run.session import Device

ONE_PLAN = "one plan for all classes"
METHODS = (MEASURED, ONE_PLAN, DEFAULT, "activity", "magnitude", "random")
ONNXSIM = "onnxsim"
STEPS = 8
"""Of the search for the sparsity that meets a budget."""


class Notes:
    """Figures that were measured, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def get(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was noted under ``key``, or what ``measure`` returns now."""
        if key not in self._found:
            self._found[key] = measure()
            self._path.write_text(json.dumps(self._found, indent=1, sort_keys=True) + "\n", "utf-8")
        found: dict[str, Any] = self._found[key]
        return found


@dataclass(frozen=True)
class Way:
    """How a module is cut: by a method, or by one plan for all classes; and compensated.

    ``mirror``: images count as in a mirror, too.
    """

    method: str
    compensate: str = "refit"
    mirror: bool = False

    def cut(self, bench: Bench, classes: Sequence[str], keep: float, unit: str = "macs") -> Model:
        """The module for ``classes``, a set if there are several."""
        method = MEASURED if self.method == ONE_PLAN else self.method
        together = len(classes) > 1
        decompose = Decompose(keep, unit, method, self.compensate, together, round_to=1, mirror=self.mirror)
        plan = one_plan(bench, keep, unit) if self.method == ONE_PLAN else None
        return decompose(bench.parent, bench.profile, classes, plan, data=bench.train, device=DEVICE).model


PRUNED: dict[tuple[str, float], Model] = {}
PLANS: dict[tuple[str, float, str], Plan] = {}


def one_plan(bench: Bench, keep: float, unit: str) -> Plan:
    """The plan for all classes that have samples as one set."""
    key = (bench.name, keep, unit)
    if key not in PLANS:
        classes = tuple(bench.train.counts())
        decompose = Decompose(keep, unit, MEASURED, together=True, round_to=1)
        PLANS[key] = decompose.plan(bench.parent, bench.profile, classes, bench.train, DEVICE)
    return PLANS[key]


@dataclass(frozen=True)
class Run:
    """What was asked for.

    Attributes:
        notes: what is known.
        few: so many pairs or sets; ``None``: all.
        onnxsim: the Python that has it.
        methods: those of the table.
    """

    notes: Notes
    few: int | None
    onnxsim: Path | None
    methods: Sequence[str]

    def ways(self, *ways: Way) -> list[Way]:
        """Those of ``ways`` that were asked for."""
        return [way for way in ways if way.method in self.methods]

    def pruned(self, bench: Bench, keep: float) -> Model:
        """The parent, pruned by onnxsim to a share of its MACs that is as large as ``keep`` allows."""
        if (bench.name, keep) not in PRUNED:
            PRUNED[bench.name, keep] = self._prune(bench, keep)
        return PRUNED[bench.name, keep]

    def _prune(self, bench: Bench, keep: float) -> Model:
        best, (low, high) = None, (0.0, 1.0)
        most = keep * cost_of(bench.model).macs
        with tempfile.TemporaryDirectory() as folder:
            source, target = (str(Path(folder) / name) for name in ("parent.onnx", "pruned.onnx"))
            bench.model.save(source)
            script = str(Path(__file__).with_name("structured.py"))
            for _ in range(STEPS):
                sparsity = (low + high) / 2
                subprocess.run([str(self.onnxsim), script, source, target, str(sparsity)], check=True)
                model = Model.load(target)
                if cost_of(model).macs <= most:
                    best, high = model, sparsity
                else:
                    low = sparsity
        if best is None:
            raise ValueError(f"onnxsim does not reach {keep:.0%} of the MACs of {bench.name}")
        best.card = bench.card
        return best


def restricted(bench: Bench, model: Model, classes: Sequence[str]) -> Scored:
    """``model`` on the test samples of ``classes``, told apart among themselves."""
    samples = Samples.match(bench.test.split, model.require_card(), classes, names=bench.card.labels)
    return score(model, samples, DEVICE, classes)


# ------------------------------------------------------------------------------- sets of classes


def sets(bench: Bench, run: Run, title: str, chosen: Sequence[Sequence[str]], keeps: Sequence[float],
         ways: Sequence[Way]) -> None:  # fmt: skip
    """A table: mean loss of modules for sets of classes, one row a way to cut them."""
    ways = [*ways, Way(ONNXSIM, "none")] if run.onnxsim else ways
    print(f"\n## {bench.name}: {title}\n")
    row("method", "compensation", *[f"loss at {keep:.0%}" for keep in keeps], "ahead of one plan by")
    row(*["---"] * (3 + len(keeps)))
    lost: dict[tuple[Way, float], list[float]] = {}
    for way, keep in itertools.product(ways, keeps):
        for classes in chosen:
            mirrored = ["mirror"] if way.mirror else []
            key = "/".join([bench.name, way.method, way.compensate, str(keep), "+".join(classes), *mirrored])
            found = run.notes.get(key, lambda w=way, k=keep, c=classes: _set(bench, run, w, c, k))
            lost.setdefault((way, keep), []).append(found["loss"])
    for way in ways:
        cells = [points(mean_over(lost[way, keep])) for keep in keeps]
        compensation = f"{way.compensate}, mirrored" if way.mirror else way.compensate
        row(way.method, compensation, *cells, _lead(lost, way, keeps))


def _set(bench: Bench, run: Run, way: Way, classes: Sequence[str], keep: float) -> dict[str, Any]:
    model = run.pruned(bench, keep) if way.method == ONNXSIM else way.cut(bench, classes, keep)
    whole, found = (restricted(bench, each, classes) for each in (bench.parent.model, model))
    loss, error = metrics.paired_difference(whole.correct, found.correct)
    return {"loss": 100 * loss, "standard_error": 100 * error, "top1": found.summary()["top1"]}


def _lead(lost: dict[tuple[Way, float], list[float]], way: Way, keeps: Sequence[float]) -> str:
    """How much less than the one plan a way loses, paired by set."""
    cells = []
    for keep in keeps:
        other = lost.get((Way(ONE_PLAN, way.compensate), keep))
        if other is None or way.method == ONE_PLAN:
            return ""
        cells.append(points(mean_over([b - a for a, b in zip(lost[way, keep], other, strict=True)])))
    return "; ".join(cells)


def pairs(bench: Bench, run: Run) -> None:
    """ResNet-20, two classes."""
    chosen = list(itertools.combinations(bench.card.labels, 2))
    if run.few:
        picked = np.random.default_rng(0).permutation(len(chosen))[: run.few]
        chosen = [chosen[number] for number in sorted(picked.tolist())]
    ways = run.ways(*map(Way, METHODS), Way(MEASURED, "fold"), Way(MEASURED, "mean"), Way(MEASURED, "none"))
    sets(bench, run, f"two classes, {len(chosen)} pairs", chosen, (0.5, 0.3), ways)


def fives(bench: Bench, run: Run) -> None:
    """ResNet-20, five classes."""
    draw, labels = np.random.default_rng(0), bench.card.labels
    chosen = [[labels[n] for n in sorted(draw.permutation(10)[:5].tolist())] for _ in range(10)][: run.few]
    sets(
        bench, run, f"five classes, {len(chosen)} sets, seed 0", chosen, (0.5,), run.ways(*map(Way, METHODS))
    )


def whole_set(bench: Bench, run: Run) -> None:
    """EfficientNet-Lite0, the ten imagenette classes together."""
    classes = tuple(bench.train.counts())
    ways = run.ways(*map(Way, METHODS), Way(MEASURED, mirror=True))
    sets(bench, run, "ten classes together", [classes], (0.6, 0.4), ways)


# ------------------------------------------------------------------------------- modules joined


def joined(bench: Bench, run: Run, keeps: Sequence[float], unit: str, title: str) -> None:
    """A table: ten one-class modules side by side."""
    print(f"\n## {bench.name}: {title}\n")
    row("method", "compensation", *[f"loss at {keep:.1%}" for keep in keeps])
    row(*["---"] * (2 + len(keeps)))
    for way in run.ways(*map(Way, METHODS), Way(MEASURED, "fold")):
        cells = []
        for keep in keeps:
            key = "/".join([bench.name, "joined", way.method, way.compensate, unit, f"{keep:.4f}"])
            found = run.notes.get(key, lambda w=way, k=keep: _joined(bench, w, k, unit))
            cells.append(points((found["loss"], found["standard_error"])))
        row(way.method, way.compensate, *cells)


def _joined(bench: Bench, way: Way, keep: float, unit: str) -> dict[str, Any]:
    """Compared as branches of one parent are: by the log-odds that each module gives its class."""
    columns = []
    for name in bench.card.labels:
        model = way.cut(bench, [name], keep, unit)
        samples = Samples.match(bench.test.split, model.require_card(), names=bench.card.labels)
        scores = score(model, samples, DEVICE).scores.astype(np.float64)
        if model.require_card().output.kind == "probabilities":
            scores = np.log(np.maximum(scores, 1e-7))
        columns.append(scores[:, 0] - scores[:, 1])
    correct = np.stack(columns, axis=1).argmax(axis=1) == bench.whole.labels
    loss, error = metrics.paired_difference(bench.whole.correct, correct)
    return {"loss": 100 * loss, "standard_error": 100 * error, "top1": float(correct.mean())}


def branches(bench: Bench, run: Run) -> None:
    """ResNet-20, ten modules."""
    joined(bench, run, (0.7, 0.5), "macs", "ten one-class modules joined as branches")


def dense(bench: Bench, run: Run) -> None:
    """A dense network at half of the parameters that remain without dead channels."""
    dead = dead_channels(bench.parent.groups, bench.profile)
    cost = CostModel(bench.parent.groups)
    keep = 0.5 * cost.parameters(~dead) / cost.parameters()
    joined(bench, run, (keep,), "parameters", "ten modules joined, half of the living parameters")


# ------------------------------------------------------------------------------- time


def speed(bench: Bench, run: Run) -> None:
    """Cutting one two-class module over a plain inference pass over the samples that it uses."""
    classes = ("cat", "dog")
    own = Samples.match(bench.train.split, bench.card, classes)
    session = DEVICE.open(bench.parent.model)
    ratios = []
    for seed in range(3):  # with another seed nothing is remembered of the run before
        start = time.perf_counter()
        for inputs, _ in own.batches(64):
            session.run(inputs)
        plain = time.perf_counter() - start
        start = time.perf_counter()
        decompose = Decompose(0.5, method=MEASURED, compensate="refit", together=True, seed=seed + 1)
        decompose(bench.parent, bench.profile, classes, data=bench.train, device=DEVICE)
        ratios.append((time.perf_counter() - start) / plain)
    print(f"\n- {bench.name}: cutting {'/'.join(classes)} takes {statistics.median(ratios):.1f} inference "
          f"passes over its {len(own)} samples (median of 3)")  # fmt: skip


def latency(bench: Bench, run: Run) -> None:
    """``--keep-by latency --keep 0.5``: what is measured of the module."""
    classes = tuple(bench.train.counts()) if len(bench.card.labels) > 100 else ("cat", "dog")
    decompose = Decompose(0.5, "latency", together=True, compensate="refit")
    model = decompose(bench.parent, bench.profile, classes, data=bench.train, device=DEVICE).model
    inputs = next(bench.test.take(np.arange(32)).batches(32))[0]
    timer = Device(("cpu",), threads=2)
    runs = [(timer.open(each), inputs) for each in (bench.parent.model, model)]
    times = [figures["median"] for figures in latencies(runs, 2)]
    print(f"\n- {bench.name}, {len(classes)} classes, `--keep-by latency --keep 0.5`: measured latency "
          f"{times[1] / times[0]:.2f} of the parent's (batch 32, 2 threads)")  # fmt: skip


SECTIONS: dict[str, tuple[tuple[Callable[[Bench, Run], None], str], ...]] = {
    "pairs": ((pairs, "resnet20_cifar10"),),
    "fives": ((fives, "resnet20_cifar10"),),
    "branches": ((branches, "resnet20_cifar10"),),
    "dense": ((dense, "dense_mnist_4"), (dense, "dense_fmnist_4")),
    "efficientnet": ((whole_set, "efficientnet_lite0_imagenet"),),
    "speed": ((speed, "resnet20_cifar10"),),
    "latency": ((latency, "resnet20_cifar10"), (latency, "efficientnet_lite0_imagenet")),
}
DATA = {
    "resnet20_cifar10": "cifar10",
    "dense_mnist_4": "mnist",
    "dense_fmnist_4": "fmnist",
    "efficientnet_lite0_imagenet": "imagenette",
}


def main() -> None:
    """Run everything, or the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=[*SECTIONS])
    parser.add_argument("--few", type=int, help="so many pairs or sets")
    parser.add_argument("--onnxsim", type=Path, help="the Python of an environment that has onnxsim")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=METHODS)
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0. Loss is parent minus result, points.")
    run, benches = Run(Notes(chosen.results), chosen.few, chosen.onnxsim, chosen.methods), {}
    for section in chosen.only:
        for measure, name in SECTIONS[section]:
            if name not in benches:
                apart = None
                if name.startswith("efficientnet"):
                    apart = [path.name for path in sorted((chosen.folder / "imagenette/train").iterdir())]
                benches[name] = Bench(chosen.folder, name, DATA[name], apart)
            measure(benches[name], run)


if __name__ == "__main__":
    main()
