"""Channels that zeros leave without a part: all of them, and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graft.passes.base import Context
from graft.passes.cut.slice import Slice
from graft.passes.cut.unused import unused_channels
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from tests import small


def zeroed(net: small.Net, **zeros: Callable[[np.ndarray], None]) -> Model:
    """A model after its constants were changed by name."""
    model = small.model(net)
    tensors = model.graph.tensors()
    for name, change in zeros.items():
        values = tensors[name.replace("_", ".")].values.copy()
        change(values)
        tensors[name.replace("_", ".")].values = values
    return model


def removed(model: Model, x: np.ndarray) -> dict[str, list[int]]:
    """Channels that are unused, by group; the model without them computes the same, bit for bit nearly."""
    whole = Analysed.of(model)
    groups = whole.groups
    kept = groups.close(groups.everything() & ~unused_channels(groups))
    plan = Plan.of(groups, kept, "p")
    cut = whole.copy()
    Slice(plan)(cut, Context())
    np.testing.assert_allclose(small.run(cut.model, x)["y"], small.run(model, x)["y"], rtol=1e-5, atol=1e-6)
    return {name: np.flatnonzero(~mask).tolist() for name, mask in plan.kept.items() if not mask.all()}


def row(*places: int) -> Callable[[np.ndarray], None]:
    """Zeros along the first axis."""

    def change(values: np.ndarray) -> None:
        values[list(places)] = 0

    return change


def column(*places: int) -> Callable[[np.ndarray], None]:
    """Zeros along the second axis."""

    def change(values: np.ndarray) -> None:
        values[:, list(places)] = 0

    return change


def test_units_that_are_read_by_zeros_or_made_of_zeros() -> None:
    net = small.dense_net()  # weights are (outputs, inputs)
    model = zeroed(net, dense_w=row(2, 3), dense_b=row(2), y_w=column(5))
    assert removed(model, small.inputs([6])) == {"dense": [2, 5]}, "unit 3 has a bias"


def test_filters_of_a_convolution() -> None:
    model = zeroed(small.conv_net(), conv1_w=row(0), conv1_b=row(0), conv2_w=column(4), y_w=column(1))
    assert removed(model, small.inputs([2, 6, 5])) == {"conv1": [0, 4], "conv2": [1]}


def test_a_residual_stream_is_read_twice() -> None:
    model = zeroed(small.residual_net(), conv1_w=column(2), dense_w=column(3))
    assert removed(model, small.inputs([2, 6, 6])) == {}, "the other place reads them"
    both = zeroed(small.residual_net(), conv1_w=column(2), dense_w=column(2))
    assert list(removed(both, small.inputs([2, 6, 6])).values()) == [[2]]


@pytest.mark.parametrize("op", ["Sigmoid", "Softplus", "Exp"])
def test_what_makes_something_of_zeros_is_no_end(op: str) -> None:
    net = small.Net(6)
    net.gemm("y", net.node(op, "on", net.gemm("dense", "x", 8, 6)), 4, 8)
    model = zeroed(net, dense_w=row(2), dense_b=row(2))
    assert removed(model, small.inputs([6])) == {}


def test_one_channel_is_left() -> None:
    model = zeroed(small.dense_net(), y_w=column(*range(8)))
    assert removed(model, small.inputs([6])) == {"dense": list(range(1, 8))}


def test_nothing_is_removed_of_an_ordinary_network() -> None:
    assert removed(small.model(small.residual_net()), small.inputs([2, 6, 6])) == {}
