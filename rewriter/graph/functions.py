"""Functions of a model, counted before any tool of onnx expands them.

A few thousand bytes can hold functions each of which calls the next one twice: thirty are 2**30 nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from graft.rewriter.graph.walk import all_nodes, nested, nodes_of

MOST_NODES = 100_000
"""A model with functions may hold so many nodes once they are expanded, far more than exporters write."""
TIMES = 100
"""So many nodes may come of each in the file: a function may be called once a layer."""
FEW_NODES = 5_000
"""Fewer are read whatever the file holds: a second of work."""
DEEPEST = 100
"""Functions may call one another so deep, as in onnx itself."""

Key = tuple[str, str, str]


def check_functions(proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, or that are too many nodes or too deep once they are expanded.

    Raises:
        ValueError: they are; the text names the function.
    """
    if not proto.functions:
        return
    sizes = _Sizes(proto.functions)
    main = (node for graph in nested(proto.graph) for node in graph.node)
    total = sum(sizes.of_node(node, 0)[0] for node in main)
    for function in proto.functions:  # also those that nothing calls
        sizes.of(_key(function.domain, function.name, function), 0)
    written = sum(1 for _ in all_nodes(proto))
    most = min(MOST_NODES, max(FEW_NODES, TIMES * written))
    if total > most:
        raise ValueError(
            f"its functions make {_about(total)} nodes of the {written} in the file; at most {most} are read"
        )


class _Sizes:
    """Nodes that each function is, and how deep the calls inside it go, found once."""

    def __init__(self, functions: Iterable[onnx.FunctionProto]) -> None:
        self._functions = {_key(f.domain, f.name, f): f for f in functions}
        self._known: dict[Key, tuple[int, int]] = {}
        self._open: set[Key] = set()

    def of(self, key: Key, depth: int) -> tuple[int, int]:
        """Return nodes and depth of a function that is called ``depth`` deep."""
        if key in self._open:
            raise ValueError(f"function {key[1]} calls itself")
        if depth + self._known.get(key, (0, 0))[1] > DEEPEST:
            raise ValueError(f"functions call one another more than {DEEPEST} deep, at {key[1]}")
        if key not in self._known:
            self._open.add(key)
            parts = [self.of_node(node, depth + 1) for node in nodes_of(self._functions[key])]
            self._open.remove(key)
            nodes, depths = zip(*parts, strict=True) if parts else ((), ())
            self._known[key] = sum(nodes), 1 + max(depths, default=0)
        return self._known[key]

    def of_node(self, node: onnx.NodeProto, depth: int) -> tuple[int, int]:
        """Return nodes and depth of a node, ``depth`` deep."""
        key = _key(node.domain, node.op_type, node)
        return self.of(key, depth) if key in self._functions else (1, 0)


def _key(domain: str, name: str, overloaded: onnx.NodeProto | onnx.FunctionProto) -> Key:
    return "" if domain == "ai.onnx" else domain, name, overloaded.overload


def _about(number: int) -> str:
    return str(number) if number < 10**9 else f"{float(min(number, 10**300)):.0e}"
