"""Which comparison belongs to a mutant's result."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.mutant import OUT, Mutant
from tests.fuzz.oracle import check_evaluated, check_modules, check_predicted, check_removed
from tests.fuzz.oracle_join import check_added, check_composed, check_replaced

Check = Callable[[Mutant, str], str]
WRITTEN: dict[str, Check] = {
    "decompose": check_modules,
    "remove": check_removed,
    "add": check_added,
    "replace": check_replaced,
    "compose": check_composed,
}


def check_of(mutant: Mutant) -> Check | None:
    """The comparison for a mutant's result; ``None`` where there is nothing to compare."""
    if mutant.kind == "options" or "--dry-run" in mutant.arguments:
        return None
    if mutant.command in WRITTEN and OUT in mutant.arguments:
        return WRITTEN[mutant.command]
    if mutant.command == "predict" and "--json" in mutant.arguments and mutant.kind in COMPUTED:
        return check_predicted
    if mutant.command == "evaluate" and "--json" in mutant.arguments and mutant.kind == "model":
        return check_evaluated
    return None


COMPUTED = ("model", "card", "folder")
"""Kinds of mutants whose data are those of the base."""
