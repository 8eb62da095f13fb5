"""The kind of an output, by what the graph does and by its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.graph.scores import CLASSIFIERS, maker
from graft.rewriter.measure.plausible import FEWEST_ROWS, sum_to_one, within

NEARLY_ONE = 0.1
"""Sums of a softmax that was rounded to whole levels are this near to 1 on average."""
LINEAR = frozenset(("Gemm", "MatMul", "Conv", "Einsum", "LogSoftmax"))
LIMITS = frozenset(("Clip", "Min", "Max"))
RECTIFIERS = frozenset(("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Softplus"))
"""Activations without an upper limit."""
SHIFTS = frozenset(("Add", "Sub", "Mul", "Div"))


def kind_by_graph(tensor: gs.Tensor) -> str | None:
    """Return the kind that the operators behind a tensor give it; ``None`` where they leave it open."""
    node = maker(tensor)
    if node is None:
        return None
    if node.op == "Softmax" or _exp_of_log_softmax(node) or _divided_by_sum(node):
        return "probabilities"
    if node.op in ("Sigmoid", "HardSigmoid"):
        return "sigmoid"
    if node.op in LINEAR or node.op in RECTIFIERS:
        return "logits"
    inner = _variables(node)
    if node.op in SHIFTS and len(inner) == 1:  # a bias, a temperature; of probabilities it may be anything
        return "logits" if kind_by_graph(inner[0]) == "logits" else None
    if node.op in LIMITS:  # of logits it may be a sigmoid in straight lines
        kinds = (kind_by_graph(each) for each in inner)
        return next((kind for kind in kinds if kind not in (None, "logits")), None)
    if node.op == "Normalizer":
        return "probabilities" if node.attrs.get("norm", "MAX") == "L1" else None
    if node.op in CLASSIFIERS and node.attrs.get("post_transform") == "SOFTMAX":
        return "probabilities"
    return None


def decide(by_graph: str | None, scores: NDArray[Any] | None, columns: int) -> str | None:
    """Return the kind of an output.

    Args:
        by_graph: what the operators say.
        scores: rows of numbers (n, columns), as many as there are; ``None``: the model did not run.
        columns: of the output.

    Returns:
        The kind as cards have it; ``None`` for a single column that is no probability.
    """
    if scores is not None:
        scores = scores[np.isfinite(scores).all(axis=1)]
    if scores is None or len(scores) < FEWEST_ROWS:
        if columns == 1:
            return "binary" if by_graph == "sigmoid" else None
        return by_graph or "logits"
    inside = within(scores)
    if scores.shape[1] == 1:
        return "binary" if inside and by_graph != "logits" else None
    if not inside:
        return "logits"
    if sum_to_one(scores):
        return "sigmoid" if by_graph == "sigmoid" and scores.shape[1] > 2 else "probabilities"
    if by_graph == "probabilities":
        near = np.abs(scores.astype(np.float64).sum(axis=1) - 1).mean() < NEARLY_ONE
        return "probabilities" if near else "sigmoid"
    return by_graph or "sigmoid"


def _exp_of_log_softmax(node: gs.Node) -> bool:
    before = maker(node.inputs[0]) if node.op == "Exp" else None
    return before is not None and before.op == "LogSoftmax"


def _divided_by_sum(node: gs.Node) -> bool:
    """Return True for a softmax, or any normalization to the sum 1, that is written out."""
    if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
        return False
    for whole, part in ((node.inputs[1], node.inputs[0]), (node.inputs[0], node.inputs[1])):
        total = maker(whole)
        if node.op == "Mul":
            total = maker(total.inputs[0]) if total is not None and total.op == "Reciprocal" else None
        if (
            total is not None
            and total.op in ("ReduceSum", "ReduceL1")
            and _origin(total.inputs[0]) == _origin(part)
        ):
            return True
        if node.op == "Div":
            return False  # only the second input divides
    return False


def _origin(tensor: gs.Tensor) -> str:
    node = maker(tensor)
    return str(node.name if node is not None else tensor.name)


def _variables(node: gs.Node) -> list[gs.Variable]:
    return [each for each in node.inputs if isinstance(each, gs.Variable) and each.inputs]
