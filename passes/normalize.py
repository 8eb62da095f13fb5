"""Bring a graph to the form that the other passes read.

Functions are inlined, constants folded and BatchNormalization folded into the convolution before it
where that is exact. All of it is done by onnx's inliner and by onnxslim; this pass keeps the names.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
import onnxslim
from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

from graft.rewriter.errors import GraftError
from graft.rewriter.model import Model
from graft.rewriter.session import Device

FUSIONS = ("FusionConvBN",)
"""The only fusions asked for: the rest would change what a person finds in the file."""

log = logging.getLogger("graft")


@dataclass(frozen=True)
class NormalizeReport:
    """Numbers of nodes, and why the graph was left as it was, if it was."""

    before: int
    after: int
    declined: str = ""


class Normalize:
    """Simplify a model in place without changing what it computes.

    ``Conv -> BatchNormalization -> Relu`` becomes ``Conv -> Relu``; ``Shape -> Gather -> ... ->
    Reshape`` becomes a ``Reshape`` to a constant. Nodes that survive keep their names; a node that
    stands for several takes the name of the one that holds the weights. The result is compared with
    the original on random inputs, and dropped where they differ.
    """

    def __call__(self, model: Model) -> NormalizeReport:
        """Normalize ``model``."""
        before = len(model.graph.nodes)
        original = model.proto()
        try:
            simple = _simplify(original)
            declined = _compare(original, simple)
        except GraftError:
            raise
        except Exception as error:  # a simplifier may fail on a graph in any way
            declined = f"onnxslim failed with {type(error).__name__}: {str(error)[:120]}"
        if declined:
            log.warning("the graph is used as it is: %s", declined)
            return NormalizeReport(before, before, declined)
        _keep_names(original.graph, simple.graph)
        normal = Model.from_proto(simple)
        normal.tidy()
        model.graph = normal.graph
        return NormalizeReport(before, len(model.graph.nodes))


def _simplify(original: onnx.ModelProto) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    skip = [name for name in DEFAULT_FUSION_PATTERNS if name not in FUSIONS]
    with contextlib.redirect_stdout(io.StringIO()):
        slim = onnxslim.slim(proto, skip_fusion_patterns=skip)
    if slim is None:
        raise ValueError("no result")
    slim.ir_version = original.ir_version
    result: onnx.ModelProto = slim
    return result


def _keep_names(original: onnx.GraphProto, simple: onnx.GraphProto) -> None:
    """Give nodes that the simplifier renamed the name of their counterpart in the original."""
    known = {node.name for node in original.node}
    by_input = {(n.op_type, tuple(n.input[:1])): n.name for n in reversed(original.node)}
    by_output = {output: node.name for node in original.node for output in node.output}
    taken = {node.name for node in simple.node} & known
    for node in simple.node:
        if node.name in known:
            continue
        candidates = (
            by_input.get((node.op_type, tuple(node.input[:1]))),
            by_output.get(node.output[0]) if node.output else None,
        )
        name = next((found for found in candidates if found and found not in taken), node.name)
        node.name = name
        taken.add(name)


def _compare(original: onnx.ModelProto, simple: onnx.ModelProto) -> str:
    """Why ``simple`` cannot stand for ``original``; ``""`` if it can."""
    signature = [
        [(value.name, value.type.SerializeToString()) for value in ends]
        for graph in (original.graph, simple.graph)
        for ends in (graph.input, graph.output)
    ]
    if [name for name, _ in signature[0] + signature[1]] != [n for n, _ in signature[2] + signature[3]]:
        return "the simplifier changed inputs or outputs"
    inputs = random_inputs(original.graph)
    if inputs is None:
        return ""
    device = Device(("cpu",))
    try:
        expected = device.open(original).run(inputs)
    except GraftError:
        return ""  # random values need not fit the model; real samples are compared when it is cut
    found = device.open(simple).run(inputs)
    for name, reference in expected.items():
        if reference.dtype.kind != "f":
            continue
        allowed = 1e-4 * max(1.0, float(np.nanmax(np.abs(reference), initial=0)))
        if not np.allclose(found[name], reference, rtol=1e-3, atol=allowed, equal_nan=True):
            return f"the simplified graph computes another {name}"
    return ""


def random_inputs(graph: onnx.GraphProto) -> dict[str, np.ndarray] | None:
    """Seeded inputs of the declared types and shapes; free dimensions count as 2 (batch) or 8."""
    random = np.random.default_rng(0)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {}
    for value in graph.input:
        tensor = value.type.tensor_type
        if value.name in stored:
            continue
        if not tensor.HasField("shape"):
            return None
        shape = [d.dim_value or (8 if axis else 2) for axis, d in enumerate(tensor.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.prod(shape, dtype=float) > 1e8:
            return None
        draw = random.normal(size=shape) if np.dtype(dtype).kind == "f" else random.integers(0, 2, shape)
        inputs[value.name] = draw.astype(dtype)
    return inputs
