"""Take a classifier that Graft did not write into a composite: a module for all of its classes."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context
from graft.passes.normalize.simplify import Normalize
from graft.rewriter.card.card import OTHER
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.outputs import flatten_output, keep_output
from graft.rewriter.record.provenance import (
    ORIGIN_KEY,
    Origin,
    origin_of,
    parent_record,
    stamp,
    versions,
)

WHOLE = "whole"
"""Option in the record of a network that is its parent as it is."""


def adopted(model: Model) -> Model:
    """Return ``model`` as a module that can be joined; one that Graft wrote as it is.

    A classifier is the module for all of its classes: the simplified graph, with its one output.

    Raises:
        GraftError: ``output-kind``: its classes do not exclude each other.
    """
    if ORIGIN_KEY in model.metadata:
        return model
    card, record = model.require_card(), parent_record(model)
    if card.output.kind not in ("logits", "probabilities", "binary"):
        raise GraftError(
            "output-kind",
            f"cannot join {record.name or 'a classifier'}: its output is of kind {card.output.kind}",
            "supported are logits, probabilities and binary",
        )
    found = model.copy()
    output = keep_output(found, card.output.name)
    Normalize()(found, Context())
    if card.output.kind == "binary":
        _in_two_columns(found, output.name)
    else:
        flatten_output(found)
    classes = tuple(name for name in card.labels if name != OTHER)
    origin = Origin(parents=(record,), classes=classes, options={WHOLE: True}, versions=versions())
    stamp(found, "module", origin, {"macs_ratio": 1.0})
    return found


def is_whole(model: Model) -> bool:
    """Return ``True`` for a network that is its parent as it is."""
    return bool(origin_of(model).options.get(WHOLE))


def _in_two_columns(model: Model, name: str) -> None:
    """Write the probabilities of both classes in place of that of the second one."""
    card = model.require_card()
    output: gs.Variable = next(tensor for tensor in model.graph.outputs if tensor.name == name)
    if len(output.shape or ()) > 1 and output.shape[-1] == len(card.labels):
        model.card = card.replace(output={**card.output.model_dump(), "kind": "probabilities"})
        return
    build = Builder(model.graph, model.opset, f"graft/{name}")
    output.name = f"graft/{name}/parent"
    second = build.node("Reshape", "second", [output, build.constant("column", np.array([-1, 1]))])
    first = build.node("Sub", "first", [build.constant("one", np.array(1, output.dtype)), second])
    both = build.node("Concat", "both", [first, second], axis=1)
    both.name, both.dtype, both.shape = name, output.dtype, [(output.shape or [None])[0], 2]
    model.graph.outputs = [both]
    model.card = card.replace(output={**card.output.model_dump(), "kind": "probabilities"})
    model.tidy()
