"""Samples that are merged with other positions: where they lie, and what is recorded of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graft.passes.identify import ImportanceInputs, method_of
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.sample_layout import SampleLayout
from tests import small

STEPS, WIDTH = 5, 6


def network(time_first: bool, merged: bool) -> small.Net:
    """A layer on (samples, steps, features): on all steps in one batch, or on three axes."""
    net = small.Net(STEPS, 3)
    x, order = "x", [STEPS, -1] if time_first else [-1, STEPS]
    if time_first:
        x = net.node("Transpose", "turned", x, perm=[1, 0, 2])
    if merged:
        x = net.node("Reshape", "merged", x, net.ints("rows", -1, 3))
    x = net.node("Relu", "relu", net.node("MatMul", "dense", x, net.weight("w", 3, WIDTH)))
    x = net.node("MatMul", "second", x, net.weight("v", WIDTH, 4))
    if merged:
        x = net.node("Reshape", "apart", x, net.ints("steps", *order, 4))
    net.node("ReduceMean", "y", x, axes=[0 if time_first else 1], keepdims=0)
    return net


@pytest.mark.parametrize("time_first", [False, True])
def test_statistics_of_merged_samples_are_those_of_steps(time_first: bool) -> None:
    samples = small.samples(small.inputs((STEPS, 3), 40))
    tables = []
    for merged in (False, True):
        model = small.model(network(time_first, merged))
        analysed = Analysed.of(model)
        layout = analysed.groups.sample_layout("relu")
        if merged:
            assert layout == (SampleLayout(0, STEPS, 1) if time_first else SampleLayout(0, 1, STEPS))
        profile = small.profile(model, samples)
        inputs = ImportanceInputs(analysed, profile, small.LABELS, ("a", "b"), 0, samples, small.CPU)
        scores = method_of("ablation").scores(inputs)[analysed.groups["dense"].channels]
        tables.append((profile.tables, scores))
    (apart, one), (together, other) = tables
    for name in ("sum", "squares", "active", "products"):
        np.testing.assert_allclose(apart[name]["relu"], together[name]["relu"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    assert (one > 0).all()


def test_heads_are_merged_with_samples_and_come_apart_again() -> None:
    """As in PyTorch's attention: (steps, samples, width) to (samples * heads, steps, part) and back."""
    net = small.Net(STEPS, WIDTH)
    first = net.node("Transpose", "first", "x", perm=[1, 0, 2])
    made = net.node("MatMul", "made", first, net.weight("w", WIDTH, WIDTH))
    heads = net.node("Reshape", "heads", made, net.ints("by_head", STEPS, -1, 2))
    turned = net.node("Transpose", "turned", heads, perm=[1, 0, 2])
    scored = net.node("MatMul", "scored", turned, net.node("Transpose", "keys", turned, perm=[0, 2, 1]))
    mixed = net.node("MatMul", "mixed", net.node("Softmax", "shares", scored, axis=-1), turned)
    back = net.node("Transpose", "back", mixed, perm=[1, 0, 2])
    rows = net.node("Reshape", "rows", back, net.ints("by_row", -1, WIDTH))
    net.node("MatMul", "out", rows, net.weight("v", WIDTH, 4))
    net.node(
        "ReduceMean",
        "y",
        net.node("Reshape", "apart", "out", net.ints("s", STEPS, -1, 4)),
        axes=[0],
        keepdims=0,
    )
    groups = Analysed.of(Model.from_proto(net.proto(y=[4]), small.card())).groups
    assert groups.sample_layout("made") == SampleLayout(1)
    assert groups.sample_layout("heads") == SampleLayout(1, 1, 3)
    assert groups.sample_layout("mixed") == SampleLayout(0, 1, 3)
    assert groups.sample_layout("rows") == SampleLayout(0, STEPS, 1)
    assert groups.sample_layout("apart") == SampleLayout(1)


def test_an_order_that_is_not_known_is_not_guessed() -> None:
    net = small.Net(3)
    both = net.node("Concat", "both", "x", net.node("Neg", "less", "x"), axis=0)
    net.node("Relu", "relu", both)
    proto = net.proto(relu=[3])
    assert isinstance(proto, onnx.ModelProto)
    assert Analysed.of(Model.from_proto(proto)).groups.sample_layout("relu") is None
