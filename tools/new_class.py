"""``graft add`` and ``graft replace`` with a class that comes from samples alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graft.passes.base import Context
from graft.passes.discriminant.others import HEAD, SAMPLES, STATISTICS
from graft.passes.join.naming import PatchData
from graft.passes.join.patch_report import describe, evaluate_before_after, held_out
from graft.passes.new_class import NewClass
from graft.rewriter.data.one_class import of_one_class
from graft.rewriter.data.prefixed import PrefixedData, tested
from graft.rewriter.data.split import TRAIN, Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.tools import console as show
from graft.tools import options, parents
from graft.tools.estimates import PASSES_OF_A_FIT, Passes
from graft.tools.patch import print_report
from graft.tools.saving import save

log = logging.getLogger("graft")

RARELY = 0.5
"""Recall of a class below which it is of little use."""
REPRESENTED = {
    SAMPLES: "their samples represent the other classes",
    STATISTICS: "its statistics represent the other classes: figures on folds are estimates",
    HEAD: "its own head represents the other classes: figures on folds are estimates",
}


@dataclass(frozen=True)
class ClassData:
    """Samples of the class, and maybe of others.

    Attributes:
        training: what the class is fitted to.
        test: what is measured; ``None``: there are no test samples.
        numbers: what class numbers mean where the data has no names.
    """

    training: Split
    test: Split | None
    numbers: Sequence[str]

    @classmethod
    def load(cls, model: Model, name: str, data: options.SampledDataOptions, seed: int) -> ClassData:
        """Load the data; samples without labels are of the class.

        Args:
            model: the classifier.
            name: of the class.
            data: where the samples are.
            seed: draws splits where the data has none.

        Raises:
            GraftError: data cannot be read or joined, or the class is a number without a name.
        """
        sets = []
        for each in data.data:
            loaded = each.load(seed)
            sets.append(PrefixedData(of_one_class(loaded.dataset, name), loaded.prefix))
        found = PatchData.of(model, sets, data.ignore_label)
        for labelled in sets:
            part = labelled.dataset.split(TRAIN).named_by(found.numbers[""])
            if part.class_names is None and part.labels.max(initial=0) >= len(found.numbers[""]):
                raise GraftError(
                    "data-names",
                    f"the classes of {labelled.dataset.name} are numbers, and none of them is "
                    f"called '{name}'",
                    "add class_names to the .npz file",
                )
        training, _ = found.training()
        if training is None:
            raise GraftError("data-missing", "there are no training samples", "name some: --data DATA")
        held = tested(sets, data.test_split)
        test, numbers = None, found.numbers[""]
        if held and name in (training.class_names or ()):  # else the class has no samples, which ends it
            test = PatchData.of(model, held, data.ignore_label).split(data.test_split)
            card = model.require_card()
            test = held_out(test, card, (*card.labels, name), numbers)
        return cls(training, test, numbers)


def from_samples(
    made: NewClass,
    subject: options.ShapedModelOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Add or replace a class that is fitted to samples, and report the difference.

    Args:
        made: the class.
        subject: the classifier.
        data: samples of the class, and maybe of others.
        run: where models run.
        output: where the model goes.

    Raises:
        GraftError: the class or the data does not fit, or the output is there.
    """
    output.claim(output.output)
    before = subject.load()
    made.labels(before.require_card())
    device = run.device()
    found = ClassData.load(before, made.name, data, run.seed)
    passes = Passes([before], found.training, PASSES_OF_A_FIT, device)
    passes.announce(f"MODEL on {len(found.training)} training samples")
    report = made(before, Context(data=found.training, device=device, seed=run.seed))
    old = made.name if made.replaces else None
    result: dict[str, Any] = {
        "output": output.output,
        **describe(report.model, device),
        "class": old,
        "class_after": made.name,
        "scores": "joint" if made.joint else "discriminant",
        **report.plain(),
        "declined": list(map(str, report.declined)),
    }
    if found.test is not None:
        changed = ([old] if old else [], [made.name])
        result.update(
            evaluate_before_after((before, report.model), changed, found.test, found.numbers, device)
        )
        result.update(parents.sources_of(found.training, found.test))
    result.update(save(report.model, output.output, output), **passes.plain())
    show.declined(result["declined"])
    if report.recall < RARELY:
        log.warning(
            "on held-out folds only %s of the samples of %s are found: give more samples of it%s",
            *(show.percent(report.recall), made.name),
            "" if report.others == SAMPLES else ", and of the old classes",
        )
    command = "replace" if made.replaces else "add"
    show.emit(command, result, output.as_json, lambda: _print(result))


def _print(result: dict[str, Any]) -> None:
    """Print the report for people."""
    name, folds = result["class_after"], result["folds"]
    done = f"{name} was replaced" if result["class"] else f"{name} was added"
    print_report({key: value for key, value in result.items() if key != "scores"}, done)
    show.note(f"fitted to {result['samples']} samples of {name}; {REPRESENTED[result['others']]}")
    show.note(
        f"on held-out folds, classes weighing the same: precision {show.percent(folds['precision'])}, recall "
        f"{show.percent(folds['recall'])}, top-1 of all {show.percent(folds['top1'])}, of the others before "
        f"{show.percent(folds['before'])}"
    )
    if result["joint"]:
        show.note("one head for all classes: all columns changed")
    elif result["others_equal"]:
        show.note("all other logits are equal to those of MODEL bit for bit")
