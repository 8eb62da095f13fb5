"""How results look: one JSON object, or tables and notes; progress bars on standard error."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

WIDTH = 240


def emit(command: str, result: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print ``result`` as JSON with its schema, or let ``show`` print it for people."""
    if as_json:
        click.echo(json.dumps({"schema": f"graft/{command}/1", **plain(result)}))
    else:
        show()


def plain(value: Any) -> Any:
    """``value`` as JSON knows it: paths as strings, NaN as null."""
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
    """Print a table; the first column is left aligned, the others right."""
    found = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        found.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        found.add_row(*map(escape, row))
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a file or pipe has no width to wrap at
        console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    console.print(found)


def note(text: str) -> None:
    """A line for people, on standard output."""
    click.echo(text)


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error that vanishes when done, and where nobody would see it."""
    console = Console(stderr=True)
    quiet = click.get_current_context().meta.get("quiet", False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    ) as bars:
        task = bars.add_task(title, total=total)
        yield lambda done: bars.advance(task, done)


def percent(value: float | None, digits: int = 2) -> str:
    """``91.73 %``."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def rejection(result: dict[str, Any]) -> str:
    """How well (other) tells samples of no class from the others."""
    if not math.isfinite(result["auroc"]):
        return "(other): there are samples of one side only"
    return (
        f"(other): AUROC {result['auroc']:.4f}; where 95 % of the samples of classes pass, "
        f"{percent(result['fpr_at_95_recall'])} of the rest do"
    )


def classes(names: Sequence[str]) -> str:
    """Names, or how many there are.

    >>> classes(["cat", "dog"])
    'cat, dog'
    """
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} classes"


def count(value: int) -> str:
    """``40.6 M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)
