"""A model, and what commands make of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from graft.tools.cli import run
from tests.integration import kit
from tests.integration.contract.kit import (
    KEEP,
)
from tests.integration.kit import Place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two dense layers, what commands make of them, and a sample."""
    made = kit.place(tmp_path_factory.mktemp("whole"))
    parent = onnx.load(made.model)
    helper.set_model_props(parent, {"author": "somebody"})
    onnx.save(parent, made.model)
    made.card.write_text(f"{kit.card()}name: insects\nlicense: MIT\nsource: field trip\n")
    common = [str(made.model), "--data", str(made.data)]
    assert run(["profile", *common, "-o", str(made / "dense.profile")]) == 0
    assert run(["decompose", *common, *KEEP, "-o", str(made / "modules")]) == 0
    asked = ["--classes", "dog,ant", "--together"]
    assert run(["decompose", *common, *KEEP, *asked, "-o", str(made / "set")]) == 0
    files = [str(made / f"modules/{name}.onnx") for name in ("cow", "ant")]
    assert run(["compose", *files, "-o", str(made / "trunk.onnx")]) == 0
    assert run(["compose", *files, "--strategy", "branches", "-o", str(made / "branches.onnx")]) == 0
    with np.load(made.data) as data:
        np.save(made / "sample.npy", data["x_test"][0])
    return made


@pytest.fixture
def here(whole: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of it, as the working directory."""
    folder = tmp_path / "work"
    shutil.copytree(whole.folder, folder)
    monkeypatch.chdir(folder)
    return Place(folder, folder / "dense.onnx", folder / "dense.npz")
