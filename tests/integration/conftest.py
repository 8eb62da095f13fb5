"""Runs commands in this process, on the bundled model and on small graphs."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from graft.tools import estimates
from graft.tools.cli import run
from tests.integration.kit import Graft, Place, Result, copied, place


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates are those of an idle machine, whatever else runs: no line about time, no other method."""
    monkeypatch.setattr(estimates, "measured", lambda *_: estimates.USUAL)


@pytest.fixture
def graft(capfd: pytest.CaptureFixture[str]) -> Graft:
    """Run a command line; its exit code and what it printed, native libraries included."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The model, card and images that come with Graft, in a folder of their own; not to be changed."""
    folder, source = tmp_path_factory.mktemp("bundle"), resources.files("graft.models")
    for name in ("mnist_torch.onnx", "mnist_torch.yaml", "mnist_sample.npz"):
        with resources.as_file(source / name) as file:
            shutil.copy(file, folder / name)
    return Place(folder, folder / "mnist_torch.onnx", folder / "mnist_sample.npz")


@pytest.fixture
def bundled(bundle: Place, tmp_path: Path) -> Place:
    """A copy of it."""
    return copied(bundle, tmp_path)


@pytest.fixture
def small(tmp_path: Path) -> Place:
    """Two dense layers with card and data."""
    return place(tmp_path)
