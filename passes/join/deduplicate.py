"""Deduplication: common subexpressions run, and equal initializers are stored, once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.walk import DRAWS
from graft.rewriter.operators.base import own_name

COMMUTATIVE = frozenset(("Add", "Mul", "And", "Or", "Xor", "Equal"))
"""Operators of two inputs that may change places without changing a bit of the result."""

WINDOWED = frozenset(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"))
NEUTRAL = {"dilations": 1, "strides": 1, "pads": 0}
"""Attributes of windows whose defaults depend on the rank."""


@dataclass(frozen=True, kw_only=True)
class DeduplicateReport(Report):
    """Nodes and weights that were replaced by an equal one.

    Attributes:
        nodes: number of nodes.
        weights: number of weights.
    """

    nodes: int
    weights: int


@dataclass(frozen=True)
class Deduplicate:
    """Let equal weights be stored, and equal nodes run, once.

    Two nodes are equal that have the same operator, attributes and inputs, also where one exporter writes
    a default and the other leaves it out: branches that begin alike share what they begin with. Nodes with
    bodies, and those that draw, stay apart.
    """

    def __call__(self, model: Model, context: Context) -> DeduplicateReport:
        """Change ``model`` in place.

        Args:
            model: its nodes have to be sorted topologically.
            context: nothing of it is used.
        """
        del context
        graph = model.graph
        weights = _share_weights(graph)
        bodies = [node for body in graph.subgraphs(recursive=True) for node in body.nodes]
        held = {tensor.name for node in bodies for tensor in node.inputs}
        held |= {tensor.name for tensor in graph.outputs}
        first: dict[Hashable, gs.Node] = {}
        nodes = 0
        for node in list(graph.nodes):
            key = node_key(node, model.opset, id)
            if key is None or any(tensor.name in held for tensor in node.outputs):
                continue
            same = first.setdefault(key, node)
            if same is not node:
                for mine, theirs in zip(list(node.outputs), same.outputs, strict=True):
                    for reader in list(mine.outputs):
                        reader.inputs = [theirs if tensor is mine else tensor for tensor in reader.inputs]
                nodes += 1
        model.tidy()
        return DeduplicateReport(changed=nodes + weights, nodes=nodes, weights=weights)


def _share_weights(graph: gs.Graph) -> int:
    """Point every reader of equal constants at the first of them; how many are no longer read."""
    alike: dict[Hashable, list[gs.Constant]] = defaultdict(list)
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                found = alike[str(tensor.dtype), tuple(tensor.shape)]
                if all(tensor is not each for each in found):
                    found.append(tensor)
    taken = set(graph.tensors())
    held = {t.name for body in graph.subgraphs(recursive=True) for node in body.nodes for t in node.inputs}
    held |= {tensor.name for tensor in graph.outputs}
    shared = 0
    for tensors in alike.values():
        if len(tensors) < 2:  # a weight without a peer need not be read
            continue
        first: dict[bytes, gs.Constant] = {}
        for tensor in tensors:
            digest = hashlib.sha256(np.ascontiguousarray(tensor.values).tobytes()).digest()
            same = first.setdefault(digest, tensor)
            if same is tensor:
                continue
            shared += 1
            if same.name not in held and any(same.name.startswith(own_name(node)) for node in same.outputs):
                same.name = _unused(f"shared/{same.name}", taken)  # the node may get one of its own again
            for reader in list(tensor.outputs):
                reader.inputs = [same if each is tensor else each for each in reader.inputs]
    return shared


def _unused(name: str, taken: set[str]) -> str:
    """``name``, longer where it is taken; taken from now on."""
    while name in taken:
        name += "+"
    taken.add(name)
    return name


def node_key(node: gs.Node, opset: int, called: Callable[[gs.Tensor], Any]) -> Hashable | None:
    """Return the key that equal nodes share; ``None`` for a node that has no equal.

    Args:
        node: a node of a graph.
        opset: version of the standard operators.
        called: gives equal tensors, and no others, equal values.
    """
    if node.op in DRAWS or (node.op == "Dropout" and len(node.inputs) == 3):  # maybe in training mode
        return None
    attributes = []
    for name, value in sorted(node.attrs.items()):
        if _says_nothing(node, name, value, opset):
            continue
        if isinstance(value, gs.Graph):
            return None
        if isinstance(value, gs.Tensor):
            value = value.values if isinstance(value, gs.Constant) else value.name
        if isinstance(value, np.ndarray):
            value = (str(value.dtype), value.shape, value.tobytes())
        attributes.append((name, repr(value)))
    inputs = [tensor.name and called(tensor) for tensor in node.inputs]
    if node.op in COMMUTATIVE:
        inputs.sort()
    outputs = tuple(bool(tensor.name) for tensor in node.outputs)
    return (node.op, node.domain or "", tuple(attributes), tuple(inputs), outputs)


def _says_nothing(node: gs.Node, name: str, value: Any, opset: int) -> bool:
    """Return ``True`` for an attribute with the value that it has where it is left out."""
    if node.domain or not isinstance(value, int | float | str | list):
        return False
    if node.op in WINDOWED and name in NEUTRAL:
        return isinstance(value, list) and all(each == NEUTRAL[name] for each in value)
    if node.op == "Conv" and name == "kernel_shape":
        return True  # that of the weight
    defaults = _defaults(node.op, opset)
    return name in defaults and bool(defaults[name] == value)


@cache
def _defaults(operator: str, opset: int) -> Mapping[str, Any]:
    """Return the defaults of the attributes of a standard operator."""
    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return {}
    known = {name: each.default_value for name, each in schema.attributes.items() if each.default_value.name}
    found = {name: onnx.helper.get_attribute_value(value) for name, value in known.items()}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
