"""Measure what docs/recurrent.md reports: what modules of recurrent networks lose without hidden units.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/recurrent.py ../shared/bench/rnn --results recurrent.json
    python benchmarks/recurrent.py ../shared/bench/rnn --results recurrent.json --only pairs swapped

Modules lose the same share of the hidden units of each layer (embeddings stay), are joined as branches by
``Compose`` and compared with the parent, on test samples. Nothing is chosen on these. Figures are noted in
the file of results, and what is noted there is not measured again. Takes about 90 minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import ONE_PLAN, Notes
from bench import DEVICE, mean_over, points, row

from graft.passes.base import Context
from graft.passes.compose import Compose, Modules
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, ImportanceInputs, method_called
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
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
"""What the paper removes at most."""
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
    def load(cls, folder: Path, name: str, ignore: str | None = None) -> Part:
        """Read model and data, whose words networks of the same data share; ``ignore`` does not count."""
        data, model = name.split("_")[0], Model.load(folder / f"{name}.onnx")
        card = model.require_card()
        model.card = card.replace(inputs=(card.inputs[0].model_copy(update={"vocabulary": data}),))
        parent = Parent(model)
        dataset = Dataset.load(folder / f"{data}.npz")
        splits = [dataset.split(each) for each in ("train", "test_paper" if data == "brown" else "test")]
        train, test = (Samples.match(replace(each, ignore=ignore), parent.card) for each in splits)
        profile = Observe(DEVICE)(parent.model, train, parent.sha256)
        return cls(f"{name}, without {ignore}" if ignore else name, parent, profile, train, test)

    @property
    def classes(self) -> tuple[str, ...]:
        """Those that are told apart."""
        counts = self.test.counts()
        return tuple(name for name in self.parent.card.labels if name in counts)

    def plan(self, classes: Sequence[str], removed: float, method: str, together: bool) -> Plan:
        """Take so large a share of the units of every recurrent layer, and nothing else."""
        headed = self.parent.model.copy()
        Decompose(together=together).head(classes)(headed)
        groups = ChannelGroups(headed)
        labels = self.parent.record.labels
        question = ImportanceInputs(
            headed, groups, self.profile, labels, tuple(classes), 0, self.train, DEVICE
        )
        scores, kept = method_called(method).scores(question), groups.everything()
        for node in groups.nodes:
            for read in operator_of(node).reads(node, groups):
                if read.own is not None:
                    order = read.channels[np.argsort(-scores[read.channels], kind="stable")]
                    kept[order[round((1 - removed) * len(order)) :]] = False
        found, names = Plan.of(groups, kept, self.parent.sha256), self.parent.groups
        return Plan(self.parent.sha256, {name: mask for name, mask in found.kept.items() if name in names})

    def cut(self, classes: Sequence[str], removed: float, method: str, compensate: str) -> Model:
        """A module; for several classes one for the set."""
        together = len(classes) > 1
        if method == ONE_PLAN:
            method, plan = DEFAULT, self.plan(self.classes, removed, DEFAULT, together=True)
        else:
            plan = self.plan(classes, removed, method, together)
        decompose = Decompose(method=method, compensate=compensate, together=together)
        return decompose(self.parent, self.profile, classes, plan, data=self.train, device=DEVICE).model

    def joined(self, removed: float, method: str, compensate: str) -> dict[str, Any]:
        """What one module a class, side by side, loses."""
        modules = [self.cut([name], removed, method, compensate) for name in self.classes]
        found = self.lost(Compose("branches")(Modules(modules), Context()).model)
        units = statistics.mean(map(_units, modules)) / _units(self.parent.model)
        return {**found, "units": units}

    def lost(self, model: Model, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """Points that the parent has more than ``model``, both told to choose among the same classes."""
        correct = []
        for each in (self.parent.model, model):
            card, names = each.require_card(), self.parent.card.labels
            samples = Samples.match(self.test.split, card, classes, names=names)
            correct.append(score(each, samples, DEVICE, classes).correct.ravel())
        loss, error = metrics.paired_difference(*correct)
        return {"loss": 100 * loss, "standard_error": 100 * error, "top1": float(correct[1].mean())}


def _units(model: Model) -> int:
    """Hidden units, summed over layers."""
    return sum(int(node.attrs["hidden_size"]) for node in model.graph.nodes if "hidden_size" in node.attrs)


@dataclass(frozen=True)
class Run:
    """Where models are, what is known, and which models were asked for."""

    folder: Path
    notes: Notes
    models: Sequence[str]

    def parts(self, names: Sequence[str]) -> list[Part]:
        """Those of ``names`` that were asked for; of ``brown`` with and without the label of padding."""
        return [
            Part.load(self.folder, name, ignore)
            for name in names
            if name in self.models
            for ignore in ((None, "PAD") if name in BROWN else (None,))
        ]

    def noted(self, *key: object, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is known under a key, or measured now."""
        return self.notes.get("/".join(map(str, key)), measure)


def joined(run: Run) -> None:
    """A table a model: one module a class, joined."""
    for part in run.parts((*CLINC, *PAPEREVAL, *MATHQA, *BROWN)):
        shares = REMOVED[part.title.split("_")[0]]
        whole = score(part.parent.model, part.test, DEVICE).summary()["top1"]
        print(f"\n## {part.title}: {len(part.classes)} modules joined, parent {whole:.4f}\n")
        row("units chosen by", "compensation", *[f"{share:.0%} removed" for share in shares])
        row(*["---"] * (2 + len(shares)))
        for way, removed in ((OWN, shares), (OTHERS, shares[:1])):
            for method, compensate in way:
                cells = []
                for share in removed:
                    measure = partial(part.joined, share, method, compensate)
                    found = run.noted(part.title, method, compensate, share, measure=measure)
                    cells.append(points((found["loss"], found["standard_error"])))
                row(method, compensate, *cells)


def published(run: Run) -> None:
    """The paper's way: few units, nothing made up for."""
    print(
        f"\n## Modules joined, {CAP:.0%} of the hidden units removed by the paper's order, no compensation\n"
    )
    row("network", *PAPERS)
    row("---", *["---"] * len(PAPERS))
    for part in run.parts((*CLINC, *PAPEREVAL, *MATHQA, *BROWN)):
        cells = []
        for method in PAPERS:
            measure = partial(part.joined, CAP, method, "none")
            found = run.noted(part.title, method, "none", CAP, measure=measure)
            cells.append(points((found["loss"], found["standard_error"])))
        row(part.title, *cells)


def trunk(run: Run) -> None:
    """All classes as one module."""
    print(f"\n## All classes as one module, {TRUNK:.0%} of the multiply-accumulates\n")
    row("network", "loss", "hidden units left")
    row("---", "---", "---")
    for part in run.parts((*CLINC, *MATHQA, *BROWN)):
        found = run.noted(part.title, "trunk", TRUNK, measure=partial(_trunk, part))
        row(part.title, points((found["loss"], found["standard_error"])), f"{found['units']:.0%}")


def _trunk(part: Part) -> dict[str, Any]:
    decompose = Decompose(TRUNK, compensate="refit", together=True)
    given = {"data": part.train, "device": DEVICE}
    model = decompose(part.parent, part.profile, part.classes, **given).model
    return {**part.lost(model), "units": _units(model) / _units(part.parent.model)}


def pairs(run: Run) -> None:
    """Two classes of one parent, all pairs."""
    print(f"\n## Two classes, all pairs, without {HALF:.0%} of the hidden units\n")
    row("network", *[method for method, _ in OWN])
    row("---", *["---"] * len(OWN))
    for part in run.parts(CLINC):
        cells = []
        for method, compensate in OWN:
            lost = []
            for pair in itertools.combinations(part.classes, 2):
                measure = partial(_pair, part, pair, method, compensate)
                key = (part.title, method, compensate, HALF, "+".join(pair))
                lost.append(run.noted(*key, measure=measure)["loss"])
            cells.append(points(mean_over(lost)))
        row(part.title, *cells)


def _pair(part: Part, pair: Sequence[str], method: str, compensate: str) -> dict[str, Any]:
    return part.lost(part.cut(pair, HALF, method, compensate), pair)


def swapped(run: Run) -> None:
    """All classes of one parent but one, which the other parent's module decides."""
    share = REMOVED["clinc"][0]
    print(f"\n## One class from the other parent, modules without {share:.0%} of the hidden units\n")
    row("network", "loss, mean over the classes", "worst")
    row("---", "---", "---")
    parts, modules = run.parts(CLINC), {}
    for part in parts:
        for name in part.classes:
            modules[part.title, name] = part.cut([name], share, *OWN[0])
    for part, other in (parts, parts[::-1]) if len(parts) == 2 else ():
        lost = []
        for taken in part.classes:
            chosen = [modules[(other if name == taken else part).title, name] for name in part.classes]
            lost.append(part.lost(Compose("branches")(Modules(chosen), Context()).model)["loss"])
        row(f"{part.title}, one of {other.title}", points(mean_over(lost)), f"{max(lost):+.2f}")


SECTIONS: dict[str, Callable[[Run], None]] = {
    each.__name__: each for each in (joined, published, trunk, pairs, swapped)
}


def main() -> None:
    """Run everything, or what is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=[*SECTIONS])
    models = (*CLINC, *PAPEREVAL, *MATHQA, *BROWN)
    parser.add_argument("--models", choices=models, nargs="+", default=models)
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0. Loss is parent minus result, points.")
    run = Run(chosen.folder, Notes(chosen.results), chosen.models)
    for section in chosen.only:
        SECTIONS[section](run)


if __name__ == "__main__":
    main()
