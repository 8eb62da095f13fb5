"""A class from samples alone: networks whose last layer has another form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from graft.passes.discriminant.opened import Opened
from graft.passes.new_class import NewClass, NewClassReport
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.equivalence import check
from tests import small
from tests.passes.test_new_class import CENTERS, HIDDEN, NAMES, accuracy, added, clusters, net, scores, split


def changed(nodes: list[tuple[str, list[str], str, dict[str, Any]]], **constants: Any) -> Model:
    """The small network whose last layer is replaced by other nodes."""
    proto = net().proto()
    kept = [node for node in proto.graph.node if node.output[0] != "y"]
    made = [helper.make_node(op, into, name.split(), name=name, **more) for op, into, name, more in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend([*kept, *made])
    for name, values in constants.items():
        proto.graph.initializer.append(small.numpy_helper.from_array(np.asarray(values), name))
    return Model.from_proto(proto, small.card(NAMES[:4]))


def head() -> tuple[Any, Any]:
    """Weights (values, classes) and constants of the last layer of the small network."""
    tensors = net().graph.tensors()
    return tensors["w"].values, tensors["b"].values


def pooled() -> Model:
    """A convolution of 1 x 1 that makes maps of classes, and their mean."""
    return changed(
        [
            ("Reshape", ["hidden", "shape"], "one", {}),
            ("Expand", ["one", "size"], "maps", {}),
            ("Conv", ["maps", "kernel", "b"], "classes", {}),
            ("GlobalAveragePool", ["classes"], "pooled", {}),
            ("Flatten", ["pooled"], "y", {}),
        ],
        shape=np.array([0, HIDDEN, 1, 1]),
        size=np.array([1, HIDDEN, 3, 3]),
        kernel=head()[0].T[:, :, None, None].copy(),
    )


def log_softmax() -> Model:
    """What a network gives that was trained with the negative log-likelihood."""
    return changed([("Gemm", ["hidden", "w", "b"], "s", {}), ("LogSoftmax", ["s"], "y", {"axis": 1})])


def transposed() -> Model:
    nodes = [("Transpose", ["turned"], "wt", {}), ("Gemm", ["hidden", "wt", "b"], "y", {})]
    return changed(nodes, turned=head()[0].T.copy())


def shared() -> Model:
    return changed([("Identity", ["w"], "wt", {}), ("Gemm", ["hidden", "wt", "b"], "y", {})])


def dequantized() -> Model:
    step = np.float32(np.abs(head()[0]).max() / 127)
    nodes = [("DequantizeLinear", ["q", "step"], "wt", {}), ("Gemm", ["hidden", "wt", "b"], "y", {})]
    return changed(nodes, q=np.round(head()[0] / step).astype(np.int8), step=step)


def width(report: NewClassReport) -> int:
    """The number of features that the class is a weighted sum of."""
    node = next(each for each in report.model.graph.nodes if each.name.endswith("/score"))
    return int(node.inputs[1].values.shape[0])


@pytest.mark.parametrize("make", [pooled, log_softmax, transposed, shared, dequantized])
@pytest.mark.parametrize("names", [NAMES, ("e",)])
def test_the_last_features_are_found(make: Any, names: tuple[str, ...]) -> None:
    base = make()
    report = added(base, split(20, names=names))
    check(report.model)
    x, _ = clusters(50, 5)
    assert width(report) == HIDDEN and report.others_equal is True
    assert report.others == ("head" if names == ("e",) else "samples")
    assert np.array_equal(scores(report.model, x)[:, :4], scores(base, x))
    assert accuracy(report.model) > 0.9


def test_a_quantized_layer_reads_features() -> None:
    """As dynamic quantization writes it; the scale of the features is no path to further features."""
    step = np.float32(np.abs(head()[0]).max() / 127)
    base = changed(
        [
            ("DynamicQuantizeLinear", ["hidden"], "hq scale zero", {}),
            ("MatMulInteger", ["hq", "q", "zero"], "whole", {}),
            ("Cast", ["whole"], "float", {"to": 1}),
            ("Mul", ["scale", "step"], "scales", {}),
            ("Mul", ["float", "scales"], "real", {}),
            ("Add", ["real", "b"], "y", {}),
        ],
        q=np.round(head()[0] / step).astype(np.int8),
        step=step,
    )
    report = added(base, split(20))
    assert width(report) == HIDDEN and report.others_equal is True and accuracy(report.model) > 0.97


def test_maps_that_are_rectified_ask_for_samples() -> None:
    """Then more than the mean of each map counts."""
    made = pooled().proto()
    for node in made.graph.node:
        if node.op_type == "GlobalAveragePool":
            node.input[0] = "positive"
    place = next(number for number, node in enumerate(made.graph.node) if node.op_type == "GlobalAveragePool")
    made.graph.node.insert(place, helper.make_node("Relu", ["classes"], ["positive"], name="positive"))
    base = Model.from_proto(made, small.card(NAMES[:4]))
    with pytest.raises(GraftError) as error:
        added(base, split(20, names=("e",)))
    assert error.value.code == "new-class-others" and "more than the means" in str(error.value)


@pytest.mark.parametrize("size", [1, 3])
def test_maps_of_any_size_are_averaged(size: int) -> None:
    """A kernel of 1 x 1 reads means alone; one of 3 x 3 sees the edges of a map, which is no mean."""
    made = small.Net(3, 8, 8)
    maps = made.node("Relu", "maps", made.conv("first", "x", 6, 3, pads=[1] * 4))
    classes = made.conv("classes", maps, 4, 6, size, pads=[size // 2] * 4)
    made.node("Flatten", "y", made.node("GlobalAveragePool", "pooled", classes))
    proto = made.proto(y=[4])
    for axis, name in ((2, "H"), (3, "W")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    base = Model.from_proto(proto, small.card(NAMES[:4]))
    head = Opened.of(base, "e").head(small.CPU)
    if size == 3:
        assert head is None
        return
    assert head is not None
    means = np.random.default_rng(0).normal(size=(5, 6))
    weights, bias = (base.graph.tensors()[f"classes.{name}"].values for name in "wb")
    assert np.allclose(head.logits(means), means @ weights[:, :, 0, 0].T + bias, atol=1e-5)


def test_a_class_is_found_beside_a_rest_that_took_it() -> None:
    """The column of the rest stays, although it is large for all that the old classes are not."""
    direction = CENTERS[4] / np.linalg.norm(CENTERS[4])
    base = changed(
        [
            ("Gemm", ["hidden", "w", "b"], "known", {}),
            ("MatMul", ["x", "along"], "far", {}),
            ("Sub", ["far", "from"], "beyond", {}),
            ("Relu", ["beyond"], "odd", {}),
            ("Mul", ["odd", "times"], "steep", {}),
            ("Add", ["steep", "four"], "rest", {}),
            ("Concat", ["known", "rest"], "y", {"axis": 1}),
        ],
        along=direction[:, None].astype(np.float32),
        **{"from": np.float32(np.linalg.norm(CENTERS[4]) / 2), "times": np.float32(6)},
        four=np.float32(4),
    )
    base.graph.outputs[0].shape = ["N", 5]
    base.card = small.card((*NAMES[:4], "(other)"))
    x, names = clusters(100, 9)
    assert (scores(base, x)[names == "e"].argmax(axis=1) == 4).all()
    report = NewClass("e")(base, small.Context(data=split(20), device=small.CPU))
    assert report.others_equal is True and report.recall > 0.9 and accuracy(report.model) > 0.9


def test_labels_of_time_steps_are_refused_before_the_data() -> None:
    card = small.card(NAMES[:4])
    with pytest.raises(GraftError) as error:
        NewClass("e").labels(card.replace(output=card.output.model_copy(update={"steps": True})))
    assert error.value.code == "output-kind" and "time step" in str(error.value)
