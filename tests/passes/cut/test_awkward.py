"""Whole cuts of awkward but real graphs: each of these once went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.passes.base import Context
from graft.passes.compare.score import Branch
from graft.passes.compose import Compose
from graft.passes.cut.head import Head
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.trunk import Source
from graft.rewriter.card.card import Card
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.card.output_card import OutputCard
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.graph import weights
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.plan import Plan
from graft.rewriter.record.folder import ModuleFolder
from graft.rewriter.run.session import Device
from tests import small

DEVICE = Device(("cpu",))
RANDOM = np.random.default_rng(0)


def weight(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
    values = scale * RANDOM.normal(size=shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return numpy_helper.from_array(values.astype(np.float32), name)


def network(
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    shape: list[object],
    columns: int,
    kind: str = "logits",
    opset: int = 17,
) -> Model:
    """A model x -> y with a card for ``columns`` classes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], columns])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    card = Card(
        inputs=(InputCard(name="x", kind="tensor"),),
        output=OutputCard(name="y", kind=kind),
        labels=tuple("abcdefgh"[:columns]),
    )
    return Model.from_proto(proto, card)


def source(model: Model, scale: float = 1.0) -> tuple[Source, Samples]:
    """The parent with a profile from random samples that hold every class."""
    card = model.require_card()
    shape = [int(size) for size in list(model.inputs()["x"][1])[1:]]  # type: ignore[arg-type]
    labels = np.arange(48) % len(card.labels)
    values = (scale * RANDOM.normal(size=(48, *shape))).astype(np.float32)
    samples = Samples.match(Dataset.from_arrays(values, labels).split("train"), card)
    parent = Parent(model)
    return Source(parent, small.profile(parent.model, samples, parent.sha256)), samples


def one_channel_left(model: Model, group: str) -> None:
    """The law holds where only one channel of ``group`` stays."""
    groups = ChannelGroups(model)
    kept = groups.everything()
    kept[groups[group].channels[1:]] = False
    plan = Plan.of(groups, kept, "")
    whole = model.copy()
    small.prune(model, plan)
    shape = [2 if isinstance(size, str) else size for size in model.inputs()["x"][1]]
    inputs = {"x": RANDOM.normal(size=shape).astype(np.float32)}
    assert small.verify(whole, plan, model, inputs).difference < 1e-5


@pytest.mark.parametrize("opset", [11, 17])
def test_squeeze_without_axes(opset: int) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Squeeze", ["p"], ["s"]),
        helper.make_node("Gemm", ["s", "v"], ["y"]),
    ]
    one_channel_left(
        network(nodes, [weight("w", 6, 3, 3, 3), weight("v", 6, 4)], ["N", 3, 5, 5], 4, opset=opset), "conv"
    )


def test_reduction_over_no_axes_is_over_all() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("ReduceMean", ["c", "none"], ["m"], keepdims=1),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    none = numpy_helper.from_array(np.array([], np.int64), "none")
    model = network(nodes, [weight("w", 6, 3, 3, 3), weight("v", 1, 4), none], [1, 3, 5, 5], 4, opset=18)
    assert ChannelGroups(model)["conv"].cuttable.all()
    plan, cut = Plan("", {"conv": np.arange(6) < 2}), model.copy()
    small.prune(cut, plan)
    x = RANDOM.normal(size=(1, 3, 5, 5)).astype(np.float32)
    assert np.ptp(DEVICE.open(model).run({"x": x})["y"]) > 1e-2
    assert small.verify(model, plan, cut, {"x": x}).difference < 1e-5


def test_channels_that_are_indices_stay() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Clip", ["h", "zero", "two"], ["k"]),
        helper.make_node("Cast", ["k"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "i"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"]),
    ]
    limits = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("zero", 0), ("two", 2))]
    constants = [weight("w", 5, 6), weight("table", 3, 4), weight("v", 24, 4), *limits]
    assert not ChannelGroups(network(nodes, constants, ["N", 5], 4))["gemm"].cuttable.any()


def test_class_columns_that_hidden_units_are_tied_to() -> None:
    """y = Gemm(Relu(h)) + h: cutting columns of y would cut h."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["g"]),
        helper.make_node("Add", ["g", "h"], ["y"]),
    ]
    model = network(nodes, [weight("w", 5, 4), weight("v", 4, 4)], ["N", 5], 4)
    inputs = {"x": RANDOM.normal(size=(6, 5)).astype(np.float32)}
    expected = DEVICE.open(model).run(inputs)["y"][:, [2, 0]]
    Head(("c", "a"), together=True)(model, small.context())
    np.testing.assert_allclose(DEVICE.open(model).run(inputs)["y"], expected, rtol=1e-5, atol=1e-6)


def test_head_whose_activation_carries_the_classes() -> None:
    """SqueezeNet: the classes are channels of a convolution, switched on and off before the pooling."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["k"]),
        helper.make_node("Relu", ["k"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    of, _ = source(network(nodes, [weight("w", 8, 3, 3, 3), weight("v", 4, 8, 1, 1)], ["N", 3, 6, 6], 4))
    modules = [Decompose([name], keep=0.7)(of.parent, small.context(of.profile)).model for name in "ac"]
    trunk = Compose("trunk")(Modules(modules, {of.parent.sha256: of}), Context()).model
    assert trunk.require_card().labels == ("a", "c")


def test_probabilities_that_round_to_zero() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=-1),
    ]
    of, samples = source(
        network(nodes, [weight("w", 5, 8), weight("v", 8, 4)], ["N", 5], 4, "probabilities"), 1e3
    )
    modules = [Decompose([name], keep=1.0)(of.parent, small.context(of.profile)).model for name in "abcd"]
    joined = Compose("branches")(Modules(modules), Context()).model
    inputs = next(samples.batches(48))[0]
    found = DEVICE.open(joined).run(inputs)["y"]
    parent = DEVICE.open(of.parent.model).run(inputs)["y"]
    assert np.isfinite(found).all()
    assert (parent == 0).any()
    np.testing.assert_array_equal(found.argmax(axis=1), parent.argmax(axis=1))


@pytest.mark.parametrize("batch", [1, 7])
def test_fixed_batch(batch: int) -> None:
    def of(size: object) -> Source:
        global RANDOM
        RANDOM = np.random.default_rng(1)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "v"], ["y"]),
        ]
        return source(network(nodes, [weight("w", 8, 3, 3, 3), weight("v", 8, 4)], [size, 3, 6, 6], 4))[0]

    fixed, free = of(batch), of("N")
    assert fixed.parent.cost == free.parent.cost
    assert fixed.profile.correct.tolist() == free.profile.correct.tolist()
    for name, tables in free.profile.tables.items():
        for tensor, table in tables.items():
            np.testing.assert_allclose(fixed.profile.tables[name][tensor], table, rtol=1e-4, atol=1e-4)
    report = Decompose(["a"], keep=0.6)(fixed.parent, small.context(fixed.profile))
    assert report.model.inputs()["x"][1][0] == batch
    assert report.cost.macs <= 0.6 * fixed.parent.cost.macs


def test_half_precision_behind_float_inputs() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=TensorProto.FLOAT16),
        helper.make_node("Gemm", ["x16", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = [
        numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float16), name)
        for name, shape in (("w", (5, 8)), ("v", (8, 4)))
    ]
    of, samples = source(network(nodes, constants, ["N", 5], 4))
    report = Decompose(["b"], keep=0.6, verify=True)(of.parent, small.context(of.profile, samples))
    assert report.difference is not None
    assert report.cost.macs <= 0.6 * of.parent.cost.macs


def test_large_models_keep_their_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PROTO_BYTES", 100)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    model = network(nodes, [weight("w", 64, 4)], ["N", 64], 4)
    with ModuleFolder(tmp_path / "out", force=False) as directory:
        model.save(directory.file("m.onnx"))
        directory.index({})
    assert Model.load(tmp_path / "out/m.onnx").graph_sha256() == model.graph_sha256()


def test_plans_of_sets_and_of_models_with_more_outputs_replay() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["features"]),
        helper.make_node("Gemm", ["features", "v"], ["y"]),
    ]
    model = network(nodes, [weight("w", 5, 8), weight("v", 8, 4)], ["N", 5], 4)
    features = next(tensor for tensor in model.graph.tensors().values() if tensor.name == "features")
    features.dtype, features.shape = np.dtype(np.float32), ["N", 8]
    model.graph.outputs.append(features)
    of, _ = source(model)
    decompose = Decompose(["d", "b"], keep=0.6, together=True, rest=False)
    report = decompose(of.parent, small.context(of.profile))
    fixed = replace(decompose, fixed_plan=Plan.from_json(report.plan.to_json()))
    again = fixed(of.parent, small.context(of.profile))
    assert again.model.graph_sha256() == report.model.graph_sha256()
    kept, channels = report.plan.counts()
    assert kept < channels
    assert report.cost.macs <= 0.6 * of.parent.cost.macs
    report.plan.mask(of.parent.groups)


def test_a_tensor_of_the_parent_is_called_rest() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["rest"]),
        helper.make_node("Gemm", ["rest", "v"], ["y"]),
    ]
    model = network(nodes, [weight("w", 5, 8), weight("v", 8, 4)], ["N", 5], 4)
    inputs = {"x": RANDOM.normal(size=(6, 5)).astype(np.float32)}
    logits = DEVICE.open(model).run(inputs)["y"]
    Head(("c", "a"), together=True, rest=True)(model, small.context())
    found = DEVICE.open(model).run(inputs)
    np.testing.assert_allclose(found["y"], logits[:, [2, 0]], rtol=1e-5, atol=1e-6)
    expected = np.log(np.exp(logits[:, [1, 3]]).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found["rest"], expected, rtol=1e-4, atol=1e-5)


def test_probabilities_that_a_clip_follows() -> None:
    """Limits of 0 and 1 change no probability: the logits are those of the softmax before them."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"], name="gemm"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=-1),
        helper.make_node("Clip", ["p", "least", "most"], ["y"]),
    ]
    limits = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("least", 0), ("most", 1))]
    model = network(nodes, [weight("w", 5, 8), weight("v", 8, 4), *limits], ["N", 5], 4, "probabilities")
    of, samples = source(model)
    whole = Decompose(list("abcd"), keep=1.0, together=True)(of.parent, small.context(of.profile)).model
    inputs = next(samples.batches(48))[0]
    parent = DEVICE.open(of.parent.model).run(inputs)["y"]
    card = whole.require_card()
    outputs = {tensor.name: tensor for tensor in whole.graph.outputs}
    branch = Branch(card, Builder(whole.graph, whole.opset, "test"), outputs)
    shares = branch.log_shares
    shares.dtype, shares.shape = np.dtype(np.float32), ["N", 4]
    whole.graph.outputs = [shares]
    whole.tidy()
    found = DEVICE.open(whole).run(inputs)[shares.name]
    np.testing.assert_allclose(np.exp(found), parent, rtol=1e-3, atol=1e-5)
