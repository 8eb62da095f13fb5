"""Bring a graph to the form that the other passes read.

Functions are inlined, constants folded and BatchNormalization folded into the convolution before it
where that is exact. All of it is done by onnx's inliner and by onnxslim; this pass keeps the names. Recurrent
layers, which onnxslim leaves as exporters write them, are brought to one form.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx.inliner
import onnxslim
from onnx import numpy_helper
from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

from graft.passes.base import Context, Declined, Report
from graft.passes.normalize.large_constants import fold_large_constants, hidden_weights, refer_again
from graft.passes.normalize.large_norms import fuse_large_norms
from graft.passes.normalize.recurrent_layout import RecurrentLayout
from graft.passes.normalize.slim_bounds import axes_bounded, constants_bounded
from graft.passes.normalize.slim_speed import searches_bounded
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.walk import DRAWS
from graft.rewriter.graph.weights import arrays, outside, put_in
from graft.rewriter.memory import collected_rarely
from graft.rewriter.run.computed_constants import foldable_bytes
from graft.rewriter.run.equivalence import differs
from graft.rewriter.run.folding import folding_bounded

FUSIONS = ("FusionConvBN",)
"""The only fusions that onnxslim may do: the rest would change what a person finds in the file."""

log = logging.getLogger("graft")


@dataclass(frozen=True, kw_only=True)
class NormalizeReport(Report):
    """Numbers of nodes; ``changed`` counts those that are gone or new.

    Attributes:
        before: number of nodes.
        after: number of nodes.
    """

    before: int
    after: int


@dataclass(frozen=True)
class Normalize:
    """Simplify a model in place without changing what it computes.

    ``Conv -> BatchNormalization -> Relu`` becomes ``Conv -> Relu``; ``Shape -> Gather -> ... ->
    Reshape`` becomes a ``Reshape`` to a constant. Nodes that survive keep their names; a node that
    stands for several takes the name of the one that holds the weights. The result is compared with
    the original on random inputs, and dropped where they differ.
    """

    def __call__(self, subject: Model, context: Context) -> NormalizeReport:
        """Normalize ``subject`` in place.

        Args:
            subject: the model.
            context: not needed.

        Returns:
            Numbers of nodes; what was left as it was: the whole graph, recurrent layers, or single loops.

        Raises:
            GraftError: onnxruntime cannot run the simplified model.
        """
        with collected_rarely(len(subject.graph.nodes)):
            return self._normalize(subject, context)

    def _normalize(self, subject: Model, context: Context) -> NormalizeReport:
        names = [node.name for node in subject.graph.nodes]
        fold_large_constants(subject)
        original = subject.message()
        fused = _without_norms(subject)
        light = fused.message() if fused else original
        held = arrays(original), arrays(light)  # until the result has them
        try:
            reason = _draws(original)
            simple = original if reason else _simplify(light)
            reason = reason or differs(original, simple)
        except (GraftError, MemoryError):
            raise
        except Exception as error:  # a simplifier may fail on a graph in any way
            reason = f"onnxslim failed with {type(error).__name__}: {str(error)[:120]}"
        if reason:
            log.warning("the graph is used as it is: %s", reason)
            whole = Declined(subject.graph.name or "the graph", reason)
            return NormalizeReport(declined=(whole,), before=len(names), after=len(names))
        _keep_names(original.graph, simple.graph)
        model, declined = _with_recurrent_layout(original, simple, context)
        del held
        subject.graph = model.graph
        left = [node.name for node in subject.graph.nodes]
        changed = len({*names} ^ {*left})
        declined = (*declined, *_no_longer_random(original.graph, left))
        return NormalizeReport(changed=changed, declined=declined, before=len(names), after=len(left))


def _draws(original: onnx.ModelProto) -> str:
    """Return why a graph is left alone that draws numbers whatever it reads: onnxslim keeps one draw."""
    graph = original.graph
    varying = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in DRAWS and varying.isdisjoint(node.input):
            return f"{node.op_type} {node.name} draws numbers at random: no two runs are alike"
        if not varying.isdisjoint(node.input):
            varying.update(node.output)
    return ""


def _with_recurrent_layout(
    original: onnx.ModelProto, simple: onnx.ModelProto, context: Context
) -> tuple[Model, tuple[Declined, ...]]:
    """Return the model with recurrent layers in one form where that computes what ``original`` does."""
    normal = Model.from_proto(simple)
    normal.tidy()
    report = RecurrentLayout()(normal, context)
    if not report.changed:
        return normal, report.declined
    reason = differs(original, normal.message())
    if not reason:
        return normal, report.declined
    log.warning("recurrent layers are used as they are: %s", reason)
    normal = Model.from_proto(simple)
    normal.tidy()
    return normal, (Declined("recurrent layers", reason),)


def _no_longer_random(original: onnx.GraphProto, left: Sequence[str]) -> tuple[Declined, ...]:
    """Warn of each ``Dropout`` in training mode that is gone: onnxruntime leaves it out, too, or draws."""
    nodes = [node for node in original.node if node.op_type == "Dropout" and len(node.input) == 3]
    modes = {"", *(node.input[2] for node in nodes)}
    off = {t.name for t in original.initializer if t.name in modes and not numpy_helper.to_array(t).any()}
    gone = [node.name for node in nodes if node.input[2] not in {"", *off} and node.name not in left]
    for name in gone:
        log.warning(
            "Dropout %s is in training mode; it was removed: the result draws nothing at random", name
        )
    return tuple(Declined(name, "Dropout in training mode: removed") for name in gone)


def _without_norms(subject: Model) -> Model | None:
    """Return a copy of a large model, its convolutions with the normalization behind them in one."""
    if not outside(subject.graph):
        return None
    work = subject.copy()
    fuse_large_norms(work)
    return work


def _simplify(original: onnx.ModelProto) -> onnx.ModelProto:
    hidden = hidden_weights(original)
    proto = put_in(original, arrays(original).keys() - hidden)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    fusions = () if arrays(proto).keys() - hidden else FUSIONS  # it cannot read weights that lie elsewhere
    skip = [name for name in DEFAULT_FUSION_PATTERNS if name not in fusions]
    quiet = contextlib.redirect_stdout(io.StringIO())
    nodes = len(proto.graph.node)
    bounded = folding_bounded(foldable_bytes(original)), axes_bounded(), constants_bounded()
    with quiet, bounded[0], bounded[1], bounded[2], searches_bounded(nodes), collected_rarely(nodes):
        slim = onnxslim.slim(proto, skip_fusion_patterns=skip)
    if slim is None:
        raise ValueError("no result")
    slim.ir_version = original.ir_version
    del slim.graph.value_info[:]  # onnxslim notes wrong shapes for operators that it does not know well
    with contextlib.suppress(Exception):  # shapes inside are a courtesy to readers
        slim = onnx.shape_inference.infer_shapes(slim)
    result: onnx.ModelProto = slim
    return refer_again(result, original)


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
