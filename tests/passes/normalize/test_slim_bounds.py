"""Bounds on the simplifier change what it takes, not what it makes."""

from __future__ import annotations

import numpy as np
import pytest
from onnxslim.core.optimization import weight_tying
from onnxslim.third_party import onnx_graphsurgeon as gs

from graft.passes.normalize.slim_bounds import constants_bounded

VALUES = [
    *(np.float32(value) for value in (0.0, -0.0, 1.5, np.nan, np.nan)),
    *(np.int64(value) for value in (0, 1, 0)),
    *(np.array(value, np.float32) for value in ([1.5, 2], [2, 1.5], [1.5, 2])),
    *(np.array(value) for value in (True, False, True)),
]


def tied(values: list[np.ndarray]) -> list[str]:
    """Names of the constants that nodes read after equal ones were made one."""
    constants = [gs.Constant(f"c{at}", np.asarray(value)) for at, value in enumerate(values)]
    nodes = [gs.Node("Neg", f"n{at}", inputs=[constant]) for at, constant in enumerate(constants)]
    shapes = {constant.values.shape for constant in constants}
    for shape in sorted(shapes):
        weight_tying.find_and_remove_replaceable_constants([c for c in constants if c.values.shape == shape])
    return [node.inputs[0].name for node in nodes]


def test_equal_constants_become_one_as_before() -> None:
    plain = tied(VALUES)
    with constants_bounded():
        assert tied(VALUES) == plain
    assert plain[1] == "c0" and plain[7] == "c5" and plain[10] == "c8"


def test_thousands_of_constants_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    count, equal = 0, gs.Constant.__eq__

    def counted(self: gs.Constant, other: object) -> bool:
        nonlocal count
        count += 1
        return bool(equal(self, other))

    monkeypatch.setattr(gs.Constant, "__eq__", counted)
    with constants_bounded():
        names = tied([np.float32(at // 2) for at in range(2000)])
    assert names == [f"c{at // 2 * 2}" for at in range(2000)]
    assert count < 10_000


def test_thousands_of_equal_constants_of_one_node_become_one() -> None:
    constants = [gs.Constant(f"c{at}", np.array(at % 2)) for at in range(5000)]
    start = gs.Variable("x", np.int64, ())
    node = gs.Node("Sum", "sum", inputs=[constants[0], start, *constants], outputs=[gs.Variable("y")])
    with constants_bounded():
        weight_tying.find_and_remove_replaceable_constants(constants)
    assert [tensor.name for tensor in node.inputs] == ["c0", "x", *("c0", "c1") * 2500]
    assert [len(constant.outputs) for constant in constants[:3]] == [2501, 2500, 0]
