"""Measure what docs/reuse.md reports: classes of two networks in one, without and with data.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/reuse.py ../shared/bench/vision

Nothing is chosen on test images: they only report. Takes about 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from bench import DEVICE, Bench, row

from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.score import WITH_DATA, WITHOUT_DATA
from graft.rewriter.calibration import Samples
from graft.rewriter.cost import cost_of
from graft.rewriter.dataset import Split
from graft.rewriter.evaluation import score
from graft.rewriter.model import Model

PARENTS = (("dense_mnist_4", "mnist"), ("dense_fmnist_4", "fmnist"))
FEW = 200
"""Samples of a class."""
KEEP = 0.6


class Reuse:
    """Two parents, and the samples of both."""

    def __init__(self, folder: Path) -> None:
        self.benches = [Bench(folder, model, data) for model, data in PARENTS]
        self.train, self.test = (self._both(split) for split in ("train", "test"))

    def _both(self, name: str) -> Split:
        parts = [(getattr(bench, name).split, bench.card.labels) for bench in self.benches]
        return Split.join([Split(part.name, part.labels, labels, part.reader) for part, labels in parts])

    def accuracy(self, model: Model) -> float:
        """On all test samples of the model's classes, in percent."""
        card = model.require_card()
        found = score(model, Samples.match(self.test, card, card.labels), DEVICE)
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


def pairs(reuse: Reuse) -> None:
    """One class of each parent, all 100 pairs."""
    print(f"\n## One class of each parent, all 100 pairs, modules at `--keep {KEEP:g}`\n")
    row("scores", "samples of a class", "mean", "worst pair")
    row("---", "---", "---", "---")
    modules = [[report.model for report in bench.modules(Decompose(KEEP))] for bench in reuse.benches]
    for scores in (*WITHOUT_DATA, *WITH_DATA):
        data = reuse.train if scores in WITH_DATA else None
        compose = Compose(scores=scores, device=DEVICE, samples_per_class=FEW)
        found = [reuse.accuracy(compose(pair, {}, data).model) for pair in product(*modules)]
        row(f"`{scores}`", FEW if data else "-", f"{statistics.mean(found):.2f} %", f"{min(found):.2f} %")


def fives(reuse: Reuse) -> None:
    """Five classes of each parent, whole, 10 draws."""
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
    for scores in ("typicality", *WITH_DATA):
        data = reuse.train if scores in WITH_DATA else None
        compose = Compose(scores=scores, device=DEVICE)
        found = [reuse.accuracy(compose(pair, {}, data).model) for pair in modules]
        parents = "; ".join(f"{mean:.2f} %" for mean in own.mean(axis=0))
        row(f"`{scores}`", f"{statistics.mean(found):.2f} %", parents, f"{own.mean():.2f} %")


def twenty(reuse: Reuse) -> None:
    """All classes of both parents."""
    chosen = [bench.card.labels for bench in reuse.benches]
    own = reuse.own(chosen)
    print(f"\n## All 20 classes; the parents have {own[0]:.2f} and {own[1]:.2f} %, on average "
          f"{statistics.mean(own):.2f} %\n")  # fmt: skip
    row("modules", "scores", "top-1", "MACs over both parents'")
    row("---", "---", "---", "---")
    whole = sum(bench.parent.cost.macs for bench in reuse.benches)
    for keep in (1.0, 0.65):
        modules = reuse.sets(chosen, keep)
        for scores in ("typicality", *WITH_DATA):
            data = reuse.train if scores in WITH_DATA else None
            model = Compose(scores=scores, device=DEVICE)(modules, {}, data).model
            share = cost_of(model).macs / whole
            row(f"`--keep {keep:g}`", f"`{scores}`", f"{reuse.accuracy(model):.2f} %", f"{share:.2f}")


SECTIONS = {each.__name__: each for each in (pairs, fives, twenty)}


def main() -> None:
    """Run everything, or the sections that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=[*SECTIONS])
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0.")
    reuse = Reuse(chosen.folder)
    for section in chosen.only:
        SECTIONS[section](reuse)


if __name__ == "__main__":
    main()
