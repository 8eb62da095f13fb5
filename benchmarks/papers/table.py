"""What a table of a paper is, and its rows."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One figure of a paper.

    Attributes:
        paper: ``fse20``, ``icse22`` or ``icse23``.
        table: its number in the paper.
        row: which figure of the table.
        printed: the figure; accuracies as fractions; ``None`` where none is printed.
        here: what Graft gives; ``None`` where it cannot be rerun.
        reason: why these differ, or why there is none.
    """

    paper: str
    table: str
    row: str
    printed: float | None
    here: float | None
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it as ``--json`` writes it."""
        return asdict(self)


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        paper: ``fse20``, ``icse22`` or ``icse23``.
        number: in the paper.
        title: what it shows, in a few words.
        rows: makes its rows; what it lacks is in their reasons.
        note: what a reader should know.
    """

    paper: str
    number: str
    title: str
    rows: Callable[[], list[Row]]
    note: str = ""

    @property
    def key(self) -> str:
        """The name for ``--only``."""
        return f"{self.paper}:{self.number}"


@functools.cache
def printed() -> dict[str, Any]:
    """Return the printed figures, in percent as the papers have them: paper, table, then as it suits."""
    found: dict[str, Any] = json.loads((HERE / "printed.json").read_text("utf-8"))
    return found


def fraction(percent: float | None) -> float | None:
    """Return a printed accuracy as a fraction, without the noise of the division."""
    return None if percent is None else round(percent / 100, 6)
