"""Where samples lie: on the first axis, on another one, nowhere; an output that has other rows is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graft.passes.base import Context
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.select.observe import Observe
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sample_axes import sample_axes
from graft.rewriter.measure.evaluation import score
from graft.rewriter.run.equivalence import check
from tests import small

STEPS, FEATURES, UNITS, CLASSES = 5, 3, 6, 4
Array = small.Array


def gru(x: list[Any], y: list[Any], state: list[Any] | None = None, seed: int = 0) -> onnx.ModelProto:
    """A GRU over (steps, samples, features) whose last state makes four classes."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(size=(1, 3 * UNITS, FEATURES)),
        "r": rng.normal(size=(1, 3 * UNITS, UNITS)) / 2,
        "b": rng.normal(size=(1, 6 * UNITS)),
        "head": rng.normal(size=(UNITS, CLASSES)),
    }
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    constants.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    nodes = [
        helper.make_node(
            "GRU", ["x", "w", "r", "b", "", "h" if state else ""], ["", "last"], name="gru", hidden_size=UNITS
        ),
        helper.make_node("Squeeze", ["last", "first"], ["features"], name="squeeze"),
        helper.make_node("MatMul", ["features", "head"], ["y"], name="matmul"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)]
    if state:
        inputs.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, state))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)]
    graph = helper.make_graph(nodes, "gru", inputs, outputs, constants)
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(result)
    return result


def card(*inputs: dict[str, Any]) -> Card:
    given = [{"name": "x", "kind": "tensor"}, *inputs] if not inputs or inputs[0]["name"] != "x" else inputs
    output = {"name": "y", "kind": "logits"}
    return Card.model_validate({"inputs": list(given), "output": output, "labels": list(small.LABELS)})


def data(count: int = 37, states: bool = False, steps: int = STEPS) -> dict[str, Array]:
    """Samples first, as data always are."""
    rng = np.random.default_rng(1)
    found = {"x": rng.normal(size=(count, steps, FEATURES)).astype(np.float32)}
    if states:
        found["h"] = rng.normal(size=(count, 1, UNITS)).astype(np.float32)
    return found


def expected(proto: onnx.ModelProto, raw: dict[str, Array]) -> Array:
    """What onnxruntime gives where samples lie on axis 1 of every input."""
    feed = {name: np.moveaxis(array, 0, 1) for name, array in raw.items()}
    return small.CPU.open(proto).run(feed, ["y"])["y"]


def matched(raw: dict[str, Array], of: Card, labels: Array | None = None) -> Samples:
    count = len(next(iter(raw.values())))
    truth = np.arange(count) % CLASSES if labels is None else labels
    split = Split("test", truth.astype(np.int64), None, lambda at, _: {n: a[at] for n, a in raw.items()})
    return Samples.match(split, of)


FREE = (["t", "n", FEATURES], ["n", CLASSES])


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (*FREE, None),
        ([STEPS, "n", FEATURES], ["n", CLASSES], None),
        ([STEPS, "n", FEATURES], [None, CLASSES], 1),
        ([None, None, FEATURES], [None, CLASSES], 1),
        ([STEPS, 1, FEATURES], [1, CLASSES], 1),
        ([STEPS, 7, FEATURES], [7, CLASSES], 1),
    ],
)
def test_scores_of_a_model_that_takes_time_first(x: list[Any], y: list[Any], said: int | None) -> None:
    proto = gru(x, y)
    of = card({"name": "x", "kind": "tensor", **({} if said is None else {"batch_axis": said})})
    raw = data()
    wanted = expected(gru(*FREE), raw)
    found = score(Model.from_proto(proto, of), matched(raw, of), small.CPU)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 5, 32])
@pytest.mark.parametrize(
    ("x", "y"), [([None, None, FEATURES], [None, CLASSES]), ([None, "n", FEATURES], ["m", CLASSES])]
)
def test_rows_that_are_not_samples_are_refused(x: list[Any], y: list[Any], steps: int) -> None:
    of, raw = card(), data(64, steps=steps)
    with pytest.raises(GraftError, match="batch_axis: 1") as caught:
        score(Model.from_proto(gru(x, y), of), matched(raw, of), small.CPU)
    assert caught.value.code == "output-rows"


def test_a_fixed_number_of_steps_is_not_taken_for_a_batch() -> None:
    """Five samples of five steps fit a model that takes five steps of any number of samples."""
    of, raw = card(), data(60)
    with pytest.raises(GraftError, match="batch_axis: 1"):
        score(
            Model.from_proto(gru([STEPS, None, FEATURES], [None, CLASSES]), of), matched(raw, of), small.CPU
        )


def test_steps_that_are_taken_for_samples_are_refused() -> None:
    """A tagger that takes time first gives as many rows as it gets, whatever its axes mean."""
    proto = gru(["t", "n", FEATURES], ["t", "n", CLASSES])
    node = proto.graph.node[0]
    del node.output[:]
    node.output.extend(["states"])
    proto.graph.node[1].input[0] = "states"
    proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([1], np.int64), "first"))
    onnx.checker.check_model(proto)
    of = card().replace(output={"name": "y", "kind": "logits", "steps": True})
    raw = data(20)
    samples = matched(raw, of, np.zeros((20, STEPS), np.int64))
    with pytest.raises(GraftError, match="batch_axis: 1") as caught:
        score(Model.from_proto(proto, of), samples, small.CPU)
    assert caught.value.code == "output-rows"


def test_initial_states_are_inputs() -> None:
    proto = gru(*FREE, state=[1, "n", UNITS])
    of, raw = card({"name": "h", "kind": "tensor"}), data(states=True)
    found = score(Model.from_proto(proto, of), matched(raw, of), small.CPU)
    np.testing.assert_allclose(found.scores, expected(proto, raw), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("state", [[1, "n", UNITS], [1, 1, UNITS]])
def test_a_constant_input_is_not_in_the_data(state: list[Any]) -> None:
    fixed = state[1] == 1
    proto = gru([STEPS, 1 if fixed else "n", FEATURES], [1 if fixed else "n", CLASSES], state)
    of = card(
        {"name": "x", "kind": "tensor", "batch_axis": 1}, {"name": "h", "kind": "tensor", "constant": 0.5}
    )
    raw = data(9)
    free = gru(*FREE, state=[1, "n", UNITS])
    wanted = expected(free, {**raw, "h": np.full((9, 1, UNITS), 0.5, np.float32)})
    found = score(Model.from_proto(proto, of), matched(raw, of), small.CPU)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4, atol=1e-5)


def test_an_input_without_data_names_the_key() -> None:
    of, raw = card({"name": "h", "kind": "tensor"}), data()
    with pytest.raises(GraftError, match=r"constant: 0\.0"):
        score(Model.from_proto(gru(*FREE, state=[1, "n", UNITS]), of), matched(raw, of), small.CPU)


def test_a_constant_of_unknown_size_names_its_axis() -> None:
    of, raw = card({"name": "h", "kind": "tensor", "constant": 0.0}), data()
    with pytest.raises(GraftError, match="axis 1 open"):
        score(Model.from_proto(gru(*FREE, state=[1, "other", UNITS]), of), matched(raw, of), small.CPU)


@pytest.mark.parametrize("states", [False, True])
def test_a_module_of_a_model_that_takes_time_first(states: bool) -> None:
    """With nothing pruned the module gives the parent's scores; the profile has every channel."""
    proto = gru(*FREE, state=[1, "n", UNITS] if states else None)
    of = card({"name": "h", "kind": "tensor"}) if states else card()
    raw = data(60, states)
    wanted = expected(proto, raw)
    samples = matched(raw, of, wanted.argmax(axis=1))
    parent = Parent(Model.from_proto(proto, of))
    profile = Observe()(parent, small.context(samples=samples)).profile
    assert profile.top1 == 1
    assert profile.tables["sum"]
    context = Context(samples=samples, profile=profile, device=small.CPU)
    whole = Decompose(["a", "b"], verify=True)(parent, context).model
    session = small.CPU.open(whole)
    np.testing.assert_allclose(session.run(session.feed(raw))["y"], wanted[:, :2], rtol=1e-4, atol=1e-4)
    pruned = Decompose(["a", "b"], keep=0.5, compensate="refit", verify=True)
    half = pruned(parent, context)
    assert half.cost.macs < parent.cost.macs
    assert [list(each.shape) for each in half.model.graph.inputs] == [
        ["t", "n", FEATURES],
        *([[1, "n", UNITS]] if states else []),
    ]
    check(half.model)


@pytest.mark.parametrize("fixed", [False, True])
def test_modules_that_take_time_first_are_joined(fixed: bool) -> None:
    """Side by side, with nothing pruned, they say what their parent says."""
    of = card({"name": "x", "kind": "tensor", "batch_axis": 1})
    proto = gru([STEPS, 1, FEATURES], [1, CLASSES]) if fixed else gru(*FREE)
    raw = data(60)
    wanted = expected(gru(*FREE), raw)
    samples = matched(raw, of, wanted.argmax(axis=1))
    parent = Parent(Model.from_proto(proto, of))
    profile = Observe()(parent, small.context(samples=samples)).profile
    modules = [Decompose([name])(parent, small.context(profile)).model for name in small.LABELS]
    composite = Compose("branches")(Modules(modules), Context(device=small.CPU)).model
    check(composite)
    assert list(composite.graph.inputs[0].shape)[1:] == ([1, FEATURES] if fixed else ["n", FEATURES])
    found = score(composite, samples, small.CPU)
    assert found.correct.all()


def test_a_batch_that_a_node_fixes_is_run_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    net = small.Net(2, 3)
    net.gemm("y", net.node("Reshape", "to_rows", "x", net.ints("shape", 1, 6)), CLASSES, 6)
    model, x = small.model(net), small.inputs((2, 3), 7)
    with caplog.at_level(logging.WARNING, "graft"):
        found = score(model, small.samples(x, np.arange(7) % CLASSES), small.CPU)
        score(model, small.samples(x, np.arange(7) % CLASSES), small.CPU)
    wanted = np.concatenate([small.run(model, x[row : row + 1])["y"] for row in range(7)])
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-5)
    assert [record.message for record in caplog.records] == [
        "Reshape to_rows fixes the batch at 1 inside the model: samples are run one by one"
    ]


@pytest.mark.parametrize(
    ("x", "y", "axis"),
    [
        (("n", "t", 3), ("n", 4), 0),
        (("t", "n", 3), ("n", 4), 1),
        ((8, "n", 3), ("n", 4), 1),
        (("t", "n", 3), ("m", 4), 0),
        (("t", "n", "n"), ("n", 4), 0),
        ((None, "n", 3), ("n", 4), 0),
        (("?", "?", 3), ("?", 4), 0),
        (("unk__1", "unk__2", 3), ("unk__2", 4), 0),
    ],
)
def test_names_decide_only_where_they_are_plain(x: Any, y: Any, axis: int) -> None:
    assert sample_axes({"x": x}, {"y": y}, None) == {"x": axis}
