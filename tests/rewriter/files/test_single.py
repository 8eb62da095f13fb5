"""A file is written whole or not at all; links are followed, broken ones and devices refused."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files import claimed, refuse_overwrite, settled, writing
from graft.rewriter.files.place import Place
from tests.rewriter.files.strike import in_child

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks, devices, links")


def write(path: Path, text: str, force: bool = False) -> None:
    with writing(path, force) as temporary:
        temporary.write_text(text)


def refused(path: Path, force: bool = False) -> GraftError:
    with pytest.raises(GraftError) as caught:
        write(path, "new", force)
    return caught.value


@pytest.mark.parametrize("name", ["a.txt", ".hidden", "n" * 250, "ä" * 120, "new\nline"])
def test_names(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, "old")
    write(tmp_path / name, "new", force=True)
    assert (tmp_path / name).read_text() == "new"
    assert os.listdir(tmp_path) == [name]


def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    write(tmp_path / "b", "new")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@posix
def test_killed_at_every_moment(tmp_path: Path) -> None:
    """Old or new; the next run works, and leaves nothing beside."""
    found = set()
    for number in range(50):
        path = tmp_path / str(number) / "a.txt"
        path.parent.mkdir()
        path.write_text("old")
        killed, code = in_child(path.parent, number, lambda path=path: write(path, "new", force=True))
        found.add(path.read_text())
        settled(path)
        assert os.listdir(path.parent) == ["a.txt"]
        write(path, "newest", force=True)
        assert path.read_text() == "newest"
        if not killed:
            break
    assert code == 0
    assert found == {"old", "new"}


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "a/b/c.txt"):
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    write(tmp_path / "a/b/c.txt", "new")
    assert (tmp_path / "a/b/c.txt").read_text() == "new"


@posix
def test_a_link_is_followed(tmp_path: Path) -> None:
    """A link to a file: that one is replaced, with force; a link in a path leads on."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store/real").write_text("old")
    (tmp_path / "link").symlink_to("store/real")
    (tmp_path / "folder").symlink_to("store")
    assert refused(tmp_path / "link").code == "output-exists"
    write(tmp_path / "link", "new", force=True)
    write(tmp_path / "folder/other", "other")
    assert (tmp_path / "link").is_symlink()
    assert [(tmp_path / "store" / name).read_text() for name in ("real", "other")] == ["new", "other"]
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "store"]
    assert sorted(os.listdir(tmp_path / "store")) == ["other", "real"]


@posix
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["link", "loop", "volume/a.txt", "volume/deep/er/a.txt"])
def test_a_broken_link_is_refused(name: str, force: bool, tmp_path: Path) -> None:
    """The disk that it leads to may not be there now: nothing is made in its place."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/a.txt")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "volume").symlink_to(tmp_path / "disk")
    before = sorted(os.listdir(tmp_path))
    error = refused(tmp_path / name, force)
    assert (error.code, "is a link to" in error.message) == ("output-unwritable", True)
    assert sorted(os.listdir(tmp_path)) == before


@posix
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_refused(force: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "null", Path("/dev/null"), Path("/")):
        assert refused(path, force).code == "output-exists"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file/a.txt", force).code == "output-unwritable"


@pytest.mark.parametrize("moment", ["write_text", "rename", "lock", "sync"])
def test_a_full_disk_leaves_the_old_one(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.txt"
    path.write_text("old")
    target = {"write_text": (Path, "write_text"), "rename": (Path, "replace"), "sync": (os, "fsync")}
    place, name = target.get(moment, (os, "open"))
    monkeypatch.setattr(place, name, full)
    error = refused(path, force=True)
    monkeypatch.undo()
    assert (error.code, "No space left" in error.message) == ("output-unwritable", True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@posix
def test_hidden_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    place = Place.of(tmp_path / "a.txt")
    for hidden in (place.new, place.data, place.old):
        hidden.symlink_to(tmp_path / "precious")
    write(tmp_path / "a.txt", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "precious"]
    place.lock.symlink_to(tmp_path / "precious")
    assert refused(tmp_path / "b/../a.txt", force=True).code == "output-unwritable"


def test_a_claim_is_checked_again(tmp_path: Path) -> None:
    """Another run may have written it between the question and the claim."""
    refuse_overwrite(tmp_path / "a.txt", False)
    write(tmp_path / "a.txt", "theirs")
    with claimed(tmp_path / "a.txt"):
        assert refused(tmp_path / "a.txt").code == "output-exists"
