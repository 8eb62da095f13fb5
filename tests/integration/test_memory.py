"""``--memory``: the same bytes from a file, and one line where it is too small."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from graft.rewriter.run.session import Device
from graft.tools.cli import run
from tests.integration.kit import printed

MODELS = Path(str(files("graft.models")))


def arguments(folder: Path, *more: str) -> list[str]:
    data = ["--data", str(MODELS / "mnist_sample.npz"), "--samples-per-class", "20"]
    model = str(MODELS / "mnist_torch.onnx")
    return [
        "decompose",
        model,
        *data,
        "--classes",
        "3,8",
        "--together",
        "--keep",
        "0.5",
        "-o",
        str(folder),
        *more,
    ]


def test_modules_are_the_same_bytes_from_a_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capfd, *arguments(tmp_path / "roomy", "--memory", "90%"))
    monkeypatch.setattr(Device, "room", lambda _: 0)
    printed(capfd, *arguments(tmp_path / "tight"))
    roomy, tight = ((tmp_path / name / "3_8.onnx").read_bytes() for name in ("roomy", "tight"))
    assert roomy == tight


@pytest.mark.parametrize(
    ("size", "line"),
    [
        ("20MB", "the refit takes 0."),
        ("much", "expected a size of memory, found 'much'"),
    ],
)
def test_one_line_where_memory_is_too_small(
    size: str, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(tmp_path / "out", "--memory", size)) == 2
    errors = capfd.readouterr().err
    assert line in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["predict", "card", "remove"])
def test_commands_that_run_models_take_the_option(
    command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = str(MODELS / "mnist_sample.npz"), str(tmp_path / "out.onnx")
    rest = {
        "predict": [data],
        "card": ["--data", data],
        "remove": ["--class", "3", "-o", out],
    }[command]
    arguments = [command, str(MODELS / "mnist_torch.onnx"), *rest]
    assert run([*arguments, "--memory", "much"]) == 2
    assert "expected a size of memory, found 'much'" in capfd.readouterr().err
    assert run([*arguments, "--memory", "4GB"]) == 0
