"""graft replace, add and remove on real networks of different frameworks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from graft.rewriter.graph.model import Model
from tests.integration.kit import Graft
from tests.integration.kit import printed as found
from tests.integration.test_reuse import modules, without_names

__all__ = ["modules"]
MODELS = Path(str(import_module("graft.models").__path__[0]))
MNIST, DIGITS = MODELS / "mnist_sample.npz", MODELS / "digits_sample.npz"
TORCH, SKLEARN = MODELS / "mnist_torch.onnx", MODELS / "digits_sklearn.onnx"
Capture = pytest.CaptureFixture[str]


def test_a_class_of_a_classifier_is_decided_by_another_framework(
    modules: tuple[Path, Path], capfd: Capture, tmp_path: Path
) -> None:
    data = ("--data", MNIST, "--data", DIGITS, "--samples-per-class", "60")
    line = ("--class", "3", "--with", modules[1], "--with-class", "six", *data)
    told = found(capfd, "replace", TORCH, *line, "-o", tmp_path / "patched.onnx")
    assert told["class"] == "3" and told["class_after"] == "six" and told["scores"] in ("calibrated", "joint")
    assert told["classes"] == ["0", "1", "2", "six", "4", "5", "6", "7", "8", "9"]
    assert told["before"]["class"]["recall"] > 0.98 and told["after"]["class"]["recall"] > 0.9
    assert told["after"]["others"] > told["before"]["others"] - 0.02
    assert told["after"]["top1"] > 0.97 and told["fitted"]["used"]
    assert told["inputs"][0]["name"] == "image" and len(told["parents"]) == 2
    again = found(capfd, "evaluate", tmp_path / "patched.onnx", "--data", MNIST, "--data", DIGITS)
    assert again["top1"] == pytest.approx(told["after"]["top1"])
    assert again["samples"] == told["after"]["samples"]


def test_a_class_of_one_name_may_get_samples_of_both(
    modules: tuple[Path, Path], capfd: Capture, tmp_path: Path
) -> None:
    """The newcomer is called as the class is, and the samples of both data sets are samples of it."""
    data = ("--data", MNIST, "--data", DIGITS)
    line = ("--class", "6", "--with", modules[1] / "six.onnx", "--rename", "six=6", *data)
    told = found(capfd, "replace", TORCH, *line, "-o", tmp_path / "patched.onnx")
    assert told["class_after"] == "6" and told["with_class"] == "six"
    x = np.load(MNIST)["y_test"], np.load(DIGITS)["y_test"]
    assert told["after"]["class"]["support"] == (x[0] == 6).sum() + (x[1] == 6).sum()
    assert told["before"]["class"]["support"] == told["after"]["class"]["support"]


def test_a_better_module_of_the_same_class_is_taken_by_its_name(
    modules: tuple[Path, Path], capfd: Capture, tmp_path: Path
) -> None:
    """Without data, and the input stays the classifier's own."""
    told = found(capfd, "replace", TORCH, "--class", "7", "--with", modules[0], "-o", tmp_path / "p.onnx")
    assert told["with_class"] == "7" and told["scores"] == "odds" and told["fitted"] is None
    assert told["inputs"][0]["name"] == "input" and "before" not in told
    made, whole = (Model.load(path).require_card().labels for path in (tmp_path / "p.onnx", TORCH))
    assert made == whole


def test_numbers_mean_what_they_mean_for_the_classifier(
    modules: tuple[Path, Path], capfd: Capture, tmp_path: Path
) -> None:
    data = ("--data", without_names(tmp_path), "--data", f"s={DIGITS}")
    line = ("--with", f"s={modules[1]}", "--with-class", "six", *data, "--samples-per-class", "60")
    told = found(capfd, "add", TORCH, *line, "-o", tmp_path / "more.onnx")
    assert told["classes"][-2:] == ["9", "s:six"] and told["after"]["top1"] > 0.97
    assert told["before"]["class"] is None and told["after"]["class"]["f1"] > 0.9
    fewer = found(capfd, "remove", tmp_path / "more.onnx", "--class", "s:six", "--class", "0", *data,
                  "-o", tmp_path / "fewer.onnx")  # fmt: skip
    assert fewer["classes"] == list("123456789") and fewer["removed"] == ["s:six", "0"]
    assert fewer["after"]["others"] > 0.98 and fewer["after"]["class"] is None


def test_removing_from_a_classifier_makes_it_smaller(capfd: Capture, tmp_path: Path) -> None:
    told = found(capfd, "remove", SKLEARN, "--class", "nine", "--data", DIGITS, "-o", tmp_path / "nine.onnx")
    assert len(told["classes"]) == 9 and told["after"]["others"] >= told["before"]["others"]
    assert told["after"]["samples"] == told["after"]["others_samples"] < told["before"]["samples"]


def test_people_read_the_patch(modules: tuple[Path, Path], graft: Graft, tmp_path: Path) -> None:
    line = ("--with", modules[1] / "six.onnx", "--data", MNIST, "--data", DIGITS)
    result = graft("add", TORCH, *line, "--scores", "calibrated", "-o", tmp_path / "more.onnx")
    assert result.code == 0
    for text in ("six", "was added", "precision", "recall", "before", "after", "top-1 ", "image"):
        assert text in result.out
    assert graft("remove", TORCH, "--class", "1", "--dry-run", "-o", tmp_path / "no.onnx").code == 0
    assert not (tmp_path / "no.onnx").exists()


def test_lines_that_cannot_be(modules: tuple[Path, Path], graft: Graft, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((modules[0] / "3.onnx").read_bytes()[:2000])
    for line, said in (
        (("replace", TORCH, "--class", "x", "--with", modules[0] / "3.onnx"), "no class 'x'"),
        (("replace", TORCH, "--class", "1", "--with", modules[0]), "--with-class"),
        (("replace", TORCH, "--class", "1", "--with", modules[0], "--with-class", "9"), "none called '9'"),
        (
            ("add", TORCH, "--with", modules[1] / "six.onnx", "--with-class", "sxi"),
            "none called 'sxi'; did you mean 'six'?",
        ),
        (("replace", TORCH, "--class", "1", "--with", modules[0] / "3.onnx"), "has a class '3' already"),
        (("replace", TORCH, "--class", "1", "--with", cut), "cut.onnx"),
        (("replace", TORCH, "--class", "1", "--with", tmp_path / "none.onnx"), "none.onnx"),
        (("add", TORCH, "--with", modules[0] / "3.onnx"), "--rename"),
        (("add", TORCH, "--with", modules[1] / "six.onnx", "--scores", "joint"), "samples"),
        (("add", TORCH, "--with", modules[1] / "six.onnx", "--rename", "two=2"), "no module is for class"),
        (("add", TORCH, "--with", modules[1] / "six.onnx", "--input", "parent"), "--input raw"),
        (("remove", TORCH, "--class", "x"), "no class 'x'"),
        (("remove", modules[0] / "3.onnx", "--class", "3"), "1 classes left"),
    ):
        result = graft(*line, "-o", output)
        assert result.code == 2, line
        assert said in result.err and "Traceback" not in result.err and result.err.count("\n") == 1, line
        assert not output.exists()


def test_nothing_is_written_before_it_is_measured(
    modules: tuple[Path, Path], graft: Graft, tmp_path: Path
) -> None:
    for line in (
        ("replace", TORCH, "--class", "3", "--with", modules[0] / "3.onnx"),
        ("add", TORCH, "--with", modules[1] / "six.onnx"),
        ("remove", TORCH, "--class", "1"),
    ):
        result = graft(
            *line, "--data", MNIST, "--data", DIGITS, "--test-split", "none", "-o", tmp_path / "o.onnx"
        )
        assert result.code == 2 and "none" in result.err and not (tmp_path / "o.onnx").exists()
