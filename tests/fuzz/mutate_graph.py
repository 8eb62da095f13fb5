"""Mutations of a graph: its nodes, attributes, edges, names, inputs, outputs and versions."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.fuzz.mutate_text import WORDS

Mutation = Callable[[random.Random, onnx.ModelProto], None]

INTEGERS = (0, 1, -1, 2, 3, -2, 7, 64, 2**15, 2**31 - 1, -(2**31), 2**36, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
ATTRIBUTES = (
    *("axis", "axes", "perm", "to", "keepdims", "kernel_shape", "pads", "strides", "dilations", "group"),
    *("auto_pad", "alpha", "beta", "transA", "transB", "hidden_size", "direction", "activations", "layout"),
    *("epsilon", "mode", "allowzero", "num_heads", "equation", "blocksize", "value", "value_ints", "body"),
)
OPERATORS = (
    *(
        "Relu",
        "Sigmoid",
        "Softmax",
        "LogSoftmax",
        "Identity",
        "Neg",
        "Sqrt",
        "Log",
        "Shape",
        "Size",
        "Dropout",
    ),
    *("Add", "Mul", "Sub", "Div", "Pow", "MatMul", "Gemm", "Conv", "ConvTranspose", "Flatten", "Transpose"),
    *(
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "GatherND",
        "ScatterND",
        "Pad",
    ),
    *(
        "Expand",
        "Tile",
        "Range",
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ArgMax",
        "TopK",
        "NonZero",
        "Where",
    ),
    *("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Upsample", "CumSum", "OneHot", "Cast"),
    *("LSTM", "GRU", "RNN", "Attention", "Einsum", "QuantizeLinear", "DequantizeLinear", "ConstantOfShape"),
    *("If", "Loop", "Scan", "SequenceAt", "Unique", "NonMaxSuppression", "RandomNormalLike", "Nothing", ""),
)


def _node(rng: random.Random, model: onnx.ModelProto) -> onnx.NodeProto:
    if not model.graph.node:
        model.graph.node.append(helper.make_node("Identity", ["x"], ["y"]))
    return rng.choice(model.graph.node)


def _tensors(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*names, *(entry.name for entry in (*graph.input, *graph.output, *graph.initializer)), ""]


# ------------------------------------------------------------------- attributes


def change_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another value of an attribute, of its own type."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return add_attribute(rng, model)
    attribute = rng.choice(rng.choice(nodes).attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(INTEGERS)
    elif attribute.type == AttributeProto.INTS:
        _change_ints(rng, attribute)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice(
            [b"", b"\xff\xfe", b"VALID", b"SAME_UPPER", b"reverse", b"ij,jk->ik", b"linear"]
        )
    elif attribute.type == AttributeProto.STRINGS:
        attribute.strings.append(rng.choice([b"", b"Relu", b"\xff", b"Tanh"]))
    else:
        attribute.name = rng.choice(ATTRIBUTES)
    return None


def _change_ints(rng: random.Random, attribute: onnx.AttributeProto) -> None:
    values = list(attribute.ints)
    how = rng.choice(["one", "one", "drop", "add", "empty", "reverse"])
    if how == "one" and values:
        values[rng.randrange(len(values))] = rng.choice(INTEGERS)
    elif how == "drop":
        values = values[:-1]
    elif how == "add":
        values.append(rng.choice(INTEGERS))
    else:
        values = values[::-1] if how == "reverse" else []
    del attribute.ints[:]
    attribute.ints.extend(values)


def add_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """An attribute that the operator may not have, or has already."""
    values = [
        rng.choice(INTEGERS),
        rng.choice(FLOATS),
        [rng.choice(INTEGERS) for _ in range(3)],
        "x",
        b"\xff",
    ]
    name = rng.choice(ATTRIBUTES)
    _node(rng, model).attribute.append(helper.make_attribute(name, rng.choice(values)))


def drop_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """One attribute of a node, or all, or only its value or type."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    node = rng.choice(nodes)
    how = rng.choice(["one", "all", "value", "type", "reference"])
    attribute = rng.choice(node.attribute)
    if how == "one":
        node.attribute.remove(attribute)
    elif how == "all":
        del node.attribute[:]
    elif how == "value":
        kept = attribute.name, attribute.type
        attribute.Clear()
        attribute.name, attribute.type = kept
    elif how == "type":
        attribute.type = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8])
    else:
        attribute.ref_attr_name = rng.choice(["x", ""])


# ------------------------------------------------------------------- edges and names


def change_edge(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node reads another tensor: of before, of after (a cycle), a weight, itself, nothing."""
    node = _node(rng, model)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*_tensors(model), *node.output, "nowhere"])


def change_arity(rng: random.Random, model: onnx.ModelProto) -> None:
    """More, fewer or swapped inputs or outputs."""
    node = _node(rng, model)
    names = rng.choice([node.input, node.input, node.output])
    how = rng.choice(["drop", "add", "swap", "empty", "double"])
    if how == "drop" and names:
        del names[rng.randrange(len(names)) :]
    elif how == "add":
        names.append(rng.choice(_tensors(model)))
    elif how == "swap" and len(names) > 1:
        names[0], names[-1] = names[-1], names[0]
    elif how == "empty":
        del names[:]
    elif names:
        names.append(names[0])


def rename(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node or tensor is called as another one, or in a way that names are not."""
    how = rng.choice(["node", "node", "tensor", "tensor", "graph"])
    new = rng.choice([*_tensors(model), *WORDS, "graft/scores", "rest", "x/piece_0"])
    if how == "node":
        _node(rng, model).name = rng.choice([new, model.graph.node[0].name if model.graph.node else ""])
    elif how == "graph":
        model.graph.name = new
    else:
        replace_name(model, rng.choice(_tensors(model)), new)


def replace_name(model: onnx.ModelProto, old: str, new: str) -> None:
    """Call a tensor ``new`` at all places."""
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    for entry in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if entry.name == old:
            entry.name = new


# ------------------------------------------------------------------- nodes


def change_nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node twice, away, at another place; all in another order."""
    nodes = list(model.graph.node)
    if not nodes:
        return
    at, to = rng.randrange(len(nodes)), rng.randrange(len(nodes))
    how = rng.choice(["double", "copy", "drop", "bypass", "move", "shuffle", "none"])
    if how == "double":
        nodes.insert(at, nodes[at])
    elif how == "copy":
        twin = onnx.NodeProto()
        twin.CopyFrom(nodes[at])
        twin.output[:] = [f"{name}_twin" for name in twin.output]
        nodes.insert(at + 1, twin)
    elif how == "drop":
        del nodes[at]
    elif how == "bypass":
        gone = nodes.pop(at)
        if gone.input and gone.output:
            for node in nodes:
                node.input[:] = [gone.input[0] if name == gone.output[0] else name for name in node.input]
    elif how == "move":
        nodes.insert(to, nodes.pop(at))
    elif how == "shuffle":
        rng.shuffle(nodes)
    else:
        nodes = []
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def change_operator(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another operator, or one of another domain."""
    node = _node(rng, model)
    if rng.random() < 0.8:
        node.op_type = rng.choice(OPERATORS)
    else:
        node.domain = rng.choice(["ai.onnx", "ai.onnx.ml", "com.microsoft", "nowhere", "ai.onnx.training"])


# ------------------------------------------------------------------- what is declared


def change_version(rng: random.Random, model: onnx.ModelProto) -> None:
    """Operator sets and IR version."""
    how = rng.choice(["opset", "opset", "none", "double", "domain", "ir"])
    versions = (*range(5, 28), 0, -1, 100, 2**31, 2**40)
    if how == "opset" and model.opset_import:
        rng.choice(model.opset_import).version = rng.choice(versions)
    elif how == "none":
        del model.opset_import[:]
    elif how == "double":
        model.opset_import.append(helper.make_opsetid("", rng.choice(versions)))
    elif how == "domain":
        domain = rng.choice(["ai.onnx", "ai.onnx.ml", "com.microsoft", "x", "\0"])
        model.opset_import.append(helper.make_opsetid(domain, rng.choice(versions)))
    else:
        model.ir_version = rng.choice([0, 1, 3, 4, 7, 11, 13, 14, 99, 2**40])


def change_declared(rng: random.Random, model: onnx.ModelProto) -> None:
    """Shape or type of an input, output or inner tensor."""
    graph = model.graph
    entries = [*graph.input, *graph.output, *graph.value_info]
    if not entries:
        return
    kind = rng.choice(entries).type
    how = rng.choice(["dim", "dim", "dim", "rank", "type", "clear", "other", "unnamed"])
    dims = kind.tensor_type.shape.dim
    if how == "dim" and dims:
        dim = rng.choice(dims)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(["N", "x", "", "N*2", "\n"])
        else:
            dim.dim_value = rng.choice(INTEGERS)
    elif how == "rank" and dims:
        dims.pop() if rng.random() < 0.5 else dims.add()
    elif how == "type":
        kind.tensor_type.elem_type = rng.choice([*range(24), 99, -1])
    elif how == "clear":
        kind.tensor_type.ClearField("shape")
    elif how == "other":
        kind.Clear()
        rng.choice([kind.optional_type, kind.sequence_type]).elem_type.tensor_type.elem_type = 1
    else:
        kind.Clear()


def change_ends(rng: random.Random, model: onnx.ModelProto) -> None:
    """Inputs and outputs of the graph: fewer, more, twice."""
    graph = model.graph
    how = rng.choice(["no input", "no output", "double", "inner", "weight", "input as output"])
    if how == "no input":
        del graph.input[:]
    elif how == "no output":
        del graph.output[:]
    elif how == "double":
        entries = rng.choice([graph.input, graph.output])
        if entries:
            entries.append(rng.choice(entries))
    elif how == "inner":
        entries = rng.choice([graph.input, graph.output])
        entries.append(helper.make_tensor_value_info(rng.choice(_tensors(model)), TensorProto.FLOAT, None))
    elif how == "weight" and graph.initializer:
        tensor = rng.choice(graph.initializer)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    elif graph.input and graph.output:
        graph.output[0].name = graph.input[0].name


MUTATIONS: tuple[Mutation, ...] = (
    *(change_attribute, change_attribute, change_attribute, add_attribute, drop_attribute),
    *(change_edge, change_edge, change_arity, rename, rename, change_nodes, change_nodes),
    *(change_operator, change_operator, change_version, change_declared, change_declared, change_ends),
)
