"""What onnxslim finds by comparing everything with everything, by identity: it makes the same of a graph.

Thousands of nodes that read one tensor, or thousands of inputs of one node, take it minutes otherwise. Where
it moves the readers of such a tensor time and again, it is stopped.
"""

from __future__ import annotations

import contextlib
import importlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import onnx
import onnxslim.utils
from onnxslim.third_party.onnx_graphsurgeon.ir.graph import Graph
from onnxslim.third_party.onnx_graphsurgeon.ir.node import Node
from onnxslim.third_party.onnx_graphsurgeon.ir.tensor import Constant, Tensor, Variable
from onnxslim.third_party.onnx_graphsurgeon.util.misc import SynchronizedList

from graft.passes.normalize.slim_bounds import key
from graft.passes.normalize.slim_readers import detach, move_readers

MOVES = 100
"""Readers that are moved from one tensor to another, for each node of a graph."""
FEW = 1000
"""Nodes of which a graph has so many at least, for that."""


@contextlib.contextmanager
def searches_bounded(nodes: int) -> Iterator[None]:
    """Let onnxslim look things up inside of the block in a time that grows with the graph.

    Args:
        nodes: of the graph.
    """
    before = [getattr(owner, name) for owner, name in _PATCHED]
    _patch(_Searches(nodes, before).patches())
    try:
        yield
    finally:
        _patch(before)


_subexpressions = importlib.import_module("onnxslim.core.optimization.subexpression_elimination")
"""Its package gives the name to a function."""
_PATCHED = (
    *((Variable, "__eq__"), (Variable, "replace_all_uses_with"), (Node, "__eq__")),
    *(
        (Graph, "toposort"),
        (Graph, "layer"),
        (onnxslim.utils, "check_point"),
        (SynchronizedList, "_remove_from_elem"),
    ),
    (_subexpressions, "find_and_remove_replaceable_nodes"),
)


def _patch(values: Iterable[Any]) -> None:
    for (owner, name), value in zip(_PATCHED, values, strict=True):
        setattr(owner, name, value)


class _Searches:
    """What takes the place of onnxslim's functions, and those."""

    def __init__(self, nodes: int, before: Sequence[Any]) -> None:
        self._left = MOVES * max(nodes, FEW)
        self._equal, _, self._same, self._sort, self._layer, self._read, *_ = before
        self._known: dict[tuple[int, int], bool] | None = None

    def patches(self) -> tuple[Any, ...]:
        """Return them in the order of ``_PATCHED``."""
        return (
            lambda one, other: self._variables_equal(one, other),
            lambda one, other: self._replace(one, other),
            lambda one, other: one.name == other.name and self._same(one, other),
            self._toposort(),
            lambda graph, *a, **options: _added(graph, *a, **options) or self._layer(graph, *a, **options),
            lambda model: _Point(model, self._graphs_equal),
            _remove_from_elem,
            _merge_equal_nodes,
        )

    def _toposort(self) -> Any:
        def toposort(graph: Any, **options: Any) -> Any:
            return (not options and _sorted_by_level(graph)) or self._sort(graph, **options)

        return toposort

    def _variables_equal(self, one: Any, other: Any) -> bool:
        if one is other:
            return True
        if not isinstance(other, Variable) or one.name != other.name:
            return False
        if self._known is None:
            return bool(self._equal(one, other))
        pair = id(one), id(other)
        if pair not in self._known:  # all readers are compared
            self._known[pair] = bool(self._equal(one, other))
        return self._known[pair]

    def _replace(self, one: Any, other: Any) -> None:
        self._left -= len(one.outputs)
        if self._left < 0:
            raise ValueError(f"tensor {one.name} has too many readers")
        lists = [*(maker.outputs for maker in one.inputs), *(reader.inputs for reader in one.outputs)]
        for tensors in lists:
            for at in [place for place, tensor in enumerate(tensors) if tensor is one]:
                tensors[at] = other

    def _graphs_equal(self, one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
        graphs = self._read(one), self._read(other)
        self._known = {}
        try:
            return bool(graphs[0] == graphs[1])
        finally:
            self._known = None


def _added(graph: Any, inputs: Any = (), outputs: Any = (), *a: Any, **options: Any) -> Any:
    """Add a node to a graph and return what it makes; ``None`` where a name has to be found for it first."""
    if "name" not in options or not all(isinstance(each, Tensor) for each in (*inputs, *outputs)):
        return None
    node = Node(*a, **options, inputs=inputs, outputs=outputs)
    graph.nodes.append(node)
    return node.outputs


def _sorted_by_level(graph: Any) -> Any:
    """Sort the nodes of a graph by the longest way to them, and return it.

    ``None`` where they are not in an order in which they can run, or hold graphs or functions themselves.
    """
    if graph.functions:
        return None
    levels = dict[int, int]()
    for node in graph.nodes:
        if any(isinstance(value, Graph) for value in node.attrs.values()):
            return None
        before = [levels.get(id(maker), -1) for tensor in node.inputs for maker in tensor.inputs]
        if -1 in before:
            return None
        levels[id(node)] = max(before, default=-1) + 1
    graph.nodes = sorted(graph.nodes, key=lambda node: levels[id(node)])
    return graph


def _remove_from_elem(self: Any, elem: Any) -> None:
    """Take the owner of a list out of the other one: itself, found without a comparison of nodes."""
    held, owner = getattr(elem, self.field_name), self.parent_obj
    for at, each in enumerate(held):
        if each is owner:
            list.__delitem__(held, at)
            return
    list.remove(held, owner)


class _Point:
    """A model between two rounds of onnxslim, which ends once a round has changed nothing."""

    def __init__(
        self, model: onnx.ModelProto, same: Callable[[onnx.ModelProto, onnx.ModelProto], bool]
    ) -> None:
        self._model, self._same = model, same

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Point):
            return NotImplemented
        known = _equal_messages(self._model, other._model)
        return self._same(self._model, other._model) if known is None else known

    __hash__ = None  # type: ignore[assignment]


def _equal_messages(one: onnx.ModelProto, other: onnx.ModelProto) -> bool | None:
    """Return whether onnxslim calls two models equal; ``None`` where only their graphs can tell."""
    if [*map(_head, one.graph.node)] != [*map(_head, other.graph.node)]:
        return False
    types = _types(one), _types(other)
    ends = {value.name for value in one.graph.output}
    if bool(types[0].keys() - ends) != bool(types[1].keys() - ends):
        return False  # types of outputs are known without a note
    if types[0] != types[1] or any(len(found) > 1 for found in types[0].values()):
        return None
    if all(getattr(one, name) == getattr(other, name) for name in ("opset_import", "functions")) and all(
        getattr(one.graph, name) == getattr(other.graph, name) for name in _COMPARED
    ):
        return True
    return None


_COMPARED = ("node", "input", "output", "initializer", "sparse_initializer")


def _head(node: onnx.NodeProto) -> tuple[Any, ...]:
    return node.name, node.op_type, node.domain, len(node.input), len(node.output)


def _types(model: onnx.ModelProto) -> dict[str, set[bytes]]:
    """Return what a model notes of the tensors that its nodes make; onnxslim notes it several times."""
    made = {name for node in model.graph.node for name in node.output}
    found = defaultdict[str, set[bytes]](set)
    for value in model.graph.value_info:
        if value.name in made and value.type.tensor_type.elem_type:
            found[value.name].add(value.type.SerializeToString(deterministic=True))
    return found


# ------------------------------------------------------------------- equal nodes


def _merge_equal_nodes(nodes: Sequence[Any], graph_output_ids: set[int] | None = None) -> None:
    """Let the readers of equal nodes read the first of them, one that makes an output before others."""
    alike = defaultdict[Hashable, list[Any]](list)
    for node in nodes:
        names = _names(node.inputs)
        if any(names) or len(names) > 1:
            alike[tuple(names)].append(node)
    moves, gone = list[tuple[Any, Any]](), list[Any]()
    for some in alike.values():
        if len(some) > 1:
            for node, first in _equal(some, graph_output_ids):
                moves.extend(zip(node.outputs, first.outputs, strict=False))
                gone.append(node)
    move_readers(moves)
    detach(gone)


def _equal(nodes: Sequence[Any], output_ids: set[int] | None) -> Iterator[tuple[Any, Any]]:
    """Yield the nodes that another one computes the same as, and that one."""
    makes, same = _subexpressions.has_graph_output, _subexpressions.can_be_replaced
    published = {id(node): makes(node, output_ids) for node in nodes}
    kept = defaultdict[Hashable, list[Any]](list)
    for node in sorted(nodes, key=lambda each: published[id(each)], reverse=True):
        firsts = kept[_node_key(node)]
        first = next((each for each in firsts if _gives(each, node) and same(each, node)), None)
        if first is None:
            firsts.append(node)
        elif not (published[id(first)] and published[id(node)]):
            yield node, first


def _gives(first: Any, node: Any) -> bool:
    """Return True where ``first`` has every output that ``node`` has: some are optional."""
    ours, theirs = ([not tensor.is_empty() for tensor in each.outputs] for each in (first, node))
    return len(ours) >= len(theirs) and all(a >= b for a, b in zip(ours, theirs, strict=False))


def _node_key(node: Any) -> Hashable:
    """Return the same for equal nodes that read the same variables."""
    attributes = tuple((name, _attribute_key(node.attrs[name])) for name in sorted(node.attrs))
    given = tuple(key(tensor) if isinstance(tensor, Constant) else tensor.name for tensor in node.inputs)
    return node.domain, attributes, given


def _attribute_key(value: Any) -> Hashable:
    if isinstance(value, Constant):
        return key(value)
    if isinstance(value, Graph):
        return tuple(
            (node.op, node.name, *_names(node.inputs), None, *_names(node.outputs)) for node in value.nodes
        )
    plain = value if isinstance(value, list | tuple) else (value,)
    if all(isinstance(each, int | float | str | bytes) for each in plain):
        return repr([float(each) if isinstance(each, int | float) else each for each in plain])
    return ""


def _names(tensors: Iterable[Any]) -> list[str]:
    """Return the names of variables; constants may be called differently and be equal."""
    return [tensor.name for tensor in tensors if isinstance(tensor, Variable)]
