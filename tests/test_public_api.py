"""``graft.rewriter`` and ``graft.passes`` export the public API, each name when it is first used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import graft.passes
import graft.rewriter


@pytest.mark.parametrize("package", [graft.rewriter, graft.passes])
def test_every_name_is_there(package: ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    homes = {name: module for module, names in package._MODULES.items() for name in names}
    assert sorted(homes) == sorted(package.__all__)
    for name, module in homes.items():
        assert getattr(package, name) is vars(import_module(f"{package.__name__}.{module}"))[name]
    with pytest.raises(AttributeError, match="Nothing"):
        package.Nothing  # noqa: B018


def test_a_package_alone_imports_nothing_slow() -> None:
    code = (
        "import sys, graft.rewriter, graft.passes; print({'numpy', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
