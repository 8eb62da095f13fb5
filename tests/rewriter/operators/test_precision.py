"""The law in half precision: float16 by onnxruntime, bfloat16 by onnx's reference evaluator."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import graphs
from tests.graphs import CLASSES, Builder
from tests.rewriter.operators.test_law import SHARES, Law, shift_shows, shiftable

TOLERANCE = 1e-2


def cnn(b: Builder) -> onnx.ModelProto:
    """Convolutions, a residual sum, a gate by the mean over the channels, pooling."""
    x = graphs.features(b)
    x = b.relu(b.one("Add", x, b.batchnorm(b.conv(b.relu(b.conv(x, 5)), 6))))
    x = b.one("Mul", x, b.one("Sigmoid", b.reduce(x, axes=[1])))
    return graphs.classify(b, b.one("MaxPool", x, kernel_shape=[2, 2]))


def dense(b: Builder) -> onnx.ModelProto:
    """Gemm, MatMul, a joined tensor."""
    x = b.relu(b.gemm(b.input(6), 8))
    x = b.one("Concat", b.relu(b.matmul(x, 6)), x, axis=1)
    return b.model(b.gemm(b.relu(b.gemm(x, 7)), CLASSES))


def in_precision(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """The same model with all floats of another type."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*result.graph.input, *result.graph.output):
        value.type.tensor_type.elem_type = kind
    return result


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16"])
@pytest.mark.parametrize("network", [cnn, dense])
def test_law_holds_in_half_precision(network: graphs.Case, kind: str) -> None:
    proto = in_precision(network(Builder(7, 22)), TensorProto.DataType.Value(kind))
    onnx.checker.check_model(proto, full_check=True)
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind))
    inputs = {name: values.astype(dtype) for name, values in graphs.samples(proto).items()}
    tolerance = TOLERANCE if kind == "FLOAT16" else 4 * TOLERANCE  # 8 bits of mantissa
    law = Law(proto, inputs, tolerance=tolerance)
    assert law.varies()
    for number, share in enumerate(SHARES):
        cut = law.check(law.plan(share, number))
        kinds = {tensor.data_type for tensor in cut.graph.initializer}
        assert TensorProto.FLOAT not in kinds
    assert any(shift_shows(law, group) > 2 * tolerance for group in shiftable(law.groups))
