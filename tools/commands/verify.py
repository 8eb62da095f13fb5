"""``graft verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtime, runtimes
from graft.rewriter.runtimes.against import Change, change
from graft.rewriter.runtimes.trial import Trial
from graft.rewriter.runtimes.verification import TOLERANCE, Subject, Verdict, Verification
from graft.tools import console as show
from graft.tools import options
from graft.tools.cli import CHECK_FAILED, DONE
from graft.tools.command import Option, Options, Reads, takes_options

CHECK = "What to check"


def _tolerance(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"expected a number such as 1e-3, 0 or more, found {value}")
    return found


Tolerance = Annotated[float, Reads("number", _tolerance)]


class VerifyOptions(options.ShapeOptions, options.ModelOptions):
    """A model, another one, and what counts as a difference."""

    against: Annotated[
        Path | None,
        Option(
            "Compare the scores with this model's, restricted to the classes of MODEL: the parent.", CHECK
        ),
    ] = None
    against_card: Annotated[
        Path | None, Option("Card of --against. Default: NAME.yaml beside it.", CHECK)
    ] = None
    runtime: Annotated[
        tuple[str, ...],
        Option("Only this runtime; repeatable. Default: all that are installed.", CHECK, metavar="NAME"),
    ] = ()
    tolerance: Annotated[
        Tolerance,
        Option(
            "Largest difference, relative to the scale of the scores (at least 1); beyond it the exit code"
            " is 1.",
            CHECK,
            show_default=True,
        ),
    ] = TOLERANCE
    max_change: Annotated[
        Tolerance | None,
        Option("The same for the difference from --against. Default: --tolerance.", CHECK),
    ] = None


class VerifyData(Options):
    """The samples."""

    data: Annotated[
        Path | None,
        Option(
            "Samples as 'graft evaluate' takes them, also without labels. Default: seeded ones.", options.DATA
        ),
    ] = None
    split: Annotated[
        str, Option("Split of the samples.", options.DATA, metavar="NAME", show_default=True)
    ] = "test"
    samples: Annotated[
        int,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option("Use so many samples.", options.DATA, metavar="N", show_default=True),
    ] = 32
    batch: Annotated[
        int,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option(
            "Samples at once; a few are run one at a time, too.", options.DATA, metavar="N", show_default=True
        ),
    ] = 8
    seed: Annotated[
        int,
        Field(ge=0, le=options.LARGEST_SEED),
        Option("Seed of samples that are drawn.", options.DATA, metavar="N", show_default=True),
    ] = 0


class VerifyRun(Options):
    """What a runtime may take."""

    threads: Annotated[
        int,
        Field(ge=1, le=options.LARGEST_NUMBER),
        Option("Threads of every runtime.", options.RUN, metavar="N", show_default=True),
    ] = options.TIMING_THREADS
    time_limit: Annotated[
        options.Seconds,
        Option(
            "Time that a runtime may take for a file: 90, 10m, none.",
            options.RUN,
            metavar="TIME",
            show_default=True,
        ),
    ] = 120.0


@takes_options(epilog="Example: graft verify cats/cat.onnx --against resnet20.onnx --data cifar10.npz")
def command(subject: VerifyOptions, data: VerifyData, run: VerifyRun, output: options.PrintOptions) -> int:
    """Check that MODEL gives the same numbers in other runtimes, and the same scores as its parent.

    Samples are run by onnxruntime, with and without its optimizations, one at a time and several at once,
    and by every other runtime that is installed, each in a process of its own. What the parent cannot do
    in a runtime is not held against MODEL.
    """
    asked = None if not subject.runtime else [runtime(name) for name in dict.fromkeys(subject.runtime)]
    verification = Verification(asked, data.batch, run.threads, run.time_limit, subject.tolerance)
    model = Model.load(subject.model, subject.card)
    trial = _trial(model, subject, data)
    own = verification.subject(subject.model, model, trial)
    parent, changed = None, None
    if subject.against is not None:
        other = Model.load(subject.against, subject.against_card)
        parent = verification.subject(subject.against, other, trial)
        changed = change(own, parent, len(trial))
    with show.progress("runtimes", len(asked or runtimes())) as step:
        found = verification.measure(own, parent, lambda _: step(1))
    most = subject.tolerance if subject.max_change is None else subject.max_change
    wrong = [*_wrong(found, subject), *_too_far(changed, most, subject)]
    result = {
        "model": subject.model,
        "samples": len(trial),
        "source": trial.source,
        "batch": data.batch,
        "threads": run.threads,
        "tolerance": subject.tolerance,
        "runtimes": {verdict.name: verdict.plain() for verdict in found},
        **({} if changed is None else {"against": {"model": subject.against, **changed.plain()}}),
        "passed": not wrong,
    }
    show.emit("verify", result, output.as_json, lambda: _show(found, trial, own, changed, subject))
    for line in wrong:
        show.say(line)
    return CHECK_FAILED if wrong else DONE


def _trial(model: Model, subject: VerifyOptions, data: VerifyData) -> Trial:
    """Return the samples.

    Raises:
        GraftError: they cannot be read or drawn.
    """
    if data.data is None:
        return Trial.drawn(model, data.samples, data.seed, model.sizes_at(subject.shapes()))
    model.require_card(subject.model)
    return Trial.read(model, Dataset.load(data.data, data.seed).split(data.split), data.samples, data.seed)


def _wrong(found: Sequence[Verdict], subject: VerifyOptions) -> list[str]:
    """Return a line for each runtime that does not give the same numbers."""
    lines = []
    for verdict in found:
        if verdict.holds(subject.tolerance):
            continue
        if verdict.error is not None:
            lines.append(f"{verdict.name} does not run {subject.model.name}: {verdict.error}")
        elif verdict.difference is not None:
            largest = f"the largest difference {verdict.difference.largest:.2g}"
            more = "" if verdict.parent_off is None else f" and twice the parent's, {verdict.parent_off:.2g}"
            lines.append(f"{verdict.name}: {largest} is above --tolerance {subject.tolerance:g}{more}")
    return lines


def _too_far(changed: Change | None, most: float, subject: VerifyOptions) -> list[str]:
    """Return a line where the scores are too far from those of the other model."""
    if changed is None or changed.difference is None or subject.against is None:
        return []
    if changed.difference.error is not None:
        return [f"against {subject.against.name}: {changed.difference.error}"]
    if changed.difference.largest <= most:
        return []
    return [
        f"the difference from {subject.against.name}, {changed.difference.largest:.2g}, is above {most:g};"
        " what pruning may change is set by --max-change"
    ]


def _show(
    found: Sequence[Verdict], trial: Trial, own: Subject, changed: Change | None, subject: VerifyOptions
) -> None:
    rows = [_row(verdict) for verdict in found if verdict.installed]
    heads = ["runtime", "version", "largest difference", "decisions changed", "time", "time / onnxruntime's"]
    if subject.against is not None:
        heads.append("time / parent's")
    rows = [row[: len(heads)] for row in rows]
    source = "seeded samples" if trial.source == "seeded" else f"samples of split {trial.source}"
    show.table(f"{own.path.name}: {len(trial)} {source}, difference from onnxruntime", heads, rows)
    for verdict in found:
        if not verdict.installed:
            show.note(f"{verdict.name}: {verdict.error}")
        elif verdict.parent_error is not None:
            how = "does not run there" if verdict.parent_off is None else "is not right there"
            show.note(f"{verdict.name}: the parent {how}: {verdict.parent_error}")
    if changed is not None and subject.against is not None:
        _show_change(changed, subject.against.name)


def _show_change(changed: Change, against: str) -> None:
    apart = changed.difference
    classes = f", {show.classes(changed.classes)}" if changed.classes else ""
    if apart is None:
        show.note(f"against {against}: one class in common{classes}, whose share is always 1: not compared")
        return
    show.note(
        f"against {against}: {changed.compared} differ by {apart.largest:.2g} of their scale"
        f" at most, {apart.changed} of {changed.samples} decisions differ{classes}"
    )


def _row(verdict: Verdict) -> list[str]:
    difference, ratios = verdict.difference, (verdict.ratio, verdict.parent_ratio)
    return [
        verdict.name,
        verdict.version or "-",
        "error" if difference is None else f"{difference.largest:.1e}",
        "-" if difference is None else str(difference.changed),
        "-" if verdict.seconds is None else f"{1e3 * verdict.seconds:.2f} ms",
        *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
    ]
