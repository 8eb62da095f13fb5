"""Models: what is read is written again, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.rewriter.errors import GraftError
from graft.rewriter.files import writing
from graft.rewriter.graph import weights
from graft.rewriter.graph.importing import LOWEST_OPSET
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from tests import small
from tests.small import Net


def rich() -> onnx.ModelProto:
    """A model with everything that is easily lost."""
    proto = small.conv_net(opset=15).proto(y=[4])
    proto.ir_version = 7
    proto.doc_string, proto.graph.doc_string = "the model", "the graph"
    proto.producer_name, proto.producer_version = "them", "3.1"
    proto.domain, proto.model_version = "org.them", 12
    helper.set_model_props(proto, {"theirs": "kept", "zwei": "ü"})
    node = next(node for node in proto.graph.node if node.name == "conv2")
    node.metadata_props.add(key="layer", value="7")
    node.doc_string = "a node"
    return proto


def written(tmp_path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """After a round trip through two files."""
    onnx.save(proto, tmp_path / "in.onnx")
    Model.load(tmp_path / "in.onnx").save(tmp_path / "out.onnx")
    return onnx.load(tmp_path / "out.onnx")


def refused(path: Path) -> GraftError:
    with pytest.raises(GraftError) as caught:
        Model.load(path)
    assert caught.value.hint
    return caught.value


# -------------------------------------------------------------------- round trips


def test_a_round_trip_keeps_the_header(tmp_path: Path) -> None:
    before = rich()
    after = written(tmp_path, before)
    for name in ("ir_version", "doc_string", "producer_name", "producer_version", "domain"):
        assert getattr(after, name) == getattr(before, name)
    assert after.model_version == 12
    assert after.graph.doc_string == "the graph"
    assert [(o.domain, o.version) for o in after.opset_import] == [("", 15)]
    assert {entry.key: entry.value for entry in after.metadata_props} == {
        "theirs": "kept",
        "zwei": "ü",
    }


def test_a_round_trip_keeps_what_is_said_of_nodes(tmp_path: Path) -> None:
    after = written(tmp_path, rich())
    nodes = {node.name: node for node in after.graph.node}
    assert {entry.key: entry.value for entry in nodes["conv2"].metadata_props} == {"layer": "7"}
    assert not nodes["conv1"].metadata_props


def test_a_round_trip_keeps_the_graph(tmp_path: Path) -> None:
    before = rich()
    after = written(tmp_path, before)
    assert [node.name for node in after.graph.node] == [node.name for node in before.graph.node]
    for ends in ("input", "output"):
        assert [(v.name, v.type) for v in getattr(after.graph, ends)] == [
            (v.name, v.type) for v in getattr(before.graph, ends)
        ]
    assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    x = small.inputs([2, 6, 5], 3)
    np.testing.assert_array_equal(small.run(after, x)["y"], small.run(before, x)["y"])


def test_a_round_trip_keeps_the_hash(tmp_path: Path) -> None:
    onnx.save(rich(), tmp_path / "in.onnx")
    model = Model.load(tmp_path / "in.onnx")
    model.save(tmp_path / "out.onnx")
    again = Model.load(tmp_path / "out.onnx")
    assert again.graph_sha256() == model.graph_sha256()
    again.save(tmp_path / "twice.onnx")
    assert (tmp_path / "twice.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_functions_and_foreign_opsets_are_kept(tmp_path: Path) -> None:
    net = small.dense_net()
    body = [helper.make_node("Relu", ["a"], ["b"], name="inner")]
    opsets = [helper.make_opsetid("", 17)]
    net.functions.append(helper.make_function("here", "Mine", ["a"], ["b"], body, opsets))
    net.nodes[1] = helper.make_node("Mine", ["dense"], ["relu"], name="relu", domain="here")
    before = net.proto(y=[4])
    after = written(tmp_path, before)
    assert [function.name for function in after.functions] == ["Mine"]
    assert {o.domain for o in after.opset_import} == {"", "here"}
    x = small.inputs([6], 3)
    np.testing.assert_array_equal(small.run(after, x)["y"], small.run(before, x)["y"])


def test_the_card_travels_in_the_metadata(tmp_path: Path) -> None:
    model = small.model(small.dense_net())
    model.metadata["theirs"] = "1"
    model.save(tmp_path / "m.onnx")
    again = Model.load(tmp_path / "m.onnx")
    assert again.card == model.card
    assert again.metadata["theirs"] == "1"


def test_the_card_beside_the_file_is_found(tmp_path: Path) -> None:
    onnx.save(small.dense_net().proto(y=[4]), tmp_path / "m.onnx")
    assert Model.load(tmp_path / "m.onnx").card is None
    (tmp_path / "m.yaml").write_text(small.card().to_yaml())
    (tmp_path / "other.yaml").write_text(small.card(tuple("wxyz")).to_yaml())
    assert Model.load(tmp_path / "m.onnx").require_card() == small.card()
    assert Model.load(tmp_path / "m.onnx", tmp_path / "other.yaml").require_card().labels[0] == "w"
    (tmp_path / "m.yaml").write_text(small.card(tuple("abc")).to_yaml())
    assert refused(tmp_path / "m.onnx").code == "card-labels"


def test_a_missing_card_is_told() -> None:
    with pytest.raises(GraftError) as caught:
        Model.from_proto(small.dense_net().proto(y=[4])).require_card("there/m.onnx")
    assert caught.value.code == "card-missing"


# -------------------------------------------------------------------- external data


@pytest.mark.parametrize("one_file", [True, False])
def test_external_data_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_file: bool
) -> None:
    proto = small.conv_net().proto(y=[4])
    x = small.inputs([2, 6, 5], 3)
    wanted = small.run(proto, x)["y"]
    (tmp_path / "in").mkdir()
    onnx.save(
        proto,
        tmp_path / "in" / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=one_file,
        location="weights.bin" if one_file else None,
        size_threshold=0,
    )
    monkeypatch.chdir(tmp_path)
    model = Model.load(Path("in") / "m.onnx")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(small.run(model, x)["y"], wanted)
    model.save(tmp_path / "inside.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "inside.onnx"]
    np.testing.assert_array_equal(small.run(Model.load(tmp_path / "inside.onnx"), x)["y"], wanted)


def test_large_weights_go_to_one_file_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PROTO_BYTES", 100)
    net = Net(64)
    net.gemm("y", net.node("Relu", "relu", net.gemm("dense", "x", 64, 64)), 4, 64)
    model, x = small.model(net), small.inputs([64], 3)
    wanted = small.run(model, x)["y"]
    model.save(tmp_path / "m.onnx")
    data, name = sorted(tmp_path.iterdir())[::-1][0], "m.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, data.name]
    content = data.read_bytes()
    assert data.name == f"m.onnx.{hashlib.sha256(content).hexdigest()[:12]}.data"
    assert len(content) >= 4 * 64 * 64
    assert data.stat().st_mode == (tmp_path / name).stat().st_mode
    np.testing.assert_array_equal(small.run(Model.load(tmp_path / name), x)["y"], wanted)
    Model.load(tmp_path / name).save(tmp_path / name, force=True)
    assert data.read_bytes() == content, "written anew, not appended to"
    np.testing.assert_array_equal(small.run(Model.load(tmp_path / name), x)["y"], wanted)


# -------------------------------------------------------------------- reading


def test_nodes_without_names_of_their_own_get_them() -> None:
    def named(names: list[str]) -> list[str]:
        net = small.conv_net()
        for node, name in zip(net.nodes, names, strict=True):
            node.name = name
        return [node.name for node in Model.from_proto(net.proto(y=[4])).graph.nodes]

    assert named([""] * 7) == [
        *("Conv_0", "Relu_1", "Conv_2", "Relu_3", "GlobalAveragePool_4", "Flatten_5", "Gemm_6")
    ]
    for names in (["a", "a", "b", "", "a", "Relu_3", "b"], ["Relu_1", "", "", "", "", "", "Relu_1"]):
        found = named(names)
        assert len(set(found)) == 7
        assert found == named(names), "the same for the same file"
        for before, after in zip(names, found, strict=True):
            assert not before or names.count(before) > 1 or after == before


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_old_opsets_are_lifted(opset: int, tmp_path: Path) -> None:
    net = small.dense_net(opset)
    proto = net.proto(y=[4])
    after = written(tmp_path, proto)
    assert [o.version for o in after.opset_import if o.domain in ("", "ai.onnx")] == [LOWEST_OPSET]
    assert after.ir_version == 8
    x = small.inputs([6], 3)
    np.testing.assert_allclose(small.run(after, x)["y"], small.run(proto, x)["y"], rtol=1e-6)


@pytest.mark.parametrize("ir", [3, 6])
def test_initializers_leave_the_inputs(ir: int, tmp_path: Path) -> None:
    proto = small.dense_net(opset=9 if ir == 3 else 12).proto(y=[4])
    proto.ir_version = ir
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    x = small.inputs([6], 3)
    after = written(tmp_path, proto)
    assert [value.name for value in after.graph.input] == ["x"]
    np.testing.assert_allclose(small.run(after, x)["y"], small.run(proto, x)["y"], rtol=1e-6)
    model = Model.load(tmp_path / "in.onnx")
    small.prune(model, small.plan(model, dense=[1, 5]))
    assert small.run(model, x)["y"].shape == (3, 4)


def test_inputs_and_outputs() -> None:
    model = small.model(small.conv_net())
    assert model.inputs() == {"x": (np.dtype(np.float32), ("N", 2, 6, 5))}
    assert model.outputs() == {"y": (np.dtype(np.float32), ("N", 4))}
    assert (model.opset, model.ir_version) == (17, 8)


def test_shapes_are_inferred_for_a_batch() -> None:
    model = small.model(small.conv_net())
    shapes = model.shapes()
    assert shapes["relu1"] == (2, 6, 4, 3)
    assert shapes["conv2.w"] == (5, 6, 3, 3)
    assert model.shapes(free=7)["flat"] == (7, 5)
    assert model.shapes(given={"x": [1, 2, 9, 9]})["relu1"] == (1, 6, 7, 7)
    assert model.inputs()["x"][1] == ("N", 2, 6, 5), "the model itself keeps its dimensions"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = small.dense_net().proto(y=[4])
    path = tmp_path / "m.onnx"
    assert refused(path).code == "model-missing"
    assert refused(tmp_path).code == "model-is-folder"
    path.write_bytes(b"")
    assert refused(path).code == "model-unreadable"
    path.write_bytes(b"no model at all, just text")
    assert refused(path).code == "model-unreadable"
    path.write_bytes(whole.SerializeToString()[:-40])
    assert refused(path).code == "model-unreadable"
    path.write_bytes(onnx.ModelProto().SerializeToString() + b"")
    assert refused(path).code == "model-unreadable"


def test_models_that_are_not_valid(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = small.dense_net().proto(y=[4])
    proto.graph.node[0].op_type = "Gemmm"
    onnx.save(proto, path)
    assert refused(path).code == "model-invalid"
    onnx.save(
        small.dense_net().proto(y=[4]),
        path,
        save_as_external_data=True,
        location="gone",
        size_threshold=0,
    )
    (tmp_path / "gone").unlink()
    assert refused(path).code == "model-invalid"


def test_models_of_the_future(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = small.dense_net().proto(y=[4])
    proto.opset_import[0].version = 999
    path.write_bytes(proto.SerializeToString())
    assert refused(path).code == "model-version"
    proto.opset_import[0].version = 17
    proto.ir_version = 999
    path.write_bytes(proto.SerializeToString())
    assert refused(path).code == "model-version"


# -------------------------------------------------------------------- changing


def test_a_copy_is_independent() -> None:
    model = small.model(small.conv_net())
    model.metadata["k"] = "v"
    before = model.proto().SerializeToString(deterministic=True)
    copy = model.copy()
    assert copy.proto().SerializeToString(deterministic=True) == before
    small.prune(copy, small.plan(copy, conv1=[0, 2]))
    copy.metadata["k"] = "changed"
    copy.graph.nodes[0].name = "renamed"
    copy.graph.nodes[0].attrs["pads"] = [0, 0, 0, 0]
    copy.card = None
    copy.node_metadata["x"] = {}
    assert model.proto().SerializeToString(deterministic=True) == before
    assert "x" not in model.node_metadata


def test_metadata_does_not_count_in_the_hash() -> None:
    proto = rich()
    first = Model.from_proto(proto).graph_sha256()
    helper.set_model_props(proto, {"other": "1"})
    proto.doc_string = proto.graph.doc_string = proto.producer_name = "changed"
    for node in proto.graph.node:
        node.doc_string = "changed"
        node.metadata_props.add(key="k", value="v")
    model = Model.from_proto(proto)
    model.card = small.card()
    assert model.graph_sha256() == first


def test_shape_notes_do_not_count_in_the_hash() -> None:
    proto = rich()
    inferred = onnx.shape_inference.infer_shapes(proto)
    assert len(inferred.graph.value_info) > len(proto.graph.value_info)
    hashes = {Model.from_proto(each).graph_sha256() for each in (proto, inferred)}
    assert len(hashes) == 1


@pytest.mark.parametrize("change", ["weight", "attribute", "node", "name"])
def test_the_graph_counts_in_the_hash(change: str) -> None:
    proto = rich()
    first = Model.from_proto(rich()).graph_sha256()
    if change == "weight":
        values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
        values.flat[-1] = np.nextafter(values.flat[-1], np.float32(9))
        tensor = numpy_helper.from_array(values, proto.graph.initializer[0].name)
        proto.graph.initializer[0].CopyFrom(tensor)
    elif change == "attribute":
        next(a for a in proto.graph.node[2].attribute if a.name == "pads").ints[0] = 0
    elif change == "node":
        proto.graph.node[1].op_type = "Sigmoid"
    else:
        proto.graph.node[1].name = "renamed"
    assert Model.from_proto(proto).graph_sha256() != first


def test_shapes_inside_follow_a_cut() -> None:
    model = small.model(small.conv_net())
    small.prune(model, small.plan(model, conv1=[0, 2]))
    noted = {v.name: v.type.tensor_type.shape.dim for v in model.proto().graph.value_info}
    assert [d.dim_value or d.dim_param for d in noted["relu1"]] == ["N", 4, 4, 3]
    assert model.inputs()["x"][1] == ("N", 2, 6, 5)


def test_tidy_drops_what_no_output_needs() -> None:
    net = small.conv_net()
    net.node("Sigmoid", "unused", "relu1")
    model = small.model(net)
    model.graph.nodes.reverse()
    model.tidy()
    names = [node.name for node in model.graph.nodes]
    assert "unused" not in names
    assert names.index("conv1") < names.index("conv2") < names.index("y")


# -------------------------------------------------------------------- writing


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    model, path = small.model(small.dense_net()), tmp_path / "m.onnx"
    path.write_text("precious")
    with pytest.raises(GraftError) as caught:
        model.save(path)
    assert caught.value.code == "output-exists"
    assert path.read_text() == "precious"
    model.save(path, force=True)
    assert Model.load(path).card == model.card
    with pytest.raises(GraftError) as caught:
        model.save(tmp_path, force=True)
    assert caught.value.code == "output-exists"


def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("precious")

    def fail() -> None:
        with writing(path, force=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "precious"
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_folders_are_made_and_modes_are_usual(tmp_path: Path) -> None:
    path = tmp_path / "new" / "er" / "m.onnx"
    small.model(small.dense_net()).save(path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    assert [each.name for each in path.parent.iterdir()] == ["m.onnx"]


@pytest.mark.skipif(os.name == "nt", reason="a file as a folder fails in another way")
def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraftError) as caught:
        small.model(small.dense_net()).save(tmp_path / "file" / "m.onnx")
    assert caught.value.code == "output-unwritable"


def test_constants_that_share_a_stored_tensor_are_written_under_both_names() -> None:
    """The exporter writes the name into the stored tensor: the last one would win."""
    model = small.model(small.dense_net())
    tensors = model.graph.tensors()
    weight = tensors["y.w"]
    twin = small.gs.Constant("twin", weight._values)
    total = next(node for node in model.graph.nodes if node.name == "y")
    second = small.gs.Node("Gemm", "second", dict(total.attrs), [total.inputs[0], twin])
    second.outputs = [small.gs.Variable("second", np.float32, ["N", 4])]
    model.graph.nodes.append(second)
    model.graph.outputs.append(second.outputs[0])
    stored = {tensor.name: tensor for tensor in model.proto().graph.initializer}
    assert {"y.w", "twin"} <= set(stored)
    arrays = [numpy_helper.to_array(stored[name]) for name in ("y.w", "twin")]
    np.testing.assert_array_equal(*arrays)
    assert stored["twin"].data_type == TensorProto.FLOAT


def test_text_that_is_not_utf8() -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], domain="d", config=b"\x82")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("d", 1)])
    with pytest.raises(GraftError) as caught:
        Model.from_proto(proto)
    assert caught.value.code == "model-invalid"


def test_sizes_that_inference_loses_have_the_name_of_an_inputs() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], "lost", domain="d"),
        helper.make_node("Gemm", ["m", "w"], ["y"], "gemm"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    model = Model.from_proto(helper.make_model(graph, opset_imports=sets))
    assert model.shapes(free=5)["y"] == (5, 3)


def test_constant_nodes_become_initializers() -> None:
    values = {"value_ints": [0, 2], "value_int": 3, "value_floats": [1.0], "value_float": 2.0}
    nodes = [helper.make_node("Constant", [], [name], name, **{name: v}) for name, v in values.items()]
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.float32))
    nodes += [
        helper.make_node("Constant", [], ["value"], "value", value=tensor),
        helper.make_node("Constant", [], ["end"], "end", value=tensor),
        helper.make_node("Sum", ["x", "value", "value_float", "value_floats"], ["y"], "sum"),
        helper.make_node("Gather", ["x", "value_int"], ["z"], "gather"),
    ]
    ends = [("y", [None, 3]), ("z", [3]), ("end", [3])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = Model.from_proto(proto).proto()
    assert [node.name for node in found.graph.node] == ["end", "sum", "gather"]
    x = {"x": small.inputs([3], 5)}
    for name, expected in small.run(Model.from_proto(proto), x["x"]).items():
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(expected, session.run([name], x)[0])


def _with_constant(**value: object) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["y"], name="c", **value)],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("z", 1, [1])],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def test_constants_without_a_value_and_maps_without_classes_are_named() -> None:
    with pytest.raises(GraftError, match=r"node 'c' \(Constant\) holds no value"):
        Model.from_proto(_with_constant())
    proto = _with_constant(value_float=1.0)
    proto.graph.node.append(onnx.helper.make_node("ZipMap", ["y"], ["z"], name="m", domain="ai.onnx.ml"))
    with pytest.raises(GraftError, match=r"node 'm' \(ZipMap\) names no classes"):
        Model.from_proto(proto)


def test_the_type_of_an_output_that_is_no_tensor_is_not_known() -> None:
    proto = _with_constant(value_float=1.0)
    proto.graph.output[0].type.optional_type.elem_type.tensor_type.elem_type = 1
    assert Model.from_proto(proto).outputs()["z"][0] is None


def test_a_kernel_of_unknown_shape_is_analysed() -> None:
    """What reads channels by it is not known: they stay, and nothing fails."""
    net = small.Net(2, 6, 6)
    made = net.node("Relu", "made", net.conv("conv", "x", 4, 2, 3))
    net.node("Conv", "next", made, net.node("Identity", "kernel", net.weight("w", 4, 2, 1, 1)), group=2)
    net.gemm("y", net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", "next")), 4, 4)
    model = small.model(net)
    kernel = model.graph.tensors()["kernel"]
    kernel.shape = None
    groups = ChannelGroups(model)
    assert all(place.tensor != "made" for place in groups.reads())
