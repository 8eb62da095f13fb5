"""Scores of classes inside a graph: what lies before class numbers, and the names that the file gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from graft.rewriter.errors import GraftError

PASSING = frozenset(
    ("Identity", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Dropout")
) | {"QuantizeLinear", "DequantizeLinear"}
"""Operators that hand numbers on in another form."""
RANKING = frozenset(("ArgMax", "ArgMin", "TopK", "Hardmax"))
"""Operators that leave of scores which one is the highest."""
THRESHOLDS = frozenset(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Round"))
CLASSIFIERS = frozenset(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"))
"""Operators of ai.onnx.ml that put out class numbers or names, and scores."""
LOOKUPS = {"ArrayFeatureExtractor": 1, "Gather": 1, "LabelEncoder": 0, "Slice": 0}
"""Operators that classes pass as numbers, and the input that holds them."""


@dataclass(frozen=True)
class ClassNumbers:
    """Class numbers, or scores that were sorted, and the scores that they come from.

    Attributes:
        op: the operator that made them.
        scores: a tensor of the graph, one column a class.
    """

    op: str
    scores: gs.Tensor


def maker(tensor: gs.Tensor) -> gs.Node | None:
    """Return the node that makes the numbers of ``tensor``, before they change form."""
    while tensor.inputs and tensor.inputs[0].op in PASSING:
        tensor = tensor.inputs[0].inputs[0]
    return tensor.inputs[0] if tensor.inputs else None


def class_numbers(tensor: gs.Tensor) -> ClassNumbers | None:
    """Find the scores before class numbers; ``None`` where ``tensor`` holds no class numbers."""
    while (node := maker(tensor)) is not None:
        if node.op in RANKING:
            return ClassNumbers(node.op, node.inputs[0])
        if node.op in CLASSIFIERS and tensor.name == node.outputs[0].name:
            return ClassNumbers(node.op, node.outputs[1])
        if node.op in THRESHOLDS:
            scores = next((each for each in node.inputs if isinstance(each, gs.Variable)), None)
            return ClassNumbers(node.op, scores) if scores is not None and scores.inputs else None
        if node.op not in LOOKUPS or len(node.inputs) <= LOOKUPS[node.op]:
            return None
        tensor = node.inputs[LOOKUPS[node.op]]
    return None


def refuse_class_numbers(graph: gs.Graph, name: str) -> None:
    """Raise where the output ``name`` holds class numbers, from which scores cannot be computed.

    Raises:
        GraftError: ``card-output``; it names the tensor that holds the scores.
    """
    tensor = next((each for each in graph.outputs if each.name == name), None)
    found = class_numbers(tensor) if tensor is not None else None
    if found is not None:
        raise GraftError(
            "card-output",
            f"output '{name}' holds no scores of the classes: {found.op} made "
            f"{'sorted scores' if found.op == 'TopK' else 'class numbers'} of them",
            f"name the scores before it in the card, output: {{name: '{found.scores.name}', kind: ...}}, or "
            "draft a card with `graft card`",
        )


def written_labels(
    graph: gs.Graph, scores: str, mapped: Mapping[str, Sequence[Any]]
) -> tuple[str | int, ...] | None:
    """Return the classes that the file itself names in the order of the columns, or ``None``.

    Args:
        graph: the graph.
        scores: the tensor of scores.
        mapped: classes of outputs that a ZipMap made, by their names.
    """
    if scores in mapped:
        return tuple(mapped[scores])
    for node in graph.nodes:
        if node.op in CLASSIFIERS and _leads(scores, node, graph):
            names = _attribute(node, "classlabels_strings", "classlabels_int64s", "classlabels_ints")
            if names:
                return names
    for node in graph.nodes:
        found = _looked_up(node)
        if found is not None and (names := _table(node)) is not None and _same(found.scores, scores, graph):
            return names
    return None


def _leads(scores: str, classifier: gs.Node, graph: gs.Graph) -> bool:
    """Return True where the scores are those of a classifier of ai.onnx.ml, in any form of them."""
    tensor = graph.tensors().get(scores)
    while tensor is not None and tensor.inputs:
        node = tensor.inputs[0]
        if node is classifier:
            return True
        tensor = next((each for each in node.inputs if isinstance(each, gs.Variable) and each.inputs), None)
    return False


def _same(before: gs.Tensor, scores: str, graph: gs.Graph) -> bool:
    """Return True where class numbers are taken from the scores, or from what they are made of."""
    tensor: gs.Tensor | None = graph.tensors().get(scores)
    while tensor is not None:
        if tensor.name == before.name:
            return True
        tensor = tensor.inputs[0].inputs[0] if tensor.inputs and tensor.inputs[0].inputs else None
    tensor = before
    while tensor is not None:
        if tensor.name == scores:
            return True
        tensor = tensor.inputs[0].inputs[0] if tensor.inputs and tensor.inputs[0].inputs else None
    return False


def _looked_up(node: gs.Node) -> ClassNumbers | None:
    if node.op not in ("ArrayFeatureExtractor", "Gather", "LabelEncoder"):
        return None
    place = LOOKUPS[node.op]
    return class_numbers(node.inputs[place]) if len(node.inputs) > place else None


def _table(node: gs.Node) -> tuple[str | int, ...] | None:
    """Return the list of classes that numbers are looked up in."""
    if node.op == "LabelEncoder":
        keys = _attribute(node, "keys_int64s")
        values = _attribute(node, "values_strings", "values_int64s")
        ordered = keys is not None and list(keys) == list(range(len(keys)))
        return values if ordered else None
    table = node.inputs[0]
    if not isinstance(table, gs.Constant):
        return None
    held = table._values
    # Text that was loaded into the graph is nothing that onnx-graphsurgeon can write again.
    listed = np.asarray(held.load() if isinstance(held, LazyValues) else held).reshape(-1)
    return _words(listed.tolist()) if listed.dtype.kind in "iuSUO" else None


def _attribute(node: gs.Node, *names: str) -> tuple[str | int, ...] | None:
    for name in names:
        if node.attrs.get(name):
            return _words(node.attrs[name])
    return None


def _words(values: Sequence[Any]) -> tuple[str | int, ...]:
    return tuple(
        each
        if isinstance(each, int)
        else each.decode("utf-8", "replace")
        if isinstance(each, bytes)
        else str(each)
        for each in values
    )
