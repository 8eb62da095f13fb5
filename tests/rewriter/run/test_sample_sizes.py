"""Sizes that follow from the values of samples end in one line, long before memory does."""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.run import sample_sizes
from graft.rewriter.run.sample_sizes import LEAST, most_bytes
from tests.small import CPU

NODE = helper.make_node
Nodes = list[onnx.NodeProto]


def _model(nodes: Nodes, shape: tuple[object, ...] = ("n", 4)) -> onnx.ModelProto:
    constants = {
        "one": np.ones((1,), np.int64),
        "zero": np.int64(0),
        "step": np.int64(1),
        "flat": np.array([-1]),
        "ends": np.array([0, 1], np.float32),
        "many": np.int64(2**62),
        "yes": True,
        "f": np.ones((1,), np.float32),
    }
    graph = helper.make_graph(
        [
            NODE("ReduceMax", ["x"], ["most"], keepdims=0),
            NODE("Cast", ["most"], ["number"], to=7),
            NODE("Reshape", ["number", "flat"], ["size"]),
            *nodes,
            NODE("Cast", ["large"], ["float"], to=1),
            NODE("ReduceMax", ["float"], ["largest"], keepdims=0),
            NODE("Add", ["x", "largest"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _loop(scan: bool) -> Nodes:
    """A loop that gathers a value of each turn, or doubles a tensor in each."""
    ends = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go", 9))]
    nodes = [NODE("Identity", ["go"], ["goes"])]
    if scan:
        nodes += [NODE("Identity", ["v"], ["w"]), NODE("Expand", ["f", "block"], ["part"])]
    else:
        nodes.append(NODE("Concat", ["v", "v"], ["w"], axis=0))
    outputs = [helper.make_tensor_value_info("goes", 9, []), helper.make_tensor_value_info("w", 1, ["k"])]
    if scan:
        outputs.append(helper.make_tensor_value_info("part", 1, ["p"]))
    body = helper.make_graph(nodes, "body", [*ends, helper.make_tensor_value_info("v", 1, ["k"])], outputs)
    found = ["v_last", "large"] if scan else ["large"]
    block = NODE("Constant", [], ["block"], value_ints=[1 << 20])
    return [block, NODE("Loop", ["number", "yes", "f"], found, "grow", body=body)]


KINDS: dict[str, Nodes] = {
    "Range": [NODE("Range", ["zero", "number", "step"], ["large"], "grow")],
    "ConstantOfShape": [NODE("ConstantOfShape", ["size"], ["large"], "grow")],
    "Expand": [NODE("Expand", ["f", "size"], ["large"], "grow")],
    "Tile": [NODE("Tile", ["f", "size"], ["large"], "grow")],
    "OneHot": [NODE("OneHot", ["one", "number", "ends"], ["large"], "grow")],
    "Pad": [
        NODE("Concat", ["size", "size"], ["both"], axis=0),
        NODE("Pad", ["f", "both"], ["large"], "grow"),
    ],
    "scan outputs": _loop(scan=True),
    "doubled": _loop(scan=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_line_and_little_memory(kind: str) -> None:
    model = _model(KINDS[kind])
    session = CPU.open(model)
    few = np.array([[1, 2, 3, 2]], np.float32)
    whole = onnx.reference.ReferenceEvaluator(model).run(None, {"x": few})[0]
    np.testing.assert_array_equal(session.run({"x": few})["y"], whole)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    large = few * {"doubled": 200, "scan outputs": 1e4, "Tile": 2e8}.get(kind, 1e9)
    with pytest.raises(GraftError, match=r"grow asks for .* may take 1.1 GB in all") as caught:
        session.run({"x": large.astype(np.float32)})
    assert caught.value.code == "memory"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_800_000
    assert time.monotonic() - start < 10


def test_more_is_allowed_by_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_sizes, "LEAST", 2 << 20)
    model, x = _model(KINDS["Range"]), np.full((1, 4), 1e6, np.float32)
    with pytest.raises(GraftError, match="may take 0.1 GB in all"):
        CPU.open(model).run({"x": x})
    assert replace(CPU, memory=100 << 20).open(model).run({"x": x})["y"].max() == 2e6 - 1


def test_inputs_that_are_declared_large_allow_no_more_than_half_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _model(KINDS["Range"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 30
    monkeypatch.setattr(sample_sizes, "free_bytes", lambda: 6 << 30)
    assert most_bytes(model) == 3 << 30
    monkeypatch.setattr(sample_sizes, "free_bytes", lambda: 0)
    assert most_bytes(model) == 1 << 30


def test_sizes_of_shapes_are_free() -> None:
    size = [NODE("Shape", ["x"], ["shape"]), NODE("Expand", ["one", "shape"], ["large"])]
    assert most_bytes(_model(size)) is None
    behind = [
        NODE("Relu", ["x"], ["r"]),
        NODE("Shape", ["r"], ["shape"]),
        NODE("Tile", ["x", "shape"], ["large"]),
    ]
    assert most_bytes(_model(behind)) is None


def test_bounds_grow_with_inputs_and_reach_into_bodies() -> None:
    assert most_bytes(_model(KINDS["Range"])) == LEAST
    images, tones = _model(KINDS["Range"], ("n", 3, 224, 224)), _model(KINDS["Range"], ("n", "t", 40))
    assert most_bytes(images) == 200 * 64 * 3 * 224 * 224 * 4
    assert most_bytes(tones) == 200 * 64 * 1024 * 40 * 4
    then = helper.make_graph(KINDS["Range"], "then", [], [helper.make_tensor_value_info("large", 7, ["k"])])
    other = helper.make_graph(
        [NODE("Identity", ["one"], ["o"])], "else", [], [helper.make_tensor_value_info("o", 7, [1])]
    )
    assert most_bytes(_model([NODE("If", ["yes"], ["large"], then_branch=then, else_branch=other)])) == LEAST
