"""Files that cannot be what they say are refused at once, with the name of the place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.functions import DEEPEST, TIMES
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sound import DENSE_VALUES, bits

Change = Callable[[onnx.ModelProto], object]


def model() -> onnx.ModelProto:
    """Return ``y = x w`` with a weight of float32 values of shape (4, 3)."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], name="layer")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refusal(proto: onnx.ModelProto, folder: Path) -> str:
    """Return the line with which a model of this content is refused."""
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(GraftError) as caught:
        Model.load(path)
    assert caught.value.code == "model-invalid"
    return str(caught.value)


def of_kind(kind: int, **fields: object) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        weight = proto.graph.initializer[0]
        weight.CopyFrom(TensorProto(name="w", data_type=kind, dims=[4, 3], **fields))  # type: ignore[arg-type]

    return change


def renamed(proto: onnx.ModelProto) -> None:
    content = proto.SerializeToString().replace(b"layer", b"l\xffyer")
    proto.ParseFromString(content)


WEIGHTS: dict[str, tuple[Change, str]] = {
    "a reference outside of a function": (
        lambda p: p.graph.node[0].attribute.add(name="alpha", type=1, ref_attr_name="slope"),
        "'alpha' of node 'layer' refers to the attribute 'slope' of a function, but is in none",
    ),
    "segments": (
        lambda p: setattr(p.graph.initializer[0].segment, "end", 4),
        "weight 'w' is split into segments",
    ),
    "too many bytes": (
        lambda p: setattr(p.graph.initializer[0], "raw_data", bytes(52)),
        "weight 'w' of type float and shape [4, 3] has 52 bytes, expected 48",
    ),
    "half a value": (of_kind(TensorProto.FLOAT, raw_data=bytes(47)), "has 47 bytes, expected 48"),
    "no values": (of_kind(TensorProto.FLOAT), "has 0 values, expected 12"),
    "values in another field": (of_kind(TensorProto.INT64, int32_data=[1] * 12), "0 values, expected 12"),
    "packed": (of_kind(TensorProto.INT4, raw_data=bytes(12)), "has 12 bytes, expected 6"),
    "bfloat16": (of_kind(TensorProto.BFLOAT16, raw_data=bytes(23)), "has 23 bytes, expected 24"),
    "complex": (of_kind(TensorProto.COMPLEX64, float_data=[1.0] * 12), "has 12 values, expected 24"),
    "unknown type": (of_kind(99, raw_data=bytes(48)), "weight 'w' has the unknown type 99"),
    "no type": (of_kind(0, raw_data=bytes(48)), "has the unknown type 0"),
    "negative size": (lambda p: p.graph.initializer[0].dims.append(-1), "has the negative size -1"),
    "huge size": (lambda p: p.graph.initializer[0].dims.append(2**62), "bytes, expected 2213609288"),
    "text": (of_kind(TensorProto.STRING, string_data=[b"\xff"] * 12), "which is not UTF-8"),
    "name": (renamed, "is not UTF-8"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_and_names_are_checked_on_reading(name: str, tmp_path: Path) -> None:
    change, says = WEIGHTS[name]
    proto = model()
    change(proto)
    assert says in refusal(proto, tmp_path)


def test_a_constant_in_a_body_is_named_by_its_node(tmp_path: Path) -> None:
    proto, value = model(), TensorProto(data_type=TensorProto.FLOAT, dims=[2**40])
    body = helper.make_graph([helper.make_node("Constant", [], ["c"], "deep", value=value)], "b", [], [])
    proto.graph.node.append(helper.make_node("If", ["q"], ["z"], then_branch=body, else_branch=body))
    assert "'value' of node 'deep' (Constant) of type float" in refusal(proto, tmp_path)


def test_a_sparse_weight_that_would_take_gigabytes_is_refused(tmp_path: Path) -> None:
    proto = model()
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [DENSE_VALUES, 2]))
    assert f"sparse weight 's' of shape [{DENSE_VALUES}, 2]" in refusal(proto, tmp_path)


@pytest.mark.parametrize("kind", sorted({*TensorProto.DataType.values()} - {TensorProto.UNDEFINED}))
def test_onnx_writes_as_many_bytes_as_are_expected(kind: int) -> None:
    if kind == TensorProto.STRING:
        return
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    tensor = numpy_helper.from_array(np.zeros(5, dtype))
    assert tensor.data_type == kind
    assert len(tensor.raw_data) == -(-5 * bits(kind) // 8)


# ------------------------------------------------------------------------------- external data


def outside(folder: Path, **entries: object) -> onnx.ModelProto:
    """Return the model with its weight in a file ``w.bin`` in the folder, or as ``entries`` say."""
    (folder / "w.bin").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    proto = model()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin"} | entries).items():
        weight.external_data.add(key=key, value=str(value))
    return proto


EXTERNAL: dict[str, tuple[dict[str, object], str]] = {
    "longer than the file": ({"offset": 20}, "w.bin is cut off: weight 'w' ends behind it"),
    "another length": ({"length": 40}, "has 40 bytes of external data, expected 48"),
    "offset in words": ({"offset": "far"}, "the offset 'far' of its external data is no number"),
    "negative offset": ({"offset": -8}, "the offset '-8' of its external data is no number"),
    "nowhere": ({"location": ""}, "does not say where its external data is"),
    "above": ({"location": "../w.bin"}, "lies outside of the model's folder"),
    "missing": ({"location": "v.bin"}, "but nothing is there"),
    "folder": ({"location": "sub"}, "but a folder is there"),
    "in memory": ({"location": "graft-memory/0"}, "but nothing is there"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_is_checked_before_it_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    entries, says = EXTERNAL[name]
    assert says in refusal(outside(tmp_path, **entries), tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_neither_model_nor_external_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "but a named pipe is there" in refusal(outside(tmp_path, location="pipe"), tmp_path)
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (Path("/dev/zero"), "a device")):
        with pytest.raises(GraftError, match=f"expected an ONNX file at .*, found {kind}"):
            Model.load(path)


def test_external_data_without_a_length_is_read_as_far_as_the_weight_goes(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(outside(tmp_path, offset=8).SerializeToString())
    weight = Model.load(path).graph.nodes[0].inputs[1]
    np.testing.assert_array_equal(weight.values, np.arange(2, 14, dtype=np.float32).reshape(4, 3))


def test_a_file_larger_than_protobuf_reads_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # of holes
    with pytest.raises(GraftError, match="has 2147483648 bytes, more than the 2 GB of an ONNX file"):
        Model.load(path)


# ------------------------------------------------------------------------------- functions


def with_functions(bodies: dict[str, list[str]]) -> onnx.ModelProto:
    """Return the model behind the first of the functions, each a chain of these operators or functions."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    proto = model()
    for name, calls in bodies.items():
        ends = ["x", *(f"t{i}" for i in range(1, len(calls))), "y"]
        nodes = [
            helper.make_node(op, [ends[i]], [ends[i + 1]], domain="f" if op in bodies else "")
            for i, op in enumerate(calls)
        ]
        proto.functions.append(helper.make_function("f", name, ["x"], ["y"], nodes, opsets))
    proto.graph.node.insert(0, helper.make_node(next(iter(bodies)), ["x"], ["r"], domain="f"))
    proto.graph.node[1].input[0] = "r"
    proto.opset_import.append(opsets[1])
    return proto


def chain(length: int, times: int) -> dict[str, list[str]]:
    calls = {f"F{i}": [f"F{i + 1}"] * times for i in range(length - 1)}
    return {**calls, f"F{length - 1}": ["Relu"]}


def test_functions_that_expand_without_end_are_counted_not_expanded(tmp_path: Path) -> None:
    assert f"make 536870913 nodes of the 61 in the file; at most {61 * TIMES}" in refusal(
        with_functions(chain(30, 2)), tmp_path
    )
    assert "make 8e+84 nodes of the 804" in refusal(with_functions(chain(90, 9)), tmp_path)


@pytest.mark.parametrize("order", [1, -1])
def test_functions_deeper_than_any_tool_reads_them_are_refused(order: int, tmp_path: Path) -> None:
    proto = with_functions(chain(DEEPEST + 20, 1))
    functions = list(proto.functions)[::order]
    del proto.functions[:]
    proto.functions.extend(functions)
    assert f"more than {DEEPEST} deep" in refusal(proto, tmp_path)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    assert "function A calls itself" in refusal(with_functions({"A": ["B"], "B": ["A"]}), tmp_path)
    unused = with_functions({"A": ["Relu"], "B": ["Relu", "B"]})
    assert "function B calls itself" in refusal(unused, tmp_path)


def test_functions_of_ordinary_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_functions(chain(5, 2)).SerializeToString())
    assert [node.op for node in Model.load(path).graph.nodes] == ["F0", "Gemm"]


def test_an_empty_constant_where_one_value_is_read_is_refused(tmp_path: Path) -> None:
    """onnxruntime would crash."""
    found = model()
    found.graph.node.insert(0, helper.make_node("OneHot", ["i", "depth", "v"], ["hot"], name="hot"))
    for name, values in (("i", [1]), ("v", [0, 1]), ("depth", [])):
        found.graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    assert "input 1 of node 'hot' (OneHot) has no value, expected one" in refusal(found, tmp_path)
    found.graph.initializer.pop()
    value = numpy_helper.from_array(np.zeros(0, np.int64))
    found.graph.node.insert(0, helper.make_node("Constant", [], ["depth"], value=value))
    assert "input 1 of node 'hot' (OneHot) has no value, expected one" in refusal(found, tmp_path)


@pytest.mark.parametrize(
    ("op", "attributes", "said"),
    [
        ("RandomNormal", {"scale": 0.0}, "'scale' of node 'drawn'"),
        ("RandomNormalLike", {"scale": float("nan")}, "'scale' of node 'drawn'"),
        ("RandomUniform", {"low": 2.0}, "'low' of node 'drawn'"),
    ],
)
def test_a_distribution_that_ends_the_process_is_refused(
    op: str, attributes: dict[str, float], said: str, tmp_path: Path
) -> None:
    read = ["x"] if op.endswith("Like") else []
    shape = {} if read else {"shape": [1, 2]}
    node = helper.make_node(op, read, ["y"], "drawn", **attributes, **shape)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    proto = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    assert said in refusal(proto, tmp_path)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Attention", {"q_num_heads": 4, "kv_num_heads": 0}),
        ("Conv", {"group": 0}),
        ("DepthToSpace", {"blocksize": -2}),
        ("GroupNormalization", {"num_groups": 0}),
    ],
)
def test_a_number_that_is_divided_by_is_at_least_one(
    op: str, attributes: dict[str, int], tmp_path: Path
) -> None:
    name, value = min(attributes.items(), key=lambda item: item[1])
    node = helper.make_node(op, ["x"], ["y"], "node", **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    proto = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    assert f"'{name}' of node 'node' ({op}) is {value}, expected 1 or more" in refusal(proto, tmp_path)
