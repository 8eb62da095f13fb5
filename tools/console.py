"""Printing: one JSON object, or tables and notes; progress bars and log lines on standard error.

All text for people passes through here: names in models and files may hold what a terminal would obey.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from graft.rewriter.groups.plan import Plan
from graft.tools.terminal import early as early
from graft.tools.terminal import note as note
from graft.tools.terminal import print_json, printable
from graft.tools.terminal import say as say

WIDTH = 240
UNKNOWN = 5.0
"""Seconds without a step after which a bar says that the time left is not known."""


def emit(command: str, result: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print ``result`` as JSON with its schema, or let ``show`` print it for people.

    After a dry run people are told that nothing was written.

    Args:
        command: its name, which the schema holds.
        result: what was done.
        as_json: print JSON.
        show: prints tables and notes.
    """
    if as_json:
        print_json({"schema": f"graft/{command}/1", **plain(result)})
    else:
        show()
        if result.get("dry_run"):
            note("dry run: nothing was written")


def plain(value: Any) -> Any:
    """Return ``value`` as JSON has it: paths as strings, NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left aligned, the others right.

    Args:
        title: the line above.
        columns: their heads.
        rows: the cells.
    """
    found = Table(
        title=escape(printable(title)), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for position, column in enumerate(columns):
        found.add_column(escape(printable(column)), justify="left" if position == 0 else "right")
    for row in rows:
        found.add_row(*(escape(printable(cell)) for cell in row))
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a file or pipe has no width to wrap at
        console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    console.print(found)


def data_source(result: dict[str, Any], asked: int = 0) -> None:
    """Print where labels and splits are from, if not from the data: a line each.

    Args:
        result: holds ``label_source``, ``test_label_source``, ``label_classes``, ``predicted_outside``
            and ``split``, as far as they are known.
        asked: number of the classes asked for, where labels can be predicted among them.
    """
    sources = {result.get("label_source"), result.get("test_label_source")}
    if "predictions" in sources:
        which = (
            ""
            if len(sources - {None}) == 1
            else (" (training samples)" if result["label_source"] == "predictions" else " (test samples)")
        )
        note(f"labels: the parent's predictions{_among(result, asked)}{which}")
    if "split" in result:
        drawn = result["split"]
        note(
            f"the data has no splits: {drawn['train']} samples (80 % of each class) are for training, "
            f"{drawn['test']} for testing, drawn by --seed {drawn['seed']}"
        )


def _among(result: dict[str, Any], asked: int) -> str:
    """Say which classes labels were predicted among, and how many predictions are of others."""
    among = result.get("label_classes") or result.get("test_label_classes")
    share = result.get("predicted_outside")
    if among is not None:
        others = f"; among all, {percent(share, 1)} would be others" if share else ""
        return f" among the {len(among)} classes asked for{others}"
    if not share:
        return ""
    hint = "; where all samples are of these: --labels-among asked" if asked > 1 else ""
    return f", {percent(share, 1)} of them other classes than those asked for{hint}"


def declined(reasons: Sequence[str], where: str = "") -> None:
    """Log what was left as it was, and why: a line each on standard error, with ``-v``.

    Args:
        reasons: as ``"where: reason"``.
        where: the module that they are of, where there are several.
    """
    for reason in reasons:
        logging.getLogger("graft").info("declined: %s%s", f"{where}: " if where else "", reason)


class _TimeLeft(ProgressColumn):
    """The time left: as estimated before the work, then by the speed so far.

    Args:
        estimated: seconds; 0: not estimated.
    """

    def __init__(self, estimated: float = 0.0) -> None:
        self._estimated = estimated
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return minutes and seconds; nothing where they are not known."""
        elapsed = task.elapsed or 0.0
        if task.completed and task.total:
            left = elapsed * (task.total - task.completed) / task.completed
        elif self._estimated:
            left = max(0.0, self._estimated - elapsed)
        else:
            return Text("time left unknown" if elapsed > UNKNOWN else "")
        minutes, seconds = divmod(round(left), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")


@contextlib.contextmanager
def progress(title: str, total: int, seconds: float = 0.0) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error that vanishes when done; no terminal, no bar.

    Args:
        title: what is done.
        total: number of steps.
        seconds: what they take, as estimated; 0: not known.
    """
    console = Console(stderr=True)
    quiet = click.get_current_context().meta.get("quiet", False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _TimeLeft(seconds),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bars:
        task = bars.add_task(escape(printable(title)), total=total)
        yield lambda done: bars.advance(task, done)


def percent(value: float | None, digits: int = 2) -> str:
    """Format a share, as ``91.73 %``."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def file_size(whole: int, beside: int = 0) -> str:
    """Format the size of a model, and what of it are weights in a file beside it.

    >>> file_size(439000, 423000)
    '439 kB (16 kB + 423 kB of weights beside it)'
    """
    if not beside:
        return f"{whole / 1e3:.0f} kB"
    return (
        f"{whole / 1e3:.0f} kB ({(whole - beside) / 1e3:.0f} kB + {beside / 1e3:.0f} kB of weights beside it)"
    )


def rejection(result: dict[str, Any]) -> str:
    """Describe how well (other) detects out-of-distribution samples."""
    if not math.isfinite(result["auroc"]):
        return "(other): AUROC needs samples of the classes and others"
    return (
        f"(other): AUROC {result['auroc']:.4f}, false positive rate at 95 % recall "
        f"{percent(result['fpr_at_95_recall'])}"
    )


def layers(plan: Plan) -> dict[str, Any]:
    """Return what a plan says of layers that did not compete for the budget, for ``--json``."""
    stay = {name: int(plan.kept[name].sum()) for name in plan.keep_layers if name in plan.kept}
    return {"frozen": list(plan.frozen), "keep_layers": dict(plan.keep_layers), "kept_of_layers": stay}


def print_layers(result: dict[str, Any]) -> None:
    """Print a line about layers that were left alone, and one about shares that were asked for."""
    if result["frozen"]:
        note(f"left alone: {shortened(result['frozen'])}")
    if result["keep_layers"]:
        said = [f"{name} {percent(share, 0)}" for name, share in result["keep_layers"].items()]
        note(f"shares of channels as asked for: {shortened(said)}")


def print_batch(batch: int | None) -> None:
    """Print a line about a batch that is fixed."""
    if batch:
        what = "one sample at a time" if batch == 1 else f"{batch} samples at once, no more and no less"
        note(f"takes {what}: a parent was exported so; export it with a free batch to run other numbers")


def shortened(words: Sequence[str]) -> str:
    """List the first words, and count the others.

    >>> shortened(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    more = f" and {len(words) - 4} more" if len(words) > 4 else ""
    return ", ".join(words[:4]) + more


def classes(names: Sequence[str]) -> str:
    """List names, or count them where there are more than four.

    >>> classes(["cat", "dog"])
    'cat, dog'
    """
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} classes"


def count(value: int | None) -> str:
    """Format a count, as ``40.6 M``; ``None`` is not known."""
    if value is None:
        return "unknown"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)
