"""Every folder of the library is installed, and nothing else."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rewriter", "passes", "tools", "models")
BESIDE = (".onnx", ".npz", ".txt", ".yaml")
"""Kinds of files beside the Python ones that are installed, too."""


def sources() -> set[Path]:
    """Files of the library, from the repository's root."""
    found = {path.relative_to(ROOT) for part in PARTS for path in (ROOT / part).rglob("*") if path.is_file()}
    kinds = (".py", *BESIDE)
    return {path for path in found if path.suffix in kinds or path.name in ("py.typed", "README.md")}


def test_every_folder_is_a_listed_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for path in sources() if path.suffix == ".py"}
    assert len(folders) > 15
    assert {"graft." + ".".join(folder.parts) for folder in folders} == set(settings["packages"])
    assert settings["package-dir"] == {f"graft.{part}": part for part in PARTS}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


def test_the_wheel_holds_every_file() -> None:
    """What was built and installed, file by file, is what the folders hold."""
    installed = [path for each in distributions(name="onnx-graft") for path in each.files or ()]
    files = {
        Path(*path.parts[1:]) for path in installed if path.parts[0] == "graft" and path.suffix != ".pyc"
    }
    if not files:
        pytest.skip("Graft is on the import path without an installation: no wheel to compare with")
    assert files == sources()
