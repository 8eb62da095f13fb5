"""Folders of modules: what their index names lies in them, whoever wrote it; where they may be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files.place import Place
from graft.rewriter.record.folder import (
    PARENT,
    PROFILE,
    ModuleFolder,
    module_files,
    parents_beside,
    read_index,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def write(path: Path, text: str = "new", force: bool = False) -> None:
    with ModuleFolder(path, force) as folder:
        folder.file("a.onnx").write_text(text)
        folder.file("plans/a.json").write_text(text)
        folder.index({"modules": [{"file": "a.onnx"}]})


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def error_of(call: Callable[[], Any]) -> GraftError:
    with pytest.raises(GraftError) as caught:
        call()
    return caught.value


@posix
@pytest.mark.parametrize(
    "name",
    [
        *("../outside.onnx", "{}/outside.onnx", "link", "folder/outside.onnx", "folder/../outside.onnx"),
        *(
            "a\0b",
            "",
            "C:/outside.onnx",
            "c:outside.onnx",
            "//host/share/outside.onnx",
            "loop",
            "deep/outside.onnx",
        ),
    ],
)
def test_modules_outside_are_not_read(name: str, tmp_path: Path) -> None:
    """Not through .., absolute names or links: a folder may come from anywhere."""
    parts = tmp_path / "parts"
    write(parts)
    (tmp_path / "outside.onnx").write_text("mine")
    (parts / "link").symlink_to(tmp_path / "outside.onnx")
    (parts / "folder").symlink_to(tmp_path)
    (parts / "loop").symlink_to("loop")
    (parts / "deep").symlink_to("plans/on")
    (parts / "plans/on").symlink_to("../..")
    found = {"modules": [{"file": name.format(tmp_path)}], "files": []}
    (parts / "graft.json").write_text(json.dumps(found))
    assert error_of(lambda: module_files([parts])).code == "directory-outside"


@posix
def test_links_inside_and_of_the_folder_are_followed(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    write(parts)
    (parts / "a.onnx").rename(parts / "b.onnx")
    (parts / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "link").symlink_to("parts")
    assert module_files([tmp_path / "link", Path("x")]) == [tmp_path / "link/a.onnx", Path("x")]


@posix
@pytest.mark.parametrize("half_way", [False, True])
def test_an_index_and_a_parent_outside_are_not_read(half_way: bool, tmp_path: Path) -> None:
    """They are no files of the folder; links to them that stay inside are."""
    parts, elsewhere = tmp_path / "parts", tmp_path / "elsewhere"
    write(parts)
    write(elsewhere, "theirs")
    for folder in (parts, elsewhere):
        (folder / "parent").mkdir()
        for name in (PARENT, PROFILE):
            (folder / name).write_text("x")
    assert parents_beside([parts / "a.onnx"]) == [parts]
    if half_way:
        shutil.rmtree(parts / "parent")
        (parts / "parent").symlink_to(elsewhere / "parent")
    else:
        (parts / PROFILE).unlink()
        (parts / PROFILE).symlink_to(elsewhere / PROFILE)
    error = error_of(lambda: parents_beside([parts / "a.onnx"]))
    assert (error.code, "a link that leads out of" in error.message) == ("directory-outside", True)
    (parts / "graft.json").rename(parts / "index.json")
    (parts / "graft.json").symlink_to("index.json")
    assert module_files([parts]) == [parts / "a.onnx"]
    (parts / "graft.json").unlink()
    (parts / "graft.json").symlink_to(elsewhere / "graft.json")
    for call in (lambda: module_files([parts]), lambda: write(parts, "new", force=True)):
        error = error_of(call)
        assert (error.code, "a link that leads out of" in error.message) == ("directory-outside", True)
    assert (parts / "a.onnx").read_text() == "new"


@posix
def test_an_index_that_is_a_pipe_does_not_hold_anyone_up(tmp_path: Path) -> None:
    write(tmp_path / "parts")
    (tmp_path / "parts/graft.json").unlink()
    os.mkfifo(tmp_path / "parts/graft.json")
    assert error_of(lambda: read_index(tmp_path / "parts")).code == "directory-unfinished"
    assert error_of(lambda: write(tmp_path / "parts", force=True)).code == "directory-unfinished"


def test_an_index_without_modules_is_named(tmp_path: Path) -> None:
    """By every command, and beside others, too."""
    write(tmp_path / "full")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/graft.json").write_text(json.dumps({"modules": [], "files": []}))
    error = error_of(lambda: module_files([tmp_path / "full", tmp_path / "none"]))
    assert (error.code, error.message) == ("nothing-to-join", f"{tmp_path / 'none'} lists no modules")


def test_a_deep_index_is_none(tmp_path: Path) -> None:
    write(tmp_path / "parts")
    (tmp_path / "parts/graft.json").write_text('{"files": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert error_of(lambda: read_index(tmp_path / "parts")).code == "directory-unfinished"


@posix
def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    """The folder that it leads to is replaced, with force; a broken one is refused, with and without."""
    write(tmp_path / "store/real", "old")
    (tmp_path / "link").symlink_to("store/real")
    (tmp_path / "broken").symlink_to("disk/real")
    assert error_of(lambda: write(tmp_path / "link")).code == "output-exists"
    write(tmp_path / "link", "new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "store/real")["a.onnx"] == "new"
    assert os.listdir(tmp_path / "store") == ["real"]
    for force in (False, True):
        error = error_of(lambda force=force: write(tmp_path / "broken", force=force))  # type: ignore[misc]
        assert (error.code, "is a link to disk/real" in error.message) == ("output-unwritable", True)
    assert not (tmp_path / "disk").exists()


@posix
def test_a_folder_that_was_killed_through_a_link(tmp_path: Path) -> None:
    """Between the renames the link leads nowhere: the old folder is moved back first."""
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").rename(Place.of(tmp_path / "real").old)
    assert module_files([tmp_path / "link"]) == [tmp_path / "link/a.onnx"]
    (tmp_path / "real").rename(Place.of(tmp_path / "real").old)
    write(tmp_path / "link", "new", force=True)
    assert content(tmp_path / "real")["a.onnx"] == "new"
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be moved: that is said before the work."""
    write(tmp_path / "parts", "old")
    for current in (tmp_path / "parts", tmp_path / "parts/plans"):
        monkeypatch.chdir(current)
        error = error_of(lambda: ModuleFolder(tmp_path / "parts", True))
        assert (error.code, "current folder" in error.message) == ("output-exists", True)
    assert content(tmp_path / "parts")["a.onnx"] == "old"


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no mount point at hand")
def test_a_mount_point_is_refused() -> None:
    error = error_of(lambda: ModuleFolder(Path("/dev/shm"), True))
    assert error.code in ("output-exists", "directory-unfinished")


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("old", [True, False])
def test_a_full_disk_leaves_everything(
    number: int, old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call that takes room: a lock, a folder, a file, its content, what the disk promised."""
    if old:
        write(tmp_path / "parts", "old")
    before, calls = content(tmp_path), []

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for place, name in ((Path, "write_text"), (Path, "mkdir"), (os, "open"), (os, "fsync")):
            patched.setattr(place, name, failing(getattr(place, name)))
        error = error_of(lambda: write(tmp_path / "parts", force=True))
    assert (error.code, "No space left" in error.message) == ("output-unwritable", True)
    assert content(tmp_path) == before
    write(tmp_path / "parts", force=True)
    assert content(tmp_path / "parts")["a.onnx"] == "new"
    assert os.listdir(tmp_path) == ["parts"]
