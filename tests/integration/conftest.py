"""Runs commands in this process, on the bundled model and on small graphs."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from graft.tools.cli import run
from tests.integration.kit import Graft, Place, Result, place


@pytest.fixture
def graft(capfd: pytest.CaptureFixture[str]) -> Graft:
    """Run a command line; its exit code and what it printed, native libraries included."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture
def bundled(tmp_path: Path) -> Place:
    """The model, card and images that come with Graft, in a folder of their own."""
    source = resources.files("graft.models")
    for name in ("mnist_torch.onnx", "mnist_torch.yaml", "mnist_sample.npz"):
        with resources.as_file(source / name) as file:
            shutil.copy(file, tmp_path / name)
    return Place(tmp_path, tmp_path / "mnist_torch.onnx", tmp_path / "mnist_sample.npz")


@pytest.fixture
def small(tmp_path: Path) -> Place:
    """Two dense layers with card and data."""
    return place(tmp_path)
