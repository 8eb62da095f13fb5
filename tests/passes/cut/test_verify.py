"""The check of written models accepts right cuts and nothing else."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from graft.passes.cut.verify import mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph import weights
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.plan import Plan
from graft.rewriter.run.equivalence import check, run_once
from tests import small
from tests.small import CPU, Net

X = small.inputs([2, 6, 6], 5)


def cut(whole: Model, plan: Plan) -> Model:
    model = whole.copy()
    small.prune(model, plan)
    return model


def refusal(whole: Model, plan: Plan, found: Model) -> GraftError:
    with pytest.raises(GraftError) as caught:
        small.verify(whole, plan, found, {"x": X})
    return caught.value


def test_a_right_cut_passes() -> None:
    whole = small.model(small.residual_net())
    plan = small.plan(whole, conv0=[1, 4], conv1=[0, 2, 7], dense=[3])
    difference = small.verify(whole, plan, cut(whole, plan), {"x": X}).difference
    assert difference is not None and 0 <= difference < 1e-5


@pytest.mark.parametrize("group", ["conv0", "conv1", "dense"])
def test_a_shifted_cut_is_rejected(group: str) -> None:
    whole = small.model(small.residual_net())
    plan, shifted = (small.plan(whole, **{group: removed}) for removed in ([2, 3], [3, 4]))
    error = refusal(whole, plan, cut(whole, shifted))
    assert error.code == "law-broken"
    assert "output y" in error.message


def test_a_changed_weight_is_rejected() -> None:
    whole = small.model(small.residual_net())
    plan = small.plan(whole, conv1=[1])
    found = cut(whole, plan)
    node = next(node for node in found.graph.nodes if node.name == "y")
    node.inputs[2] = gs.Constant("changed", node.inputs[2].values + np.float32(0.01))
    assert refusal(whole, plan, found).code == "law-broken"


def test_a_model_that_draws_numbers_is_rejected_with_the_reason() -> None:
    net = Net(6, seed=1)
    made = net.node("Relu", "relu", net.gemm("dense", "x", 5, 6))
    noise = net.node("RandomNormal", "noise", shape=[1, 5], seed=1.0)
    net.gemm("y", net.node("Mul", "noisy", made, noise), 4, 5)
    whole = small.model(net)
    plan = small.plan(whole, dense=[2])
    found = cut(whole, plan)
    for node in found.graph.nodes:
        if node.op == "RandomNormal":
            node.attrs["seed"] = 2.0
    with pytest.raises(GraftError, match="RandomNormal draws numbers at random") as caught:
        small.verify(whole, plan, found, {"x": small.inputs([6], 5)})
    assert caught.value.code == "law-broken" and "for inference" in caught.value.hint


def test_nan_is_rejected() -> None:
    whole = small.model(small.residual_net())
    plan = small.plan(whole, conv1=[1])
    found = cut(whole, plan)
    node = next(node for node in found.graph.nodes if node.name == "y")
    node.inputs[2] = gs.Constant("changed", node.inputs[2].values * np.float32(np.nan))
    assert refusal(whole, plan, found).code == "law-broken"


def test_what_the_checker_refuses_is_rejected() -> None:
    whole = small.model(small.residual_net())
    plan = small.plan(whole, conv1=[1])
    found = cut(whole, plan)
    found.graph.nodes[0].op = "Convolve"
    assert refusal(whole, plan, found).code == "result-invalid"
    with pytest.raises(GraftError):
        check(found)


def test_what_onnxruntime_refuses_is_rejected() -> None:
    whole = small.model(small.residual_net())
    plan = small.plan(whole, conv1=[1])
    found = cut(whole, plan)
    node = next(node for node in found.graph.nodes if node.op == "Flatten")
    node.domain, node.op = "foreign", "Flat"
    assert refusal(whole, plan, found).code in ("model-not-runnable", "result-invalid")


def test_the_masked_parent_is_blind_to_what_was_removed() -> None:
    whole = small.model(small.dense_net())
    before = whole.proto().SerializeToString(deterministic=True)
    masked = mask(Analysed.of(whole), small.plan(whole, dense=[2, 5]))
    weights = {node.name: node.inputs[1].values for node in masked.graph.nodes if node.op == "Gemm"}
    original = {n.name: n.inputs[1].values for n in whole.graph.nodes if n.op == "Gemm"}
    np.testing.assert_array_equal(weights["dense"], original["dense"])
    wanted = original["y"].copy()
    wanted[:, [2, 5]] = 0
    np.testing.assert_array_equal(weights["y"], wanted)
    assert whole.proto().SerializeToString(deterministic=True) == before


NETS = {
    "residual": (small.residual_net, {"conv0": [1, 4], "conv1": [0, 2, 7], "dense": [3]}),
    "dense": (small.dense_net, {"dense": [2, 5]}),
}


@pytest.mark.parametrize("net", NETS)
def test_large_weights_are_masked_by_what_they_read(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    make, removed = NETS[net]
    whole = small.model(make())
    plan = small.plan(whole, **removed)
    inputs = {name: small.inputs(shape[1:], 5) for name, (_, shape) in whole.inputs().items()}
    in_weights = mask(Analysed.of(whole), plan)
    monkeypatch.setattr(weights, "LARGE", 0)
    monkeypatch.setattr(weights, "PIECE", 1)
    for tensor in whole.graph.tensors().values():
        if isinstance(tensor, gs.Constant):
            tensor.values = np.asarray(tensor.values)  # as a large file is read
    behind_where = mask(Analysed.of(whole), plan)
    assert "Where" in {node.op for node in behind_where.graph.nodes}
    assert "Where" not in {node.op for node in in_weights.graph.nodes}
    expected = run_once(in_weights, CPU, inputs)["y"]
    np.testing.assert_allclose(run_once(behind_where, CPU, inputs)["y"], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(run_once(whole, CPU, inputs)["y"] - expected).max() > 1e-3
    assert small.verify(whole, plan, cut(whole, plan), inputs).difference < 1e-5
