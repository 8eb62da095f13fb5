"""Models above the 2 GB of a protobuf message, with the limit lowered: everything works as below it."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.join.convert import Convert
from graft.passes.normalize.simplify import Normalize
from graft.passes.parent import Parent
from graft.rewriter.errors import GraftError
from graft.rewriter.graph import weights
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.measure.cost import Cost
from graft.rewriter.run.equivalence import check, differs
from tests import small
from tests.small import CPU, Array, Net

X = small.inputs((2, 8, 8), 40)


def net() -> Net:
    """Two convolutions and a dense layer; weights of all above 1 kB."""
    net = Net(2, 8, 8, seed=3)
    net.node("Relu", "a", net.conv("c1", "x", 16, 2))
    net.node("Relu", "b", net.conv("c2", "a", 24, 16, pads=[1] * 4))
    net.node("GlobalMaxPool", "p", "b")
    net.node("Flatten", "f", "p")
    net.gemm("y", net.node("Relu", "c", net.gemm("g", "f", 32, 24)), 4, 32)
    return net


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file of the net, its weights beside it."""
    path = tmp_path / "m.onnx"
    onnx.save(net().proto(y=[4]), path, save_as_external_data=True, location="w.bin", size_threshold=512)
    (tmp_path / "m.yaml").write_text(
        "input: {name: x, kind: tensor}\noutput: {name: y, kind: logits}\nlabels: [a, b, c, d]\n"
    )
    return path


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 2 kB."""
    monkeypatch.setattr(weights, "PROTO_BYTES", 2000)


def parts(path: Path, out: Path) -> tuple[object, Cost, Array]:
    """Return the plan of a module, its cost and its scores."""
    parent = Parent.load(path)
    data = small.samples(X, of=parent.card)
    profile = small.profile(parent.model, data, parent.sha256)
    decompose = Decompose(["a", "c"], 0.5, method="magnitude", compensate="refit", together=True, verify=True)
    report = decompose(parent, small.context(profile, data))
    assert report.difference is not None and report.difference < 1e-5
    report.model.save(out / "module.onnx")
    scores = small.run(Model.load(out / "module.onnx"), X)["y"]
    return report.plan.ranges(), report.cost, scores


def test_a_large_model_is_cut_like_a_small_one(
    source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    expected = parts(source, tmp_path / "small")
    request.getfixturevalue("low")
    found = parts(source, tmp_path / "large")
    assert len(list((tmp_path / "large").glob("module.onnx.*.data"))) == 1
    assert found[:2] == expected[:2]
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("low")
def test_weights_are_not_copied_into_messages(source: Path) -> None:
    model = Model.load(source)
    proto = model.proto()
    assert len(proto.SerializeToString()) < 6000 < (source.parent / "w.bin").stat().st_size
    assert [array.nbytes for array, _ in weights.arrays(proto).values()] == [1152, 13824, 3072]
    np.testing.assert_array_equal(small.run(model, X)["y"], small.run(net().proto(y=[4]), X)["y"])
    again = Model.from_proto(model.proto())
    arrays = [value for value, _ in weights.arrays(again.proto()).values()]
    assert all(
        np.shares_memory(one, other)
        for one, (other, _) in zip(arrays, weights.arrays(proto).values(), strict=True)
    )
    check(model)
    del model, again, arrays
    gc.collect()
    with pytest.raises(KeyError):
        weights.arrays(proto)


@pytest.mark.usefixtures("low")
def test_hash_and_analysis_do_not_depend_on_where_weights_lie(source: Path) -> None:
    model = Model.load(source)
    assert model.graph_sha256() == Model.from_proto(net().proto(y=[4])).graph_sha256()
    groups = Analysed.of(model).groups
    assert [int(group.cuttable.sum()) for group in groups] == [16, 24, 32, 0]


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("opset", [9, 10])
def test_old_large_models_are_lifted_and_converted(opset: int, tmp_path: Path) -> None:
    old = net()
    old.opset = opset
    proto = old.proto(y=[4])
    expected = small.run(proto, X)["y"]
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=512)
    model = Model.load(path)
    assert model.opset == 11
    np.testing.assert_allclose(small.run(model, X)["y"], expected, rtol=1e-6)
    original = model.proto()
    kept = model.copy()
    Convert(opset=17)(model, Context())
    assert model.opset == 17 and not differs(original, model.proto())
    assert list(kept.inputs()) == list(model.inputs()) == ["x"]


@pytest.mark.usefixtures("low")
def test_bfloat16_weights_are_run(tmp_path: Path) -> None:
    net = Net(64, opset=17)
    half = net.constant("half", net.rng.normal(size=(64, 64)), np.dtype("bfloat16"))
    net.node("Cast", "w", half, to=onnx.TensorProto.FLOAT)
    net.node("MatMul", "y", "x", "w")
    proto = net.proto(y=[64])
    x = small.inputs((64,), 3)
    expected = small.run(proto, x)["y"]
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin")
    found = CPU.open(Model.load(tmp_path / "m.onnx")).run({"x": x})["y"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("low")
def test_nodes_behind_large_weights_are_folded_and_normalization_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Net(2, 6, 6)
    values = [net.constant(f"bn.{key}", np.full(32, 0.5 + at)) for at, key in enumerate("sbmv")]
    net.node("BatchNormalization", "bn", net.conv("conv", "x", 32, 2), *values)
    net.node("Relu", "relu", "bn")
    net.node("Flatten", "flat", net.node("GlobalAveragePool", "pool", "relu"))
    matrix = net.node(
        "Transpose", "turned", net.node("Identity", "same", net.weight("w", 48, 32)), perm=[1, 0]
    )
    net.gemm("y", net.node("Relu", "last", net.node("MatMul", "dense", "flat", matrix)), 4, 48)
    model = small.model(net)
    x = small.inputs((2, 6, 6), 5)
    expected = small.run(net.proto(y=[4]), x)["y"]
    assert not Normalize()(model, Context()).declined and not caplog.records
    assert {"Transpose", "Identity"}.isdisjoint(node.op for node in model.graph.nodes)
    np.testing.assert_allclose(small.run(model, x)["y"], expected, rtol=1e-5)
    groups = Analysed.of(model).groups
    assert [int(group.cuttable.sum()) for group in groups] == [32, 48, 0]


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("fault", ["missing", "cut off", "outside"])
def test_weights_that_are_not_there_are_one_line(source: Path, fault: str) -> None:
    data = source.parent / "w.bin"
    if fault == "missing":
        data.unlink()
    elif fault == "cut off":
        data.write_bytes(data.read_bytes()[:3000])
    else:
        proto = onnx.load(source, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = "../w.bin" if entry.key == "location" else entry.value
        source.write_bytes(proto.SerializeToString())
    with pytest.raises(GraftError) as caught:
        Model.load(source)
    assert caught.value.code == "model-invalid" and "\n" not in str(caught.value)
