"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from graft.rewriter import operators

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for distributions, whose operator classes are looked up anew."""
    monkeypatch.syspath_prepend(tmp_path)
    operators._by_type.cache_clear()
    yield tmp_path
    operators._by_type.cache_clear()


def install(folder: Path, page: Path) -> None:
    """Write the files that a page shows, and what pip writes of their ``pyproject.toml``."""
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", page.read_text(), re.DOTALL):
        (folder / name).write_text(text)
    if (folder / "pyproject.toml").exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        distribute(folder, project["name"], project["entry-points"][operators.ENTRY_POINTS])


def distribute(folder: Path, name: str, entries: dict[str, str]) -> None:
    """The metadata of an installed distribution with operator classes."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{operators.ENTRY_POINTS}]", *lines, ""]))


@pytest.mark.parametrize("page", ["docs/api.md", "docs/operators.md"])
def test_examples(page: str, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installed)
    install(installed, ROOT / page)
    result = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_broken_operator_class_is_left_out_with_a_warning(
    installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (installed / "broken_operators.py").write_text("class Plain: pass\nraise OSError('no such library')\n")
    (installed / "plain_operators.py").write_text("class Plain: pass\n")
    distribute(installed, "broken", {"plain": "broken_operators:Plain"})
    distribute(installed, "plain", {"plain": "plain_operators:Plain", "none": "plain_operators:Missing"})
    with caplog.at_level("WARNING", logger="graft"):
        known = operators._by_type()
    assert known["Conv"]
    assert len(caplog.messages) == 3
    for name, reason in (("broken", "no such library"), ("plain", "no Operator"), ("plain", "Missing")):
        assert any(f"of {name} is left out" in line and reason in line for line in caplog.messages)
    sys.modules.pop("plain_operators")
