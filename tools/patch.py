"""What 'graft replace', 'add' and 'remove' share: whom they take, the data, and the patch report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from graft.passes.base import Context
from graft.passes.compare import names as comparison_names
from graft.passes.join.merge import INPUTS
from graft.passes.join.patch import Newcomer, Patch
from graft.passes.replace import Replace, ReplaceReport
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import refuse_overwrite
from graft.rewriter.graph.model import Model
from graft.rewriter.measure import metrics
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.record.folder import load_module, module_files
from graft.rewriter.record.provenance import numbering, origin_of
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options
from graft.tools.command import Option, Options, one_of
from graft.tools.naming import parsed

TRAIN = "train"
NEWCOMER = "Module"


class NewcomerOptions(options.ModelOptions):
    """A classifier, and the module that decides one of its classes, or one more."""

    module: Annotated[
        options.PrefixedPath,
        Option(
            "Module that decides, or a folder of them; PREFIX=MODULE calls its class PREFIX:NAME.",
            NEWCOMER,
            flags=("--with",),
            metavar="MODULE",
        ),
    ] = Field(alias="with")
    with_class: Annotated[
        str | None, Option("Class of the module, where it has several.", NEWCOMER, metavar="NAME")
    ] = None
    rename: Annotated[
        tuple[str, ...],
        Option("Call class A of the module B, in the data too.", NEWCOMER, metavar="A=B"),
    ] = ()


class CompareOptions(Options):
    """Comparison of the module's score with the others."""

    scores: Annotated[
        str | None,
        one_of(comparison_names(patches=True)),
        Option(
            "Comparison of the module with the classes of MODEL. Default: fitted to --data (calibrated or "
            "joint); without, odds where it knows all classes of MODEL, else typicality.",
            options.SCORES,
        ),
    ] = None
    kind: Annotated[
        str | None,
        one_of(INPUTS),
        Option(
            "raw: images 0..255, prepared in the graph; parent: as MODEL takes them. Default: parent where "
            "the module takes the same, else raw.",
            options.SCORES,
            flags=("--input",),
        ),
    ] = Field(default=None, alias="input")


def bring_in(
    name: str | None,
    subject: NewcomerOptions,
    compare: CompareOptions,
    data: options.SampledDataOptions,
    run: options.SeededRunOptions,
    output: options.ModelOutputOptions,
) -> None:
    """Let the module decide class ``name``, or one more, and report what that did.

    Args:
        name: the class; None: one more.
        subject: the classifier and the module.
        compare: how the module is compared.
        data: what its score is fitted to, and what is measured.
        run: where models run.
        output: where the model goes.

    Raises:
        GraftError: the module does not fit, or the output is there.
    """
    refuse_overwrite(output.output, output.force)
    before = Model.load(subject.model, subject.card)
    before.card = before.require_card(subject.model)
    device, module = run.device(), subject.module
    replacing = Replace(
        compare.scores,
        compare.kind,
        samples_per_class=data.samples_per_class,
    )
    context = Context(device=device, seed=run.seed)
    report, newcomer, samples, reason = _patch(before, name, subject, data, replacing, context)
    result = {
        **about(report.model, output.output, device),
        "class": name,
        **_described(report, newcomer, module, reason),
    }
    if data.data:
        old = [name] if name else []
        result.update(measured(before, report.model, old, [newcomer.name], samples, data.test_split, device))
    result.update(written(report.model, output))
    what = f"{newcomer.name} of {module} was added"
    if name:
        what = f"{name} is decided by {module} now" + (
            "" if newcomer.name == name else f", as {newcomer.name}"
        )
    command = "replace" if name else "add"
    show.declined(result["declined"])
    show.emit(command, result, output.as_json, lambda: told(result, what))


@dataclass(frozen=True)
class Data:
    """Labelled samples for a patch.

    Attributes:
        paths: as named.
        ignore: class whose labels do not count.
        renamed: what classes are called otherwise.
        numbers: what class numbers mean, by prefix.
    """

    paths: Sequence[options.Prefixed]
    ignore: str | None
    renamed: Mapping[str, str]
    numbers: Mapping[str, Sequence[str]]

    def split(self, name: str) -> Split:
        """The samples of one split of all data sets."""
        part = options.split_of(self.paths, name, self.ignore, self.numbers)
        return _renamed(part, self.renamed)

    def lacks(self, name: str) -> str:
        """The first data set without a split; ``""``: all have it."""
        return next((str(each) for each in self.paths if name not in Dataset.load(each.path).splits), "")


def _patch(
    model: Model,
    name: str | None,
    subject: NewcomerOptions,
    data: options.SampledDataOptions,
    replacing: Replace,
    context: Context,
) -> tuple[ReplaceReport, Newcomer, Data, str]:
    """Replace class ``name`` of ``model``, or add one; and why it was not fitted to data, if it was not."""
    module = subject.module
    newcomer = _newcomer(module, name, subject.with_class)
    called = module.name(newcomer.column)
    renamed = dict(parsed(text, [called]) for text in subject.rename)
    newcomer = replace(newcomer, name=renamed.get(called, called))
    numbers = {"": numbering(model) or model.require_card().labels}
    if module.prefix and (meaning := numbering(newcomer.model)):
        numbers[module.prefix] = meaning
    samples = Data(data.data, data.ignore_label, renamed, numbers)
    train, reason = None, ""
    if data.data:
        lacking = samples.lacks(TRAIN)
        reason = f"scores are not fitted to data: {lacking} has no training split" if lacking else ""
        train = None if lacking else samples.split(TRAIN)
        if train is not None and train.class_names is None:
            train = replace(train, class_names=tuple(numbers[""]))
    context = replace(context, data=train)
    return replacing(Patch(model, newcomer, name), context), newcomer, samples, reason


def _newcomer(module: options.Prefixed, name: str | None, with_class: str | None) -> Newcomer:
    """The module, and which of its classes."""
    found = []
    for file in module_files([module.path]):
        model = load_module(file) if module.path.is_dir() else Model.load(file)
        labels = [each for each in model.require_card(file).labels if each != OTHER]
        found += [(model, each) for each in labels]
    classes = [label for _, label in found]
    wanted = with_class or (classes[0] if len(classes) == 1 else name)
    if wanted not in classes:
        raise GraftError(
            "with-class",
            f"{module} has {'the classes ' if len(classes) <= 4 else ''}{show.classes(classes)}"
            + (f", and none called '{wanted}'" if wanted else ""),
            "say which one: --with-class NAME",
        )
    model, column = found[classes.index(wanted)]
    return Newcomer(model, column, column)


def _renamed(part: Split, names: Mapping[str, str]) -> Split:
    """The same samples; classes that are called alike now are one class."""
    if part.class_names is None or not set(names) & set(part.class_names):
        return part
    called = [names.get(name, name) for name in part.class_names]
    unique = tuple(dict.fromkeys(called))
    numbers = np.array([unique.index(name) for name in called], np.int64)
    known = (part.labels >= 0) & (part.labels < len(called))
    labels = np.where(known, numbers[np.where(known, part.labels, 0)], part.labels)
    return replace(part, labels=labels, class_names=unique)


def measured(
    before: Model,
    after: Model,
    old: Sequence[str],
    new: Sequence[str],
    data: Data,
    split: str,
    device: Device,
) -> dict[str, Any]:
    """Precision, recall and F1 of the class and accuracy of the others, before and after.

    ``old`` and ``new``: what changed: a single class has figures of its own.
    """
    part = data.split(split)
    before = _resizing(before, after)
    result: dict[str, Any] = {}
    for key, model, changed in (("before", before, old), ("after", after, new)):
        card = model.require_card()
        chosen = None if OTHER in card.labels else card.labels
        names = numbering(model) or data.numbers.get("")
        present = _present(part, card.labels, names) if chosen else None
        scored = score(model, Samples.match(part, card, present, names=names), device)
        result[key] = _said(scored, changed, {*old, *new})
    return result


def _resizing(before: Model, after: Model) -> Model:
    """``before``, which takes images of all sizes if ``after`` does."""
    new = after.require_card().inputs[0]
    if new.kind != "image" or not new.resize:
        return before
    found = before.copy()
    found.card = before.require_card().resizing(new)
    return found


def _present(part: Split, labels: Sequence[str], numbers: Sequence[str] | None) -> tuple[str, ...]:
    """Those of ``labels`` that have samples."""
    names = part.class_names or tuple(numbers or labels)
    seen = np.unique(part.labels)
    having = {names[number] for number in seen.tolist() if 0 <= number < len(names)}
    return tuple(name for name in labels if name in having)


def _said(scored: Scored, changed: Sequence[str], apart: set[str]) -> dict[str, Any]:
    labels, correct = scored.labels.reshape(-1), scored.correct.reshape(-1)
    others = ~np.isin(labels, [place for place, each in enumerate(scored.names) if each in apart])
    per_class = metrics.per_class(scored.predictions.reshape(-1), labels, scored.names)
    own = per_class.get(changed[0]) if len(changed) == 1 else None
    return {
        "samples": scored.samples,
        "top1": float(correct.mean()),
        "class": own if own and own["support"] else None,
        "others": float(correct[others].mean()) if others.any() else None,
        "others_samples": int(others.sum()),
    }


def _described(
    report: ReplaceReport, newcomer: Newcomer, module: options.Prefixed, reason: str
) -> dict[str, Any]:
    """What came of a newcomer, for ``--json``."""
    return {
        "class_after": newcomer.name,
        "with": module.path,
        "with_class": newcomer.column,
        "scores": report.scores,
        "fitted": report.fitted.plain() if report.fitted else None,
        "adapted": [list(steps) for steps in report.adapted],
        "declined": [*map(str, report.declined), *([reason] if reason else [])],
    }


def about(model: Model, output: Path, device: Device) -> dict[str, Any]:
    """Check a model; what there is to say of it."""
    check(model)
    session = device.open(model)
    cost = cost_of(model)
    return {
        "output": output,
        "classes": list(model.require_card().labels),
        "inputs": [each.plain() for each in model.require_card().inputs],
        "parents": [
            record.model_dump(mode="json", exclude={"labels"}) for record in origin_of(model).parents
        ],
        "macs": cost.macs,
        "parameters": cost.parameters,
        "providers": list(session.providers),
    }


def written(model: Model, output: options.ModelOutputOptions) -> dict[str, Any]:
    """Save a model; its size, and whether this was a dry run."""
    with output.target(output.output) as path:
        model.save(path, output.force)
        return {"bytes": path.stat().st_size, **output.dry()}


def told(result: dict[str, Any], what: str) -> None:
    """A patch for people."""
    show.note(
        f"{result['output']}: {what}; {len(result['classes'])} classes, {show.count(result['macs'])} MACs, "
        f"{show.count(result['parameters'])} parameters, ran on {', '.join(result['providers'])}"
    )
    fitted = result.get("fitted")
    if fitted:
        stays = "" if fitted["used"] else "; it is not better and is not used"
        show.note(
            f"fitted to {fitted['samples']} training samples: top-1 {show.percent(fitted['top1'])} on "
            f"held-out folds, {show.percent(fitted['before'])} without{stays}"
        )
    if result.get("adapted"):
        entry = result["inputs"][0]
        show.note(f"input '{entry['name']}': {entry['color']} images {entry['size']}, 0..255")
    if "scores" in result:
        show.note(f"the newcomer is compared by {result['scores']}")
    for line in result.get("declined", []):
        show.note(f"note: {line}")
    if "before" not in result:
        return
    both = result["before"], result["after"]
    rows = [["top-1", *(show.percent(each["top1"]) for each in both)]]
    rows.append(["others", *(show.percent(each["others"]) for each in both)])
    for key in ("precision", "recall", "f1") if any(each["class"] for each in both) else ():
        rows.append([key, *(show.percent(each["class"][key] if each["class"] else None) for each in both)])
    show.table(f"{both[1]['samples']} test samples", ["", "before", "after"], rows)
