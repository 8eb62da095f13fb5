"""docs/papers.md: the tables, printed beside what Graft gives."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from benchmarks.papers.table import Row, Table

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"
INTRODUCTION = """# The papers' tables

What the papers print that Graft goes back to, beside what Graft's implementation of their methods gives
([published.md](published.md)), on the authors' own networks where these can be had. Made by
`python -m benchmarks.papers`; accuracies are fractions.
"""
SAME = 5e-5
"""Figures that are printed with so many digits are equal."""


def text(tables: Sequence[tuple[Table, Sequence[Row]]]) -> str:
    """Return the page.

    Args:
        tables: with their rows.
    """
    machine = (
        f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, onnxruntime "
        f"{ort.__version__} on CPU"
    )
    parts = [INTRODUCTION, f"Machine: {machine}. Nothing is drawn at random.\n"]
    for table, rows in tables:
        parts += [f"## {table.key}: {table.title}\n", _counted(rows), _rows(rows)]
    return "\n".join(parts)


def _counted(rows: Sequence[Row]) -> str:
    """Return how many figures are as printed."""
    rerun = [row for row in rows if row.here is not None and row.printed is not None]
    if not rerun:
        return "None of its figures can be rerun.\n"
    same = sum(_same(row) for row in rerun)
    return f"{len(rows)} figures, {len(rerun)} rerun, {same} of these as printed.\n"


def _same(row: Row) -> bool:
    """Return whether a figure is the printed one, to the digits that are printed."""
    digits = max(2, len(f"{row.printed:.6f}".rstrip("0").partition(".")[2]))
    return round(row.here or 0.0, digits) == row.printed


def _rows(rows: Sequence[Row]) -> str:
    lines = ["| figure | printed | here | reason |", "| --- | --- | --- | --- |"]
    for row in rows:
        figures = ["-" if value is None else f"{value:.4f}" for value in (row.printed, row.here)]
        lines.append(f"| {row.row} | {' | '.join(figures)} | {row.reason} |")
    return "\n".join(lines) + "\n"
