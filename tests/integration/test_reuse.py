"""Networks of different frameworks and data sets in one file: names, data and scores on the command line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device
from tests.integration.kit import Graft
from tests.integration.kit import printed as found

CPU = Device(("cpu",))
MODELS = Path(str(import_module("graft.models").__path__[0]))
MNIST, DIGITS = MODELS / "mnist_sample.npz", MODELS / "digits_sample.npz"


@pytest.fixture
def modules(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> tuple[Path, Path]:
    """Two digits of a PyTorch network for 28x28 pixels, two of a scikit-learn network for 8x8."""
    few = ("--keep", "1", "--compensate", "none", "--samples-per-class", "40")
    torch, sklearn = tmp_path / "torch", tmp_path / "sklearn"
    line = (MODELS / "mnist_torch.onnx", "--data", MNIST, "--classes", "3,7", *few)
    found(capfd, "decompose", *line, "-o", torch)
    line = (MODELS / "digits_sklearn.onnx", "--data", DIGITS, "--classes", "two,six", *few)
    found(capfd, "decompose", *line, "-o", sklearn)
    return torch, sklearn


def without_names(folder: Path) -> Path:
    """The MNIST sample, with numbers for classes only."""
    content = dict(np.load(MNIST))
    del content["class_names"]
    np.savez(folder / "numbers.npz", **content)
    return folder / "numbers.npz"


def test_with_data_a_joint_head_decides(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = ("--data", MNIST, "--data", DIGITS)
    joined = found(capfd, "compose", *modules, *data, "-o", tmp_path / "joint.onnx")
    assert joined["scores"] == "joint"
    assert joined["joint"]["samples"] > 600
    plain = found(capfd, "compose", *modules, "-o", tmp_path / "plain.onnx")
    assert plain["scores"] == "typicality" and plain["joint"] is None
    before = found(capfd, "evaluate", tmp_path / "plain.onnx", *data)["top1"]
    assert joined["top1"] >= max(0.98, before)


@pytest.mark.parametrize("scores", ["joint", "calibrated", "vote", "softmax"])
def test_prefixes_and_new_names(
    scores: str, modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = (f"m={modules[0]}", f"s={modules[1]}", "--rename", "m:3=drei")
    data = ("--data", f"m={MNIST}", "--data", f"s={DIGITS}")
    line = ("--scores", scores, "--samples-per-class", "50", "-o", tmp_path / "both.onnx")
    joined = found(capfd, "compose", *named, *data, *line)
    assert joined["classes"] == ["drei", "m:7", "s:two", "s:six"]
    assert Model.load(tmp_path / "both.onnx").require_card().labels == tuple(joined["classes"])
    assert joined["top1"] > 0.9
    if joined["joint"]:
        assert joined["joint"]["samples"] == 200


def test_lines_that_cannot_be(modules: tuple[Path, Path], graft: Graft, tmp_path: Path) -> None:
    both = ("compose", *modules, "-o", tmp_path / "both.onnx")
    for wrong, said in (
        (("--rename", "8=acht"), "no module is for class '8'"),
        (("--rename", "tow=zwei"), "no module is for class 'tow'; did you mean 'two'?"),
        (("--rename", "acht"), "--rename acht is not A=B"),
        (("--rename", "3=two"), "two modules are for class 'two'"),
        (("--scores", "joint"), "are fitted to samples"),
    ):
        result = graft(*both, *wrong)
        assert result.code == 2
        assert said in result.err and "Traceback" not in result.err
    assert not (tmp_path / "both.onnx").exists()


def test_a_file_may_have_a_sign_in_its_name(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / "k=3.npz"
    data.write_bytes(MNIST.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        joined = found(capfd, "compose", modules[0], "--data", "k=3.npz", "-o", "one.onnx")
    assert joined["classes"] == ["3", "7"] and joined["samples"] == 200


def test_numbers_without_names_take_a_prefix(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = ("--data", f"m={without_names(tmp_path)}", "--data", DIGITS)
    line = (f"m={modules[0]}", modules[1], *data, "-o", tmp_path / "both.onnx")
    joined = found(capfd, "compose", *line)
    assert joined["classes"] == ["m:3", "m:7", "two", "six"] and joined["top1"] > 0.98


@pytest.mark.parametrize("options", [("3=7", "7=3"), ("7=3", "3=7")])
def test_names_are_swapped_at_once_and_data_follows(
    options: tuple[str, str],
    modules: tuple[Path, Path],
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    rename = [part for text in options for part in ("--rename", text)]
    digits = (modules[0] / "3.onnx", modules[0] / "7.onnx")
    joined = found(capfd, "compose", *digits, *rename, "--data", MNIST, "-o", tmp_path / "swapped.onnx")
    assert joined["classes"] == ["7", "3"] and joined["top1"] > 0.98
    again = found(capfd, "compose", tmp_path / "swapped.onnx", "-o", tmp_path / "again.onnx")
    assert again["classes"] == ["7", "3"]
    x = np.load(MNIST)["x_test"][:50].astype(np.float32)[:, None] / 255
    made = [
        CPU.open(Model.load(tmp_path / f"{name}.onnx")).run({"input": x}) for name in ("swapped", "again")
    ]
    np.testing.assert_array_equal(*(each["logits"].argmax(axis=1) for each in made))


def test_a_renamed_composite_keeps_its_meaning(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    numbers = ("--data", without_names(tmp_path))
    files = (modules[0] / "3.onnx", modules[0] / "7.onnx")
    line = ("--rename", "3=drei", *numbers, "-o", tmp_path / "one.onnx")
    joined = found(capfd, "compose", *files, *line)
    told = found(capfd, "evaluate", tmp_path / "one.onnx", *numbers)
    assert joined["samples"] == told["samples"] == 200
    assert joined["top1"] == told["top1"] > 0.98


def test_a_class_of_the_data_that_a_new_name_takes_is_left_out(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = (modules[0] / "3.onnx", modules[0] / "7.onnx")
    joined = found(capfd, "compose", *files, "--rename", "7=0", "--data", MNIST, "-o", tmp_path / "one.onnx")
    assert joined["classes"] == ["3", "0"] and joined["samples"] == 200 and joined["top1"] > 0.98


def test_a_trunk_is_refitted_with_its_own_data(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever the order of the data sets, and though their classes have the same names."""
    content = dict(np.load(MNIST))
    np.savez(tmp_path / "noise.npz", **{**content, "x_train": content["x_train"][:, ::-1, ::-1] // 2})
    line = ("--data", MNIST, "--classes", "3,7", "--keep", "0.3", "--samples-per-class", "60")
    few = tmp_path / "few"
    found(capfd, "decompose", MODELS / "mnist_torch.onnx", *line, "-o", few)
    data = ("--data", f"k={tmp_path / 'noise.npz'}", "--data", MNIST, "--data", DIGITS)
    orders = [data, (*data[2:4], *data[:2], *data[4:])]
    made = []
    for number, order in enumerate(orders):
        line = (few, modules[1], *order, "--scores", "typicality", "--strategy", "trunk")
        made.append(found(capfd, "compose", *line, "-o", tmp_path / f"{number}.onnx")["classes"])
    assert made[0] == made[1] == ["3", "7", "two", "six"]
    one, two = (CPU.open(Model.load(tmp_path / f"{n}.onnx")) for n in (0, 1))
    x = content["x_test"][:20][..., None]
    feed = {"image": x}
    np.testing.assert_array_equal(*(next(iter(each.run(feed).values())) for each in (one, two)))


def test_no_class_can_be_called_other(modules: tuple[Path, Path], graft: Graft, tmp_path: Path) -> None:
    result = graft("compose", modules[0], "--rename", "3=(other)", "-o", tmp_path / "one.onnx")
    assert result.code == 2 and "no class can be called (other)" in result.err


def test_networks_are_planned_anew_with_what_they_will_meet(
    modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = ("--data", MNIST, "--data", DIGITS)
    line = (*modules, *data, "--continuous", "--scores", "vote", "-o", tmp_path / "both.onnx")
    joined = found(capfd, "compose", *line)
    assert joined["strategy"] == "trunk" and joined["top1"] > 0.9


@pytest.mark.parametrize("parts", [1, 2])
def test_what_no_class_owns(
    parts: int, modules: tuple[Path, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Other digits are hard to tell from these; nothing of the sort is seen when it is fitted."""
    data = ("--data", MNIST, "--data", DIGITS)[: 2 * parts]
    line = (*modules[:parts], *data, "--strategy", "branches", "--other", "--false-alarms", "0.1")
    joined = found(capfd, "compose", *line, "-o", tmp_path / "other.onnx")
    assert joined["classes"][-1] == "(other)"
    if parts == 2:
        assert joined["reject"]["false_alarms"] == 0.1 and joined["reject"]["samples"] > 500
        assert joined["samples"] == 1000 + len(np.load(DIGITS)["y_test"])
    assert 0.7 < joined["auroc"] <= 1 and 0 <= joined["fpr_at_95_recall"] < 0.9
    told = found(capfd, "evaluate", tmp_path / "other.onnx", *data)
    assert told["auroc"] == pytest.approx(joined["auroc"])
