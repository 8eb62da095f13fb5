"""Measure what docs/recurrent.md reports: what modules of recurrent networks lose without hidden units.

Run with the benchmark models and data (see GRAFT_BENCH)::

    python benchmarks/recurrent.py ../shared/bench/rnn --results recurrent.json
    python benchmarks/recurrent.py ../shared/bench/rnn --results recurrent.json --only clinc_gru1_published

Modules of all classes, one each, lose the same share of their hidden units (embeddings stay), are joined as
branches and compared with the parent, on test samples. Nothing is chosen on these. Figures are noted in the
file of results, and what is noted there is not measured again.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import ONE_PLAN, Notes
from bench import DEVICE, points, row

from graft.passes.decompose import Decompose, Parent
from graft.passes.identify import DEFAULT, MEASURED, Question, method_called
from graft.passes.observe import Observe
from graft.rewriter import metrics
from graft.rewriter.calibration import Samples
from graft.rewriter.dataset import Dataset
from graft.rewriter.evaluation import score
from graft.rewriter.groups import ChannelGroups
from graft.rewriter.model import Model
from graft.rewriter.operators import operator_of
from graft.rewriter.plan import Plan

CLINC, MATHQA, BROWN = ("clinc", "test", None), ("mathqa", "test", None), ("brown", "test_paper", None)
MODELS: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    **dict.fromkeys(("clinc_lstm1_published", "clinc_gru1_published"), (CLINC,)),
    **dict.fromkeys(("clinc_lstm1_published_papereval", "clinc_gru1_published_papereval"), (CLINC,)),
    **dict.fromkeys(("mathqa_lstm1_retrained", "mathqa_gru1_retrained"), (MATHQA,)),
    **dict.fromkeys(
        ("brown_lstm1_retrained", "brown_gru1_retrained"), (BROWN, ("brown", "test_paper", "PAD"))
    ),
}
"""Model to data, split and the label that is ignored."""
REMOVED = (0.3, 0.4, 0.6, 0.8)
WAYS = (
    (DEFAULT, "refit"),
    (ONE_PLAN, "refit"),
    (DEFAULT, "fold"),
    (MEASURED, "refit"),
    ("random", "refit"),
    ("icse23:rolled", "refit"),
    ("icse23:rolled", "none"),
)
TINY = 1e-7


@dataclass(frozen=True)
class Part:
    """A parent with its data."""

    name: str
    parent: Parent
    train: Samples
    test: Samples

    @classmethod
    def load(cls, folder: Path, name: str, data: str, split: str, ignore: str | None) -> Part:
        """Read model and data; ``ignore`` counts in neither split."""
        model = Model.load(folder / f"{name}.onnx")
        dataset = Dataset.load(folder / f"{data}.npz")
        parts = [replace(dataset.split(each), ignore=ignore) for each in ("train", split)]
        samples = [Samples.match(each, model.require_card()) for each in parts]
        return cls(name, Parent(model), *samples)


def without_units(
    part: Part, profile: Any, classes: Sequence[str], removed: float, method: str, together: bool = False
) -> Plan:
    """The plan that takes so large a share of the hidden units of every recurrent layer, and nothing else."""
    headed = part.parent.model.copy()
    Decompose(together=together).head(classes)(headed)
    groups = ChannelGroups(headed)
    labels = part.parent.record.labels
    question = Question(headed, groups, profile, labels, tuple(classes), 0, part.train, DEVICE)
    scores, kept = method_called(method).scores(question), groups.everything()
    for node in groups.nodes:
        for read in operator_of(node).reads(node, groups):
            if read.own is not None:
                order = read.channels[np.argsort(-scores[read.channels], kind="stable")]
                kept[order[round((1 - removed) * len(order)) :]] = False
    found = Plan.of(groups, kept, part.parent.sha256)
    return Plan(part.parent.sha256, {n: mask for n, mask in found.kept.items() if n in part.parent.groups})


def joined(part: Part, profile: Any, removed: float, method: str, compensate: str) -> dict[str, Any]:
    """All classes as branches: by the log-odds that each module gives its class."""
    whole, columns, shared = score(part.parent.model, part.test, DEVICE), [], None
    classes = tuple(name for name in part.parent.card.labels if name in part.test.counts())
    if method == ONE_PLAN:
        shared = without_units(part, profile, tuple(part.train.counts()), removed, DEFAULT, together=True)
    for name in classes:
        plan = shared or without_units(part, profile, [name], removed, method)
        decompose = Decompose(method=DEFAULT if shared else method, compensate=compensate)
        model = decompose(part.parent, profile, [name], plan, data=part.train, device=DEVICE).model
        samples = Samples.match(part.test.split, model.require_card(), names=part.parent.card.labels)
        scores = np.log(np.maximum(score(model, samples, DEVICE).scores.astype(np.float64), TINY))
        columns.append(scores[..., 0] - scores[..., 1])
    places = np.array([part.parent.card.class_index(name) for name in classes])
    correct = places[np.stack(columns, axis=-1).argmax(axis=-1)] == whole.labels
    loss, error = metrics.paired_difference(whole.correct.ravel(), correct.ravel())
    return {"loss": 100 * loss, "standard_error": 100 * error, "top1": float(correct.mean())}


def table(part: Part, notes: Notes, title: str, removed: Sequence[float]) -> None:
    """One row a way to choose and to compensate."""
    whole = score(part.parent.model, part.test, DEVICE).summary()["top1"]
    profile = Observe(DEVICE)(part.parent.model, part.train, part.parent.sha256, "")
    print(f"\n## {title}, parent {whole:.4f}\n")
    row("units chosen by", "compensation", *[f"{share:.0%} removed" for share in removed])
    row(*["---"] * (2 + len(removed)))
    for method, compensate in WAYS:
        cells = []
        for share in removed:
            key = "/".join([title, method, compensate, str(share)])
            found = notes.get(key, lambda m=method, c=compensate, s=share: joined(part, profile, s, m, c))
            cells.append(points((found["loss"], found["standard_error"])))
        row(method, compensate, *cells)


def main() -> None:
    """Run everything, or the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--only", choices=MODELS, nargs="+", default=[*MODELS])
    parser.add_argument("--removed", type=float, nargs="+", default=REMOVED)
    chosen = parser.parse_args()
    print(f"Machine: {platform.machine()}, onnxruntime on CPU. Seed 0. Loss is parent minus result, points.")
    notes = Notes(chosen.results)
    for name in chosen.only:
        for data, split, ignore in MODELS[name]:
            part = Part.load(chosen.folder, name, data, split, ignore)
            title = f"{name} ({split}{f', without {ignore}' if ignore else ''})"
            table(part, notes, title, chosen.removed)


if __name__ == "__main__":
    main()
