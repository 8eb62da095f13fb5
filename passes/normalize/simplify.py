"""Bring a graph to the form that the other passes read.

Functions are inlined, constants folded and BatchNormalization folded into the convolution before it
where that is exact. All of it is done by onnx's inliner and by onnxslim; this pass keeps the names. Recurrent
layers, which onnxslim leaves as exporters write them, are brought to one form.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass

import onnx
import onnx.inliner
import onnxslim
from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.equivalence import differs

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
            declined = differs(original, simple)
        except GraftError:
            raise
        except Exception as error:  # a simplifier may fail on a graph in any way
            declined = f"onnxslim failed with {type(error).__name__}: {str(error)[:120]}"
        if declined:
            log.warning("the graph is used as it is: %s", declined)
            return NormalizeReport(before, before, declined)
        _keep_names(original.graph, simple.graph)
        model.graph = _recurrent(original, simple).graph
        return NormalizeReport(before, len(model.graph.nodes))


def _recurrent(original: onnx.ModelProto, simple: onnx.ModelProto) -> Model:
    """The model, with recurrent layers in one form where that computes what ``original`` does."""
    normal = Model.from_proto(simple)
    normal.tidy()
    if not RecurrentLayout()(normal).changed:
        return normal
    declined = differs(original, normal.proto())
    if declined:
        log.warning("recurrent layers are used as they are: %s", declined)
        normal = Model.from_proto(simple)
        normal.tidy()
    return normal


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
    del slim.graph.value_info[:]  # onnxslim notes wrong shapes for operators that it does not know well
    with contextlib.suppress(Exception):  # shapes inside are a courtesy to readers
        slim = onnx.shape_inference.infer_shapes(slim)
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
