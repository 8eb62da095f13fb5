"""Spellings of one thing in ONNX files: what is read computes what onnxruntime computes from the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.graph.forms import dense
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.run.equivalence import check
from tests.small import CPU

X = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
WEIGHT = (np.random.default_rng(6).normal(size=(4, 5)) * (np.arange(20).reshape(4, 5) % 3 > 0)).astype(
    np.float32
)


def made(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    opsets: Sequence[tuple[str, int]] = (("", 17),),
    **outputs: int,
) -> onnx.ModelProto:
    """Return a model from ``x`` (n, 4) to float outputs of these numbers of axes; else ``y`` (n, values)."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in (outputs or {"y": 2}).items()
        ],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets], ir_version=8)


def as_onnxruntime(proto: onnx.ModelProto, path: Path) -> Model:
    """Return the model that is read from the file of ``proto``, which computes what onnxruntime does."""
    path = path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    options = ort.SessionOptions()
    options.log_severity_level = 4
    expected = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(
        None, {"x": X}
    )
    model = Model.load(path)
    check(model)
    found = CPU.open(model).run({"x": X})
    for name, value in zip([v.name for v in proto.graph.output], expected, strict=True):
        np.testing.assert_array_equal(found[name], value)
    return model


def sparse(values: NDArray[Any], name: str, places: bool) -> onnx.SparseTensorProto:
    """Return the sparse form of ``values``: with places (values, axes), or counted along the whole."""
    at = np.flatnonzero(values)
    indices = np.argwhere(values) if places else at
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values.ravel()[at], name), numpy_helper.from_array(indices), values.shape
    )


@pytest.mark.parametrize("places", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64])
def test_a_sparse_tensor_is_written_out(places: bool, dtype: type[np.generic]) -> None:
    values = (WEIGHT * 10).astype(dtype)
    found = dense(sparse(values, "w", places))
    assert found.name == "w"
    np.testing.assert_array_equal(numpy_helper.to_array(found), values)
    assert numpy_helper.to_array(found).dtype == dtype


@pytest.mark.parametrize("places", [False, True])
def test_sparse_initializers_are_weights_like_others(places: bool, tmp_path: Path) -> None:
    proto = made(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    )
    proto.graph.sparse_initializer.append(sparse(WEIGHT, "w", places))
    proto.graph.initializer.append(numpy_helper.from_array(WEIGHT.T.copy(), "v"))
    model = as_onnxruntime(proto, tmp_path)
    assert [int(group.cuttable.sum()) for group in ChannelGroups(model)] == [5, 0]


def test_sparse_constants_in_a_body_are_written_out(tmp_path: Path) -> None:
    branches = {
        name: helper.make_graph(
            [
                helper.make_node("Constant", [], [f"w{name}"], sparse_value=sparse(values, "", True)),
                helper.make_node("MatMul", ["x", f"w{name}"], [f"y{name}"]),
            ],
            name,
            [],
            [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, None)],
        )
        for name, values in (("yes", WEIGHT), ("no", 2 * WEIGHT))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches["yes"], else_branch=branches["no"]),
    ]
    proto = made(nodes, [numpy_helper.from_array(np.array(0, np.float32), "zero")])
    as_onnxruntime(proto, tmp_path)


@pytest.mark.parametrize(
    "opsets", [[("ai.onnx", 17)], [("", 17)], [("", 11), ("ai.onnx", 17)], [("", 17), ("", 11)]]
)
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_the_standard_domain_has_two_names(
    opsets: list[tuple[str, int]], domain: str, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["u"], axes=[2])
        if opsets[-1][1] == 11
        else helper.make_node("Unsqueeze", ["x", "two"], ["u"], domain=domain),
        helper.make_node("Softmax", ["u"], ["y"], domain=domain),  # axis 1 or -1 by the version
    ]
    proto = made(nodes, [numpy_helper.from_array(np.array([2]), "two")], opsets, y=3)
    model = as_onnxruntime(proto, tmp_path)
    assert model.opset == opsets[-1][1]
    assert [entry.domain for entry in model.proto().opset_import] == [""]


def test_only_the_operators_of_scikit_learn_are_imported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "y"],
        domain="ai.onnx.ml",
        coefficients=WEIGHT.T.ravel()[:12].tolist(),
        intercepts=[0.1, 0.2, 0.3],
        classlabels_ints=[0, 1, 2],
        post_transform="SOFTMAX",
    )
    model = as_onnxruntime(made([node], opsets=[("ai.onnx.ml", 3)]), tmp_path)
    assert model.opset >= 17
    assert model.card is None
    assert not caplog.records


def test_an_unsaid_version_of_operators_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[0.5], scale=[2.0]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    as_onnxruntime(made(nodes, opsets=[("ai.onnx.ml", 3)]), tmp_path)
    assert "standard operators" in caplog.text


@pytest.mark.parametrize("listed", [False, True])
def test_old_files_need_not_list_their_weights_as_inputs(listed: bool, tmp_path: Path) -> None:
    proto = made(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(WEIGHT, "w")], [("", 12)]
    )
    proto.ir_version = 3
    if listed:
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, WEIGHT.shape))
    model = as_onnxruntime(proto, tmp_path)
    assert list(model.inputs()) == ["x"]
    assert model.ir_version == 4


CONSTANTS: dict[str, tuple[dict[str, Any], str]] = {
    "value": ({"value": numpy_helper.from_array(X[0])}, "Add"),
    "value_float": ({"value_float": 0.5}, "Add"),
    "value_floats": ({"value_floats": [0.5, 1.0, 2.0, 4.0]}, "Add"),
    "value_int": ({"value_int": 1}, "Gather"),
    "value_ints": ({"value_ints": [-1, 2]}, "Reshape"),
    "sparse_value": ({"sparse_value": sparse(WEIGHT, "", False)}, "MatMul"),
}


@pytest.mark.parametrize("form", CONSTANTS)
def test_constants_of_every_form_are_read(form: str, tmp_path: Path) -> None:
    attributes, operator = CONSTANTS[form]
    nodes = [
        helper.make_node("Constant", [], ["c"], **attributes),
        helper.make_node(operator, ["x", "c"], ["y"]),
    ]
    model = as_onnxruntime(made(nodes, y=1 if operator == "Gather" else 2), tmp_path)
    assert [node.op for node in model.graph.nodes] == [operator]


def test_constants_that_are_outputs_text_or_bfloat16_are_read(tmp_path: Path) -> None:
    half = numpy_helper.from_array(WEIGHT.astype(np.dtype("bfloat16")), "")
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["names"], value_strings=[b"a", "\u00e9".encode(), b"c", b"d"]),
        helper.make_node("Constant", [], ["name"], value_string="a"),
        helper.make_node("Equal", ["names", "name"], ["same"]),
        helper.make_node("Cast", ["same"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "mask"], ["masked"]),
        helper.make_node("Constant", [], ["half"], value=half),
        helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["masked", "w"], ["y"]),
    ]
    as_onnxruntime(made(nodes, opsets=[("", 19)], y=2, c=1), tmp_path)


def test_a_filled_constant_of_an_input_shape_is_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node(
            "ConstantOfShape", ["s"], ["ones"], value=numpy_helper.from_array(np.array([1.5], np.float32))
        ),
        helper.make_node("Mul", ["x", "ones"], ["y"]),
    ]
    as_onnxruntime(made(nodes), tmp_path)


def test_functions_may_import_the_standard_domain_twice(tmp_path: Path) -> None:
    double = helper.make_function(
        "own",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("ai.onnx", 17), helper.make_opsetid("", 17)],
    )
    proto = made([helper.make_node("Double", ["x"], ["y"], domain="own")], opsets=[("", 17), ("own", 1)])
    proto.functions.append(double)
    as_onnxruntime(proto, tmp_path)


def test_outputs_may_lack_a_shape(tmp_path: Path) -> None:
    """onnxruntime infers it; onnx.checker asks for it."""
    proto = made([helper.make_node("MatMul", ["x", "w"], ["y"])], [numpy_helper.from_array(WEIGHT, "w")])
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = as_onnxruntime(proto, tmp_path)
    assert model.outputs()["y"][1] == ("n", 5)
