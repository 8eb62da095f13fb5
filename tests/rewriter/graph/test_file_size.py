"""Sizes of models count the files with their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graft.rewriter.graph.file_size import stored_bytes
from graft.rewriter.measure.baseline import Candidate
from graft.rewriter.record.folder import ModuleFolder
from tests import small


def external(path: Path) -> onnx.ModelProto:
    proto = small.model(small.dense_net()).proto()
    onnx.save(proto, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return proto


def test_external_data_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    external(path)
    own, beside = stored_bytes(path)
    assert own == path.stat().st_size
    assert beside == (tmp_path / "net.onnx.data").stat().st_size > 0


def test_weights_inside_and_files_that_are_not_named_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(small.model(small.dense_net()).proto(), path)
    (tmp_path / "net.onnx.data").write_bytes(b"left over")
    assert stored_bytes(path) == (path.stat().st_size, 0)


def test_constants_in_nodes_and_bodies_count(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.zeros(1000, np.float32), "c")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=values)],
        "then",
        [],
        [helper.make_tensor_value_info("c", 1, [1000])],
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", 1, [1000])],
    )
    path = tmp_path / "if.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
        convert_attribute=True,
    )
    assert stored_bytes(path)[1] == (tmp_path / "weights").stat().st_size >= 4000


def test_evaluation_and_folders_count_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    external(path)
    model = small.model(small.dense_net())
    samples = small.samples(small.inputs((6,)), of=model.require_card())
    figures, _ = Candidate(model, (path,)).measure(samples, small.LABELS, small.CPU)
    assert figures["bytes"] == sum(stored_bytes(path))
    assert figures["external_bytes"] == stored_bytes(path)[1]
    with ModuleFolder(tmp_path / "out", force=False) as folder:
        onnx.save(
            model.proto(),
            folder.file("a.onnx"),
            save_as_external_data=True,
            location="a.onnx.data",
            size_threshold=0,
        )
        assert folder.size("a.onnx") == sum(stored_bytes(folder.file("a.onnx"))) > 300
        folder.index({"modules": []})
