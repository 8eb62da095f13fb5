"""Modularize: what is written of its modules is what the passes found."""

from __future__ import annotations

from graft.passes.budget_search import BudgetSearch
from graft.passes.decompose import Decompose
from graft.passes.modularize import Modularize
from tests import small
from tests.passes.test_budget_search import classifier


def test_differences_are_those_of_the_searches() -> None:
    """In points, negative is worse."""
    parent, data = classifier()
    context = small.context(small.profile(parent.model, data, parent.sha256), data)
    report = Modularize((("a",), ("b",)), Decompose(()), max_drop=10.0)(parent, context)
    entries = report.describe()["modules"]
    for classes, entry in zip(report.classes, entries, strict=True):
        search = BudgetSearch(10.0, Decompose(classes))(parent, context)
        assert entry["classes"] == list(classes)
        assert entry["difference"] == search.difference
        assert entry["difference_standard_error"] == search.standard_error
    assert -10 <= min(entry["difference"] for entry in entries) < 0
