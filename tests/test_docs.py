"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import logging
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from graft.passes import compare, identify, published
from graft.rewriter import operators

ROOT = Path(__file__).parents[1]
CACHED = (
    operators._by_type,
    published.foreign_methods,
    published.masks,
    identify.methods,
    compare.comparisons,
)
"""What remembers the plug-ins that it found."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for distributions, whose plug-ins are looked up anew."""
    monkeypatch.syspath_prepend(tmp_path)
    for known in CACHED:
        known.cache_clear()
    log = logging.getLogger("graft")
    before, level = list(log.handlers), log.level
    yield tmp_path
    log.handlers[:] = before  # a page may run commands
    log.setLevel(level)
    for known in CACHED:
        known.cache_clear()


def install(folder: Path, page: Path) -> None:
    """Write the files that a page shows, and what pip writes of their ``pyproject.toml``."""
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", page.read_text(), re.DOTALL):
        (folder / name).write_text(text)
    if (folder / "pyproject.toml").exists():
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for group, entries in project["entry-points"].items():
            distribute(folder, project["name"], group, entries)


def distribute(folder: Path, name: str, group: str, entries: dict[str, str]) -> None:
    """The metadata of an installed distribution with plug-ins."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))


@pytest.mark.parametrize(
    "page",
    ["docs/api.md", "docs/comparisons.md", "docs/deploy.md", "docs/methods.md", "docs/operators.md"],
)
def test_examples(page: str, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installed)
    install(installed, ROOT / page)
    result = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_example_of_a_method_is_short() -> None:
    (code,) = re.findall(
        r"```python\n# my_methods.py\n(.*?)```", (ROOT / "docs/methods.md").read_text(), re.DOTALL
    )
    assert len(code.splitlines()) < 30


def test_the_table_of_methods_says_what_they_need() -> None:
    rows = re.findall(
        r"^\| `([^`]+)`[^|]*\|[^|]*\| ([^|]*) \|", (ROOT / "docs/methods.md").read_text(), re.MULTILINE
    )
    needs = {name: words for name, words in rows if name in identify.methods()}
    assert needs.keys() == identify.methods().keys()
    for name, method in identify.methods().items():
        assert ("samples" in needs[name]) == method.samples
        assert ("profile" in needs[name]) == bool(method.statistics)


PLUG_INS = {
    operators.ENTRY_POINTS: (operators._by_type, "Conv", "no Operator"),
    identify.ENTRY_POINTS: (identify.methods, "ablation", "no NamedMethod"),
    compare.ENTRY_POINTS: (compare.comparisons, "typicality", "no Comparison"),
}


@pytest.mark.parametrize("group", PLUG_INS)
def test_a_broken_plug_in_is_left_out_with_a_warning(
    group: str, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (installed / "broken_plug_ins.py").write_text("class Plain: pass\nraise OSError('no such library')\n")
    (installed / "plain_plug_ins.py").write_text("class Plain: pass\n")
    distribute(installed, "broken", group, {"plain": "broken_plug_ins:Plain"})
    entries = {"plain": "plain_plug_ins:Plain", "none": "plain_plug_ins:Missing"}
    distribute(installed, "plain", group, entries)
    look_up, usual, wrong = PLUG_INS[group]
    with caplog.at_level("WARNING", logger="graft"):
        assert usual in look_up()
    assert len(caplog.messages) == 3
    for name, reason in (("broken", "no such library"), ("plain", wrong), ("plain", "Missing")):
        assert any(f"of {name} is left out" in line and reason in line for line in caplog.messages)
    sys.modules.pop("plain_plug_ins")


NAMED = {
    operators.ENTRY_POINTS: (
        "graft.rewriter.operators",
        "Pinning",
        "types",
        ("3", "()", "'Mine'", "('Mine', 3)"),
    ),
    identify.ENTRY_POINTS: (
        "graft.passes.identify",
        "METHODS[-1].__class__",
        "name",
        ("3", "''", "('mine',)"),
    ),
    compare.ENTRY_POINTS: ("graft.passes.compare", "COMPARISONS[-1].__class__", "name", ("3", "''", "None")),
}
"""Where a class is whose subclasses are usable plug-ins, and names that they cannot have."""


@pytest.mark.parametrize("group", PLUG_INS)
def test_a_plug_in_with_a_name_that_is_no_text_is_left_out_with_a_warning(
    group: str, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, parent, attribute, values = NAMED[group]
    lines = [f"import {module} as graft_module", f"Parent = graft_module.{parent}"]
    lines += [f"class Named{n}(Parent):\n    {attribute} = {value}" for n, value in enumerate(values)]
    (installed / "named_plug_ins.py").write_text("\n".join(lines))
    entries = {f"named{n}": f"named_plug_ins:Named{n}" for n in range(len(values))}
    distribute(installed, "named", group, entries)
    look_up, usual, _ = PLUG_INS[group]
    with caplog.at_level("WARNING", logger="graft"):
        found = look_up()
    sys.modules.pop("named_plug_ins")
    assert usual in found and all(isinstance(name, str) for name in found)
    assert len(caplog.messages) == len(values)
    assert all(f" as {attribute}, found" in line for line in caplog.messages)


# -------------------------------------------------------------------- the pages themselves

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BESIDE = "../" + "shared"
"""What lies beside the repository."""


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "architecture.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in LINK.findall(text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("folder", ["docs", "tests", "benchmarks", "models", "tools", "passes", "rewriter"])
def test_nothing_looks_beside_the_repository(folder: str) -> None:
    texts = [path for suffix in ("py", "md", "yaml") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    assert texts
    found = [path for path in (*texts, *PAGES) if BESIDE in path.read_text("utf-8")]
    assert [str(path.relative_to(ROOT)) for path in found] == []


def test_the_layers_are_those_of_the_contracts() -> None:
    """docs/architecture.md prints the list of pyproject.toml, in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    (printed,) = re.findall(r"```\n(graft\.tools\n.*?)```", page, re.DOTALL)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    by_name = {contract["id"]: contract["layers"] for contract in contracts}
    expected = []
    for floor in by_name["floors"]:
        inside = by_name.get(floor.removeprefix("graft."), [])
        expected += [floor, *(f"    {layer}" for layer in inside)]
    assert printed.splitlines() == expected


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_of_the_code_exist(page: str) -> None:
    """Every path below a folder of the code that a page names in backticks is there."""
    named = re.findall(
        r"`((?:rewriter|passes|tools|tests|benchmarks|models)/[\w./]*)`", (ROOT / page).read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_layout_is_that_of_the_folders() -> None:
    """README's layout names each folder below a floor, and only files and folders that are there."""
    text = (ROOT / "README.md").read_text("utf-8").partition("## Layout")[2]
    tree, floor, named = text.split("```")[1], "", set()
    for line in tree.strip().splitlines():
        floor = line.partition("/")[0] if not line.startswith(" ") else floor
        rest = line.partition("/")[2] if not line.startswith(" ") else line
        named |= {f"{floor}/{name}" for name in re.findall(r"(?:^|\s)(\w+(?:/|\.py)(?=[\s,;]|$))", rest)}
    assert {path for path in named if not (ROOT / path).exists()} == set()
    inside = {path for floor in ("passes", "rewriter", "tools") for path in (ROOT / floor).iterdir()}
    folders = {f"{path.parent.name}/{path.name}/" for path in inside if path.is_dir() and path.name[0] != "_"}
    assert folders <= named


def test_promises_name_tests_that_exist() -> None:
    """Every promise of docs/security.md has a test."""
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    found = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(found) > 30
    missing = [
        f"{path}::{name}"
        for path, name in found
        if not re.search(rf"^def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row for row in rows if "held by" not in row and "::test_" not in row] == []


COMMAND = re.compile(r"python\s-m\sbenchmarks\.(\w+)(?:\s--only((?:\s[a-z]+)+))?")


def test_figures_name_benchmarks_that_exist() -> None:
    """Every ``python -m benchmarks.NAME --only SECTION`` of the documentation can be called."""
    found = {pair for page in PAGES for pair in COMMAND.findall(page.read_text("utf-8")) if pair[0] != "NAME"}
    assert len({name for name, _ in found}) > 5
    for name, sections in found:
        module = import_module(f"benchmarks.{name}")
        assert set(sections.split()) <= set(getattr(module, "SECTIONS", ())), name
