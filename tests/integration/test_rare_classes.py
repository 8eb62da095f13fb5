"""Classes with few samples or none, and what is told before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graft.tools import parents
from tests.integration import kit
from tests.integration.contract.kit import found, refused
from tests.integration.kit import Graft, Place

KEEP = ("--keep", "0.7")


def rare(here: Place, train: int | None = None, without: tuple[int, ...] = ()) -> Path:
    """The data with so many training samples of dog, and no test samples of some classes."""
    with np.load(here.data) as data:
        x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    dogs = np.flatnonzero(y_train == 3)
    stays = ~np.isin(np.arange(len(y_train)), dogs[len(dogs) if train is None else train :])
    tested = ~np.isin(y_test, without)
    np.savez(
        here / "rare.npz",
        x_train=x_train[stays],
        y_train=y_train[stays],
        x_test=x_test[tested],
        y_test=y_test[tested],
    )
    return here / "rare.npz"


def test_decompose_reports_on_the_classes_with_test_samples(graft: Graft, small: Place) -> None:
    line = ("decompose", small.model, *KEEP, "--json", "--data")
    told = graft(*line, rare(small, without=(3,)), "-o", small / "out")
    result = found(told, "decompose")
    assert [each["classes"] for each in result["modules"]] == [[name] for name in kit.LABELS]
    assert (result["test_samples"], result["classes_without_test_samples"]) == (180, ["dog"])
    assert "no held-out samples in split 'test' of dog: left out of the report" in told.err
    evaluated = ("evaluate", small / "out", "--data", small / "rare.npz", "--json")
    assert found(graft(*evaluated), "evaluate")["top1"] == result["composed_top1"]
    result = found(
        graft(*line, small / "rare.npz", "--classes", "dog", "-o", small / "dog", "--json"), "decompose"
    )
    assert "composed_top1" not in result
    assert (small / "dog/dog.onnx").is_file()


@pytest.mark.parametrize("classes", ["ant,dog", "dog,cow"])
def test_evaluate_leaves_out_a_class_without_samples(classes: str, graft: Graft, small: Place) -> None:
    line = ("evaluate", small.model, "--data", rare(small, without=(0, 3)), "--classes", classes, "--json")
    told = graft(*line)
    if classes == "ant,dog":
        assert "no sample" in refused(told, "class-empty")
        return
    result = found(told, "evaluate")
    assert (result["samples"], result["labels"]) == (60, ["dog", "cow"])
    assert "of dog: left out" in told.err
    beside = found(graft(*line[:4], "--baseline", small.model, "--json"), "evaluate")
    assert (beside["baseline"]["samples"], beside["agreement"]) == (120, 1)


def test_curve_and_composites_are_measured_on_what_there_is(graft: Graft, small: Place) -> None:
    data = ("--data", rare(small, without=(3,)))
    few = ("--budgets", "0.7", "--methods", "magnitude", "--classes", "ant,dog")
    assert (
        found(graft("curve", small.model, *data, *few, "-o", small / "c", "--json"), "curve")["samples"] == 60
    )
    assert graft("decompose", small.model, *data, *KEEP, "-o", small / "m").code == 0
    result = found(graft("compose", small / "m", *data, "-o", small / "all.onnx", "--json"), "compose")
    assert result["samples"] == 180
    swap = ("--class", "dog", "--with", small / "m/dog.onnx")
    told = found(graft("replace", small.model, *swap, *data, "-o", small / "r.onnx", "--json"), "replace")
    assert (told["before"]["class"], told["before"]["others_samples"]) == (None, 180)
    rare(small, without=(0, 1, 2))
    told = found(
        graft("remove", small.model, "--class", "dog", *data, "-o", small / "f.onnx", "--json"), "remove"
    )
    assert (told["before"]["samples"], told["after"]["samples"], told["after"]["top1"]) == (60, 0, None)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("budget", [("--keep", "0.6"), ("--max-drop", "1")], ids=["keep", "max-drop"])
def test_few_training_samples_of_a_class(
    count: int, budget: tuple[str, str], graft: Graft, small: Place
) -> None:
    line = ("decompose", small.model, "--data", rare(small, count), *budget, "-o", small / "out", "--json")
    told = graft(*line)
    dog = found(told, "decompose")["modules"][3]
    assert dog["macs_ratio"] <= 0.6 if budget[0] == "--keep" or count > 1 else dog["channels_kept"] == 12
    assert ("one training sample of dog: its module is not pruned" in told.err) == (
        count == 1 and budget[0] == "--max-drop"
    )


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("profiling began")

    monkeypatch.setattr(parents, "profiled", fail)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", ["decompose", "profile", "curve"])
def test_what_can_be_told_is_told_before_the_work(command: str, graft: Graft, small: Place) -> None:
    (small / "file").write_text("")
    with np.load(small.data) as data:
        np.savez(small / "wrong.npz", **{**data, "y_test": data["y_test"] + 1})
    line = (command, small.model, "--json", "--data")
    for output in (small / "file/out", small / ("x" * 300)):
        assert refused(graft(*line, small.data, "-o", output), "output-unwritable")
    assert refused(graft(*line, small.data, "-o", small / "file"), "output-exists")
    assert refused(graft(*line, small.data, "-o", small / "o", "--classes", "emu"), "class-unknown")
    assert refused(graft(*line, rare(small, 0), "-o", small / "o", "--classes", "dog"), "class-empty")
    if command != "profile":
        assert "found 4" in refused(graft(*line, small / "wrong.npz", "-o", small / "o"), "data-labels")
        assert refused(graft(*line, small.data, "-o", small / "o", "--test-split", "no"), "data-split")
    assert not {each.name for each in small.folder.iterdir()} & {"o", "o.svg"}


@pytest.mark.usefixtures("no_work")
def test_too_few_samples_for_a_drop_are_told_before_the_work(graft: Graft, small: Place) -> None:
    with np.load(small.data) as data:
        np.savez(small / "few.npz", x_train=data["x_train"][:9], y_train=data["y_train"][:9])
    line = ("decompose", small.model, "--data", small / "few.npz", "-o", small / "o", "--json")
    assert "9 training samples" in refused(graft(*line), "too-few-samples")


def test_a_parent_that_never_says_a_class_is_named_for_it(graft: Graft, small: Place) -> None:
    model = onnx.load(small.model)
    head = model.graph.node[-1]
    (bias,) = [each for each in model.graph.initializer if each.name in head.input and len(each.dims) == 1]
    values = numpy_helper.to_array(bias).copy()
    values[3] = -1e4
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, small.model)
    line = ("decompose", small.model, *KEEP, "--data", small.data, "--classes", "dog", "-o", small / "out")
    assert (
        "the parent itself never says 'dog' on the test samples: neither does its module" in graft(*line).err
    )


def test_several_models_with_samples_of_their_own_have_a_row_for_them(graft: Graft, small: Place) -> None:
    cut = (
        "decompose",
        small.model,
        *KEEP,
        "--data",
        small.data,
        "--classes",
        "ant,bee",
        "-o",
        small / "parts",
    )
    assert graft(*cut).code == 0
    line = ("evaluate", small / "parts", small.model, "--data", small.data, "--baseline", small.model)
    title, names, samples, *_ = graft(*line).out.splitlines()
    assert title == "ran on cpu"
    assert names.split() == f"parts {small.model.name} {small.model.name}, classes of parts".split()
    assert samples.split()[0] == "samples" and samples.split()[1] == samples.split()[3] != samples.split()[2]
