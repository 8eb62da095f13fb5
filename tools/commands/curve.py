"""``graft curve``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from graft.passes.base import Context, all_declined
from graft.passes.compensate.fold import REFIT
from graft.passes.compensate.fold import STEPS as COMPENSATE
from graft.passes.curve import BUDGETS, METHODS, ONE_PLAN, Curve, CurveReport, Point, classes_merged
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, methods
from graft.passes.parent import Parent
from graft.passes.select.profiling import rows_for
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.files import writing
from graft.rewriter.measure.pseudo_labels import describe_labels
from graft.rewriter.measure.speed import Workload
from graft.tools import console as show
from graft.tools import options, parents, plot
from graft.tools.command import Option, one_of, several, takes_options
from graft.tools.estimates import Choice, Estimate
from graft.tools.languages import load_classifier


class CurveOptions(options.ClassOptions, options.LayerOptions):
    """A trained classifier, and the set of classes whose modules are measured."""

    no_rest: Annotated[bool, Option("Leave out the output 'rest' of the modules.", options.PRUNE)] = False
    budgets: Annotated[
        tuple[Annotated[tuple[float, ...], several(options.SHARE)], ...],
        Option(
            "Shares of the MACs to keep, separated by commas; repeatable. Default: "
            f"{', '.join(f'{share:g}' for share in BUDGETS)}.",
            options.PRUNE,
            metavar="F,F",
        ),
    ] = ()
    round_to: Annotated[
        int | None,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option(
            "Prune channels in multiples of N. Default: what their operators run fast with.",
            options.PRUNE,
            metavar="N",
        ),
    ] = None


def _methods() -> tuple[str, ...]:
    return (*methods(), ONE_PLAN)


class CurveMethods(options.PlanTimeOptions):
    """Importance methods and compensations, each a line of the picture."""

    methods: Annotated[
        tuple[Annotated[tuple[str, ...], several(one_of(_methods))], ...],
        Option(
            f"Importance of channels, as --method of decompose, or {ONE_PLAN}: one plan for all classes. "
            f"Separated by commas; repeatable. Default: {', '.join(METHODS)}.",
            options.METHOD,
            metavar="A,B",
        ),
    ] = ()
    compensate: Annotated[
        tuple[Annotated[tuple[str, ...], several(one_of(COMPENSATE))], ...],
        Option(
            "How the kept channels make up for the pruned ones. Separated by commas; repeatable. "
            f"Default: {REFIT}.",
            options.METHOD,
            metavar="A,B",
        ),
    ] = ()
    profile: Annotated[
        Path | None, Option("Profile from 'graft profile', which saves profiling again.", options.METHOD)
    ] = None


class CurveOutput(options.OutputOptions):
    """Output of ``graft curve``."""

    output: Annotated[Path, Option("Figures to write, as JSON.", options.OUTPUT, ("-o", "--output"))]
    plot: Annotated[
        Path | None,
        Option("Picture to write, .svg or .png. Default: as -o, with the ending .svg.", options.OUTPUT),
    ] = None


@takes_options(
    epilog="Example: graft curve resnet20.onnx --data cifar10.npz --classes cat,dog "
    "--budgets 0.3,0.5,0.7 -o curve.json"
)
def command(
    subject: CurveOptions,
    method: CurveMethods,
    data: options.HeldOutOptions,
    run: options.SeededRunOptions,
    output: CurveOutput,
) -> None:
    """Plot accuracy of modules of MODEL against their MACs, for several methods and budgets.

    Cuts a module for --classes together at every budget by every method, and measures each on the test
    split, as it measures MODEL restricted to the classes. One class is measured against the rest, by
    balanced accuracy. The modules are not written: 'graft decompose' does that.
    """
    output.claim(output.output)  # first: a path without a name has no suffix
    picture = output.plot or output.output.with_suffix(".svg")
    _claim_picture(output, picture)
    parent = load_classifier(subject, "curve")
    shares = subject.layers.of(parent)  # says before the work what matches nothing
    device = run.device()
    dataset = parents.open_data(parent, data, subject.classes, device, run.seed)
    samples, fingerprint = data.samples(dataset, parent.card, run.seed)
    names = options.classes_with_samples(subject.classes, samples) or tuple(samples.counts())
    test = _held_out(replace(dataset.split(data.test_split), ignore=data.ignore_label), parent.card, names)
    estimate = Estimate(parent, samples, device, "--methods")
    choice = _chosen(estimate, method)
    decompose = Decompose(
        names,
        method=choice.method,
        together=len(names) > 1,
        rest=not subject.no_rest,
        round_to=subject.round_to,
        freeze=subject.freeze,
        keep_layers=subject.keep_layer,
    )
    curve = Curve(
        decompose,
        tuple(sorted(_each(subject.budgets, BUDGETS))),
        _each(method.methods, (choice.method, *METHODS[1:])),
        _each(method.compensate, (REFIT,)),
    )
    merged = rows_for(parent, names) and set(samples.counts()) - set(names)
    if ONE_PLAN in curve.methods and merged and not method.profile:
        raise classes_merged()
    estimate.announce(*_work(estimate, curve, bool(method.profile), len(test)))
    observed = parents.profile_of(parent, names, method.profile, samples, fingerprint, device)
    context = Context(samples, test, profile=observed.profile, device=device, seed=run.seed)
    count = len(curve.budgets) * len(curve.methods) * len(curve.compensate)
    with show.progress("pruning", count, estimate.left()) as step:
        report = replace(curve, progress=step)(parent, context)
    report = replace(report, declined=all_declined([observed, report]))
    result = _result(parent, report, names, run.seed)
    result |= {"frozen": list(shares.frozen), "keep_layers": dict(shares.shares), **choice.plain()}
    result.update(describe_labels(samples, names), **test.split.describe_held_out())
    title = f"{_subject(result)} of {subject.model.name}"
    with output.target(output.output) as figures, output.target(picture) as drawn:
        _write(result, report, title, figures, drawn, output.force)
    printed = {**result, "output": output.output, "plot": picture, **estimate.plain(), **output.dry()}
    show.declined(result["declined"])
    files = None if output.dry_run else (output.output, picture)
    show.emit("curve", printed, output.as_json, lambda: _show(report, result, files))


def _chosen(estimate: Estimate, method: CurveMethods) -> Choice:
    """Return the method of the first line, and of one plan for all classes."""
    given = _each(method.methods, ())
    plans = int(ONE_PLAN in given) if given else 2
    return estimate.choose(MEASURED if MEASURED in given else None, plans, method.plan_time)


def _work(estimate: Estimate, curve: Curve, profiled: bool, tested: int) -> tuple[Workload, str]:
    """Return the work of a curve, and the same in words.

    Args:
        estimate: of the parent.
        curve: what is drawn.
        profiled: the profile is there.
        tested: number of held-out samples.
    """
    subject, work = estimate.subject, Workload()
    for name in curve.methods:
        own = curve.decompose if name == ONE_PLAN else replace(curve.decompose, method=name)
        work += subject.plan(own)
        for keep in curve.budgets:
            modules = [replace(own, keep=keep, compensate=step) for step in curve.compensate]
            for module in modules:
                work += subject.module(module) + subject.passes(keep * tested)
    if not profiled:
        work += subject.profile(tuple(curve.decompose.classes), subject.count)
    count = len(curve.budgets) * len(curve.methods) * len(curve.compensate)
    return work, f"{count} modules from {subject.count} samples, each measured on {tested}"


def _held_out(part: Split, card: Card, names: Sequence[str]) -> Samples:
    """Return the held-out samples of all classes; at least one of ``names`` has some.

    Raises:
        GraftError: ``class-empty`` where none has.
    """
    Samples.present(part, card, names, needed=True)
    return Samples.match(part, card)


def _result(parent: Parent, report: CurveReport, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the figures, as they are written."""
    return {
        "classes": list(names),
        "seed": seed,
        "samples": report.test_samples,
        "train_samples": report.train_samples,
        "parent": {
            "macs": parent.cost.macs,
            "parameters": parent.cost.parameters,
            "top1": report.top1,
            "balanced_accuracy": report.balanced_accuracy,
            "precision": report.precision,
            "recall": report.recall,
        },
        "measure": "top1" if report.balanced_accuracy is None else "balanced_accuracy",
        "declined": list(map(str, report.declined)),
        "points": [asdict(point) for point in report.points],
        "providers": list(report.providers),
    }


def _each(given: Sequence[Sequence[Any]], default: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of all uses of an option, each once."""
    return tuple(dict.fromkeys(value for values in given for value in values)) or tuple(default)


def _claim_picture(output: CurveOutput, picture: Path) -> None:
    """Fail before the work where writing would fail after it."""
    plot.check_format(picture)
    if picture.resolve() == output.output.resolve():
        raise GraftError(
            "plot-format", f"{output.output} cannot hold figures and picture", "give another -o or --plot"
        )
    output.claim(picture)


def _write(
    result: dict[str, Any], report: CurveReport, title: str, output: Path, picture: Path, force: bool
) -> None:
    """Write both files, or none."""
    balanced = report.balanced_accuracy
    text = json.dumps({"schema": "graft/curve/1", **show.plain(result)}, indent=1)
    with writing(output, force) as figures, writing(picture, force) as drawn:
        figures.write_text(text + "\n", encoding="utf-8")
        top = report.top1 if balanced is None else balanced
        plot.draw(drawn, picture.suffix, title, _measure(report), 100 * top, _lines(report))


def _measure(report: CurveReport) -> str:
    """Return what the accuracy is called, in table and picture alike."""
    return "top-1" if report.balanced_accuracy is None else "balanced accuracy"


def _lines(report: CurveReport) -> list[plot.Line]:
    """Return a curve for each method and compensation; Graft's own choice stands out."""
    methods = dict.fromkeys(point.method for point in report.points)
    own = next((name for name in (MEASURED, DEFAULT) if name in methods), None)
    colors = {name: number for number, name in enumerate(sorted(methods, key=lambda name: name != own))}
    if own is None:
        colors = {name: number + 1 for name, number in colors.items()}
    steps = tuple(dict.fromkeys(point.compensate for point in report.points))
    found = []
    for method in methods:
        for step in steps:
            points = [p for p in report.points if (p.method, p.compensate) == (method, step)]
            name = _named(method) + (f", {step}" if len(steps) > 1 else "")
            found.append(plot.Line(name, colors[method], steps.index(step), _drawn(points)))
    return found


def _drawn(points: Sequence[Point]) -> tuple[tuple[float, float, float], ...]:
    """Return share of MACs, accuracy and standard error of its difference, in percent, by budget reached."""
    found = []
    for point in points:
        if point.macs_ratio is not None and (shown := point.shown):
            accuracy, _, error = shown
            found.append((100 * point.macs_ratio, 100 * accuracy, error))
    return tuple(found)


def _named(method: str) -> str:
    names = {name: f"Graft: {name}" for name in (MEASURED, DEFAULT)} | {ONE_PLAN: "one plan for all classes"}
    return names.get(method, method)


def _show(report: CurveReport, result: dict[str, Any], files: tuple[Path, Path] | None) -> None:
    budgets = sorted({point.keep for point in report.points})
    rows: dict[tuple[str, str], list[str]] = {}
    for point in report.points:
        start = [_named(point.method), point.compensate]
        rows.setdefault((point.method, point.compensate), start).append(_cell(point))
    show.table(
        f"difference from the parent in percentage points of {_measure(report)} (± its standard error), "
        f"{_subject(result)}, by share of its MACs; ran on {', '.join(report.providers)}",
        ["method", "compensate", *(f"<= {show.percent(keep, 0)}" for keep in budgets)],
        list(rows.values()),
    )
    parent = f"parent {show.percent(report.top1)} restricted to the classes"
    if report.balanced_accuracy is not None:
        parent = (
            f"parent balanced accuracy {show.percent(report.balanced_accuracy)}, precision "
            f"{show.percent(report.precision)}, recall {show.percent(report.recall)}"
        )
    show.note(f"{report.test_samples} test samples: {parent}")
    show.print_layers(result)
    show.data_source(result, len(result["classes"]))
    if files:
        show.note(f"figures in {files[0]}, picture in {files[1]}")


def _cell(point: Point) -> str:
    if point.shown is None:
        return "-"
    _, difference, error = point.shown
    return f"{difference:+.2f} ± {error:.2f}"


def _subject(result: dict[str, Any]) -> str:
    """Return the classes; one of them against the rest."""
    names = show.classes(result["classes"])
    return f"{names} against the rest" if result["measure"] == "balanced_accuracy" else names
