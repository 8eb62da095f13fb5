"""Which output holds the scores, what is no classifier, and when a draft is no success."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.evaluation import score
from tests.rewriter.measure.draft.kit import CLASSES, FLAT, SIDE, Task, classifier, draft, model, node
from tests.small import CPU

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def with_outputs(
    task: Task, nodes: list[onnx.NodeProto], **outputs: tuple[int, list[object]]
) -> onnx.ModelProto:
    weights, bias = task.head()
    extra = {"k": np.array([2]), "one": np.array([1])}
    made = [*FLAT, node("Gemm", "flat w b", "z"), *nodes]
    used = {name: value for name, value in extra.items() if any(name in each.input for each in made)}
    return model(made, {"w": weights, "b": bias, **used}, {"x": (FLOAT, ["N", SIDE, SIDE])}, outputs)


def test_the_best_of_several_outputs_is_taken_and_the_others_named() -> None:
    task = Task()
    nodes = [
        node("Neg", "z", "auxiliary"),
        node("Identity", "z", "main"),
        node("Identity", "flat", "embedding"),
    ]
    sizes = {"auxiliary": (FLOAT, ["N", 4]), "main": (FLOAT, ["N", 4]), "embedding": (FLOAT, ["N", 64])}
    found = draft(with_outputs(task, nodes, **sizes), task.split())
    assert found.card.output.name == "main"
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())
    assert any("auxiliary, embedding" in note for note in found.notes)


RANKED = {
    "ArgMax": ([node("ArgMax", "z", "y", axis=1, keepdims=0)], {"y": (INT64, ["N"])}),
    "ArgMax as float": (
        [node("ArgMax", "z", "a", axis=1, keepdims=0), node("Cast", "a", "y", to=1)],
        {"y": (FLOAT, ["N"])},
    ),
    "ArgMax and the highest": (
        [node("ArgMax", "z", "i", axis=1, keepdims=0), node("ReduceMax", "z", "y", axes=[1], keepdims=0)],
        {"i": (INT64, ["N"]), "y": (FLOAT, ["N"])},
    ),
    "TopK": ([node("TopK", "z k", "y i", axis=1)], {"y": (FLOAT, ["N", 2]), "i": (INT64, ["N", 2])}),
}


@pytest.mark.parametrize("name", RANKED)
@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
def test_scores_before_class_numbers_are_read(name: str, with_data: bool, tmp_path: Path) -> None:
    task = Task()
    nodes, outputs = RANKED[name]
    proto = with_outputs(task, nodes, **outputs)
    found = draft(proto, task.split() if with_data else None)
    assert (found.card.output.name, found.card.output.kind) == ("z", "logits")
    assert name.split()[0] in found.notes[0]
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "m.yaml").write_text(found.card.to_yaml(), encoding="utf-8")
    loaded = Model.load(tmp_path / "m.onnx")
    scored = score(loaded, Samples.match(task.split(), loaded.require_card()), CPU)
    np.testing.assert_allclose(scored.scores, task.posterior, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["ArgMax", "ArgMax as float", "TopK"])
def test_a_card_of_class_numbers_names_the_scores(name: str, tmp_path: Path) -> None:
    task = Task()
    nodes, outputs = RANKED[name]
    onnx.save(with_outputs(task, nodes, **outputs), tmp_path / "m.onnx")
    text = draft(classifier(task, ["N", SIDE, SIDE])).card.to_yaml()
    (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(GraftError, match=f"{name.split()[0]} made.*name the scores before it.*'z'"):
        Model.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (["N", 84, 100], "boxes"),
        (["N", 100, 85], "boxes"),
        (["N", 4, SIDE, SIDE], "map"),
        (["N", 4, "H", "W"], "map"),
    ],
)
@pytest.mark.parametrize("with_data", [True, False], ids=["data", "no data"])
def test_detectors_and_segmenters_are_refused(shape: list[object], words: str, with_data: bool) -> None:
    task = Task(3)
    inner = [size if isinstance(size, int) else 9 for size in shape[1:]]
    features = int(np.prod(inner))
    target = np.array([-1, *inner])
    weights = np.random.default_rng(0).normal(size=(SIDE * SIDE * 3, features)).astype(np.float32)
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat w", "r"), node("Reshape", "r s", "y")]
    proto = model(
        nodes, {"w": weights, "s": target}, {"x": (FLOAT, ["N", 3, SIDE, SIDE])}, {"y": (FLOAT, shape)}
    )
    with pytest.raises(GraftError, match=words):
        draft(proto, task.split() if with_data else None)


def test_what_the_file_says_it_is_for_counts() -> None:
    task = Task()
    names = str(dict(enumerate("abcd")))
    for kind in ("detect", "segment", "pose"):
        proto = classifier(task, ["N", SIDE, SIDE])
        proto.metadata_props.add(key="task", value=kind)
        with pytest.raises(GraftError, match=f"task: {kind}"):
            draft(proto, task.split())
    proto = classifier(task, ["N", SIDE, SIDE])
    proto.metadata_props.add(key="task", value="classify")
    proto.metadata_props.add(key="names", value=names)
    assert draft(proto, task.split()).card.labels == tuple("abcd")


def test_outputs_called_boxes_are_a_detectors() -> None:
    task = Task()
    nodes = [node("Identity", "z", "scores"), node("Identity", "z", "boxes")]
    proto = with_outputs(task, nodes, scores=(FLOAT, ["N", 4]), boxes=(FLOAT, ["N", 4]))
    with pytest.raises(GraftError, match="scores, boxes"):
        draft(proto, task.split())


def test_a_label_for_each_time_step() -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(60, 5, 3)).astype(np.float32)
    part = Dataset.from_arrays(x, (x @ weights).argmax(-1)).split("train")
    for steps in (5, "T"):
        inputs, outputs = {"x": (FLOAT, ["N", steps, 3])}, {"y": (FLOAT, ["N", steps, 4])}
        proto = model([node("MatMul", "x w", "y")], {"w": weights}, inputs, outputs)
        found = draft(proto, part)
        assert found.card.output.steps
        assert (found.top1, len(found.card.labels)) == (1, 4)
        assert draft(proto).card.output.steps


@pytest.mark.parametrize("shape", [["N", 1, 4], ["N", 4, 1, 1], ["N", 1, 1, 4]])
def test_axes_of_one_number_do_not_count(shape: list[object]) -> None:
    task = Task()
    target = onnx.helper.make_node("Constant", [], ["s"], value_ints=[-1, *shape[1:]])
    proto = classifier(
        task, ["N", SIDE, SIDE], after=[target, node("Reshape", "z s", "y")], output=(FLOAT, shape)
    )
    found = draft(proto, task.split())
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())
    assert (found.card.output.steps, len(found.card.labels)) == (False, CLASSES)


def test_rows_that_are_not_samples_are_refused() -> None:
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    nodes = [node("MatMul", "x w", "m"), node("ReduceMean", "m", "y", axes=[0], keepdims=0)]
    proto = model(nodes, {"w": weights}, {"x": (FLOAT, ["A", "B", 3])}, {"y": (FLOAT, ["C", 4])})
    with pytest.raises(GraftError, match=r"rows are not samples.*batch_axis"):
        draft(proto)


def test_chance_is_no_success() -> None:
    task = Task()
    task.labels = np.random.default_rng(1).integers(0, CLASSES, len(task.labels))
    found = draft(classifier(task, ["N", SIDE, SIDE]), task.split())
    assert "no better than chance" in found.problem


def test_a_run_that_fails_has_no_accuracy() -> None:
    proto = model(
        [node("MatMul", "x w", "y")],
        {"w": np.ones((6, CLASSES), np.float32)},
        {"x": (FLOAT, ["N", 6])},
        {"y": (FLOAT, ["N", CLASSES])},
    )
    part = Dataset.from_arrays(np.ones((40, 5), np.float32), np.arange(40) % CLASSES).split("train")
    found = draft(proto, part)
    assert "did not run" in found.problem
    assert found.top1 is None
    assert all(each.error and each.top1 is None for each in found.candidates)


@pytest.mark.parametrize("size", [[1, 64], [1, -1]])
def test_a_batch_fixed_inside_is_run_one_by_one(size: list[int]) -> None:
    task = Task()
    target = onnx.helper.make_node("Constant", [], ["s"], value_ints=size)
    found = draft(classifier(task, ["N", SIDE, SIDE], [target, node("Reshape", "x s", "flat")]), task.split())
    assert found.top1 == pytest.approx((task.posterior.argmax(1) == task.labels).mean())
    assert any("one sample at a time" in note for note in found.notes)


@pytest.mark.parametrize("labelled", [False, True])
def test_scores_without_an_axis_of_samples(labelled: bool) -> None:
    """A fixed batch of 1 that is squeezed away at the end."""
    task = Task()
    end = [node("Gemm", "flat w b", "z"), onnx.helper.make_node("Squeeze", ["z"], ["y"], name="end")]
    weights, bias = task.head()
    proto = model(
        [*FLAT, *end], {"w": weights, "b": bias}, {"x": (FLOAT, [1, SIDE, SIDE])}, {"y": (FLOAT, [CLASSES])}
    )
    with pytest.raises(GraftError, match="without a squeeze at the end") as caught:
        draft(proto, task.split() if labelled else None)
    assert caught.value.code == "output-rows"
