"""Free a batch that exporters fixed: at the inputs, in the targets of reshapes, in initial states.

PyTorch exports for a batch of 1 unless it is told otherwise. In a recurrent network so exported nothing says
which axis the samples lie on, and no channel can be observed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined, Report
from graft.passes.normalize.batch_targets import NodeShapes, freed_target
from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.order import sort_nodes
from graft.rewriter.graph.sample_axes import fixed_batch, fixes_batch
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.sample_layout import SampleLayout, sample_layouts
from graft.rewriter.operators import same_shape
from graft.rewriter.run.equivalence import draw_inputs
from graft.rewriter.run.session import Device

BATCH = "graft_batch"
"""Name of the dimension while the batch is free."""
MOST = 64
"""Nodes that are rewritten in one graph; beyond them it is left as it is."""
FREE = 8
"""What other free dimensions count as when a graph is checked."""
STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
LENGTHS_INPUT = 4
log = logging.getLogger("graft")


@dataclass(frozen=True)
class FreeBatch:
    """Let a model take any number of samples at once, in place, where that computes the same for each.

    The result is compared with the original on random inputs: two batches at once must give what each gives
    alone. Where they differ the model is left as it was.
    """

    def __call__(self, subject: Model, context: Context) -> Report:
        """Free the batch of ``subject``.

        Args:
            subject: a normalized model whose batch is fixed at the inputs, or by a node inside.
            context: not needed.

        Returns:
            The number of nodes that were rewritten and of inputs that were freed; why it was left as it was.
        """
        graph = subject.graph
        inputs = {name: shape for name, (_, shape) in subject.inputs().items()}
        size = fixed_batch(inputs, subject.sample_axes())
        if size is None and fixes_batch(graph, anywhere=True) is None:
            return Report()
        try:
            freed, changed = _freed(subject, size)
            reason = _differs(subject, freed, size or 1) if changed else ""
        except (GraftError, _CannotBeFreedError) as error:
            reason = error.message if isinstance(error, GraftError) else str(error)
        if reason:
            log.info("the batch stays fixed: %s", reason)
            return Report(declined=(Declined("batch", f"stays fixed: {reason}"),))
        if changed:
            subject.graph = freed.graph
        return Report(changed=changed)


class _CannotBeFreedError(Exception):
    """A node needs a batch of the size that it has."""


def fix_batch(model: Model, size: int) -> None:
    """Declare the batch of ``model``, which :class:`FreeBatch` freed, as ``size`` again."""
    for tensor in model.graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.shape is not None and BATCH in tensor.shape:
            tensor.shape = [size if each == BATCH else each for each in tensor.shape]


def _freed(subject: Model, size: int | None) -> tuple[Model, int]:
    """Return a copy with a free batch, and how many inputs and nodes were changed."""
    batch = size or 1
    before = subject.shapes_by_batch(same_shape())(batch, None)
    model = subject.copy()
    changed = _free_ends(model, size) if size is not None else 0
    done: set[str] = set()
    while True:
        infer = model.shapes_by_batch(same_shape())
        node = _next(model, before, (infer(2 * batch, None), infer(3 * batch, None)), batch, done)
        if node is None:
            break
        done.add(node.name)
        sort_nodes(model.graph)
        if len(done) > MOST:
            raise _CannotBeFreedError(f"more than {MOST} nodes fix it")
    model.tidy()
    model.refresh_shapes()
    return model, changed + len(done)


def _free_ends(model: Model, size: int) -> int:
    """Name the dimension of the batch of inputs and outputs."""
    axes = model.sample_axes()
    own = [tensor for tensor in model.graph.inputs if axes[tensor.name] is not None]
    for tensor in own:
        axis = axes[tensor.name] or 0
        shape = list(tensor.shape or ())
        if axis >= len(shape) or shape[axis] != size:
            raise _CannotBeFreedError(f"input {tensor.name} has no batch of {size} on axis {axis}")
        tensor.shape = [*shape[:axis], BATCH, *shape[axis + 1 :]]
    for tensor in model.graph.outputs:
        shape = list(tensor.shape or ())
        if shape and shape[0] == size:
            tensor.shape = [BATCH, *shape[1:]]
    return len(own)


def _next(
    model: Model,
    before: Mapping[str, Shape],
    after: tuple[dict[str, Shape], dict[str, Shape]],
    batch: int,
    done: set[str],
) -> gs.Node | None:
    """Rewrite the first node that fixes the batch which reaches it, and return it.

    Args:
        model: is changed.
        before: shapes for the fixed batch.
        after: shapes of ``model`` for two and three such batches.
        batch: the fixed batch.
        done: names of nodes that were rewritten.
    """
    layouts = sample_layouts(model.graph.nodes, *after, batch)
    for node in list(model.graph.nodes):
        for index, tensor in enumerate(node.inputs if node.name not in done else ()):
            known, layout = before.get(tensor.name), layouts.get(tensor.name)
            if isinstance(tensor, gs.Constant) or known is None or layout is None:
                continue
            ends = NodeShapes(known, before.get(node.outputs[0].name) or (), batch)
            if _rewrite(model, node, index, layout, ends):
                return node
    return None


def _rewrite(model: Model, node: gs.Node, index: int, layout: SampleLayout, ends: NodeShapes) -> bool:
    """Let a node take any batch.

    Args:
        model: is changed.
        node: of the model.
        index: of the input that the batch reaches.
        layout: where samples lie in that input.
        ends: shapes for the fixed batch.

    Returns:
        ``False`` where the node takes any batch already, or is not known.
    """
    axis = layout.axis
    if node.op in ("Reshape", "Expand") and index == 0 and len(node.inputs) > 1:
        target = node.inputs[1]
        if not isinstance(target, gs.Constant):
            return False
        new = freed_target(node.op, target.values.tolist(), ends, layout)
        if new is not None:
            node.inputs[1] = gs.Constant(f"{node.name}/any_batch", np.array(new, np.int64))
        return new is not None
    if node.op in STATES and index == 0 and axis == 1:
        return _free_states(model, node)
    if node.op == "Concat" and axis != node.attrs.get("axis", 0):
        return _spread_constants(model, node, index, axis)
    return False


def _free_states(model: Model, node: gs.Node) -> bool:
    """Drop constant initial states that are 0, and lengths; spread other states over the batch."""
    changed = False
    for place in STATES[node.op]:
        state = node.inputs[place] if place < len(node.inputs) else None
        if isinstance(state, gs.Constant):
            blank = not np.any(state.values)
            node.inputs[place] = gs.Variable.empty() if blank else _spread(model, node, place, 0, 1, 1)
            changed = True
    lengths = node.inputs[LENGTHS_INPUT] if len(node.inputs) > LENGTHS_INPUT else None
    if isinstance(lengths, gs.Constant):
        raise _CannotBeFreedError(f"{node.op} {node.name} has constant lengths")
    return changed


def _spread_constants(model: Model, node: gs.Node, index: int, axis: int) -> bool:
    """Spread constants that are joined to a tensor over its batch."""
    constants = [place for place, each in enumerate(node.inputs) if isinstance(each, gs.Constant)]
    for place in constants:
        node.inputs[place] = _spread(model, node, place, index, axis, axis)
    return bool(constants)


def _spread(model: Model, node: gs.Node, place: int, like: int, read: int, axis: int) -> gs.Variable:
    """Return the constant input ``place``, the same for each sample, for the batch of another input.

    Args:
        model: gets the nodes.
        node: reads the constant.
        place: of the constant.
        like: input with the batch.
        read: axis of the batch in that input.
        axis: of the batch in the constant.
    """
    values: Array = node.inputs[place].values
    one = np.take(values, [0], axis=axis)
    if not np.array_equal(np.broadcast_to(one, values.shape), values):
        raise _CannotBeFreedError(f"{node.op} {node.name} reads a constant that differs between samples")
    build = Builder(model.graph, model.opset, f"{node.name}/batch_{place}")
    shape = build.node("Shape", "shape", [node.inputs[like]])
    parts: list[gs.Tensor] = [
        build.node("Gather", "size", [shape, build.constant("axis", np.array([read]))], axis=0)
    ]
    if axis:
        parts.insert(0, build.constant("before", np.array(one.shape[:axis], np.int64)))
    if axis + 1 < one.ndim:
        parts.append(build.constant("behind", np.array(one.shape[axis + 1 :], np.int64)))
    target = build.node("Concat", "target", parts, axis=0)
    return build.node("Expand", "spread", [build.constant("one", one), target])


def _differs(original: Model, freed: Model, size: int) -> str:
    """Return how two batches at once differ from each alone; ``""`` if they do not."""
    axes, device = original.sample_axes(), Device(("cpu",))
    signature = {}
    for name, (dtype, shape) in original.inputs().items():
        if dtype is None:
            return f"the type of input {name} is not known"
        sizes = [each if isinstance(each, int) else FREE for each in shape]
        if axes[name] is not None:
            sizes[axes[name] or 0] = 2 * size
        signature[name] = (dtype, sizes)
    both = draw_inputs(signature)
    halves = [
        {
            name: array if axes[name] is None else np.take(array, range(start, start + size), axes[name] or 0)
            for name, array in both.items()
        }
        for start in (0, size)
    ]
    sessions = [device.open(model) for model in (original, freed)]
    alone = [[session.run(half) for half in halves] for session in sessions]
    together = sessions[1].run(both)
    for name, found in together.items():
        expected = [np.concatenate([half[name] for half in each]) for each in alone]
        for each in expected:
            allowed = 1e-4 * max(1.0, float(np.nanmax(np.abs(each), initial=0))) if each.size else 1.0
            same = found.shape == each.shape and np.allclose(
                found, each, rtol=1e-3, atol=allowed, equal_nan=True
            )
            if not same:
                return f"two samples at once give another {name} than one by one"
    return ""
