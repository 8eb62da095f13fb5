"""The DIR of ``decompose``: what it holds, when it counts as finished, what ``--force`` may replace."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graft.passes.decompose import Decompose
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.tools.cli import run
from tests.integration import kit
from tests.integration.kit import Graft, Place

CUT = ("decompose", "dense.onnx", "--data", "dense.npz", "--keep", "0.7")
INDEX = "graft.json"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A small model, a DIR of its four modules and one of two, and a model that is no module."""
    made = kit.place(tmp_path_factory.mktemp("whole"))
    common = ["decompose", str(made.model), "--data", str(made.data), "--keep", "0.7"]
    assert run([*common, "-o", str(made / "modules")]) == 0
    assert run([*common, "--classes", "ant,bee", "-o", str(made / "two")]) == 0
    return made


def index_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return found


def with_labels(here: Place, labels: Sequence[str]) -> None:
    here.card.write_text(kit.card(labels=json.dumps(labels)))


# ---- what it holds


def test_it_holds_modules_plans_the_parent_its_profile_and_an_index(here: Place) -> None:
    """SLUG.onnx a module, plans/SLUG.json, parent/parent.onnx, parent/profile.safetensors, graft.json."""
    files = [name for name, content in kit.listing(here / "modules").items() if content is not None]
    expected = [INDEX, "parent/parent.onnx", "parent/profile.safetensors"]
    for name in kit.LABELS:
        expected += [f"{name}.onnx", f"plans/{name}.json"]
    assert sorted(files) == sorted(expected)


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["new", "replaced"])
def test_the_index_is_what_json_prints(force: list[str], graft: Graft, here: Place) -> None:
    """``graft.json`` (what ``--json`` prints), without the times: equal runs write equal files."""
    target = "two" if force else "out"
    told = graft(*CUT, "-o", target, "--json", *force)
    assert told.code == 0
    timeless = index_of(here / target)
    assert not set(kit.TIMES) & timeless.keys()
    assert {**timeless, **dict.fromkeys(kit.TIMES, True), "output": target} == kit.untimed(told.json)


def test_the_index_has_all_that_json_prints_of_the_result(graft: Graft, here: Place) -> None:
    told = graft(*CUT, "-o", "out", "--json").json
    index = index_of(here / "out")
    for key in ("schema", "parent", "modules", "composed_top1"):
        assert index[key] == told[key]
    assert (here / "out" / INDEX).read_text() == (here / "modules" / INDEX).read_text()


@pytest.mark.parametrize("target", ["out", "two"])
def test_it_comes_whole(target: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written beside: one rename moves an old one away, one the new one in, with its index."""
    rename, seen = Path.rename, []

    def watched(source: Path, to: Path) -> Path:
        seen.append((source.name, to.name, (source / INDEX).exists()))
        return rename(source, to)

    monkeypatch.setattr(Path, "rename", watched)
    assert graft(*CUT, "--classes", "ant,bee", "-o", target, "--force").code == 0
    away = [("two", ".two.graft-old", True)] if target == "two" else []
    assert seen == [*away, (f".{target}.graft-new", target, True)]


def test_the_parent_and_the_profile_are_those_that_modules_name(here: Place) -> None:
    """Every module names the parent and the profile beside it by hash; the parent carries its card."""
    parent = Model.load(here / "modules/parent/parent.onnx")
    x = np.random.default_rng(0).normal(size=(5, kit.FEATURES)).astype(np.float32)
    ours, source = (kit.run_model(f, x) for f in (here / "modules/parent/parent.onnx", here.model))
    np.testing.assert_array_equal(ours["scores"], source["scores"])
    assert parent.require_card().labels == kit.LABELS
    for name in kit.LABELS:
        origin = json.loads(Model.load(here / f"modules/{name}.onnx").metadata["graft.origin"])
        assert origin["parents"][0]["graph_sha256"] == parent.graph_sha256()
        plan = json.loads((here / f"modules/plans/{name}.json").read_text())
        assert plan["parent"] == parent.graph_sha256()
        assert plan["groups"] == origin["plan"]


def test_it_can_be_moved(graft: Graft, here: Place, tmp_path: Path) -> None:
    """``compose`` finds the parent and the profile beside the modules, wherever they lie."""
    assert graft("compose", "modules", "-o", "one.onnx").code == 0
    shutil.move(here / "modules", tmp_path / "elsewhere")
    here.model.unlink()
    moved = graft("compose", tmp_path / "elsewhere", "--strategy", "trunk", "-o", "two.onnx", "--json")
    assert (moved.code, moved.json["strategy"]) == (0, "trunk")
    assert (here / "one.onnx").read_bytes() == (here / "two.onnx").read_bytes()


# ---- SLUG


@pytest.mark.parametrize(
    ("labels", "slugs"),
    [
        (["x.y-z_1", "naïve", "a b", "7"], ["x.y-z_1", "na_ve", "a_b", "7"]),
        (["a/b", "a b", "a:b", "a_b"], ["a_b", "a_b-2", "a_b-3", "a_b-4"]),
        (["a_b-2", "a b", "a/b", "c"], ["a_b-2", "a_b", "a_b-3", "c"]),
        (["graft", "parent", "plans", "plans/graft"], ["graft", "parent", "plans", "plans_graft"]),
        ([".net", "NUL", "com1.x", "etc."], ["_.net", "_NUL", "_com1.x", "etc."]),
        (["-o", "--force", "-1", "a-b"], ["_-o", "_--force", "_-1", "a-b"]),
    ],
    ids=["other characters", "made unique", "taken", "names of other files", "hidden or reserved", "options"],
)
def test_slug(labels: list[str], slugs: list[str], graft: Graft, here: Place) -> None:
    """SLUG is the class name with other characters than ``A-Za-z0-9._-`` as ``_``, made unique.

    Names that are hidden (a leading dot), that Windows reserves for devices, or that look like options, begin
    with ``_``.
    """
    with_labels(here, labels)
    result = graft(*CUT, "-o", "out", "--json")
    assert result.code == 0, result
    assert [module["file"] for module in result.json["modules"]] == [f"{slug}.onnx" for slug in slugs]
    for slug, label in zip(slugs, labels, strict=True):
        origin = json.loads(Model.load(here / f"out/{slug}.onnx").metadata["graft.origin"])
        assert origin["classes"] == [label]
        assert (here / f"out/plans/{slug}.json").is_file()


@pytest.mark.parametrize(
    "labels",
    [
        ["Ant", "ant", "ANT", "aNT"],
        ["..", ".", "../../up", "/etc/x"],
        ["ä", "ö", "ü", "é"],
        ["x" * 300, *"abc"],
    ],
    ids=["case", "paths", "nothing left", "long"],
)
def test_slugs_are_files_of_their_own_anywhere(labels: list[str], graft: Graft, here: Place) -> None:
    """Made unique, also where case does not count; no class name leads out of DIR."""
    with_labels(here, labels)
    before = kit.listing(here.folder.parent).keys()
    result = graft(*CUT, "-o", "out", "--json")
    assert result.code == 0, result
    files = [module["file"] for module in result.json["modules"]]
    assert len({file.casefold() for file in files}) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+\.onnx", file) for file in files)
    added = kit.listing(here.folder.parent).keys() - before
    assert {f"work/out/{file}" for file in files} < added
    assert all(name.startswith("work/out") for name in added)


# ---- taken as a whole


def test_compose_takes_a_folder_as_its_files(graft: Graft, here: Place) -> None:
    """``compose`` takes DIR as well as files, in the order of its index."""
    files = [f"modules/{name}.onnx" for name in kit.LABELS]
    for strategy in ("trunk", "branches"):
        line = ("compose", "--strategy", strategy, "-o")
        assert graft(*line, "folder.onnx", "modules", "--force").code == 0
        assert graft(*line, "files.onnx", *files, "--force").code == 0
        assert (here / "folder.onnx").read_bytes() == (here / "files.onnx").read_bytes()


def test_compose_takes_folders_and_files_together(graft: Graft, here: Place) -> None:
    result = graft("compose", "modules/dog.onnx", "two", "-o", "out.onnx", "--json")
    assert result.json["classes"] == ["dog", "ant", "bee"]
    assert [module["file"] for module in result.json["modules"]] == [
        *("modules/dog.onnx", "two/ant.onnx", "two/bee.onnx")
    ]


def test_evaluate_takes_a_folder(graft: Graft, here: Place) -> None:
    """``evaluate`` takes DIR: all its modules, joined as branches, as ``composed_top1`` says."""
    result = graft("evaluate", "modules", "--data", "dense.npz", "--json").json
    assert result["schema"] == "graft/evaluate/1"
    assert result["top1"] == index_of(here / "modules")["composed_top1"]
    assert result["labels"] == list(kit.LABELS)
    assert result["bytes"] == sum((here / f"modules/{name}.onnx").stat().st_size for name in kit.LABELS)
    assert graft("compose", "modules", "--strategy", "branches", "-o", "side.onnx").code == 0
    joined = graft("evaluate", "side.onnx", "--data", "dense.npz", "--json").json
    for key in ("samples", "top1", "per_class", "macs", "parameters"):
        assert result[key] == joined[key]


def test_only_what_the_index_lists_is_taken(graft: Graft, here: Place) -> None:
    shutil.copy(here / "modules/dog.onnx", here / "two/dog.onnx")
    assert graft("compose", "two", "-o", "out.onnx", "--json").json["classes"] == ["ant", "bee"]
    assert graft("evaluate", "two", "--data", "dense.npz", "--json").json["labels"] == ["ant", "bee"]


# ---- unfinished


@pytest.mark.parametrize(
    "line",
    [
        "compose two -o out.onnx",
        "evaluate two --data dense.npz",
        "decompose dense.onnx --data dense.npz --keep 0.7 -o two --force",
    ],
    ids=lambda line: str(line).split()[0],
)
def test_without_an_index_it_is_unfinished(line: str, graft: Graft, here: Place) -> None:
    """A DIR without ``graft.json`` is unfinished: nothing takes it, and nothing in it is replaced."""
    (here / "two" / INDEX).unlink()
    before = kit.listing(here.folder)
    result = graft(*line.split(), "--json")
    assert (result.code, result.json["code"]) == (2, "directory-unfinished")
    assert INDEX in result.json["message"]
    assert kit.listing(here.folder) == before


# ---- --force


def test_nothing_is_replaced_without_force(graft: Graft, here: Place) -> None:
    """``-o`` never overwrites without ``--force``: neither a DIR, nor any folder with files, nor a file."""
    (here / "mine").mkdir()
    (here / "mine/notes.txt").write_text("mine")
    before = kit.listing(here.folder)
    for target in ("modules", "mine", "dense.npz"):
        result = graft(*CUT, "-o", target, "--json")
        assert (result.code, result.json["code"]) == (2, "output-exists")
    assert kit.listing(here.folder) == before


def test_an_empty_folder_is_free(graft: Graft, here: Place) -> None:
    (here / "empty").mkdir()
    assert graft(*CUT, "-o", "empty").code == 0
    assert index_of(here / "empty") == index_of(here / "modules")


@pytest.mark.parametrize("target", ["mine", "dense.npz"])
def test_force_does_not_replace_what_is_no_dir(target: str, graft: Graft, here: Place) -> None:
    (here / "mine").mkdir()
    (here / "mine/ant.onnx").write_text("mine")
    before = kit.listing(here.folder)
    assert graft(*CUT, "-o", target, "--force").code == 2
    assert kit.listing(here.folder) == before


def test_force_leaves_files_that_the_index_does_not_list(graft: Graft, here: Place) -> None:
    """``--force`` replaces only what graft.json lists: all of it goes, all else stays."""
    mine = {
        "notes.txt": "a",
        "plans/notes.json": "b",
        "parent/notes": "c",
        "sub/ant.onnx": "d",
        "ant.yaml": "e",
    }
    for name, text in mine.items():
        (here / "two" / name).parent.mkdir(exist_ok=True)
        (here / "two" / name).write_text(text)
    assert graft(*CUT, "--classes", "cow", "-o", "two", "--force").code == 0
    files = {name for name, content in kit.listing(here / "two").items() if content is not None}
    parent = {"parent/parent.onnx", "parent/profile.safetensors"}
    assert files == {INDEX, "cow.onnx", "plans/cow.json", *parent, *mine}
    assert {name: (here / "two" / name).read_text() for name in mine} == mine


@pytest.mark.parametrize("name", ["cow.onnx", "plans/cow.json"])
def test_force_leaves_a_foreign_file_of_the_same_name(name: str, graft: Graft, here: Place) -> None:
    """``--force`` replaces only what graft.json lists, whatever the new modules are called."""
    (here / "two" / name).write_text("mine")
    before = kit.listing(here / "two")
    result = graft(*CUT, "--classes", "cow", "-o", "two", "--force", "--json")
    assert (here / "two" / name).read_bytes() == b"mine"
    assert (result.code, result.json["code"]) == (2, "output-exists")
    assert kit.listing(here / "two") == before


# ---- whole or not at all


def stops_at(number: int, error: BaseException) -> Callable[..., Any]:
    """``Decompose.__call__`` that raises in its call ``number``."""
    original, calls = Decompose.__call__, []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == number:
            raise error
        return original(*args, **options)

    return call


FAILURES = {
    "refused": (GraftError("law-broken", "message", "hint"), 2),
    "interrupted": (KeyboardInterrupt(), 130),
    "broken": (RuntimeError("no"), 2),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("target", ["out", "two"])
def test_a_failure_while_cutting_leaves_everything(
    failure: str, target: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all: where the third module fails there is no DIR, and an old one stays as it was."""
    error, code = FAILURES[failure]
    monkeypatch.setattr(Decompose, "__call__", stops_at(3, error))
    before = kit.listing(here.folder.parent)
    assert graft(*CUT, "-o", target, "--force").code == code
    assert kit.listing(here.folder.parent) == before


@pytest.mark.parametrize("target", ["out", "two"])
def test_a_full_disk_leaves_everything(
    target: str, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all: where the disk is full after some files, nothing has changed."""
    written = kit.full_disk(monkeypatch, after=3)
    before = kit.listing(here.folder.parent)
    assert graft(*CUT, "-o", target, "--force").code == 2
    assert len(written) == 4
    monkeypatch.undo()
    assert kit.listing(here.folder.parent) == before


def fails_at(numbers: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Renames of these numbers fail, the others work."""
    rename, calls = Path.rename, []

    def call(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) in numbers:
            raise OSError(errno.EIO, "Input/output error", str(target))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", call)


def test_a_new_dir_that_could_not_be_put_in_place_is_not_there(
    graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DIR is never half there; nothing is left beside it."""
    fails_at([1], monkeypatch)
    before = kit.listing(here.folder)
    result = graft(*CUT, "-o", "out")
    assert (result.code, result.err.count("cannot write out: Input/output error")) == (2, 1)
    assert kit.listing(here.folder) == before


@pytest.mark.parametrize("number", [1, 2])
def test_an_old_dir_stays_where_the_new_one_cannot_be_put_in_place(
    number: int, graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all: a failure in the middle leaves the old DIR."""
    fails_at([number], monkeypatch)
    before = kit.listing(here.folder)
    assert graft(*CUT, "-o", "two", "--force").code == 2
    assert kit.listing(here.folder) == before


def test_an_old_dir_that_cannot_be_moved_back_is_named(
    graft: Graft, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only copy is never deleted; the next command that names DIR moves it back."""
    fails_at([2, 3], monkeypatch)
    before = kit.listing(here.folder)
    result = graft(*CUT, "-o", "two", "--force")
    assert (result.code, (here / "two").exists()) == (2, False)
    assert f"lie in {here / '.two.graft-old'}" in result.err
    monkeypatch.undo()
    monkeypatch.chdir(here.folder)
    assert graft("compose", "two", "-o", "c.onnx", "--dry-run").code == 0
    assert kit.listing(here.folder) == before


def test_a_folder_in_the_way_leaves_the_old_dir(graft: Graft, here: Place) -> None:
    (here / "two/cow.onnx").mkdir()
    before = kit.listing(here / "two")
    result = graft(*CUT, "--classes", "cow", "-o", "two", "--force", "--json")
    assert (result.code, result.json["code"]) == (2, "output-exists")
    assert kit.listing(here / "two") == before


def test_one_module_out_of_reach_and_none_is_written(graft: Graft, here: Place) -> None:
    """A budget that cannot be reached writes nothing, and an old DIR stays."""
    before = kit.listing(here.folder.parent)
    for target in ("out", "two"):
        line = ("decompose", "dense.onnx", "--data", "dense.npz", "--keep", "0.01", "--force")
        assert graft(*line, "-o", target).code == 2
    assert kit.listing(here.folder.parent) == before


@pytest.mark.parametrize("target", ["out", "deep/er/out", "two"])
def test_a_dry_run_touches_nothing(target: str, graft: Graft, here: Place) -> None:
    """``--dry-run``: no folder is made, an old DIR stays as it was."""
    before = kit.listing(here.folder.parent)
    result = graft(*CUT, "-o", target, "--force", "--dry-run", "--json")
    assert (result.code, result.json["schema"]) == (0, "graft/decompose/1")
    assert [module["classes"] for module in result.json["modules"]] == [[name] for name in kit.LABELS]
    assert kit.listing(here.folder.parent) == before
