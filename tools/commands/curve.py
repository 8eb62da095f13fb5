"""``graft curve``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from graft.passes.compensate.fold import LADDER as COMPENSATE
from graft.passes.curve import LADDER, METHODS, ONE_PLAN, Curve, CurveReport, Point, classes_merged
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, MEASURED, PUBLISHED, best
from graft.passes.identify import METHODS as IDENTIFY
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.files import refuse_overwrite, writing
from graft.rewriter.run.session import Device
from graft.tools import console as show
from graft.tools import options, parents, plot


class _Several(click.ParamType):  # type: ignore[type-arg]
    """Values of one type, separated by commas."""

    def __init__(self, each: Any) -> None:
        self.each = each
        self.name = each.name

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        """The values."""
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        if not words:
            self.fail(f"expected one or more, separated by commas, found '{value}'", param, ctx)
        return tuple(self.each.convert(word, param, ctx) for word in words)


@click.command(
    epilog="Example: graft curve resnet20.onnx --data cifar10.npz --classes cat,dog "
    "--budgets 0.3,0.5,0.7 -o curve.json"
)
@click.argument("model", type=click.Path(path_type=Path))
@options.data()
@options.card
@options.classes
@click.option("--no-rest", is_flag=True, help="A set does without the output 'rest'.")
@click.option(
    "--budgets",
    multiple=True,
    type=_Several(options.Share()),
    metavar="F,F",
    help=f"Shares of the MACs to keep; repeatable. Default: {', '.join(f'{share:g}' for share in LADDER)}.",
)
@click.option(
    "--methods",
    multiple=True,
    type=_Several(click.Choice([*(method.name for method in (*IDENTIFY, *PUBLISHED)), ONE_PLAN])),
    metavar="A,B",
    help=f"How channels are chosen, as --method of decompose, or {ONE_PLAN}: one plan for all classes; "
    f"repeatable. Default: {', '.join(METHODS)}.",
)
@click.option(
    "--compensate",
    multiple=True,
    type=_Several(click.Choice(COMPENSATE)),
    metavar="A,B",
    help=f"How kept channels stand in for removed ones: {', '.join(COMPENSATE)}; repeatable. "
    f"Default: {COMPENSATE[-1]}.",
)
@options.round_to
@click.option("--profile", type=click.Path(path_type=Path), help="From 'graft profile'; saves that pass.")
@options.split
@options.test_split
@options.samples_per_class
@options.ignore_label
@options.seed
@options.running
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path),
    help="The picture, .svg or .png. Default: as -o, with the ending .svg.",
)
@options.writing("The figures to write, as JSON.")
@options.common
def command(
    model: Path,
    data: Path,
    card: Path | None,
    classes: tuple[str, ...],
    no_rest: bool,
    budgets: tuple[tuple[float, ...], ...],
    methods: tuple[tuple[str, ...], ...],
    compensate: tuple[tuple[str, ...], ...],
    round_to: int | None,
    profile: Path | None,
    split: str,
    ignore_label: str | None,
    test_split: str,
    samples_per_class: int | None,
    seed: int,
    device: Device,
    picture: Path | None,
    output: Path,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Accuracy of modules of MODEL against their MACs, by several methods, as figures and a picture.

    Cuts a module for --classes together (of one class: against (other)) at every budget by every
    method, and measures each on the test split, as it measures MODEL restricted to the classes. The
    modules are not written: 'graft decompose' does that.
    """
    picture = picture or output.with_suffix(".svg")
    _check_files(output, picture, force)
    parent = parents.load_parent(model, card)
    samples, fingerprint = options.samples_of(
        data, split, parent.card, None, samples_per_class, seed, ignore=ignore_label
    )
    names = options.classes_with_samples(classes, samples) or tuple(samples.counts())
    test = Samples.match(options.split_of([options.Prefixed(data)], test_split, ignore_label), parent.card)
    Samples.match(test.split, parent.card, names)  # says which of them has none
    shares = sorted(_each(budgets, LADDER))
    method = best(parent.groups, samples=True)
    usual = (method, *METHODS[1:])
    ways, steps = _each(methods, usual), _each(compensate, COMPENSATE[-1:])
    merged = parents.apart(parent, names) and set(samples.counts()) - set(names)
    if ONE_PLAN in ways and merged and not profile:
        raise classes_merged()
    count = len(shares) * len(ways) * len(steps)
    if dry_run:
        would = {"output": output, "plot": picture, "dry_run": True, "classes": names, "points": count}
        note = f"would cut and measure {count} modules, and write {output} and {picture}"
        show.emit("curve", would, as_json, lambda: show.note(note))
        return
    observed = parents.profile_of(parent, names, profile, samples, fingerprint, device)
    decompose = Decompose(
        method=method, together=len(names) > 1, rest=not no_rest, seed=seed, round_to=round_to
    )
    with show.progress("cutting", count) as step:
        curve = Curve(device, shares, ways, steps, progress=step)
        report = curve(parent, observed, samples, test, decompose, names)
    result: dict[str, Any] = {
        "classes": list(names),
        "seed": seed,
        "samples": report.test_samples,
        "train_samples": report.train_samples,
        "parent": {
            "macs": parent.cost.macs,
            "parameters": parent.cost.parameters,
            "top1": report.top1,
            "balanced_accuracy": report.balanced_accuracy,
        },
        "points": [asdict(point) for point in report.points],
        "providers": list(report.providers),
    }
    _write(result, report, f"{show.classes(names)} of {model.name}", output, picture, force)
    told = {**result, "output": output, "plot": picture}
    show.emit("curve", told, as_json, lambda: _show(report, names, output, picture))


def _each(given: Sequence[Sequence[Any]], default: Sequence[Any]) -> tuple[Any, ...]:
    """What an option was given, each value once, over all its uses."""
    return tuple(dict.fromkeys(value for values in given for value in values)) or tuple(default)


def _check_files(output: Path, picture: Path, force: bool) -> None:
    """Say before the work what would go wrong after it."""
    plot.check_format(picture)
    if picture.resolve() == output.resolve():
        raise GraftError(
            "plot-format", f"{output} cannot hold figures and picture", "give another -o or --plot"
        )
    refuse_overwrite(output, force)
    refuse_overwrite(picture, force)


def _write(
    result: dict[str, Any], report: CurveReport, title: str, output: Path, picture: Path, force: bool
) -> None:
    """Both files, or none."""
    balanced = report.balanced_accuracy
    measure = "top-1" if balanced is None else "balanced accuracy"
    text = json.dumps({"schema": "graft/curve/1", **show.plain(result)}, indent=1)
    with writing(output, force) as figures, writing(picture, force) as drawn:
        figures.write_text(text + "\n", encoding="utf-8")
        top = report.top1 if balanced is None else balanced
        plot.draw(drawn, picture.suffix, title, measure, 100 * top, _lines(report))


def _lines(report: CurveReport) -> list[plot.Line]:
    """A curve for each method and compensation, Graft's own choice first in colour."""
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
    """Share of MACs, accuracy and the standard error of the loss, in percent, of what was reached.

    Balanced accuracy is drawn without an error: the one that is known is of top-1.
    """
    found = []
    for point in points:
        if point.macs_ratio is None or point.top1 is None or point.standard_error is None:
            continue
        y, error = point.top1, point.standard_error
        if point.balanced_accuracy is not None:
            y, error = point.balanced_accuracy, 0.0
        found.append((100 * point.macs_ratio, 100 * y, error))
    return tuple(found)


def _named(method: str) -> str:
    names = {name: f"Graft: {name}" for name in (MEASURED, DEFAULT)} | {ONE_PLAN: "one plan for all classes"}
    return names.get(method, method)


def _show(report: CurveReport, names: Sequence[str], output: Path, picture: Path) -> None:
    budgets = sorted({point.keep for point in report.points})
    rows: dict[tuple[str, str], list[str]] = {}
    for point in report.points:
        start = [_named(point.method), point.compensate]
        rows.setdefault((point.method, point.compensate), start).append(_cell(point))
    show.table(
        f"points lost against the parent, {show.classes(names)}, by share of its MACs; "
        f"ran on {', '.join(report.providers)}",
        ["method", "compensate", *(f"<= {show.percent(keep, 0)}" for keep in budgets)],
        list(rows.values()),
    )
    show.note(
        f"{report.test_samples} test samples: parent {show.percent(report.top1)} restricted to the classes"
    )
    show.note(f"figures in {output}, picture in {picture}")


def _cell(point: Point) -> str:
    return "-" if point.loss is None else f"{point.loss:+.2f} ± {point.standard_error:.2f}"
