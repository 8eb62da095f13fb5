"""Modularize: what is declined while modules are searched, cut, converted and joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from graft.passes.base import Declined
from graft.passes.budget_search import BudgetSearch
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.join.convert import Convert
from graft.passes.modularize import Modularize
from tests import small
from tests.passes.test_budget_search import classifier


@pytest.mark.parametrize("kind", [BudgetSearch, Decompose, Convert, Compose])
def test_what_is_declined_on_the_way_to_modules_is_reported_once(
    kind: type, declining: Callable[[type], Declined]
) -> None:
    parent, data = classifier()
    profile = small.profile(parent.model, data, parent.sha256)
    declined = declining(kind)
    modularize = Modularize((("a",), ("b",)), Decompose(["a"], method="contrast"), max_drop=20.0)
    context = small.context(profile, data, held_out=data)
    report = modularize(parent, context)
    assert report.declined.count(declined) == 1
    assert str(declined) in report.describe()["declined"]
    if kind is Compose:
        apart = modularize(parent, replace(context, held_out=None))
        assert apart.measured is None and declined not in apart.declined
