"""Nodes whose attributes do not fit their inputs are named, wherever the file breaks the standard."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import cost_of

node = helper.make_node
WEIGHT = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")


def model(*nodes: onnx.NodeProto, **constants: object) -> Model:
    """Return a model of a layer ``x w = g`` of 3 channels and nodes behind it."""
    weights = [
        numpy_helper.from_array(np.asarray(value, np.int64), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(
        [node("Gemm", ["x", "w"], ["g"], "layer"), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [WEIGHT, *weights],
    )
    return Model.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


UNFIT = {
    "Softmax": (model(node("Softmax", ["g"], ["y"], "last", axis=7)), "axis 7 of a tensor of 2 axes"),
    "ArgMax": (model(node("ArgMax", ["g"], ["y"], "last", axis=-3)), "axis -3 of a tensor of 2 axes"),
    "Concat": (model(node("Concat", ["g", "g"], ["y"], "last", axis=2)), "axis 2 of a tensor of 2 axes"),
    "Gather": (model(node("Gather", ["g", "i"], ["y"], "last", axis=5), i=[0]), "axis 5 of a tensor"),
    "ReduceMean": (model(node("ReduceMean", ["g"], ["y"], "last", axes=[9])), "axis 9 of a tensor of 2"),
    "Reshape": (
        model(node("Reshape", ["g", "s"], ["y"], "last"), s=[[-1, 3]]),
        "has 2 axes, expected a list",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_the_node_is_named_with_what_does_not_fit(name: str) -> None:
    subject, says = UNFIT[name]
    with pytest.raises(GraftError) as caught:
        ChannelGroups(subject)
    assert caught.value.code == "model-invalid"
    assert caught.value.message.startswith(
        f"node 'last' ({name}): its attributes, inputs and shapes do not fit"
    )
    assert says in caught.value.message


def test_the_last_axes_from_both_ends_fit() -> None:
    for axis in (1, -2):
        assert ChannelGroups(model(node("Softmax", ["g"], ["y"], axis=axis)))["layer"].size == 3


def test_weights_of_types_that_numpy_does_not_have_count() -> None:
    subject = model(node("Cast", ["b"], ["y"], to=TensorProto.FLOAT), node("Identity", ["h"], ["b"]))
    plain = cost_of(subject).parameters
    proto = subject.proto()
    weight = TensorProto(name="h", data_type=TensorProto.BFLOAT16, dims=[5], raw_data=bytes(10))
    proto.graph.initializer.append(weight)
    assert cost_of(Model.from_proto(proto)).parameters == plain + 5
