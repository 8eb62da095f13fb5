"""Quantized files, and those that onnxruntime optimized: the MACs of the float model, nothing is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from graft.passes.base import Context
from graft.passes.select.budget import Budget, Candidates
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.measure.cost import CostModel, cost_of
from graft.rewriter.measure.inspection import inspection
from tests import small
from tests.small import Net

MACS = 6 * 6 * 9 * 3 * 8 + 6 * 6 * 9 * 8 * 16 + 16 * 4
X = small.inputs((3, 6, 6), 8)


def net() -> Net:
    net = Net(3, 6, 6)
    net.node("Relu", "a", net.conv("c1", "x", 8, 3, pads=[1] * 4))
    net.node("Relu", "b", net.conv("c2", "a", 16, 8, pads=[1] * 4))
    net.node("GlobalAveragePool", "p", "b")
    net.node("Flatten", "f", "p")
    net.gemm("y", "f", 4, 16)
    return net


class Calibration(CalibrationDataReader):
    def __init__(self) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([{"x": X}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def written(kind: str, folder: Path) -> Path:
    """Return a file of the net as tools write it."""
    source, target = folder / "float.onnx", folder / f"{kind}.onnx"
    onnx.save(net().proto(y=[4]), source)
    if kind == "dynamic":
        quantize_dynamic(source, target)
    elif kind in ("QDQ", "QOperator"):
        quantize_static(
            source, target, Calibration(), quant_format=QuantFormat[kind], per_channel=kind == "QDQ"
        )
    else:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{kind}")
        options.optimized_model_filepath = str(target)
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return target


@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator", "EXTENDED"])
def test_the_cost_is_that_of_the_float_model_and_layers_say_why_they_stay(kind: str, tmp_path: Path) -> None:
    model = Model.load(written(kind, tmp_path))
    told = inspection(ChannelGroups(model))
    assert told["macs"] == MACS and told["unknown_operators"] == []
    assert told["parameters"] >= cost_of(Model.from_proto(net().proto(y=[4]))).parameters - 8 - 16 - 4
    layers = told["groups"]
    assert [group["size"] for group in layers] == [8, 16, 4]
    assert not any(group["cuttable"] for group in layers)
    assert all("cannot be pruned" in group["reason"] for group in layers[:2])


@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator", "EXTENDED", "ALL"])
def test_a_budget_is_refused_and_says_why(kind: str, tmp_path: Path) -> None:
    groups = ChannelGroups(Model.load(written(kind, tmp_path)))
    cost = CostModel(groups)
    candidates = Candidates(
        groups, np.ones(groups.count), cost, cost.total("macs"), np.zeros(groups.count, bool)
    )
    with pytest.raises(GraftError, match="cannot be reached.*nothing can be cut.*cannot be pruned") as caught:
        Budget(0.5)(candidates, Context())
    assert caught.value.code == "budget-unreachable"
    assert Budget(1.0)(candidates, Context()).changed == 0


def test_joined_branches_of_a_quantized_model_are_counted(tmp_path: Path) -> None:
    net = Net(3, 6, 6)
    one, two = net.conv("one", "x", 8, 3, pads=[1] * 4), net.conv("two", "x", 4, 3, pads=[1] * 4)
    net.node("Concat", "both", net.node("Relu", "a", one), net.node("Relu", "b", two), axis=1)
    net.node("GlobalAveragePool", "p", net.conv("three", "both", 8, 12))
    net.gemm("y", net.node("Flatten", "f", "p"), 4, 8)
    source, target = tmp_path / "float.onnx", tmp_path / "quantized.onnx"
    onnx.save(net.proto(y=[4]), source)
    quantize_static(source, target, Calibration(), quant_format=QuantFormat.QOperator)
    model = Model.load(target)
    assert "QLinearConcat" in {node.op for node in model.graph.nodes}
    assert cost_of(model).known_macs == cost_of(Model.load(source)).macs


def test_a_matrix_of_four_bits_is_counted() -> None:
    rows = 3
    node = helper.make_node(
        "MatMulNBits",
        ["x", "packed", "scales"],
        ["y"],
        domain="com.microsoft",
        K=64,
        N=24,
        bits=4,
        block_size=32,
    )
    packed = numpy_helper.from_array(np.zeros((24, 2, 16), np.uint8), "packed")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows, 24])],
        [packed, numpy_helper.from_array(np.ones(48, np.float32), "scales")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = Model.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert cost_of(model).known_macs == rows * 64 * 24
    assert [(group.size, group.cuttable.any()) for group in ChannelGroups(model)] == [(24, False)]


def forest() -> onnx.ModelProto:
    """A tree of one split: class 0 below 0, else class 1."""
    tree = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 1],
        "class_weights": [1.0, 1.0],
        "classlabels_int64s": [0, 1],
        "post_transform": "NONE",
    }
    node = helper.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", **tree)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)


def test_what_a_forest_costs_is_not_known() -> None:
    groups = ChannelGroups(Model.from_proto(forest()))
    told = inspection(groups)
    assert told["macs"] is None and told["cuttable_macs_ratio"] is None
    assert told["unknown_operators"] == told["operators_without_rule"] == ["TreeEnsembleClassifier"]
    json.dumps(told)
    cost = CostModel(groups)
    candidates = Candidates(
        groups, np.ones(groups.count), cost, cost.total("macs"), np.zeros(groups.count, bool)
    )
    with pytest.raises(GraftError, match="nothing can be cut: no rule for TreeEnsembleClassifier"):
        Budget(0.5)(candidates, Context())


def test_a_linear_classifier_multiplies_its_coefficients() -> None:
    attributes = {"coefficients": [0.5] * 12, "classlabels_ints": [0, 1, 2]}
    proto = forest()
    del proto.graph.node[:]
    proto.graph.node.append(
        helper.make_node("LinearClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", **attributes)
    )
    assert cost_of(Model.from_proto(proto)).known_macs == 12


def test_a_budget_says_which_layers_it_cannot_count() -> None:
    net = Net(5)
    net.node("Relu", "a", net.gemm("g", "x", 6, 5))
    net.node("Identity", "y", net.gemm("h", "a", 4, 6))
    proto = net.proto(y=[4])
    proto.graph.node.append(helper.make_node("Own", ["y"], ["o"], domain="com.example"))
    proto.graph.output.append(helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 4]))
    groups = ChannelGroups(Model.from_proto(proto))
    cost = CostModel(groups)
    assert cost.unknown == ("Own",) and cost.macs() == 5 * 6 + 6 * 4
    assert cost.cost().known_macs is None
    candidates = Candidates(
        groups, np.ones(groups.count), cost, cost.total("macs"), np.zeros(groups.count, bool)
    )
    report = Budget(0.8)(candidates, Context())
    assert cost.macs(report.kept) <= 0.8 * cost.macs()
    assert [declined.where for declined in report.declined] == ["Own"]
