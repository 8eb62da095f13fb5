"""A batch that exporters fixed is freed where each sample gets what it gets alone, and nowhere else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from graft.passes.base import Context
from graft.passes.decompose import Decompose
from graft.passes.normalize.batch_targets import NodeShapes, freed_target
from graft.passes.normalize.free_batch import BATCH, FreeBatch, fix_batch
from graft.passes.normalize.simplify import Normalize
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.sample_layout import SampleLayout
from graft.rewriter.measure.evaluation import score
from tests import small

STEPS, FEATURES, UNITS = 5, 3, 6
Array = small.Array


@dataclass
class Sequence:
    """Builds a network on (batch, steps, features) piece by piece, with the batch written everywhere."""

    batch: int
    net: small.Net
    x: str
    steps: int = STEPS
    width: int = FEATURES
    count: int = 0

    @classmethod
    def start(cls, batch: int, seed: int = 0) -> Sequence:
        return cls(batch, small.Net(STEPS, FEATURES, seed=seed), "x")

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}{self.count}"

    def reshape(self, *shape: int) -> None:
        name = self.name("reshape")
        self.x = self.net.node("Reshape", name, self.x, self.net.ints(f"{name}.shape", *shape))

    def flat_dense(self, hidden: bool = False) -> None:
        """A layer on (batch * steps, features), as of Keras' TimeDistributed; ``hidden``: the batch is -1."""
        self.reshape(-1 if hidden else self.batch * self.steps, self.width)
        self.x = self.net.node(
            "Relu", self.name("relu"), self.net.gemm(self.name("dense"), self.x, 8, self.width)
        )
        self.width = 8
        self.reshape(*((self.batch, -1) if hidden else (self.batch, self.steps)), 8)

    def recurrent(self, op: str, state: float | None) -> None:
        """A recurrent layer, time first inside, with a constant initial state."""
        gates, name = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], self.name(op.lower())
        first = self.net.node("Transpose", f"{name}.in", self.x, perm=[1, 0, 2])
        weights = [
            self.net.weight(f"{name}.w", 1, gates * UNITS, self.width),
            self.net.weight(f"{name}.r", 1, gates * UNITS, UNITS),
            self.net.weight(f"{name}.b", 1, 2 * gates * UNITS),
        ]
        states = []
        if state is not None:
            row = np.linspace(-state, state, UNITS)
            values = np.broadcast_to(row, (1, self.batch, UNITS))
            states = [
                self.net.constant(f"{name}.{n}", values) for n in ("h", "c")[: 2 if op == "LSTM" else 1]
            ]
        made = self.net.node(op, name, first, *weights, "", *states, hidden_size=UNITS)
        flat = self.net.node("Squeeze", f"{name}.flat", made, self.net.ints(f"{name}.axis", 1))
        self.x = self.net.node("Transpose", f"{name}.out", flat, perm=[1, 0, 2])
        self.width = UNITS

    def token(self, spread: bool) -> None:
        """One more step that is the same for all samples, as a class token."""
        name = self.name("token")
        one = self.net.rng.normal(size=(1, 1, self.width))
        if spread:
            token = self.net.constant(f"{name}.one", one)
            shape = self.net.ints(f"{name}.shape", self.batch, 1, self.width)
            token = self.net.node("Expand", f"{name}.spread", token, shape)
        else:
            token = self.net.constant(f"{name}.one", np.broadcast_to(one, (self.batch, 1, self.width)))
        self.x, self.steps = self.net.node("Concat", name, token, self.x, axis=1), self.steps + 1

    def attention(self, time_first: bool) -> None:
        """Two heads, merged with the batch as PyTorch does it."""
        name, part = self.name("attention"), 4
        made = self.net.node(
            "MatMul", f"{name}.made", self.x, self.net.weight(f"{name}.w", self.width, 2 * part)
        )
        if time_first:
            made = self.net.node("Transpose", f"{name}.first", made, perm=[1, 0, 2])
            sizes = (self.steps, self.batch * 2, part)
        else:
            sizes = (self.batch, self.steps, 2, part)
        heads = self.net.node("Reshape", f"{name}.heads", made, self.net.ints(f"{name}.s", *sizes))
        heads = self.net.node(
            "Transpose", f"{name}.turned", heads, perm=[1, 0, 2] if time_first else [0, 2, 1, 3]
        )
        keys = self.net.node(
            "Transpose", f"{name}.keys", heads, perm=[0, 2, 1] if time_first else [0, 1, 3, 2]
        )
        scores = self.net.node(
            "Softmax", f"{name}.p", self.net.node("MatMul", f"{name}.qk", heads, keys), axis=-1
        )
        mixed = self.net.node("MatMul", f"{name}.mixed", scores, heads)
        back = self.net.node(
            "Transpose", f"{name}.back", mixed, perm=[1, 0, 2] if time_first else [0, 2, 1, 3]
        )
        self.x, self.width = back, 2 * part
        if time_first:
            self.reshape(self.steps * self.batch, 8)
            self.x = self.net.gemm(f"{name}.out", self.x, 8, 8)
            self.reshape(self.steps, self.batch, 8)
            self.x = self.net.node("Transpose", f"{name}.last", self.x, perm=[1, 0, 2])
        else:
            self.reshape(self.batch, self.steps, 8)

    def finish(self) -> Model:
        mean = self.net.node("ReduceMean", "mean", self.x, axes=[1], keepdims=0)
        self.net.gemm("y", mean, 4, self.width)
        proto = self.net.proto(y=[4])
        for value in (*proto.graph.input, *proto.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = self.batch
        model = Model.from_proto(proto, small.card())
        model.refresh_shapes()
        return model


def one_by_one(fixed: Model, batch: int, x: Array) -> Array:
    """What the fixed model says of each sample, each batch filled with copies of it."""
    return np.concatenate([small.run(fixed, np.repeat(row[None], batch, 0))["y"][:1] for row in x])


PIECES = st.sampled_from(
    ["flat", "hidden", "LSTM", "GRU", "RNN", "blank", "token", "spread", "heads", "heads first"]
)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.lists(PIECES, min_size=1, max_size=4), st.integers(0, 99))
def test_a_freed_batch_gives_every_sample_what_it_gets_alone(
    batch: int, pieces: list[str], seed: int
) -> None:
    made = Sequence.start(batch, seed)
    for piece in pieces:
        if piece in ("flat", "hidden"):
            made.flat_dense(piece == "hidden")
        elif piece.startswith("heads"):
            made.attention(piece == "heads first")
        elif piece in ("token", "spread"):
            made.token(piece == "spread")
        else:
            made.recurrent("LSTM" if piece == "blank" else piece, 0.0 if piece == "blank" else 0.7)
    fixed = made.finish()
    Normalize()(fixed, Context())
    freed = fixed.copy()
    report = FreeBatch()(freed, Context())
    assert report.changed, report.declined
    x = small.inputs((STEPS, FEATURES), 3)
    np.testing.assert_allclose(small.run(freed, x)["y"], one_by_one(fixed, batch, x), rtol=1e-3, atol=1e-5)
    fix_batch(freed, batch)
    assert freed.inputs() == fixed.inputs()
    assert freed.outputs() == fixed.outputs()
    again = np.repeat(x[:1], batch, 0)
    np.testing.assert_allclose(
        small.run(freed, again)["y"], small.run(fixed, again)["y"], rtol=1e-3, atol=1e-5
    )


def lstm(batch: int | None) -> Model:
    """The same network with a fixed batch, and as it is exported with a free one."""
    made = Sequence.start(batch or 1)
    made.recurrent("LSTM", 0.0)
    model = made.finish()
    if batch is None:
        FreeBatch()(model, Context())
        for tensor in (*model.graph.inputs, *model.graph.outputs):
            tensor.shape = ["n" if each == BATCH else each for each in tensor.shape]
    return model


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_is_planned_like_a_free_one(batch: int) -> None:
    """Plans, figures and outputs are the same; the module declares the batch that its parent does."""
    x = small.inputs((STEPS, FEATURES), 60)
    truth = small.run(lstm(None), x)["y"].argmax(axis=1)
    found = []
    for model in (lstm(batch), lstm(None)):
        samples = small.samples(x, truth, small.card())
        parent = Parent(model)
        profile = Observe()(parent, small.context(samples=samples)).profile
        report = Decompose(["a", "b"], 0.6, together=True, compensate="refit", verify=True)(
            parent, small.context(profile, samples)
        )
        scores = score(report.model, samples.take(np.isin(truth, [0, 1])), small.CPU).scores
        found.append((profile, report, scores))
    (one, fixed, first), (other, free, second) = found
    assert one.tables.keys() == other.tables.keys()
    assert fixed.plan.ranges() == free.plan.ranges()
    assert fixed.cost == free.cost
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
    assert list(fixed.model.graph.inputs[0].shape) == [batch, STEPS, FEATURES]
    assert [list(tensor.shape) for tensor in fixed.model.graph.outputs] == [[batch, 2], [batch, 1]]


def test_a_node_that_fixes_the_batch_is_freed() -> None:
    net = small.Net(2, 3)
    dense = net.node(
        "Relu", "relu", net.gemm("dense", net.node("Reshape", "to_rows", "x", net.ints("s", 1, -1)), 8, 6)
    )
    net.gemm("y", dense, 4, 8)
    model = small.model(net)
    x = small.inputs((2, 3), 40)
    wanted = np.concatenate([small.run(model, row[None])["y"] for row in x])
    parent = Parent(model)
    np.testing.assert_allclose(small.run(parent.model, x)["y"], wanted, rtol=1e-4, atol=1e-5)
    profile = Observe()(parent, small.context(samples=small.samples(x, wanted.argmax(axis=1)))).profile
    assert profile.top1 == 1
    assert "relu" in profile.tables["sum"]


def test_a_node_that_fixes_the_batch_behind_the_steps_is_freed() -> None:
    """Where time comes first, in a graph whose inputs leave the batch open."""
    net = small.Net(STEPS, FEATURES)
    turned = net.node("Transpose", "turned", "x", perm=[1, 0, 2])
    rows = net.node("Reshape", "to_steps", turned, net.ints("s", STEPS, 1, FEATURES))
    weights = [net.weight("W", 1, 3 * UNITS, FEATURES), net.weight("R", 1, 3 * UNITS, UNITS)]
    net.nodes.append(helper.make_node("GRU", [rows, *weights], ["", "last"], name="gru", hidden_size=UNITS))
    net.gemm("y", net.node("Squeeze", "flat", "last", net.ints("zero", 0)), 4, UNITS)
    model = small.model(net)
    x = small.inputs((STEPS, FEATURES), 40)
    wanted = np.concatenate([small.run(model, row[None])["y"] for row in x])
    parent = Parent(model)
    np.testing.assert_allclose(small.run(parent.model, x)["y"], wanted, rtol=1e-4, atol=1e-5)
    assert not parent.groups.unseen()


def test_what_mixes_samples_stays_fixed() -> None:
    """A squeezed batch of one: nothing says what two samples would be."""
    made = Sequence.start(1)
    made.recurrent("GRU", None)
    made.x = made.net.node("Squeeze", "alone", made.x, made.net.ints("alone.axis", 0))
    mean = made.net.node("ReduceMean", "mean", made.x, axes=[0], keepdims=1)
    made.net.gemm("y", mean, 4, UNITS)
    proto = made.net.proto(y=[4])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    model = Model.from_proto(proto, small.card())
    before = model.proto().SerializeToString(deterministic=True)
    report = FreeBatch()(model, Context())
    assert not report.changed
    assert "stays fixed" in str(report.declined[0])
    assert model.proto().SerializeToString(deterministic=True) == before


def hidden(width: int, seen: int) -> Model:
    """Two layers: ``width`` units for samples and their doubles in one batch, and ``seen`` units."""
    net = small.Net(3)
    double = net.node("Mul", "double", "x", net.constant("two", 2.0))
    both = net.node("Concat", "both", "x", double, axis=0)
    inner = net.node("Relu", "inner", net.gemm("merged", both, width, 3))
    back = net.gemm("back", inner, 4, width)
    net.nodes.append(helper.make_node("Split", [back], ["one", "other"], name="split", axis=0))
    outer = net.node("Relu", "outer", net.gemm("shown", net.node("Add", "sum", "one", "other"), seen, 4))
    net.gemm("y", outer, 4, seen)
    return small.model(net)


def test_channels_without_statistics_are_named(caplog: pytest.LogCaptureFixture) -> None:
    samples = small.samples(small.inputs((3,), 40))
    with caplog.at_level(logging.WARNING, "graft"):
        Observe()(Parent(hidden(2, 64)), small.context(samples=samples))
    (record,) = [record.message for record in caplog.records if "nothing is recorded" in record.message]
    assert "inner" in record and "outer" not in record


def test_channels_without_statistics_that_hold_most_of_the_cost_are_refused() -> None:
    samples = small.samples(small.inputs((3,), 40))
    with pytest.raises(GraftError, match="free batch dimension") as caught:
        Observe()(Parent(hidden(64, 4)), small.context(samples=samples))
    assert caught.value.code == "statistics-missing"


def test_a_model_that_is_seen_keeps_its_fixed_batch() -> None:
    model = small.model(small.conv_net())
    for tensor in (*model.graph.inputs, *model.graph.outputs):
        tensor.shape = [4, *tensor.shape[1:]]
    parent = Parent(model)
    assert parent.batch is None
    assert parent.model.graph.inputs[0].shape[0] == 4


@pytest.mark.parametrize(
    ("op", "target", "source", "result", "axis", "wanted"),
    [
        ("Reshape", [1, 96], (1, 24, 2, 2), (1, 96), 0, [-1, 96]),
        ("Reshape", [1, -1], (1, 24, 2, 2), (1, 96), 0, [-1, 96]),
        ("Reshape", [1, -1], (1, None, 2), (1, None), 0, None),
        ("Reshape", [1, -1, 4], (1, None, 2, 2), (1, None, 4), 0, [-1, 0, 4]),
        ("Reshape", [-1, 96], (1, 24, 2, 2), (1, 96), 0, None),
        ("Reshape", [0, -1], (1, 24, 2, 2), (1, 96), 0, None),
        ("Reshape", [5, 1, 6], (5, 1, 1, 6), (5, 1, 6), 2, [5, -1, 6]),
        ("Reshape", [5, 3], (1, 5, 3), (5, 3), 0, [-1, 3]),
        ("Reshape", [9, 4, 8], (9, 1, 32), (9, 4, 8), 1, [9, -1, 8]),
        ("Reshape", [3, 4, 8], (3, 1, 32), (3, 4, 8), 1, [3, -1, 8]),
        ("Reshape", [40, 32], (40, 1, 4, 8), (40, 32), 1, [-1, 32]),
        ("Expand", [1, 4, 6], (1, 1, 6), (1, 4, 6), 0, None),
        ("Expand", [3, 4, 6], (3, 1, 6), (3, 4, 6), 0, [1, 4, 6]),
    ],
)
def test_targets_let_the_batch_through(
    op: str, target: list[int], source: Any, result: Any, axis: int, wanted: list[int] | None
) -> None:
    assert freed_target(op, target, NodeShapes(source, result), SampleLayout(axis)) == wanted


def test_merged_samples_come_apart_as_they_were_merged() -> None:
    target = ("Reshape", [2, 5, 8], NodeShapes((10, 8), (2, 5, 8), 2))
    assert freed_target(*target, SampleLayout(0, 1, 5)) == [-1, 5, 8]
    assert freed_target("Reshape", [1, 5, 8], NodeShapes((5, 8), (1, 5, 8)), SampleLayout(0, 1, 5)) == [
        -1,
        5,
        8,
    ]
    assert freed_target("Reshape", [9, 1, 8], NodeShapes((9, 8), (9, 1, 8)), SampleLayout(0, 9, 1)) == [
        9,
        -1,
        8,
    ]
    assert freed_target("Reshape", [10, 3], NodeShapes((2, 5, 3), (10, 3), 2), SampleLayout(0)) == [-1, 3]
