"""A parent takes plans that were made for it, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft.passes.parent import Parent
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.plan import Plan
from tests import small


def test_a_plan_of_another_parent_is_refused(tmp_path: Path) -> None:
    parent, path = Parent(small.model(small.dense_net())), tmp_path / "plan.json"
    foreign = small.plan(parent.model, dense=[1])
    path.write_text(foreign.to_json())
    with pytest.raises(GraftError) as caught:
        parent.load_plan(path)
    assert caught.value.code == "plan-of-another"
    own = Plan(parent.sha256, foreign.kept)
    path.write_text(own.to_json())
    assert parent.load_plan(path).to_json() == own.to_json()
