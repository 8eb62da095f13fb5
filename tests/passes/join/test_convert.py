"""A converted model computes the same, in versions that go together."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graft.passes.base import Context
from graft.passes.join.convert import Convert
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from tests import cases, graphs, small
from tests.small import CPU

X = small.inputs([2, 6, 6], 5)
NEWEST = onnx.defs.onnx_opset_version()


def model(opset: int = 17, ir_version: int = 8, head: str = "Gemm") -> Model:
    found = small.model(small.residual_net(opset, head=head), "logits" if head == "Gemm" else "probabilities")
    found.header.ir_version = ir_version
    return found


def content(of: Model) -> bytes:
    return of.proto().SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("before", "after"), [(11, 13), (11, 18), (12, 17), (13, 17), (13, 21), (17, 18), (11, 21), (18, 21)]
)
@pytest.mark.parametrize("head", ["Gemm", "Softmax"])
def test_up_conversion_keeps_the_function(before: int, after: int, head: str) -> None:
    of = model(before, head=head)
    wanted, card, outputs, inputs = small.run(of, X)["y"], of.card, of.outputs(), of.inputs()
    report = Convert(after)(of, Context())
    assert of.opset == after and report.opset == (before, after)
    proto = of.proto()
    onnx.checker.check_model(proto, full_check=True)
    assert {(entry.domain, entry.version) for entry in proto.opset_import} == {("", after)}
    assert (of.card, of.inputs(), of.outputs()) == (card, inputs, outputs)
    np.testing.assert_allclose(small.run(of, X)["y"], wanted, rtol=1e-5, atol=1e-6)
    assert np.ptp(wanted) > 0.01


@settings(max_examples=20, deadline=None)
@given(cases.convolutional(), st.sampled_from([13, 17, 18, 21]))
def test_graphs_are_converted_truly_or_refused(proto: onnx.ModelProto, opset: int) -> None:
    of = Model.from_proto(proto)
    before = of.opset
    refusal = None
    try:
        Convert(opset)(of, Context())
    except GraftError as error:
        refusal = error
    assert of.opset == (before if refusal else opset)
    assert refusal is None or (refusal.code == "convert-failed" and opset < before)
    feed = graphs.samples(proto)
    one, two = CPU.open(proto).run(feed), CPU.open(of).run(feed)
    assert list(one) == list(two)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-3, atol=1e-4)


def test_metadata_of_a_converted_model_stays() -> None:
    of = model(13)
    of.metadata["theirs"], of.header.doc_string, of.header.producer_name = "kept", "doc", "them"
    node = of.graph.nodes[0].name
    of.node_metadata[node] = {"layer": "7"}
    assert Convert(18)(of, Context()).changed
    proto = of.proto()
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [18]
    assert (proto.doc_string, proto.producer_name) == ("doc", "them")
    assert {entry.key: entry.value for entry in proto.metadata_props}["theirs"] == "kept"
    kept = {n.name: {e.key: e.value for e in n.metadata_props} for n in proto.graph.node}
    assert kept[node] == {"layer": "7"}


# -------------------------------------------------------------------- versions


@pytest.mark.parametrize(("opset", "ir_version"), [(11, 6), (13, 7), (15, 8), (17, 8), (18, 9), (21, 10)])
def test_nothing_asked_nothing_changed(opset: int, ir_version: int) -> None:
    of = model(opset, ir_version)
    before, graph = content(of), of.graph
    report = Convert()(of, Context())
    assert content(of) == before and of.graph is graph
    assert report.opset == (opset, opset) and report.ir_version == (ir_version, ir_version)
    Convert(opset, ir_version)(of, Context())
    assert content(of) == before and of.graph is graph


@pytest.mark.parametrize(("opset", "least"), [(11, 6), (13, 7), (15, 8), (17, 8), (18, 8), (19, 9), (21, 10)])
def test_the_ir_version_that_an_opset_needs(opset: int, least: int) -> None:
    """The table of versions in onnx/docs/Versioning.md."""
    of = model(11, 6)
    report = Convert(opset)(of, Context())
    assert report.ir_version == (6, least) and of.ir_version == least
    newer = model(11, 11)
    Convert(opset)(newer, Context())
    assert newer.ir_version == 11
    for ir_version in range(least, onnx.IR_VERSION + 1):
        asked = model(opset, least)
        Convert(None, ir_version)(asked, Context())
        assert asked.ir_version == ir_version == asked.proto().ir_version
    for ir_version in (1, 3, least - 1, onnx.IR_VERSION + 1, 99):
        refused = model(opset, least)
        before = content(refused)
        with pytest.raises(GraftError) as caught:
            Convert(None, ir_version)(refused, Context())
        assert caught.value.code == "version-conflict"
        assert f"--ir-version {least}" in caught.value.hint
        assert content(refused) == before


@pytest.mark.parametrize("opset", [-1, 0, 1, 10, NEWEST + 1, 99])
def test_opsets_that_are_not_there(opset: int) -> None:
    of = model()
    before = content(of)
    with pytest.raises(GraftError) as caught:
        Convert(opset)(of, Context())
    assert caught.value.code == "version-unknown"
    assert caught.value.hint == f"choose one from 11 to {NEWEST}"
    assert content(of) == before


def test_what_cannot_be_converted_is_refused_and_left_alone() -> None:
    """onnx's converter has no way from Relu 14 back to 13."""
    of = model(17)
    before = content(of)
    with pytest.raises(GraftError) as caught:
        Convert(11)(of, Context())
    assert caught.value.code == "convert-failed" and "\n" not in str(caught.value)
    assert "opset 17 to 11" in caught.value.message and "leave it at 17" in caught.value.hint
    assert content(of) == before


def test_a_conversion_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(proto)
        result.opset_import[0].version = opset
        tensor = next(t for t in result.graph.initializer if t.name == "y.b")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1), "y.b"))
        return result

    monkeypatch.setattr(onnx.version_converter, "convert_version", wrong)
    of = model(17)
    before = content(of)
    with pytest.raises(GraftError) as caught:
        Convert(18)(of, Context())
    assert caught.value.code == "convert-failed" and "computes another y" in caught.value.message
    assert content(of) == before


def test_a_refused_ir_version_leaves_the_graph_alone() -> None:
    of = model(17)
    before = content(of)
    with pytest.raises(GraftError) as caught:
        Convert(18, 3)(of, Context())
    assert caught.value.code == "version-conflict"
    assert content(of) == before


def test_ir_version_zero_is_refused() -> None:
    with pytest.raises(GraftError) as caught:
        Convert(None, 0)(model(), Context())
    assert caught.value.code == "version-conflict"


# -------------------------------------------------------------------- copies, other domains


def test_a_copy_can_be_converted_while_the_original_stays() -> None:
    of = model(13, 7)
    before, header = content(of), of.header.SerializeToString()
    copy = of.copy()
    Convert(21, 11)(copy, Context())
    assert (copy.opset, copy.ir_version) == (21, 11)
    assert content(of) == before and of.header.SerializeToString() == header


def other_domain(domain: str, op: str, **attributes: Any) -> Model:
    nodes = [
        helper.make_node(op, ["x"], ["g"], "other", domain=domain, **attributes),
        helper.make_node("MatMul", ["g", "w"], ["y"], "classify"),
    ]
    graph = helper.make_graph(
        nodes,
        "other",
        [helper.make_tensor_value_info("x", 1, ["N", 6])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [numpy_helper.from_array(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Model.from_proto(proto, small.card())


def test_operators_of_the_ml_domain() -> None:
    of = other_domain("ai.onnx.ml", "Scaler", offset=[1.0], scale=[2.0])
    x = small.inputs([6], 5)
    wanted = small.run(of, x)["y"]
    before = content(of)
    Convert()(of, Context())
    assert content(of) == before
    Convert(None, 9)(of, Context())
    assert of.ir_version == 9
    np.testing.assert_array_equal(small.run(of, x)["y"], wanted)


@pytest.mark.parametrize("opset", [None, 17])
def test_operators_of_onnxruntime(opset: int | None) -> None:
    of = other_domain("com.microsoft", "Gelu")
    before = content(of)
    Convert(opset)(of, Context())
    assert content(of) == before
    Convert(opset, 9)(of, Context())
    assert of.ir_version == 9
