"""Sizes that no computer holds are refused on reading; those of ordinary models and of sentinels are not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.bounds import LONGEST, check_sizes
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import infer_shapes

node = helper.make_node
INT64 = TensorProto.INT64


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str] = ("n", 4),
    opset: int = 17,
    **constants: object,
) -> onnx.ModelProto:
    """Return a model from ``x`` of float32 to ``y``, whose shape is open, with constants of int64."""
    weights = [
        value
        if isinstance(value, TensorProto)
        else numpy_helper.from_array(np.asarray(value, np.int64), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def inside(branch: Sequence[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    """Return a model that holds nodes in both branches of a condition."""
    proto = graph_of(branch, **constants)
    body = onnx.GraphProto()
    body.CopyFrom(proto.graph)
    body.output[0].type.tensor_type.elem_type = INT64
    del body.input[:]
    whole = graph_of([node("If", ["q"], ["y"], then_branch=body, else_branch=body)])
    whole.graph.input.append(helper.make_tensor_value_info("q", TensorProto.BOOL, []))
    return whole


def called(branch: Sequence[onnx.NodeProto], **constants: int) -> onnx.ModelProto:
    """Return a model that holds nodes in a function."""
    values = [node("Constant", [], [name], value_int=value) for name, value in constants.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    proto = graph_of([node("F", ["x"], ["y"], domain="f")])
    proto.functions.append(helper.make_function("f", "F", ["x"], ["y"], [*values, *branch], opsets))
    proto.opset_import.append(opsets[1])
    return proto


RANGE = (node("Mul", ["k", "k"], ["m"]), node("Range", ["z", "m", "o"], ["y"], "counting"))
FLOATS = numpy_helper.from_array(np.array([1, 1, 2.0**20, 2.0**20], np.float32), "s")
HUGE = {
    "Reshape": graph_of([node("Reshape", ["x", "s"], ["y"])], s=[2**62]),
    "Expand": graph_of([node("Expand", ["x", "s"], ["y"])], s=[2**36, 1, 4]),
    "Tile": graph_of([node("Tile", ["x", "s"], ["y"])], s=[1, 2**36]),
    "ConstantOfShape": graph_of([node("ConstantOfShape", ["s"], ["y"])], s=[2**18, 2**18]),
    "Pad": graph_of([node("Pad", ["x", "s"], ["y"])], s=[0, 2**36, 0, 0]),
    "Resize": graph_of([node("Resize", ["x", "", "", "s"], ["y"])], (1, 1, 4, 4), s=[1, 1, 2**20, 2**20]),
    "Upsample": graph_of([node("Resize", ["x", "", "s"], ["y"])], (1, 1, 4, 4), s=FLOATS),
    "Range": graph_of([node("Range", ["z", "m", "o"], ["y"])], z=0, m=2**36, o=1),
    "OneHot": graph_of([node("OneHot", ["i", "k", "v"], ["y"])], i=[1], k=2**40, v=[0, 1]),
    "worked out": graph_of(RANGE, k=2**31, z=0, o=1),
    "of Size": graph_of(
        [node("Size", ["x"], ["k"]), node("Mul", ["k", "k"], ["k2"]), node("Mul", ["k2", "k2"], ["k4"])]
        + [node("Range", ["z", "k4", "o"], ["y"])],
        (32, 32),
        z=0,
        o=1,
    ),
    "no values along one axis": graph_of([node("Expand", ["x", "s"], ["y"])], (0, 1), s=[0, 2**40]),
    "input": graph_of([node("Relu", ["x"], ["y"])], (2**62,)),
    "attribute": graph_of([node("RandomNormal", [], ["y"], shape=[2**40])]),
    "body": inside(RANGE, k=2**31, z=0, o=1),
    "function": called(RANGE, k=2**31, z=0, o=1),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_tensor_that_no_computer_holds_is_refused_at_once(name: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"(node '.*' \(\w+\) makes|'x' is) a tensor of shape \[.*\]"):
        check_sizes(HUGE[name])
    assert time.perf_counter() - start < 30


def test_files_with_such_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(HUGE["Reshape"].SerializeToString())
    with pytest.raises(GraftError, match=r"node 'y' \(Reshape\) makes a tensor of shape \[46116860184"):
        Model.load(path)


def test_the_message_names_the_node() -> None:
    says = r"^node 'counting' \(Range\) makes a tensor of shape \[4611686018427387904\] for one sample"
    with pytest.raises(ValueError, match=says):
        check_sizes(graph_of(RANGE, k=2**31, z=0, o=1))


def squared(times: int) -> list[onnx.NodeProto]:
    """Return a chain of products, which in unbounded integers would be 2**(2**times)."""
    return [node("Mul", [f"k{i}", f"k{i}"], [f"k{i + 1}"]) for i in range(times)]


def test_arithmetic_on_sizes_ends_where_integers_do() -> None:
    proto = graph_of([*squared(60), node("Reshape", ["x", "k60"], ["y"])], k0=[3])
    start = time.perf_counter()
    check_sizes(proto)
    assert "y" not in infer_shapes(proto) or infer_shapes(proto)["y"] == (None,)
    assert time.perf_counter() - start < 30


def test_the_ends_of_slices_may_be_the_largest_integer(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    nodes = [node("Slice", ["x", "a", "b", "one"], ["y"])]
    path.write_bytes(graph_of(nodes, a=[1], b=[2**63 - 1], one=[1]).SerializeToString())
    assert Model.load(path).shapes()["y"] == (2, 3)


def test_large_but_ordinary_tensors_are_read() -> None:
    check_sizes(graph_of([node("Expand", ["x", "s"], ["y"])], s=[64, 1024, 1024, 4]))
    check_sizes(graph_of([node("Range", ["z", "m", "o"], ["y"])], z=0, m=LONGEST, o=1))


def test_a_tensor_may_have_more_values_where_weights_or_the_batch_are_large() -> None:
    """1 GB for one sample is more than a classifier makes, but not than large weights unpacked."""
    grown = graph_of([node("Expand", ["x", "s"], ["y"])], s=[1, 1024, 1024, 320])
    with pytest.raises(ValueError, match=r"\[1, 1024, 1024, 320\] for one sample; at most 268435456 values"):
        check_sizes(grown)
    grown.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 64  # a batch of fixed size
    check_sizes(grown)
    grown.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    grown.graph.initializer.add(name="w", data_type=1, dims=[80 << 20])
    check_sizes(grown)


def test_many_nodes_take_time_in_proportion() -> None:
    def seconds(count: int) -> float:
        ends = ["x", *(f"t{i}" for i in range(1, count)), "y"]
        proto = graph_of([node("Relu", [ends[i]], [ends[i + 1]]) for i in range(count)])
        start = time.process_time()
        check_sizes(proto)
        return time.process_time() - start

    seconds(100)
    assert seconds(32_000) < 20 * min(seconds(4_000) for _ in range(3)) + 0.2


def test_sizes_may_depend_on_one_another_often() -> None:
    """Blocks that reshape by what they divide, as exporters write a shuffle of channels."""
    nodes, ends = [], ["x", *(f"t{i}" for i in range(59)), "y"]
    for i in range(60):
        nodes += [node("Shape", [ends[i]], [f"s{i}"]), node("Div", [f"s{i}", "one"], [f"d{i}"])]
        nodes += [node("Reshape", [ends[i], f"d{i}"], [f"r{i}"]), node("Relu", [f"r{i}"], [ends[i + 1]])]
    proto = graph_of(nodes, (2, 4), one=[1, 1])
    check_sizes(proto)
    assert infer_shapes(proto)["y"] == (2, 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda proto: setattr(proto, "ir_version", 0), "ir_version"),
        (lambda proto: setattr(proto, "ir_version", 10**6), "IR version 1000000, the installed onnx"),
        (lambda proto: setattr(proto.opset_import[0], "version", 0), "domain_version of 0"),
        (
            lambda proto: setattr(proto.opset_import[0], "version", 10**9),
            "uses opset 1000000000, the installed",
        ),
        (lambda proto: setattr(proto.opset_import[0], "version", -1), "domain_version of -1"),
        (lambda proto: proto.graph.node[0].input.__setitem__(0, "t1"), "topologically sorted"),
        (lambda proto: proto.graph.node[0].input.__setitem__(0, "t0"), "topologically sorted"),
    ],
    ids=["ir 0", "ir high", "opset 0", "opset high", "opset negative", "cycle", "itself"],
)
def test_versions_and_cycles_are_one_line(
    change: Callable[[onnx.ModelProto], object], says: str, tmp_path: Path
) -> None:
    proto = graph_of([node("Relu", ["x"], ["t0"]), node("Relu", ["t0"], ["t1"]), node("Relu", ["t1"], ["y"])])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4]))
    change(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(GraftError, match=says) as caught:
        Model.load(tmp_path / "m.onnx")
    assert caught.value.code != "internal" and "\n" not in str(caught.value)
