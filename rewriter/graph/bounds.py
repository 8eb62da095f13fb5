"""Sizes that a model works out, looked at before any tool makes tensors of them.

A few bytes can name a tensor of 2**62 values: as the target of a Reshape, the end of a Range, the repeats of
a Tile. onnx's inference with values writes down every place of a list; others make the tensor.
"""

from __future__ import annotations

import contextlib
import math
from collections import ChainMap
from collections.abc import Mapping

import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

from graft.rewriter.graph.shape_values import MOST, Shape, Value, computed, is_small
from graft.rewriter.graph.shapes import enter, fix_values, known_shapes, lighten, rounds, write_widths
from graft.rewriter.graph.walk import bodies

MOST_VALUES = 2**28
"""The most values of a tensor for one sample: 1 GB as float32, more than any classifier makes."""
MOST_IN_BATCH = 2**31
"""The most where an input has a batch of a fixed size."""
TIMES_WEIGHTS = 4
"""Weights that are stored small may be unpacked: a tensor may have so many times their values."""
LONGEST = 2**24
"""The longest list that a node makes: some tools write down every place of it."""


def check_sizes(proto: onnx.ModelProto) -> None:
    """Refuse a model in which a tensor of one sample would be too large to be held.

    Args:
        proto: that onnx's checker accepts; it is not changed.

    Raises:
        ValueError: it is; the text names the node.
    """
    light = _light(proto)
    weights = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    entered: set[tuple[str, Shape]] = set()
    most = max(_allowed(proto.graph), TIMES_WEIGHTS * sum(map(math.prod, weights.values())))
    for _ in range(turns := rounds(light.graph)):
        with contextlib.suppress(Exception):  # what cannot be inferred stays unknown
            light = onnx.shape_inference.infer_shapes(light)
        news = _look(light.graph, ChainMap(weights), ChainMap(), most)
        if entered.issuperset(news):
            return
        entered |= news
    raise ValueError(f"its sizes depend on one another more than {turns} times")


def _allowed(graph: onnx.GraphProto) -> int:
    """Return the most values of a tensor, by the batch that the inputs have."""
    stored = {tensor.name for tensor in graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in graph.input if value.name not in stored]
    batch: int = max([1, *(shape[0].dim_value for shape in shapes if shape)])
    return min(MOST_VALUES * batch, MOST_IN_BATCH)


def _light(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without large weights, functions inlined, of which every free size is 1.

    It has no outputs: a type that is noted wrong there would keep inference from what is before it.
    """
    light = onnx.ModelProto(ir_version=proto.ir_version)
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = "g"
    graph.input.extend(proto.graph.input)
    for tensor in proto.graph.initializer:
        _add(graph, tensor, tensor.name)
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            _add(graph, node.attribute[0].t, node.output[0])
        else:
            graph.node.append(node)
    write_widths(graph)
    lighten(graph, MOST)
    for value in graph.input:
        for dimension in value.type.tensor_type.shape.dim:
            if not dimension.HasField("dim_value"):
                dimension.dim_value = 1
    return onnx.inliner.inline_local_functions(light) if light.functions else light


def _add(graph: onnx.GraphProto, tensor: TensorProto, name: str) -> None:
    """Add a constant, with its values where they may be sizes."""
    added = graph.initializer.add()
    if math.prod(tensor.dims) <= MOST:
        added.CopyFrom(tensor)
    else:
        added.data_type = tensor.data_type
        added.dims.extend(tensor.dims)
    added.name = name


def _look(
    graph: onnx.GraphProto, shapes: ChainMap[str, Shape], values: ChainMap[str, Value], most: int
) -> set[tuple[str, Shape]]:
    """Look at the sizes in a graph and its bodies, and write into them what is worked out.

    Args:
        graph: after inference, changed.
        shapes: of the tensors around it.
        values: of the constants around it.
        most: values that a tensor may have.

    Returns:
        The tensors that inference knows more of the next time, with their shapes.
    """
    made = {name: shape for name, shape in known_shapes(graph).items() if shapes.get(name) != shape}
    shapes = shapes.new_child(made | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    values = values.new_child()
    values.update({t.name: numpy_helper.to_array(t).astype(object) for t in graph.initializer if is_small(t)})
    constants = {*values.maps[0]}
    found = computed(graph, shapes, values)
    _refuse(graph, made | found, most)
    news = set(found.items())
    for node in graph.node:
        for body in bodies(node):
            news |= _look(body, shapes, values, most)
    if found:
        enter(graph, found)
    return news | fix_values(graph, {n: v for n, v in values.maps[0].items() if n not in constants})


def _refuse(graph: onnx.GraphProto, shapes: Mapping[str, Shape], most: int) -> None:
    """Refuse tensors that are too large, weights aside, with the node that makes them."""
    large = [name for name, shape in shapes.items() if _too_large(shape, most)]
    if not large:
        return
    name, shape = large[0], list(shapes[large[0]])
    maker = next((node for node in graph.node if name in node.output), None)
    place = f"node '{maker.name or name}' ({maker.op_type}) makes" if maker else f"'{name}' is"
    raise ValueError(
        f"{place} a tensor of shape {shape} for one sample; at most {most} values are held, "
        f"{LONGEST} in one axis alone"
    )


def _too_large(shape: Shape, most: int) -> bool:
    values = math.prod(size or 1 for size in shape)
    return values > (LONGEST if len(shape) == 1 else most)
