"""How many turns the loops of a graph make together, where each makes the same number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from graft.rewriter.graph.walk import bodies

LARGEST = 10**12
"""More turns are not counted."""


def turns_in(proto: onnx.ModelProto, turns: int) -> int:
    """Return the turns of all loops, those of loops within loops once for each turn around them.

    Args:
        proto: the model; its functions do not call themselves.
        turns: of each loop.
    """
    functions = {(function.domain, function.name): function for function in proto.functions}
    return _Count(functions, turns).of(proto.graph.node)


class _Count:
    def __init__(self, functions: Mapping[tuple[str, str], onnx.FunctionProto], turns: int) -> None:
        self._functions = functions
        self._turns = turns
        self._known: dict[tuple[str, str], int] = {}

    def of(self, nodes: Iterable[onnx.NodeProto]) -> int:
        return min(LARGEST, sum(map(self._node, nodes)))

    def _node(self, node: onnx.NodeProto) -> int:
        inside = sum(self.of(body.node) for body in bodies(node))
        if node.op_type == "Loop":
            return self._turns * (1 + inside)
        called = node.domain, node.op_type
        if called in self._functions:
            if called not in self._known:
                self._known[called] = 0  # not for ever where it calls itself
                self._known[called] = self.of(self._functions[called].node)
            inside += self._known[called]
        return inside
