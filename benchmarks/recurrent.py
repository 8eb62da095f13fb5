"""Measure what docs/recurrent.md reports: accuracy of modules of recurrent networks without hidden units.

    python -m benchmarks.recurrent --json recurrent.json
    python -m benchmarks.recurrent --json recurrent.json --only pairs swapped

The same share of the hidden units of each layer is removed (embeddings stay); modules are joined as
branches by ``Compose`` and compared with the parent, on test samples. Figures of the JSON file are not
measured again. Takes about 90 minutes on two cores.
"""  # fmt: skip

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import ONE_PLAN, key
from benchmarks.common import (
    DEVICE,
    Run,
    bench_folder,
    compose,
    limited,
    mean_over,
    percent,
    points,
    start,
    top1,
)
from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, ImportanceInputs, method_of
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import score
from graft.rewriter.operators import operator_of
from graft.rewriter.record.profile import Profile

CLINC = ("clinc_lstm1_published", "clinc_gru1_published")
MATHQA = ("mathqa_lstm1_retrained", "mathqa_gru1_retrained")
BROWN = ("brown_lstm1_retrained", "brown_gru1_retrained")
PAPEREVAL = tuple(f"{name}_papereval" for name in CLINC)
REMOVED = {"clinc": (0.4, 0.6, 0.8), "mathqa": (0.4, 0.6, 0.8), "brown": (0.3, 0.6, 0.8)}
"""Shares of the hidden units; ways that are not Graft's own are measured at the first."""
HALF = 0.5
TRUNK = 0.7
"""Share of the multiply-accumulates that a module of all classes keeps."""
PAPERS = ("icse23:rolled", "icse23:rolled-gates")
CAP = 0.05
"""Share of the units that the paper removes at most."""
OWN = ((DEFAULT, "refit"), (ONE_PLAN, "refit"))
OTHERS = (
    *((DEFAULT, "fold"), (DEFAULT, "none"), (MEASURED, "refit")),
    *(("random", "refit"), (PAPERS[0], "refit"), (PAPERS[0], "none")),
)


@dataclass(frozen=True)
class Part:
    """A parent with its data, profiled on the training samples."""

    title: str
    parent: Parent
    profile: Profile
    train: Samples
    test: Samples

    @classmethod
    def load(cls, folder: Path, name: str, ignore: str | None, most: int | None) -> Part:
        """Read model and data, whose words networks of the same data share.

        Args:
            folder: of models and data.
            name: of the model's file.
            ignore: a label that does not count.
            most: at most so many samples of a class; ``None``: all.
        """
        data, model = name.split("_")[0], Model.load(folder / f"{name}.onnx")
        card = model.require_card()
        model.card = card.replace(inputs=(card.inputs[0].model_copy(update={"vocabulary": data}),))
        parent = Parent(model)
        dataset = Dataset.load(folder / f"{data}.npz")
        splits = [dataset.split(each) for each in ("train", "test_paper" if data == "brown" else "test")]
        train, test = (
            Samples.match(replace(limited(each, most), ignore=ignore), parent.card) for each in splits
        )
        profile = Observe()(parent, Context(samples=train, device=DEVICE)).profile
        return cls(f"{name}, without {ignore}" if ignore else name, parent, profile, train, test)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that have test samples."""
        counts = self.test.counts()
        return tuple(name for name in self.parent.card.labels if name in counts)

    def plan(self, classes: Sequence[str], removed: float, method: str, together: bool) -> Plan:
        """Remove a share of the units of every recurrent layer, and nothing else.

        Args:
            classes: of the module.
            removed: share of the units.
            method: importance method.
            together: one module for all of ``classes``.
        """
        headed = Decompose(classes, together=together).headed(self.parent, self.context).analysed
        groups = headed.groups
        labels = self.parent.record.labels
        inputs = ImportanceInputs(headed, self.profile, labels, tuple(classes), 0, self.train, DEVICE)
        scores, kept = method_of(method).scores(inputs), groups.everything()
        for node in groups.nodes:
            for read in operator_of(node).reads(node, groups):
                if read.recurrent_weight is not None:
                    order = read.channels[np.argsort(-scores[read.channels], kind="stable")]
                    kept[order[round((1 - removed) * len(order)) :]] = False
        found, names = Plan.of(groups, kept, self.parent.sha256), self.parent.groups
        return Plan(self.parent.sha256, {name: mask for name, mask in found.kept.items() if name in names})

    def cut(self, classes: Sequence[str], removed: float, method: str, compensate: str) -> Model:
        """Cut a module; for several classes one for the set.

        Args:
            classes: of the module.
            removed: share of the units of every recurrent layer.
            method: importance method, or one plan for all classes.
            compensate: step of compensation.
        """
        together = len(classes) > 1
        if method == ONE_PLAN:
            method, plan = DEFAULT, self.plan(self.classes, removed, DEFAULT, together=True)
        else:
            plan = self.plan(classes, removed, method, together)
        decompose = Decompose(
            classes, method=method, compensate=compensate, together=together, fixed_plan=plan
        )
        return decompose(self.parent, self.context).model

    @property
    def context(self) -> Context:
        """The samples and the profile that modules are made from."""
        return Context(samples=self.train, profile=self.profile, device=DEVICE)

    def joined(self, removed: float, method: str, compensate: str) -> dict[str, Any]:
        """Measure one module a class, side by side; arguments as for :meth:`cut`."""
        modules = [self.cut([name], removed, method, compensate) for name in self.classes]
        found = self.compared(compose(modules, strategy="branches").model)
        units = statistics.mean(map(_units, modules)) / _units(self.parent.model)
        return {**found, "units": units}

    def compared(self, model: Model, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """Percentage points of ``model`` minus the parent, both of which choose among the same classes."""
        correct = []
        for each in (model, self.parent.model):
            card, names = each.require_card(), self.parent.card.labels
            samples = Samples.match(self.test.split, card, classes, names=names)
            correct.append(score(each, samples, DEVICE, classes).correct.ravel())
        mean, error = metrics.paired_difference(*correct)
        return {"difference": 100 * mean, "standard_error": 100 * error, "top1": float(correct[0].mean())}


def _units(model: Model) -> int:
    """Hidden units, summed over layers."""
    return sum(int(node.attrs["hidden_size"]) for node in model.graph.nodes if "hidden_size" in node.attrs)


def parts(run: Run, names: Sequence[str]) -> list[Part]:
    """Load those of ``names`` that ``--models`` names; of ``brown`` with and without the label of padding."""
    return [
        Part.load(bench_folder("rnn"), name, ignore, run.samples)
        for name in run.some(name for name in names if name in run.options.models)
        for ignore in ((None, "PAD") if name in BROWN else (None,))
    ]


def noted(run: Run, *names: object, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the figures known by a key, or measure them now."""
    return run.output.measured(key(run, *names), measure)


def joined(run: Run) -> None:
    """A table a model: one module a class, joined."""
    for part in parts(run, (*CLINC, *PAPEREVAL, *MATHQA, *BROWN)):
        shares = REMOVED[part.title.split("_")[0]]
        whole = percent(top1(score(part.parent.model, part.test, DEVICE)))
        run.output.section(f"{part.title}: {len(part.classes)} modules joined, parent {whole}")
        run.output.header("units chosen by", "compensation", *[f"{share:.0%} removed" for share in shares])
        for ways, removed in ((OWN, shares), (OTHERS, shares[:1])):
            for method, compensate in ways:
                cells = []
                for share in removed:
                    measure = partial(part.joined, share, method, compensate)
                    found = noted(run, part.title, method, compensate, share, measure=measure)
                    cells.append(points((found["difference"], found["standard_error"])))
                run.output.row(method, compensate, *cells)


def published(run: Run) -> None:
    """The paper's way: few units, nothing made up for."""
    run.output.section(
        f"Modules joined, {CAP:.0%} of the hidden units removed by the paper's order, no compensation"
    )
    run.output.header("network", *PAPERS)
    for part in parts(run, (*CLINC, *PAPEREVAL, *MATHQA, *BROWN)):
        cells = []
        for method in PAPERS:
            measure = partial(part.joined, CAP, method, "none")
            found = noted(run, part.title, method, "none", CAP, measure=measure)
            cells.append(points((found["difference"], found["standard_error"])))
        run.output.row(part.title, *cells)


def trunk(run: Run) -> None:
    """All classes as one module."""
    run.output.section(f"All classes as one module, {TRUNK:.0%} of the multiply-accumulates")
    run.output.header("network", "difference", "hidden units left")
    for part in parts(run, (*CLINC, *MATHQA, *BROWN)):
        found = noted(run, part.title, "trunk", TRUNK, measure=partial(_trunk, part))
        cell = points((found["difference"], found["standard_error"]))
        run.output.row(part.title, cell, f"{found['units']:.0%}")


def _trunk(part: Part) -> dict[str, Any]:
    decompose = Decompose(part.classes, keep=TRUNK, compensate="refit", together=True)
    model = decompose(part.parent, part.context).model
    return {**part.compared(model), "units": _units(model) / _units(part.parent.model)}


def pairs(run: Run) -> None:
    """Two classes of one parent, all pairs."""
    run.output.section(f"Two classes, all pairs, without {HALF:.0%} of the hidden units")
    run.output.header("network", *[method for method, _ in OWN])
    for part in parts(run, CLINC):
        cells = []
        for method, compensate in OWN:
            found = []
            for pair in run.some(itertools.combinations(part.classes, 2)):
                measure = partial(_pair, part, pair, method, compensate)
                names = (part.title, method, compensate, HALF, "+".join(pair))
                found.append(noted(run, *names, measure=measure)["difference"])
            cells.append(points(mean_over(found)))
        run.output.row(part.title, *cells)


def _pair(part: Part, pair: Sequence[str], method: str, compensate: str) -> dict[str, Any]:
    return part.compared(part.cut(pair, HALF, method, compensate), pair)


def swapped(run: Run) -> None:
    """All classes of one parent but one, which the other parent's module decides."""
    share = REMOVED["clinc"][0]
    run.output.section(f"One class from the other parent, modules without {share:.0%} of the hidden units")
    run.output.header("network", "difference, mean over the classes", "worst")
    modules = {}
    both = [Part.load(bench_folder("rnn"), name, None, run.samples) for name in CLINC]
    for part in both:
        for name in part.classes:
            modules[part.title, name] = part.cut([name], share, *OWN[0])
    for part, other in (both, both[::-1]):
        found = []
        for taken in run.some(part.classes):
            chosen = [modules[(other if name == taken else part).title, name] for name in part.classes]
            found.append(part.compared(compose(chosen, strategy="branches").model)["difference"])
        run.output.row(f"{part.title}, one of {other.title}", points(mean_over(found)), f"{min(found):+.2f}")


SECTIONS: dict[str, Callable[[Run], None]] = {
    each.__name__: each for each in (joined, published, trunk, pairs, swapped)
}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the option of this benchmark."""
    models = (*CLINC, *PAPEREVAL, *MATHQA, *BROWN)
    parser.add_argument("--models", choices=models, nargs="+", default=models, help="networks to measure")


if __name__ == "__main__":
    start(__doc__, SECTIONS, options)
