"""Columns are picked where they come from, and what nobody picks is not made."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graft.passes.base import Context
from graft.passes.join.push_gather import PushGather
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from tests import small


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=6), min_size=1, max_size=3),
    st.booleans(),
)
def test_the_same_columns_come_out(widths: list[int], picks: list[list[int]], steps: bool) -> None:
    net = small.Net(*((5, 3) if steps else (3,)))
    parts = [
        net.node("MatMul", f"part{n}", "x", net.weight(f"w{n}", 3, width)) for n, width in enumerate(widths)
    ]
    found, size = net.node("Concat", "all", *parts, axis=-1 if steps else 1), sum(widths)
    for number, pick in enumerate(picks):
        columns = [each % (2 * size) - size for each in pick]
        name = "y" if number == len(picks) - 1 else f"pick{number}"
        found, size = (
            net.node("Gather", name, found, net.ints(f"columns{number}", *columns), axis=-1),
            len(pick),
        )
    shape = [5, size] if steps else [size]
    model = (
        Model.from_proto(net.proto(y=shape), small.card([str(n) for n in range(size)], steps=steps))
        if size > 1
        else Model.from_proto(net.proto(y=shape))
    )
    model.refresh_shapes()
    x = small.inputs((5, 3) if steps else (3,))
    before, wanted = small.run(model, x)["y"], cost_of(model).macs
    PushGather()(model, Context())
    np.testing.assert_allclose(small.run(model, x)["y"], before, rtol=1e-6)
    kinds = [node.op for node in model.graph.nodes]
    assert kinds.count("Concat") <= 1 and cost_of(model).macs <= wanted
    used = set(_chain(picks, sum(widths)))
    starts = np.cumsum([0, *widths])
    needed = {int(np.searchsorted(starts, column, side="right")) - 1 for column in used}
    assert kinds.count("MatMul") == len(needed)


def _chain(picks: list[list[int]], size: int) -> list[int]:
    """Columns of all that come out in the end."""
    columns = list(range(size))
    for pick in picks:
        columns = [columns[each % (2 * len(columns)) - len(columns)] for each in pick]
    return columns
