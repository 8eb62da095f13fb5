"""Nodes are sorted whatever else the file holds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper

from graft.rewriter import Device, Model
from graft.rewriter.graph.order import sort_nodes


def test_a_graph_with_functions_and_bodies_is_sorted() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("go", 9, []), ("v", 1, None))],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in (("goes", 9, []), ("w", 1, None))],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "", "x"], ["looped"], "loop", body=body),
        helper.make_node("outer", ["looped"], ["y"], "call", domain="local"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", "outer", ["a"], ["b"], [helper.make_node("inner", ["a"], ["b"], domain="local")], opsets
        ),
        helper.make_function("local", "inner", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets),
    ]
    ends = [[helper.make_tensor_value_info(name, 1, ["n", 4])] for name in "xy"]
    graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(np.array(3), "turns")])
    proto = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    onnx.checker.check_model(proto)
    model = Model.from_proto(proto)
    model.graph.nodes.reverse()
    model.tidy()
    assert [node.name for node in model.graph.nodes] == ["loop", "call"]
    found = Device(("cpu",), threads=1).open(model).run({"x": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(found["y"], np.full((2, 4), -8, np.float32))


def test_functions_that_only_bodies_hold_are_no_endless_search() -> None:
    body = gs.Graph(nodes=[gs.Node("Relu", "in", inputs=[gs.Variable("v")], outputs=[gs.Variable("w")])])
    body.functions = [gs.Function("f", domain="local")]
    first, second = gs.Variable("a"), gs.Variable("b")
    nodes = [
        gs.Node("Relu", "second", inputs=[first], outputs=[second]),
        gs.Node("Loop", "first", {"body": body}, [gs.Variable("x")], [first]),
    ]
    graph = gs.Graph(outputs=[second])
    graph.nodes.extend(nodes)  # as where networks are joined: the graph knows no functions yet
    sort_nodes(graph)
    assert [node.name for node in graph.nodes] == ["first", "second"]
