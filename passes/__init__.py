"""Passes: the operations on a graph, one folder for each stage of the pipeline.

The names in ``__all__`` are the public API; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graft.passes.base import Context, Declined, Pass, Report
    from graft.passes.budget_search import BudgetSearch
    from graft.passes.compose import Compose, ComposeReport
    from graft.passes.curve import Curve, CurveReport
    from graft.passes.cut.slice import Slice
    from graft.passes.cut.verify import Pruned, Verify
    from graft.passes.decompose import Decompose, DecomposeReport, PlanReport
    from graft.passes.join.adapt import Adapt
    from graft.passes.join.convert import Convert
    from graft.passes.join.deduplicate import Deduplicate
    from graft.passes.join.patch import Newcomer, Patch
    from graft.passes.modularize import Modularize, ModularizeReport
    from graft.passes.networks import Modules
    from graft.passes.new_class import NewClass, NewClassReport
    from graft.passes.normalize.simplify import Normalize
    from graft.passes.parent import Parent
    from graft.passes.remove import Remove
    from graft.passes.replace import Replace, ReplaceReport
    from graft.passes.select.observe import Observe
    from graft.passes.trunk import Source

__all__ = [
    "Adapt",
    "BudgetSearch",
    "Compose",
    "ComposeReport",
    "Context",
    "Convert",
    "Curve",
    "CurveReport",
    "Declined",
    "Decompose",
    "DecomposeReport",
    "Deduplicate",
    "Modularize",
    "ModularizeReport",
    "Modules",
    "NewClass",
    "NewClassReport",
    "Newcomer",
    "Normalize",
    "Observe",
    "Parent",
    "Pass",
    "Patch",
    "PlanReport",
    "Pruned",
    "Remove",
    "Replace",
    "ReplaceReport",
    "Report",
    "Slice",
    "Source",
    "Verify",
]

_MODULES = {
    "base": ("Context", "Declined", "Pass", "Report"),
    "budget_search": ("BudgetSearch",),
    "compose": ("Compose", "ComposeReport", "Modules"),
    "curve": ("Curve", "CurveReport"),
    "cut.slice": ("Slice",),
    "cut.verify": ("Pruned", "Verify"),
    "decompose": ("Decompose", "DecomposeReport", "PlanReport"),
    "join.adapt": ("Adapt",),
    "join.convert": ("Convert",),
    "join.deduplicate": ("Deduplicate",),
    "join.patch": ("Newcomer", "Patch"),
    "modularize": ("Modularize", "ModularizeReport"),
    "new_class": ("NewClass", "NewClassReport"),
    "normalize.simplify": ("Normalize",),
    "parent": ("Parent",),
    "remove": ("Remove",),
    "replace": ("Replace", "ReplaceReport"),
    "select.observe": ("Observe",),
    "trunk": ("Source",),
}


if not TYPE_CHECKING:  # type checkers see the imports above, and names that are missing

    def __getattr__(name: str) -> Any:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
