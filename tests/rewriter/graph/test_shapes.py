"""Shapes of tensors where the graph computes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from tests.graphs import Builder, T


def shapes_of(b: Builder, *outputs: T) -> dict[str, Shape]:
    proto = b.model(*outputs)
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Model.from_proto(proto).shapes()


def size(b: Builder, x: T, axis: int) -> T:
    return b.one("Gather", b.one("Shape", x), b.constant(axis, np.int64), axis=0)


def free(b: Builder, axis: int = 1) -> None:
    b.inputs[0].type.tensor_type.shape.dim[axis].dim_param = "length"


def headed(b: Builder, x: T, *sizes: T) -> T:
    """``x`` with a target of its own first sizes and of ``sizes``."""
    first = [b.unsqueeze(size(b, x, axis), 0) for axis in (0, 1)]
    return b.one("Reshape", x, b.one("Concat", *first, *sizes, axis=0))


@pytest.mark.parametrize("opset", [12, 13, 18])
def test_a_target_put_together_from_sizes(opset: int) -> None:
    b = Builder(opset=opset)
    x = headed(b, b.input(5, 12), b.ints(3), b.ints(-1))
    assert shapes_of(b, x)[x.name] == (2, 5, 3, 4)


def test_arithmetic_on_sizes() -> None:
    b = Builder(opset=13)
    x = b.input(5, 12)
    width = b.unsqueeze(b.one("Div", size(b, x, 2), b.constant(3, np.int64)), 0)
    x = headed(b, x, b.ints(3), width)
    assert shapes_of(b, x)[x.name] == (2, 5, 3, 4)


def test_sizes_that_do_not_depend_on_a_free_length_are_known() -> None:
    b = Builder(opset=13)
    x = b.input(5, 12)
    free(b)
    x = headed(b, x, b.ints(-1), b.ints(4))
    assert shapes_of(b, x)[x.name] == (2, None, 3, 4)


def test_a_size_that_depends_on_a_free_length_is_not() -> None:
    b = Builder(opset=13)
    x = b.input(5, 12)
    free(b)
    x = b.reshape(x, 0, -1)
    assert shapes_of(b, x)[x.name] == (2, None)


def test_a_shape_chosen_where_it_is_not_minus_one() -> None:
    """As exporters write ``expand``: -1 stands for the size that is there."""
    b = Builder(opset=13)
    x = b.input(1, 4)
    wanted = b.one("Concat", b.unsqueeze(size(b, x, 0), 0), b.ints(3), b.ints(-1), axis=0)
    ones = b.one(
        "ConstantOfShape", b.ints(3), value=onnx.helper.make_tensor("one", TensorProto.INT64, [1], [1])
    )
    target = b.one("Where", b.one("Equal", wanted, b.ints(-1, -1, -1)), ones, wanted)
    x = b.one("Expand", x, target)
    assert shapes_of(b, x)[x.name] == (2, 3, 4)


def test_a_shape_chosen_by_a_constant() -> None:
    """As is left of an ``expand`` whose condition was folded."""
    b = Builder(opset=13)
    x = b.input(1, 4)
    wanted = b.one("Concat", b.unsqueeze(size(b, x, 0), 0), b.ints(-1, -1), axis=0)
    condition = b.constant([False, True, True], np.bool_)
    token = b.one(
        "Expand",
        b.constant(np.zeros((1, 1, 4)), np.float32),
        b.one("Where", condition, b.ints(1, 1, 1), wanted),
    )
    x = b.one("Concat", token, x, axis=1)
    assert shapes_of(b, x)[x.name] == (2, 2, 4)
