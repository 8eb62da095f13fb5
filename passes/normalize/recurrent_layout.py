"""Bring recurrent layers to one form: time first, one direction a node, no states that are zero anyway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.normalize.recurrent_loops import RaiseLoops
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import constant_ints, given, is_constant
from graft.rewriter.operators.recurrent import STATES, Recurrent

ZERO_KEEPING = frozenset(
    ("Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose")
) | {"Unsqueeze"}
"""Operators that make zeros of zeros in their first input (``Concat``: in all of them)."""
BY_ROW = frozenset(("Add", "MatMul", "Relu", "Sigmoid", "Softmax", "Tanh"))
"""What may lie between two reshapes that merge and part leading axes."""


@dataclass(frozen=True, kw_only=True)
class RecurrentLayoutReport(Report):
    """Nodes that were brought to another form; ``changed`` counts them.

    Attributes:
        rules: name of each rule that applied to the number of nodes that it changed.
    """

    rules: Mapping[str, int]


@dataclass(frozen=True)
class RecurrentLayout:
    """Change the form of recurrent layers, never what they compute.

    Loops that spell a cell out become its operator first, see
    :mod:`graft.passes.normalize.recurrent_loops`; then all rules are applied in turn.
    """

    def __call__(self, subject: Model, context: Context) -> RecurrentLayoutReport:
        """Apply all rules to ``subject``, in place.

        Args:
            subject: the model.
            context: not needed.
        """
        raised = RaiseLoops()(subject, context)
        changed = {"loops": raised.changed} if raised.changed else {}
        for rule in RULES:
            count = sum(rule(subject, node) for node in list(subject.graph.nodes))
            if count:
                changed[rule.__name__] = count
                subject.tidy()
        return RecurrentLayoutReport(changed=sum(changed.values()), declined=raised.declined, rules=changed)


def time_first(model: Model, node: gs.Node) -> bool:
    """Write ``layout=1``, which onnxruntime does not run on the CPU, as ``layout=0`` between transposes."""
    if node.op not in Recurrent.types or not node.attrs.get("layout", 0):
        return False
    del node.attrs["layout"]
    build = Builder(model.graph, model.opset, f"{node.name}/time_first")
    for index in (0, *STATES):
        tensor = given(node, index)
        if isinstance(tensor, gs.Constant):
            node.inputs[index] = build.constant(f"input_{index}", tensor.values.swapaxes(0, 1).copy())
        elif tensor is not None:
            node.inputs[index] = build.node("Transpose", f"input_{index}", [tensor], perm=[1, 0, 2])
    for index, perm in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])[: len(node.outputs)]):
        output = node.outputs[index]
        if output.name:
            node.outputs[index] = gs.Variable(f"{build.prefix}/output_{index}", output.dtype)
            turn = gs.Node(
                "Transpose", f"{build.prefix}/{index}", {"perm": perm}, [node.outputs[index]], [output]
            )
            model.graph.nodes.append(turn)
    return True


def zero_states(model: Model, node: gs.Node) -> bool:
    """Leave out states to start with that are zero, as they are where none are given."""
    if node.op not in Recurrent.types:
        return False
    zero = [index for index in STATES if given(node, index) is not None and _is_zero(node.inputs[index])]
    for index in zero:
        node.inputs[index] = gs.Variable.empty()
    while node.inputs and node.inputs[-1].name == "":
        node.inputs.pop()
    return bool(zero)


def _is_zero(tensor: gs.Tensor) -> bool:
    if is_constant(tensor):
        return not tensor.values.any()
    if not tensor.inputs:
        return False
    maker = tensor.inputs[0]
    if maker.op == "ConstantOfShape":
        value = maker.attrs.get("value")
        return value is None or not np.any(getattr(value, "values", value))
    read = maker.inputs if maker.op == "Concat" else maker.inputs[:1]
    return maker.op in ZERO_KEEPING and all(map(_is_zero, read))


def one_direction(model: Model, node: gs.Node) -> bool:
    """Split a bidirectional layer into two, whose units are pruned independently."""
    if node.op not in Recurrent.types or _text(node.attrs.get("direction", "")) != "bidirectional":
        return False
    listed = [name for name in ("activations", "activation_alpha", "activation_beta") if name in node.attrs]
    if any(len(node.attrs[name]) % 2 for name in listed):
        return False
    build = Builder(model.graph, model.opset, node.name)
    parts: list[list[gs.Variable]] = [[] for _ in node.outputs]
    for direction, name in enumerate(("forward", "reverse")):
        attributes = {**node.attrs, "direction": name}
        for each in listed:
            values = list(node.attrs[each])
            half = len(values) // 2
            attributes[each] = values[direction * half : (direction + 1) * half]
        inputs = [_of_direction(build, tensor, index, direction) for index, tensor in enumerate(node.inputs)]
        outputs = [
            gs.Variable(f"{output.name}/{name}", output.dtype) if output.name else gs.Variable.empty()
            for output in node.outputs
        ]
        for found, output in zip(parts, outputs, strict=True):
            found.append(output)
        model.graph.nodes.append(gs.Node(node.op, f"{node.name}/{name}", attributes, inputs, outputs))
    for index, output in enumerate(list(node.outputs)):
        if output.name:
            output.inputs.clear()
            axis = 0 if index else 1
            model.graph.nodes.append(
                gs.Node("Concat", f"{node.name}/both_{index}", {"axis": axis}, parts[index], [output])
            )
    node.outputs.clear()
    return True


def _of_direction(build: Builder, tensor: gs.Tensor, index: int, direction: int) -> gs.Tensor:
    """Return an input of a bidirectional node for one direction: data and lengths are common to both."""
    if index in (0, 4) or tensor.name == "":
        return tensor
    if isinstance(tensor, gs.Constant):
        return gs.Constant(f"{tensor.name}/{direction}", np.ascontiguousarray(tensor.values[direction][None]))
    where = build.constant(f"direction_{index}_{direction}", np.array([direction]))
    return build.node("Gather", f"input_{index}_{direction}", [tensor, where], axis=0)


def picked_direction(model: Model, node: gs.Node) -> bool:
    """Replace a ``Gather``, ``Slice`` or ``Split`` that picks one direction, or layer, of a ``Concat``."""
    found = _picks(node)
    whole = node.inputs[0] if node.inputs else None
    if found is None or not isinstance(whole, gs.Variable) or not whole.inputs:
        return False
    axis, places, keeps = found
    parts = [part for place in places if (part := _part(whole, axis, place)) is not None]
    if len(parts) < len(node.outputs):
        return False
    build = Builder(model.graph, model.opset, f"{node.name}/picked")
    for number, (part, output) in enumerate(zip(parts, node.outputs, strict=True)):
        output.inputs.clear()
        _write(model, build, "Identity" if keeps else "Squeeze", number, part, axis, output)
    node.outputs.clear()
    return True


def _picks(node: gs.Node) -> tuple[int, list[int], bool] | None:
    """Return the axis, the place that each output takes of it, and whether the axis stays."""
    if node.op == "Gather" and is_constant(node.inputs[1]) and node.inputs[1].values.size == 1:
        indices = node.inputs[1].values
        if indices.ndim <= 1:
            return int(node.attrs.get("axis", 0)), [int(indices.reshape(-1)[0])], indices.ndim == 1
    if node.op == "Slice":
        read = [constant_ints(node, place, name) for place, name in ((1, "starts"), (2, "ends"), (3, "axes"))]
        steps = constant_ints(node, 4) or [1]
        if all(each is not None and len(each) == 1 for each in read) and steps == [1]:
            start, end, axis = (each[0] for each in read if each)
            if end - start == 1 or (start == -1 and end > 1 << 30):
                return axis, [start], True
    if node.op == "Split":
        sizes = constant_ints(node, 1, "split")
        if (sizes is None and len(node.outputs) == 2) or (sizes and set(sizes) == {1}):
            return int(node.attrs.get("axis", 0)), list(range(len(node.outputs))), True
    return None


def _part(whole: gs.Tensor, axis: int, place: int) -> gs.Tensor | None:
    """Return the tensor of size 1 at ``place`` of ``axis``, along which ``whole`` joins tensors."""
    maker = whole.inputs[0] if whole.inputs else None
    if maker is not None and maker.op in Recurrent.types and place in (0, -1):
        direction = _text(maker.attrs.get("direction", "forward"))
        along = 1 if whole is maker.outputs[0] else 0
        return whole if axis == along and direction != "bidirectional" else None
    if maker is None or maker.op != "Concat" or int(maker.attrs["axis"]) != axis:
        return None
    sizes = [_size(tensor, axis) for tensor in maker.inputs]
    if None in sizes:
        return None
    ends = np.cumsum([size or 0 for size in sizes])
    place = place + int(ends[-1]) if place < 0 else place
    if not 0 <= place < ends[-1]:
        return None
    number = int(np.searchsorted(ends, place, side="right"))
    if sizes[number] == 1:
        inner = _part(maker.inputs[number], axis, 0)
        return inner if inner is not None else maker.inputs[number]
    return _part(maker.inputs[number], axis, place - int(ends[number]) + int(sizes[number] or 0))


def _size(tensor: gs.Tensor, axis: int) -> int | None:
    """Return the size of a tensor along an axis: known of recurrent layers and what is put together."""
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is not None and maker.op in Recurrent.types and axis == (1 if tensor is maker.outputs[0] else 0):
        return int(maker.inputs[1].shape[0])
    if maker is not None and maker.op == "Concat" and int(maker.attrs["axis"]) == axis:
        sizes = [_size(each, axis) for each in maker.inputs]
        return None if None in sizes else sum(size or 0 for size in sizes)
    shape = tensor.shape
    return shape[axis] if shape and axis < len(shape) and isinstance(shape[axis], int) else None


def joined_features(model: Model, node: gs.Node) -> bool:
    """Write directions that are turned and reshaped into one axis as a ``Concat`` along it."""
    if node.op != "Reshape" or not isinstance(node.inputs[0], gs.Variable):
        return False
    turn = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    both = turn.inputs[0] if turn is not None and turn.op == "Transpose" else None
    if turn is None or both is None or not both.inputs or both.inputs[0].op != "Concat":
        return False
    concat, perm, target = both.inputs[0], list(turn.attrs.get("perm", [])), constant_ints(node, 1)
    axis, rank = int(concat.attrs["axis"]), len(perm)
    makers = [tensor.inputs[0] for tensor in concat.inputs if tensor.inputs]
    makers = [maker for maker in makers if maker.op in Recurrent.types]
    if len(makers) < len(concat.inputs) or target is None:
        return False
    wide = sum(int(maker.inputs[2].shape[2]) for maker in makers)
    merges = len(target) == rank - 1 and target[-1] in (-1, wide) and target.count(-1) <= 1
    kept = all(size in (0, -1) for size in target[:-1]) or _same(node.inputs[0], target[:-1])
    if perm[-2:] != [axis, rank - 1] or not merges or not kept or node.attrs.get("allowzero", 0):
        return False
    build = Builder(model.graph, model.opset, f"{node.name}/joined")
    flat = [build.squeeze(tensor, axis, str(number)) for number, tensor in enumerate(concat.inputs)]
    output = node.outputs[0]
    output.inputs.clear()
    order = [place - (place > axis) for place in perm if place != axis]
    joined = build.node("Concat", "features", flat, axis=rank - 2)
    model.graph.nodes.append(gs.Node("Transpose", node.name, {"perm": order}, [joined], [output]))
    node.outputs.clear()
    return True


def _same(tensor: gs.Tensor, sizes: Sequence[int]) -> bool:
    """Return whether ``sizes`` are those of the first axes of ``tensor``, where these are known."""
    shape = list(tensor.shape or ())[: len(sizes)]
    return len(shape) == len(sizes) and all(
        size in (0, -1) or size == known for size, known in zip(sizes, shape, strict=True)
    )


def by_step(model: Model, node: gs.Node) -> bool:
    """Leave out two reshapes that merge samples and steps and part them again around layers.

    Keras' ``TimeDistributed`` is written in this way. Without them a step is seen as one.
    """
    first = _merged(node)
    if first is None:
        return False
    chain, tensor = [], node.outputs[0]
    while len(tensor.outputs) == 1 and tensor.outputs[0].op != "Reshape":
        follower = tensor.outputs[0]
        if follower.op not in BY_ROW or not _by_row(follower, tensor):
            return False
        chain.append(follower)
        tensor = follower.outputs[0]
    last = tensor.outputs[0] if len(tensor.outputs) == 1 else None
    target = constant_ints(last, 1) if last is not None else None
    if last is None or not chain or target is None or len(target) != len(first) or 0 in target:
        return False
    if last.inputs[0] is not tensor or not _same(node.inputs[0], target[:-1]):
        return False
    if sum(not isinstance(size, int) for size in first[:-1]) > 1:
        return False
    end = last.outputs[0]
    chain[0].inputs = [node.inputs[0] if each is node.outputs[0] else each for each in chain[0].inputs]
    for follower in chain:
        follower.outputs[0].shape = None
        if follower.op == "Softmax":
            follower.attrs["axis"] = -1
    end.inputs.clear()
    chain[-1].outputs = [end]
    return True


def _merged(node: gs.Node) -> list[int | str | None] | None:
    """Return the shape of what a reshape to ``[-1, features]`` takes, if it has more than two axes."""
    shape = node.inputs[0].shape if node.op == "Reshape" else None
    target = constant_ints(node, 1) if shape else None
    if not shape or target is None or len(shape) < 3 or len(target) != 2 or target[0] != -1:
        return None
    return list(shape) if target[1] == shape[-1] else None


def _by_row(node: gs.Node, read: gs.Tensor) -> bool:
    """Return whether ``node`` treats every row of ``read`` (rows, features) alike."""
    others = [tensor for tensor in node.inputs if tensor is not read]
    if not all(is_constant(tensor) for tensor in others):
        return False
    if node.op == "Softmax":
        return node.attrs.get("axis", -1) in (1, -1)
    if node.op == "MatMul":
        return node.inputs[0] is read and len(others[0].shape) == 2
    return all(len(tensor.shape) <= 1 for tensor in others)


def named_states(model: Model, node: gs.Node) -> bool:
    """Name the states of all steps, so that profiles can hold them."""
    if node.op not in Recurrent.types or node.outputs[0].name:
        return False
    node.outputs[0] = gs.Variable(f"{node.name}/states", next(t.dtype for t in node.outputs if t.name))
    return True


def _write(
    model: Model, build: Builder, op: str, number: int, part: gs.Tensor, axis: int, output: gs.Variable
) -> None:
    """Make ``output`` of ``part``, without its axis of size 1 or with it."""
    if op == "Squeeze":
        made = build.squeeze(part, axis, f"part_{number}")
        maker = made.inputs[0]
        maker.outputs = [output]
    else:
        model.graph.nodes.append(gs.Node("Identity", f"{build.prefix}/{number}", {}, [part], [output]))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


RULES: tuple[Callable[[Model, gs.Node], bool], ...] = (
    time_first,
    zero_states,
    one_direction,
    picked_direction,
    joined_features,
    by_step,
    named_states,
)
"""In this order: each takes the model and a node, and returns whether it changed something."""
