"""Everything that Graft writes is of its parent's operators and those of the portable vocabulary."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graft.rewriter.graph.vocabulary import WORDS, foreign_nodes, table
from tests.runtimes.made import FAMILIES, Workshop

DOCS = Path(__file__).parents[2] / "docs/runtimes.md"


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_else_is_added(family: str, shop: Workshop) -> None:
    foreign = []
    for kind, (path, parents) in FAMILIES[family](shop).items():
        nodes = foreign_nodes(onnx.load(path), [onnx.load(parent) for parent in parents])
        foreign += [f"{kind}: {onnx.printer.to_text(node)}" for node in nodes]
    assert not foreign, "\n".join(foreign)


def test_nodes_outside_the_vocabulary_are_named() -> None:
    parent = _model([("Relu", {})])
    nodes = [("Relu", {}), ("Exp", {}), ("Selu", {}), ("Softmax", {"axis": 1}), ("Softmax", {"axis": -1})]
    found = foreign_nodes(_model(nodes), [parent])
    assert [node.name for node in found] == ["Selu_2", "Softmax_3"]
    assert [node.op_type for node in foreign_nodes(_model([("CastLike", {})], opset=13), [parent])] == [
        "CastLike"
    ]
    assert not foreign_nodes(_model([("Selu", {})]), [_model([("Selu", {})])])


def test_the_documentation_has_the_table() -> None:
    assert "\n".join(table()) in DOCS.read_text(encoding="utf-8"), "print(*table(), sep='\\n')"
    assert not {"ReduceLogSumExp", "ReduceMax", "Resize", "ReduceMin"} & WORDS.keys()


def _model(nodes: list[tuple[str, dict[str, int]]], opset: int = 18) -> onnx.ModelProto:
    """A chain of operators of one input."""
    chain = [
        onnx.helper.make_node(op, [f"t{number}"], [f"t{number + 1}"], name=f"{op}_{number}", **attributes)
        for number, (op, attributes) in enumerate(nodes)
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3])
        for name in ("t0", f"t{len(nodes)}")
    ]
    graph = onnx.helper.make_graph(chain, "chain", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
