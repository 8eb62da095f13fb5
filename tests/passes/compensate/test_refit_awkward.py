"""Refit where layers are no plain chain: sums that broadcast, rows that are no samples, odd types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graft.passes.compensate import layer_pair
from graft.rewriter.errors import GraftError
from graft.rewriter.run.staged import Batches, StagedRun
from tests import small
from tests.passes.compensate.test_refit import Refitted, refit_cut, seven_at_once
from tests.small import CPU, Net


def classified(net: Net, features: str, width: int) -> Net:
    """``net`` with pooling and a head behind a map of features."""
    pooled = net.node("GlobalAveragePool", "pooled", net.node("Relu", "open", features))
    net.gemm("y", net.node("Flatten", "flat", pooled), 4, width)
    return net


def global_context() -> Net:
    """A 1x1 map is added to a whole one."""
    net = Net(2, 6, 6)
    stem = net.node("Relu", "stem", net.conv("conv0", "x", 6, 2, pads=[1] * 4))
    pool = net.node("GlobalAveragePool", "pool", stem)
    inner = net.node("Relu", "inner", net.conv("conv1", pool, 5, 6, 1))
    return classified(net, net.node("Add", "sum", stem, net.conv("conv2", inner, 6, 5, 1)), 6)


def one_for_all() -> Net:
    """A map of one channel is added to all."""
    net = Net(2, 6, 6)
    stem = net.node("Relu", "stem", net.conv("conv0", "x", 6, 2, pads=[1] * 4))
    inner = net.node("Relu", "inner", net.conv("conv1", stem, 5, 6, 1))
    return classified(net, net.node("Add", "sum", stem, net.conv("conv2", inner, 1, 5, 1)), 6)


def constant_map() -> Net:
    """A constant map is added to a pooled one."""
    net = Net(2, 6, 6)
    stem = net.node("Relu", "stem", net.conv("conv0", "x", 6, 2, pads=[1] * 4))
    one = net.conv("conv1", net.node("GlobalAveragePool", "pool", stem), 5, 6, 1)
    return classified(net, net.node("Add", "sum", one, net.weight("map", 1, 5, 3, 3)), 5)


def rows() -> Net:
    """Time steps are rows of a Gemm."""
    net = Net(5, 6)
    flat = net.node("Reshape", "rows", "x", net.ints("rows.shape", -1, 6))
    one = net.node("Relu", "relu1", net.gemm("conv1", flat, 8, 6))
    two = net.node("Relu", "relu2", net.gemm("two", one, 7, 8))
    steps = net.node("Reshape", "steps", two, net.ints("steps.shape", -1, 5, 7))
    net.gemm("y", net.node("ReduceMean", "mean", steps, axes=[1], keepdims=0), 4, 7)
    return net


def time_first(steps: int = 70) -> Net:
    """Axis 0 is time."""
    net = Net(steps, 6)
    turned = net.node("Transpose", "turned", "x", perm=[1, 0, 2])
    one = net.node("Relu", "relu1", net.node("MatMul", "conv1", turned, net.weight("v", 6, 8)))
    two = net.node("Transpose", "back", net.node("MatMul", "two", one, net.weight("w", 8, 7)), perm=[1, 0, 2])
    net.gemm("y", net.node("ReduceMean", "mean", two, axes=[1], keepdims=0), 4, 7)
    return net


def constant_read() -> Net:
    """A Gemm reads a constant."""
    net = Net(6)
    fixed = net.gemm("fixed", net.weight("k", 1, 5), 8, 5)
    one = net.node("Relu", "relu1", net.node("Add", "sum", net.gemm("first", "x", 8, 6), fixed))
    net.gemm("y", net.node("Relu", "relu2", net.gemm("conv1", one, 7, 8)), 4, 7)
    return net


def clipped() -> Net:
    """Limits are tensors of one number each."""
    net = Net(2, 6, 5)
    limits = [net.constant(name, [value]) for name, value in (("low", 0.0), ("high", 6.0))]
    one = net.node("Clip", "relu1", net.conv("conv1", "x", 6, 2), *limits)
    return classified(net, net.conv("conv2", one, 5, 6), 5)


NETS = {
    "global context": global_context,
    "one channel for all": one_for_all,
    "constant map": constant_map,
    "rows": rows,
    "time first": time_first,
    "constant read": constant_read,
    "limits of one axis": clipped,
}


@pytest.mark.parametrize("name", NETS)
def test_awkward_graphs_are_refitted_or_left_alone(name: str) -> None:
    found = Refitted(NETS[name](), conv1=[0, 3])
    assert found.report.changed or found.report.declined
    assert found.error <= 1.05 * found.before


def dense(shape: tuple[int, ...] | None, dtype: type[np.generic] = np.float32) -> Net:
    """Products with constants of ``shape`` added for biases, or none."""
    net, made = Net(5, 8, dtype=dtype), "x"
    for number, (into, out) in enumerate([(8, 12), (12, 12), (12, 12)]):
        made = net.node("MatMul", f"conv{number}", made, net.weight(f"w{number}", into, out))
        if shape is not None:
            made = net.node("Add", f"add{number}", made, net.weight(f"b{number}", *shape, out))
        made = net.node("Relu", f"relu{number}", made)
    net.gemm("y", net.node("ReduceMean", "mean", made, axes=[1], keepdims=0), 4, 12)
    return net


@pytest.mark.parametrize("shape", [None, (), (1,), (1, 1)])
def test_the_step_of_a_pair_starts_from_what_the_layer_makes(
    shape: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Biases lie in sums behind products: the step has to know the one that was just fitted."""
    seen, given = [], layer_pair.LayerPair.move

    def spy(pair: layer_pair.LayerPair, rows: Any, fitted: Any) -> Any:
        monkeypatch.setattr(layer_pair.LayerPair, "_length", lambda *_: 0.0)  # stay there
        seen.append((pair, given(pair, rows, fitted), pair._read(0)))
        return fitted

    made: list[np.ndarray] = []
    reader = layer_pair.LayerPair._reader
    monkeypatch.setattr(layer_pair.LayerPair, "move", spy)
    monkeypatch.setattr(
        layer_pair.LayerPair,
        "_reader",
        lambda pair, values, rows: made.append(values[0]) or reader(pair, values, rows),
    )
    found = Refitted(dense(shape), conv0=[0, 3, 4], conv1=[2, 5])
    assert len(made) == 2
    for (pair, _, read), values in zip(seen, made, strict=True):
        name = pair.second.node.inputs[0].name
        staged = StagedRun(found.model, Batches.of({pair.first.node.inputs[0].name: read}, len(read)), CPU)
        (true,) = staged.at(staged.nodes[pair.first.node.name], [name])
        np.testing.assert_allclose(np.clip(values, *pair.first.limits), true[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_samples_of_another_type_than_the_model_takes(dtype: type[np.generic]) -> None:
    net = dense((), dtype)
    model = small.model(net)
    data = small.samples(small.inputs(net.shape, 60))
    assert refit_cut(model, data, conv1=[0, 3])[1].changed == 4


def test_fewer_samples_than_a_batch_of_fixed_size() -> None:
    net, model = seven_at_once()
    with pytest.raises(GraftError, match="takes 7 samples at once, and there are 3"):
        refit_cut(model, small.samples(small.inputs(net.shape, 3)), conv1=[0])
