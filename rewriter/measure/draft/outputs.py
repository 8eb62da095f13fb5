"""Which tensor of a model holds the scores of the classes, by names, operators and shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.card.part import shape_text
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.scores import class_numbers, maker
from graft.rewriter.measure.draft.kinds import kind_by_graph

OTHER_TASKS = ("detect", "segment", "pose", "obb", "semantic", "instance", "depth")
"""Tasks in the metadata whose outputs are no scores of classes; ultralytics writes ``task``."""
BOXES = re.compile(r"(^|[^a-z])(boxes|box|bboxes|bbox|dets|masks|keypoints|num_dets|detections)([^a-z]|$)")
BY_HAND = "Graft takes classifiers: one score a class for each sample, or for each time step"


@dataclass(frozen=True)
class Scores:
    """A tensor that may hold the scores.

    Attributes:
        name: of the tensor.
        by_graph: its kind, as far as the operators say.
        before: the operator that makes class numbers of it, where it is no output of the file.
        output: the output of the file that led to it.
    """

    name: str
    by_graph: str | None
    before: str = ""
    output: str = ""


def find_scores(model: Model, task: str = "") -> list[Scores]:
    """Return the tensors that may hold scores: outputs, and what lies before class numbers.

    Args:
        model: a working copy; inner tensors become outputs of it.
        task: what the model is for, where its metadata says so.

    Raises:
        GraftError: ``card-draft`` where the model is no classifier, or puts out no numbers.
    """
    _refuse_detector(model, task)
    found: dict[str, Scores] = {}
    ranked: dict[str, Scores] = {}
    for tensor in list(model.graph.outputs):
        numbers = class_numbers(tensor)
        if numbers is None:
            if _is_float(tensor):
                found[tensor.name] = Scores(tensor.name, kind_by_graph(tensor), output=tensor.name)
        elif _is_float(numbers.scores) or numbers.scores.dtype is None:
            scores = numbers.scores
            ranked[scores.name] = Scores(scores.name, kind_by_graph(scores), numbers.op, tensor.name)
    # The highest score beside its number is none of the scores.
    highest = [name for name in found if _highest_of(model, name) in ranked]
    found = {name: scores for name, scores in found.items() if name not in highest}
    if found:
        return list(found.values())
    for name in ranked:
        model.expose(name)
    ends = {tensor.name for tensor in model.graph.outputs}
    if not ranked.keys() & ends:
        raise GraftError("card-draft", "the model has no output of numbers", "write the card by hand")
    return [each for each in ranked.values() if each.name in ends]


def _highest_of(model: Model, name: str) -> str | None:
    """Return the tensor that an output is the maximum of."""
    node = maker(model.graph.tensors()[name])
    return str(node.inputs[0].name) if node is not None and node.op == "ReduceMax" else None


def _refuse_detector(model: Model, task: str) -> None:
    outputs = model.graph.outputs
    boxes = [tensor.name for tensor in outputs if BOXES.search(tensor.name.casefold())]
    suppression = any(
        node.op.startswith(("NonMaxSuppression", "EfficientNMS", "BatchedNMS")) for node in model.graph.nodes
    )
    reason = ""
    if task in OTHER_TASKS:
        reason = f"its metadata says task: {task}"
    elif suppression:
        reason = "a detector, which chooses among boxes (non-maximum suppression)"
    elif boxes and len(outputs) > 1:
        reason = f"a detector, whose outputs are {', '.join(tensor.name for tensor in outputs)}"
    if reason:
        raise GraftError("card-draft", f"the model does not look like a classifier: {reason}", BY_HAND)


def _is_float(tensor: gs.Tensor) -> bool:
    if tensor.dtype is None or isinstance(tensor.dtype, int):
        return tensor.dtype is not None  # bfloat16 and other types that numpy lacks
    return bool(np.dtype(tensor.dtype).kind == "f")


@dataclass(frozen=True)
class Form:
    """How the axes of an output are to be read.

    Attributes:
        columns: number of classes; 1 where there is a single column.
        steps: one label a time step.
    """

    columns: int
    steps: bool = False


def form_of(name: str, shape: Sequence[Any], steps: int | None, unsure: bool = False) -> Form:
    """Read the axes of an output behind the samples.

    Args:
        name: of the output.
        shape: of the output, samples first; a size that is not known is no number.
        steps: time steps that samples have, where they are known to have any.
        unsure: a second axis may be time, because nothing says that samples have steps.

    Raises:
        GraftError: ``card-draft`` where it is an output of a detector or a segmenter.
    """
    inner = [size for size in shape[1:] if size != 1]
    if not inner:
        return Form(1)
    three = len(shape) == 3 and shape[1] != 1 and shape[2] != 1
    if three and steps is not None and (not isinstance(shape[1], int) or shape[1] == steps):
        return Form(shape[2] if isinstance(shape[2], int) else 2, steps=True)
    if len(inner) == 1:
        return Form(inner[0] if isinstance(inner[0], int) else 2)
    what = "a map of an image, as of a segmenter" if len(shape) > 3 else "boxes, as of a detector"
    ask = (
        "; give --data with one label a time step, if it labels sequences"
        if unsure and len(shape) == 3
        else ""
    )
    raise GraftError(
        "card-draft",
        f"output '{name}' {shape_text(shape)} is {what}, and no scores of a classifier",
        f"{BY_HAND}{ask}",
    )


def rows_of(scores: NDArray[Any], form: Form) -> NDArray[Any]:
    """Return scores (n, columns), or (n, steps, columns) for one label a time step."""
    if form.steps:
        return scores.reshape(len(scores), -1, form.columns)
    return scores.reshape(len(scores), form.columns)
