"""Write out the states that recurrent layers start with, which normalization leaves out where they are 0."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import given
from graft.rewriter.operators.recurrent import STATES, Recurrent

BATCH_AXIS = 1
CELLS = {"LSTM": 2}
"""States of an operator; of the others one."""


def write_start_states(model: Model) -> int:
    """Give recurrent layers zeros to start with, of the batch that they read.

    Where no state is given tract takes one for a batch of 1. A batch of a known size needs none.

    Args:
        model: changed in place.

    Returns:
        The number of nodes that were given states.
    """
    changed = 0
    known: dict[tuple[object, ...], gs.Variable] = {}
    for node in list(model.graph.nodes):
        if node.op not in Recurrent.types or node.domain or node.attrs.get("layout", 0):
            continue
        sizes = node.inputs[0].shape
        places = STATES[: CELLS.get(node.op, 1)]
        free = sizes is not None and len(sizes) == 3 and not isinstance(sizes[BATCH_AXIS], int)
        missing = [place for place in places if given(node, place) is None]
        if not free or not missing:
            continue
        directions, _, width = node.inputs[2].shape
        key = (node.inputs[0].name, directions, width, str(node.inputs[0].dtype))
        if key not in known:
            known[key] = _zeros(model, node, directions, width)
        node.inputs += [gs.Variable.empty() for _ in range(places[-1] + 1 - len(node.inputs))]
        for place in missing:
            node.inputs[place] = known[key]
        changed += 1
    if changed:
        model.tidy()
        model.refresh_shapes()
    return changed


def _zeros(model: Model, node: gs.Node, directions: int, width: int) -> gs.Variable:
    """Return zeros (directions, batch, units) of the type that ``node`` reads."""
    build = Builder(model.graph, model.opset, f"{node.name}/start")
    shape = build.node("Shape", "shape", [node.inputs[0]])
    batch = build.node("Gather", "batch", [shape, build.constant("axis", np.array([BATCH_AXIS]))], axis=0)
    before, behind = (
        build.constant("directions", np.array([directions])),
        build.constant("units", np.array([width])),
    )
    sizes = build.node("Concat", "sizes", [before, batch, behind], axis=0)
    dtype = np.dtype(node.inputs[0].dtype or np.float32)
    zeros = build.node("ConstantOfShape", "zeros", [sizes], value=gs.Constant("value", np.zeros(1, dtype)))
    zeros.dtype = dtype
    return zeros
