"""graft add and replace with a class from samples alone, on a bundled network."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graft.rewriter.graph.model import Model
from tests.integration.kit import Graft
from tests.integration.kit import printed as found

MODELS = Path(str(import_module("graft.models").__path__[0]))
MNIST, TORCH = MODELS / "mnist_sample.npz", MODELS / "mnist_torch.onnx"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def threes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 20 images of one class."""
    folder = tmp_path_factory.mktemp("threes")
    data = np.load(MNIST)
    for number, place in enumerate(np.flatnonzero(data["y_train"] == 3)[:20]):
        Image.fromarray(data["x_train"][place]).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def fewer(capfd: Capture, tmp_path: Path) -> Path:
    """The bundled classifier without the class."""
    found(capfd, "remove", TORCH, "--class", "3", "-o", tmp_path / "fewer.onnx")
    return tmp_path / "fewer.onnx"


def test_a_class_from_a_folder_of_its_images(
    capfd: Capture, fewer: Path, threes: Path, tmp_path: Path
) -> None:
    told = found(capfd, "add", fewer, "--class", "3", "--data", threes, "-o", tmp_path / "more.onnx")
    assert told["class"] is None and told["class_after"] == "3" and told["scores"] == "discriminant"
    assert told["others"] == "head" and told["samples"] == 20 and told["others_equal"] is True
    assert told["folds"]["recall"] == 1 and "before" not in told and told["classes"][-1] == "3"
    after = found(capfd, "evaluate", tmp_path / "more.onnx", "--data", MNIST)
    assert after["top1"] > 0.98 and after["per_class"]["3"]["recall"] > 0.95
    told = found(capfd, "remove", tmp_path / "more.onnx", "--class", "3", "-o", tmp_path / "again.onnx")
    assert told["classes"] == list(Model.load(fewer).require_card().labels)


def test_a_class_from_data_of_others_too(capfd: Capture, fewer: Path, tmp_path: Path) -> None:
    line = ("--class", "3", "--data", MNIST, "--samples-per-class", "20", "--seed", "1")
    told = found(capfd, "add", fewer, *line, "-o", tmp_path / "more.onnx")
    assert told["others"] == "samples" and told["other_samples"] == 180
    assert told["after"]["top1"] > 0.985 and told["after"]["class"]["recall"] > 0.95
    assert told["before"]["class"] is None and told["label_source"] == "data"
    told = found(capfd, "replace", TORCH, *line, "--mirror", "-o", tmp_path / "mended.onnx")
    assert told["class"] == told["class_after"] == "3" and told["samples"] == 40
    joint = found(capfd, "add", fewer, *line, "--joint", "-o", tmp_path / "joint.onnx")
    assert joint["scores"] == "joint" and joint["others_equal"] is None and joint["after"]["top1"] > 0.97


def test_a_folder_of_one_class_beside_data_of_the_others(
    capfd: Capture, fewer: Path, threes: Path, tmp_path: Path
) -> None:
    """The class has the samples of both."""
    line = ("--class", "3", "--data", threes, "--data", MNIST, "--samples-per-class", "30")
    told = found(capfd, "add", fewer, *line, "-o", tmp_path / "more.onnx")
    assert told["others"] == "samples" and told["samples"] == 30 and told["after"]["top1"] > 0.985


def test_what_the_command_says(graft: Graft, fewer: Path, threes: Path, tmp_path: Path) -> None:
    result = graft("add", fewer, "--class", "3", "--data", threes, "-o", tmp_path / "more.onnx")
    assert result.code == 0
    for text in ("3 was added", "20 samples of 3", "own head", "recall", "bit for bit"):
        assert text in result.out + result.err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (("add", TORCH, "--class", "crane"), "--with MODULE"),
        (("add", TORCH, "--data", MNIST), "--class NAME"),
        (("add", TORCH, "--class", "3", "--data", MNIST), "graft replace"),
        (("add", TORCH, "--class", "crane", "--data", MNIST), "0 of 'crane'; give more; the data has 0, 1"),
        (("add", TORCH, "--class", "x", "--with", TORCH), "--with-class"),
        (("add", TORCH, "--class", "x", "--data", MNIST, "--scores", "odds"), "--scores is for a module"),
        (("replace", TORCH, "--class", "3"), "--data DIR"),
        (("replace", TORCH, "--class", "33", "--data", MNIST), "did you mean '3'"),
        (("replace", TORCH, "--class", "3", "--with", TORCH, "--joint"), "--joint is for a class"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    graft: Graft, tmp_path: Path, line: tuple[object, ...], text: str
) -> None:
    result = graft(*line, "-o", tmp_path / "out.onnx")
    assert result.code == 2 and text in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out.onnx").exists()


def test_a_class_that_is_rarely_found_warns(graft: Graft, fewer: Path, tmp_path: Path) -> None:
    """Of noise no class can be made; the figures say so, and a line on standard error."""
    np.savez(tmp_path / "noise.npz", x=np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8))
    result = graft("add", fewer, "--class", "3", "--data", tmp_path / "noise.npz", "-o", tmp_path / "m.onnx")
    assert result.code == 0 and "warning" not in result.err
    data = np.load(MNIST)
    mixed = np.concatenate([data["x_train"][data["y_train"] == digit][:2] for digit in (0, 1, 4, 6, 7, 9)])
    np.savez(tmp_path / "mixed.npz", x=mixed)
    result = graft("add", fewer, "--class", "3", "--data", tmp_path / "mixed.npz", "-o", tmp_path / "n.onnx")
    assert "of the samples of 3 are found: give more samples of it, and of the old classes" in result.err
