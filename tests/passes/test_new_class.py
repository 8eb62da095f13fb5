"""A class from samples alone: on small networks whose classes are clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from graft.passes.base import Context
from graft.passes.discriminant.opened import Opened
from graft.passes.new_class import NewClass, NewClassReport
from graft.passes.remove import Remove
from graft.rewriter.data.dataset import Dataset
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import KEY, Mahalanobis
from graft.rewriter.record.provenance import origin_of
from graft.rewriter.run.equivalence import check
from tests import small
from tests.small import CPU

NAMES = ("a", "b", "c", "d", "e")
SIZE, HIDDEN = 8, 24
CENTERS = np.random.default_rng(3).normal(size=(len(NAMES), SIZE)) * 2


def clusters(count: int, seed: int, names: tuple[str, ...] = NAMES) -> tuple[Any, Any]:
    """``count`` samples of each class, float32 (samples, SIZE), and their names."""
    draw = np.random.default_rng(seed)
    rows = [CENTERS[NAMES.index(name)] + draw.normal(size=(count, SIZE)) * 0.5 for name in names]
    return np.concatenate(rows).astype(np.float32), np.repeat(np.array(names), count)


def split(count: int, seed: int = 1, names: tuple[str, ...] = NAMES) -> Split:
    return Dataset.from_arrays(*clusters(count, seed, names)).split("train")


def net(kind: str = "logits", head: str = "Gemm", opset: int = 17, dtype: Any = np.float32) -> Model:
    """Random features and a head that least squares fitted to all five classes, of which ``e`` is cut off."""
    made = small.Net(SIZE, opset=opset, dtype=dtype)
    hidden = made.node("Relu", "hidden", made.gemm("dense", "x", HIDDEN, SIZE))
    x, names = clusters(200, 0)
    features = small.activations(made, x.astype(dtype), "hidden")["hidden"]
    targets = 6.0 * (names[:, None] == np.array(NAMES))
    rows = np.concatenate([features, np.ones((len(x), 1))], axis=1)
    found = np.linalg.solve(rows.T @ rows + np.eye(HIDDEN + 1), rows.T @ targets)[:, :4]
    weights, bias = made.constant("w", found[:-1]), made.constant("b", found[-1])
    name = "y" if kind == "logits" and head != "Conv" else "scores"
    if head == "Gemm":
        made.node("Gemm", name, hidden, weights, bias)
    elif head == "MatMul":
        made.node("Add", name, made.node("MatMul", "product", hidden, weights), bias)
    else:
        maps = made.node("Reshape", "maps", hidden, made.ints("shape", 0, HIDDEN, 1, 1))
        kernel = made.constant("kernel", found[:-1].T[:, :, None, None])
        made.node("Conv", "y", maps, kernel, bias)
        return Model.from_proto(made.proto(y=[4, 1, 1]), small.card(NAMES[:4]))
    if kind == "probabilities":
        made.node("Softmax", "y", name, axis=1)
    return small.model(made, kind, NAMES[:4])


def context(data: Split | None) -> Context:
    return Context(data=data, device=CPU)


def scores(model: Model, x: Any) -> Any:
    return small.run(model, x)[model.require_card().output.name]


def accuracy(model: Model, names: tuple[str, ...] = NAMES) -> float:
    x, truth = clusters(100, 9, names)
    x = x.astype(model.graph.inputs[0].dtype)
    labels = np.array(model.require_card().labels)
    return float((labels[scores(model, x).argmax(axis=1)] == truth).mean())


def added(model: Model, data: Split, **options: Any) -> NewClassReport:
    return NewClass("e", **options)(model, context(data))


@pytest.mark.parametrize("head", ["Gemm", "MatMul"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_other_logits_stay_bit_for_bit(head: str, opset: int) -> None:
    base = net(head=head, opset=opset)
    before = base.proto().SerializeToString(deterministic=True)
    report = added(base, split(20))
    check(report.model)
    assert base.proto().SerializeToString(deterministic=True) == before
    x, _ = clusters(50, 5)
    found = scores(report.model, x)
    assert found.shape == (250, 5) and np.array_equal(found[:, :4], scores(base, x))
    assert report.others == "samples" and report.others_equal is True
    assert (report.samples, report.other_samples) == (20, 80)
    assert report.model.opset == opset and report.model.ir_version == base.ir_version
    assert report.model.require_card().labels == NAMES
    assert accuracy(report.model) > 0.97 and report.recall > 0.9
    operators = {node.op for node in report.model.graph.nodes}
    assert operators <= {"Gemm", "MatMul", "Add", "Relu", "Concat"}


def test_the_column_is_a_weighted_sum_of_the_features() -> None:
    base = net()
    report = added(base, split(20))
    features = small.activations_of(base, "hidden", clusters(50, 5)[0])
    node = next(each for each in report.model.graph.nodes if each.name.endswith("/score"))
    weights = node.inputs[1].values.astype(np.float64)
    expected = features @ weights[:, 0] - report.threshold
    assert np.allclose(scores(report.model, clusters(50, 5)[0])[:, 4], expected, atol=1e-4)


def test_probabilities_are_added_before_the_softmax() -> None:
    base = net("probabilities")
    report = added(base, split(20))
    x, _ = clusters(50, 5)
    before, after = scores(base, x), scores(report.model, x)
    assert np.allclose(after.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(after[:, :4], before * (1 - after[:, 4:]), atol=1e-5)
    assert report.others_equal is True and accuracy(report.model) > 0.97
    assert report.model.require_card().output.kind == "probabilities"


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_class_from_its_own_samples_alone(kind: str) -> None:
    """The rows of the head say where the other classes lie."""
    base = net(kind)
    report = added(base, split(20, names=("e",)))
    assert report.others == "head" and report.others_equal is True
    assert accuracy(report.model) > 0.9 and accuracy(report.model, ("e",)) > 0.75
    assert report.samples == 20 and report.other_samples == 200


def test_statistics_in_the_model_represent_the_others() -> None:
    base = net()
    x, names = clusters(100, 4, NAMES[:4])
    hidden = small.activations_of(base, "hidden", x)
    centers = np.stack([hidden[names == name].mean(axis=0) for name in NAMES[:4]])
    apart = hidden - np.repeat(centers, 100, axis=0)
    variances, vectors = np.linalg.eigh(apart.T @ apart / len(apart) + 1e-3 * np.eye(HIDDEN))
    numbers = (centers, vectors / np.sqrt(variances), [0.0], np.full(4, 24.0), np.full(4, 7.0))
    Mahalanobis("hidden", NAMES[:4], *(np.asarray(each, np.float32) for each in numbers)).attach(base)
    report = added(base, split(20, names=("e",)))
    assert report.others == "statistics" and report.others_equal is True
    assert accuracy(report.model) > 0.95
    mended = NewClass("a", replaces=True)(base, context(split(20, names=("a",))))
    assert mended.others == "statistics" and KEY not in mended.model.metadata


def test_a_class_is_replaced_in_its_place() -> None:
    base = net()
    report = NewClass("b", replaces=True)(base, context(split(20, names=NAMES[:4])))
    x, _ = clusters(50, 5)
    before, after = scores(base, x), scores(report.model, x)
    assert np.array_equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]]) and not np.allclose(after, before)
    assert report.model.require_card().labels == NAMES[:4]
    assert accuracy(report.model, NAMES[:4]) > 0.97
    again = NewClass("b", replaces=True)(report.model, context(split(30, 2, NAMES[:4])))
    assert np.array_equal(scores(again.model, x)[:, [0, 2, 3]], before[:, [0, 2, 3]])
    check(again.model)


def test_the_number_of_classes_may_have_a_name_in_the_file() -> None:
    base = net()
    base.graph.outputs[0].shape = ["N", "K"]
    report = NewClass("b", replaces=True)(base, context(split(20, names=NAMES[:4])))
    x, _ = clusters(50, 5)
    before, after = scores(base, x), scores(report.model, x)
    assert np.array_equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])


def test_an_added_class_can_be_removed_and_added_again() -> None:
    base = net()
    more = added(base, split(20)).model
    x, _ = clusters(50, 5)
    fewer = Remove(["e"])(more, Context(device=CPU)).model
    assert fewer.require_card().labels == NAMES[:4]
    assert np.allclose(scores(fewer, x), scores(base, x), atol=1e-5)
    twice = added(fewer, split(20)).model
    check(twice)
    assert np.array_equal(scores(twice, x)[:, :4], scores(fewer, x)) and accuracy(twice) > 0.97
    patches = origin_of(twice).options["patches"]
    assert [sorted(each)[0] for each in patches] == ["added", "removed", "added"]


def test_two_classes_are_added_one_after_the_other() -> None:
    base = Remove(["d"])(net(), Context(device=CPU)).model
    first = added(base, split(20)).model
    second = NewClass("d")(first, context(split(20))).model
    check(second)
    x, _ = clusters(50, 5)
    assert second.require_card().labels == ("a", "b", "c", "e", "d")
    assert np.array_equal(scores(second, x)[:, :4], scores(first, x)) and accuracy(second) > 0.97


def test_a_class_comes_before_the_rest() -> None:
    made = net()
    base = made.copy()
    base.card = made.require_card().replace(labels=("a", "b", "c", "(other)"))
    report = added(base, split(20, names=("a", "b", "c", "d", "e")))
    assert report.model.require_card().labels == ("a", "b", "c", "e", "(other)")
    x, _ = clusters(50, 5)
    assert np.array_equal(scores(report.model, x)[:, [0, 1, 2, 4]], scores(base, x))
    with pytest.raises(GraftError) as error:
        added(base, split(20, names=("e",)))
    assert error.value.code == "new-class-others"


def test_a_convolution_makes_the_classes() -> None:
    report = added(net(head="Conv"), split(20))
    check(report.model)
    x, _ = clusters(50, 5)
    found = scores(report.model, x)
    assert found.shape == (250, 5)
    assert np.array_equal(found[:, :4], scores(net(head="Conv"), x)[:, :, 0, 0])
    assert accuracy(report.model) > 0.97
    assert added(net(head="Conv"), split(20, names=("e",))).others == "head"


def test_a_joint_head_changes_all_columns() -> None:
    report = added(net(), split(40), joint=True)
    assert report.joint and report.others_equal is None and report.threshold is None
    assert accuracy(report.model) > 0.97 and report.top1 > 0.97
    with pytest.raises(GraftError) as error:
        added(net(), split(40, names=("a", "b", "e")), joint=True)
    assert error.value.code == "joint-samples" and "'c'" in str(error.value)


def test_some_old_classes_are_enough() -> None:
    """Those that have a sample only are left out, and said."""
    x, names = clusters(20, 1, ("a", "b", "e"))
    more, other = clusters(1, 1, ("c",))
    data = Dataset.from_arrays(np.concatenate([x, more]), np.concatenate([names, other])).split("train")
    report = added(net(), data)
    assert report.other_samples == 40 and any("c: 1 sample left out" in str(d) for d in report.declined)
    assert report.others_equal is True and accuracy(report.model, ("a", "b", "e")) > 0.97


def test_double_precision_stays() -> None:
    base = net(dtype=np.float64)
    report = added(base, split(20))
    x = clusters(50, 5)[0].astype(np.float64)
    assert np.array_equal(scores(report.model, x)[:, :4], scores(base, x))
    assert scores(report.model, x).dtype == np.float64 and accuracy(report.model) > 0.97


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("names", [NAMES, ("e",)])
def test_a_batch_that_the_file_fixes_stays(batch: int, names: tuple[str, ...]) -> None:
    base = net()
    base.graph.inputs[0].shape, base.graph.outputs[0].shape = [batch, SIZE], [batch, 4]
    report = added(base, split(20, names=names))
    check(report.model)
    assert report.model.graph.outputs[0].shape == [batch, 5] and report.others_equal is True
    x = clusters(50, 5)[0][:batch]
    assert np.array_equal(scores(report.model, x)[:, :4], scores(base, x))


def test_further_outputs_go_and_are_said() -> None:
    base = net()
    base.graph.outputs.append(base.graph.tensors()["hidden"])
    report = added(base, split(20))
    assert "dropped: the output hidden" in map(str, report.declined)


@pytest.mark.parametrize(
    ("made", "names", "code"),
    [
        (NewClass("a"), NAMES, "class-twice"),
        (NewClass("(other)"), NAMES, "class-name"),
        (NewClass(" "), NAMES, "class-name"),
        (NewClass("z", replaces=True), NAMES, "class-unknown"),
        (NewClass("e"), ("a", "b"), "class-samples"),
    ],
)
def test_what_cannot_be_done_is_said(made: NewClass, names: tuple[str, ...], code: str) -> None:
    with pytest.raises(GraftError) as error:
        made(net(), context(split(20, names=names)))
    assert error.value.code == code


def test_numbers_do_not_name_a_class() -> None:
    x, names = clusters(20, 1)
    numbers = np.searchsorted(NAMES, names)
    with pytest.raises(GraftError) as error:
        NewClass("e")(net(), context(Dataset.from_arrays(x, numbers).split("train")))
    assert error.value.code == "data-names"
    with pytest.raises(GraftError) as error:
        NewClass("e")(net(), context(None))
    assert error.value.code == "data-missing"


def test_a_model_without_weights_has_its_input() -> None:
    made = small.Net(SIZE)
    parts = [made.node("Slice", f"part{n}", "x", made.ints(f"from{n}", n), made.ints(f"to{n}", n + 1), "one")
             for n in range(4)]  # fmt: skip
    made.ints("one", 1)
    made.node("Softmax", "y", made.node("Concat", "scores", *parts, axis=1), axis=1)
    base = small.model(made, "probabilities", NAMES[:4])
    report = added(base, split(20))
    assert report.others_equal is True and report.recall > 0.9
    made = small.Net(4, 2)
    mean = made.node("ReduceSum", "y", "x", made.ints("axes", 2), keepdims=0)
    assert mean == "y"
    with pytest.raises(GraftError) as error:
        Opened.of(small.model(made), "e")
    assert error.value.code == "no-features"
    base = net()
    base.card = replace_kind(base, "sigmoid")
    with pytest.raises(GraftError) as error:
        added(base, split(20))
    assert error.value.code == "output-kind"


def replace_kind(model: Model, kind: str) -> Any:
    return small.card(model.require_card().labels, kind)


def test_a_head_that_is_not_affine_asks_for_samples() -> None:
    made = small.Net(SIZE)
    hidden = made.node("Relu", "hidden", made.gemm("dense", "x", HIDDEN, SIZE))
    made.node("Tanh", "y", made.gemm("scores", hidden, 4, HIDDEN))
    base = small.model(made, labels=NAMES[:4])
    with pytest.raises(GraftError) as error:
        added(base, split(20, names=("e",)))
    assert error.value.code == "new-class-others" and "another --data" in str(error.value)
    assert added(base, split(20)).others_equal is True


def test_results_repeat_and_depend_on_nothing_else() -> None:
    first, second = (added(net(), split(20)) for _ in range(2))
    assert replace(first, model=second.model) == second
    assert isinstance(first.model.proto(), onnx.ModelProto)
    assert first.model.proto() == second.model.proto()
