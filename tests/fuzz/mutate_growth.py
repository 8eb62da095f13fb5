"""Mutations that make a small file large work: huge shapes, endless loops, functions that call each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Mutation = Callable[[random.Random, onnx.ModelProto], None]

DOMAIN = "local"
SIZES = (3, 1000, 2**20, 2**31, 2**36, 2**62)


def _constant(model: onnx.ModelProto, values: object, dtype: type = np.int64) -> str:
    name = f"fuzz_{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


def _splice(
    rng: random.Random, model: onnx.ModelProto, make: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Put nodes on one edge: ``make`` gets the names before and behind."""
    nodes = list(model.graph.node)
    readers = [(at, place) for at, node in enumerate(nodes) for place in range(len(node.input))]
    if not readers:
        return
    at, place = rng.choice(readers)
    before, behind = nodes[at].input[place], f"spliced_{len(nodes)}"
    made = make(before, behind)
    nodes[at].input[place] = behind
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*nodes[:at], *made, *nodes[at:])]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def splice_growth(rng: random.Random, model: onnx.ModelProto) -> None:
    """An operator that makes more of what it reads, up to more than any memory holds."""
    size, rank = rng.choice(SIZES), rng.choice([1, 2, 4])
    operator = rng.choice(
        ["Expand", "Tile", "Reshape", "Pad", "Resize", "ConstantOfShape", "Range", "OneHot"]
    )

    def make(before: str, behind: str) -> list[onnx.NodeProto]:
        shape = [1] * rank
        shape[rng.randrange(rank)] = size
        if operator in ("Expand", "Tile", "Reshape"):
            return [helper.make_node(operator, [before, _constant(model, shape)], [behind])]
        if operator == "Pad":
            return [helper.make_node("Pad", [before, _constant(model, [*([0] * rank), *shape])], [behind])]
        if operator == "Resize":
            return [helper.make_node("Resize", [before, "", "", _constant(model, shape)], [behind])]
        if operator == "ConstantOfShape":
            grown = helper.make_node("ConstantOfShape", [_constant(model, shape)], ["grown"])
            return [grown, helper.make_node("Add", [before, "grown"], [behind])]
        if operator == "OneHot":
            given = [_constant(model, [0]), _constant(model, size), _constant(model, [0, 1], np.float32)]
            return [
                helper.make_node("OneHot", given, ["hot"]),
                helper.make_node("Add", [before, "hot"], [behind]),
            ]
        ends = [_constant(model, value, np.float32) for value in (0, size, 1)]
        return [
            helper.make_node("Range", ends, ["many"]),
            helper.make_node("Add", [before, "many"], [behind]),
        ]

    _splice(rng, model, make)


def splice_nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    """Operators on an edge that change nothing, everything, or come in a long chain."""
    how = rng.choice(["chain", "plain", "random", "shape", "transpose", "double"])

    def make(before: str, behind: str) -> list[onnx.NodeProto]:
        if how == "chain":
            names = [before, *(f"link_{n}" for n in range(rng.choice([3, 300, 1500]))), behind]
            kind = rng.choice(["Identity", "Relu", "Neg"])
            return [helper.make_node(kind, [a], [b]) for a, b in pairwise(names)]
        if how == "double":
            names = [before, *(f"sum_{n}" for n in range(rng.choice([3, 40, 200]))), behind]
            return [helper.make_node("Add", [a, a], [b]) for a, b in pairwise(names)]
        if how == "random":
            kind = rng.choice(["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout"])
            return [helper.make_node(kind, [before], [behind])]
        if how == "shape":
            shape = helper.make_node("Shape", [before], ["its_shape"])
            return [shape, helper.make_node("Reshape", [before, "its_shape"], [behind])]
        if how == "transpose":
            return [helper.make_node("Transpose", [before], [behind])]
        kind = rng.choice(["Identity", "Neg", "Softmax", "Relu", "Abs", "Hardmax", "NonZero", "Not", "Erf"])
        return [helper.make_node(kind, [before], [behind])]

    _splice(rng, model, make)


def splice_loop(rng: random.Random, model: onnx.ModelProto) -> None:
    """A Loop of many rounds, endless, of none; or an If; each around the tensor."""
    trips = rng.choice([0, 1, 3, 1000, 2**31, 2**62, -1, None])
    captured = rng.random() < 0.3

    def make(before: str, behind: str) -> list[onnx.NodeProto]:
        if rng.random() < 0.3:
            bodies = [_body([], [before], [f"{behind}_in"]) for _ in range(2)]
            condition = _constant(model, rng.random() < 0.5, np.bool_)
            return [
                helper.make_node("If", [condition], [behind], then_branch=bodies[0], else_branch=bodies[1])
            ]
        inner = before if captured else "carried"
        nodes = [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node(rng.choice(["Relu", "Identity", "Neg"]), [inner], ["next"]),
        ]
        inputs = [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ]
        outputs = [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ]
        body = helper.make_graph(nodes, "body", inputs, outputs)
        count = "" if trips is None else _constant(model, trips)
        go = _constant(model, True, np.bool_)
        return [helper.make_node("Loop", [count, go, before], [behind], body=body)]

    _splice(rng, model, make)


def _body(inputs: list[str], reads: list[str], outputs: list[str]) -> onnx.GraphProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph([helper.make_node("Identity", reads, outputs)], "body", values, results)


def splice_function(rng: random.Random, model: onnx.ModelProto) -> None:
    """A function of the file: plain, deep, doubling, recursive, or missing."""
    how = rng.choice(["plain", "deep", "doubling", "recursive", "mutual", "missing", "attributes"])
    opset = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]

    def function(name: str, *nodes: onnx.NodeProto, attributes: tuple[str, ...] = ()) -> None:
        model.functions.append(
            helper.make_function(DOMAIN, name, ["a"], ["b"], list(nodes), opset, list(attributes))
        )

    def call(name: str, before: str = "a", behind: str = "b") -> onnx.NodeProto:
        return helper.make_node(name, [before], [behind], domain=DOMAIN)

    depth = rng.choice([3, 40, 400])
    if how == "plain":
        function("f0", helper.make_node(rng.choice(["Relu", "Identity", "Neg"]), ["a"], ["b"]))
    elif how in ("deep", "doubling"):
        for level in range(depth):
            if how == "deep":
                function(f"f{level}", call(f"f{level + 1}"))
            else:
                function(f"f{level}", call(f"f{level + 1}", "a", "c"), call(f"f{level + 1}", "c", "b"))
        function(f"f{depth}", helper.make_node("Relu", ["a"], ["b"]))
    elif how == "recursive":
        function("f0", call("f0"))
    elif how == "mutual":
        function("f0", call("f1"))
        function("f1", call("f0"))
    elif how == "attributes":
        node = helper.make_node("LeakyRelu", ["a"], ["b"])
        node.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
        function("f0", node, attributes=("slope",))
    if rng.random() < 0.9:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    _splice(rng, model, lambda before, behind: [call("f0", before, behind)])


def nest_graphs(rng: random.Random, model: onnx.ModelProto) -> None:
    """If inside If inside If."""
    condition = _constant(model, True, np.bool_)

    def make(before: str, behind: str) -> list[onnx.NodeProto]:
        depth = rng.choice([2, 8, 20])
        graph = _body([], [before], ["inside_0"])
        for level in range(1, depth):
            name = f"inside_{level}"
            node = helper.make_node("If", [condition], [name], then_branch=graph, else_branch=graph)
            node.attribute[1].g.CopyFrom(_body([], [before], [f"{name}_else"]))
            result = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            graph = helper.make_graph([node], "body", [], [result])
        other = _body([], [before], ["inside_else"])
        return [helper.make_node("If", [condition], [behind], then_branch=graph, else_branch=other)]

    _splice(rng, model, make)


MUTATIONS: tuple[Mutation, ...] = (
    *(splice_growth, splice_growth, splice_nodes, splice_nodes, splice_loop, splice_function, nest_graphs),
)
