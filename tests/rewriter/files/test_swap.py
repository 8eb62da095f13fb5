"""A folder is replaced by two renames: a run that is killed at any moment leaves the old or the new one."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files import claimed, settled, writing
from graft.rewriter.files.place import Place, delete
from graft.rewriter.files.swap import INDEX, foreign, listed, put_in
from tests.rewriter.files.strike import in_child

OLD = {"a.onnx": "old", "plans/a.json": "old plan", "parent/parent.onnx": "old parent"}
NEW = {"a.onnx": "new", "b.onnx": "new", "plans/b.json": "new plan"}
MINE = {"notes.txt": "1", "plans/mine.txt": "2", "extra/deep/er.txt": "3", ".hidden": "4"}

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks")


def write(folder: Path, files: dict[str, str], index: bool = True) -> None:
    """Write files, and the index that lists them."""
    listed = {**files, INDEX: json.dumps({"files": list(files)})} if index else files
    for name, text in listed.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """The files of a folder, but not the index."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in files}
    found.pop(INDEX, None)
    return found


def replaced(place: Path, new: dict[str, str] = NEW) -> None:
    with claimed(place) as found:
        found.new.mkdir()
        write(found.new, new)
        put_in(found)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    place = tmp_path / "box" / "parts"
    write(place, OLD)
    write(place, MINE, index=False)
    return place


def test_own_files_go_and_others_stay(there: Path) -> None:
    there.chmod(0o750)
    replaced(there)
    assert content(there) == {**NEW, **MINE}
    assert json.loads((there / INDEX).read_text()) == {"files": list(NEW)}
    assert os.listdir(there.parent) == ["parts"]
    assert sys.platform == "win32" or there.stat().st_mode & 0o777 == 0o750
    assert not (there / "parent").exists()


def test_a_file_in_the_way_is_refused_and_nothing_is_changed(there: Path) -> None:
    (there / "b.onnx").write_text("mine")
    with pytest.raises(GraftError, match=r"b\.onnx exists and is not of the folder"):
        replaced(there)
    settled(there)
    assert content(there) == {**OLD, **MINE, "b.onnx": "mine"}
    assert os.listdir(there.parent) == ["parts"]


@posix
def test_killed_at_every_moment(tmp_path: Path) -> None:
    """Old or new, whole, with all that is foreign, once the next one has looked at it; nothing beside."""
    whole, found = ({**OLD, **MINE}, {**NEW, **MINE}), set()
    for number in range(200):
        there = tmp_path / str(number) / "parts"
        write(there, OLD)
        write(there, MINE, index=False)
        killed, code = in_child(there.parent, number, lambda there=there: replaced(there))
        if not killed:
            break
        settled(there)
        assert content(there) in whole, number
        assert os.listdir(there.parent) == ["parts"], number
        found.add(whole.index(content(there)))
        replaced(there, {"c.onnx": "newest"})
        assert content(there) == {**MINE, "c.onnx": "newest"}
    assert code == 0
    assert number > 15
    assert found == {0, 1}


@posix
def test_killed_while_it_puts_right(tmp_path: Path) -> None:
    """Putting right is itself killed at every moment, and put right."""
    for number in range(100):
        there = tmp_path / str(number) / "parts"
        place = Place.of(there)
        write(place.old, OLD)
        write(place.old, MINE, index=False)
        write(there, NEW)
        killed, _ = in_child(there.parent, number, lambda there=there: settled(there))
        settled(there)
        assert content(there) == {**NEW, **MINE}
        assert os.listdir(there.parent) == ["parts"]
        if not killed:
            break
    assert number > 10


def fails_from(number: int, error: Callable[[], BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Renames fail from this number on; the first of them with an error of one's own."""
    rename, calls = Path.rename, []

    def call(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == number:
            raise error()
        if len(calls) > number:
            raise PermissionError(30, "Read-only file system")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", call)


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda: OSError(5, "Input/output error")])
@pytest.mark.parametrize("number", range(1, 7))
def test_a_roll_back_that_fails_keeps_the_only_copy_and_says_where(
    number: int,
    error: Callable[[], BaseException],
    there: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fails_from(number, error, monkeypatch)
    with caplog.at_level(logging.ERROR, "graft"):
        try:
            replaced(there)
        except (KeyboardInterrupt, OSError):
            pass
        else:
            assert number > 2, "the folder is in place: what is left is said, and no failure"
    have = [text for path in there.parent.rglob("*") if path.is_file() for text in [path.read_text()]]
    assert set(have) >= {*OLD.values(), *MINE.values()}
    moved = content(there) != {**OLD, **MINE} if there.exists() else True
    assert not moved or str(Place.of(there).old) in caplog.text
    monkeypatch.undo()
    settled(there)
    assert content(there) in ({**OLD, **MINE}, {**NEW, **MINE})
    assert os.listdir(there.parent) == ["parts"]


def test_nothing_outside_is_touched_whatever_the_index_lists(there: Path, tmp_path: Path) -> None:
    """Files are neither deleted nor moved behind links, through .. or by absolute names."""
    outside = tmp_path / "private"
    write(outside, {"thesis.txt": "mine", "parent/parent.onnx": "mine"}, index=False)
    (there / "link").symlink_to(outside)
    (there / "file").symlink_to(outside / "thesis.txt")
    names = [*OLD, "link/thesis.txt", "link", "file", "../../private/thesis.txt", f"{outside}/thesis.txt"]
    (there / INDEX).write_text(json.dumps({"files": names}))
    replaced(there)
    assert content(outside) == {"thesis.txt": "mine", "parent/parent.onnx": "mine"}
    assert not os.path.lexists(there / "file")
    (there / INDEX).write_text(json.dumps({"files": [*NEW, "extra", "notes.txt/../.hidden"]}))
    replaced(there, {"c.onnx": "newest"})
    assert content(there) == {**MINE, "c.onnx": "newest"}


def test_another_folder_in_its_place_is_left_alone(there: Path) -> None:
    """Killed between the renames, then someone made a folder of that name: both stay, and are named."""
    place = Place.of(there)
    there.rename(place.old)
    write(place.new, NEW)
    there.mkdir()
    settled(there)
    assert content(there) == {**OLD, **MINE}, "an empty one gives way"
    there.rename(place.old)
    write(place.new, NEW)
    write(there, {"theirs": "x"}, index=False)
    with pytest.raises(GraftError, match="another one is there now"):
        settled(there)
    assert content(place.old) == {**OLD, **MINE}
    assert content(there) == {"theirs": "x"}


def test_links_of_hidden_names_are_not_followed(there: Path, tmp_path: Path) -> None:
    place, outside = Place.of(there), tmp_path / "private"
    write(outside, {"thesis.txt": "mine"}, index=False)
    for hidden in (place.old, place.new, place.data):
        hidden.symlink_to(outside)
    settled(there)
    replaced(there)
    assert content(outside) == {"thesis.txt": "mine"}
    assert content(there) == {**NEW, **MINE}


def test_nothing_is_put_back_through_a_link(there: Path, tmp_path: Path) -> None:
    """An archive may hold the hidden folder of a killed run, and a link that leads out of the other."""
    place, outside = Place.of(there), tmp_path / "private"
    write(outside, {"thesis.txt": "mine"}, index=False)
    write(place.old, {"sub/own": "1"})
    write(place.old, {"sub/evil": "2", "sub/deep/evil": "3"}, index=False)
    (there / "sub").symlink_to(outside)
    settled(there)
    assert content(outside) == {"thesis.txt": "mine"}
    assert content(place.old) == {"sub/own": "1", "sub/evil": "2", "sub/deep/evil": "3"}
    (there / "sub").unlink()
    settled(there)
    assert content(there) == {**OLD, **MINE, "sub/evil": "2", "sub/deep/evil": "3"}
    assert os.listdir(there.parent) == ["parts"]


def planted(folder: Path, index: bool) -> dict[str, str]:
    write(folder, {"evil.onnx": "theirs", "sub/evil": "theirs"}, index=index)
    return content(folder)


@pytest.mark.parametrize("what", ["old", "new"])
def test_hidden_folders_beside_a_file_hold_nobody_up(what: str, tmp_path: Path) -> None:
    """Of an archive, for example: the file is read, and written; nothing gets into its place."""
    place = Place.of(tmp_path / "m.onnx")
    place.path.write_text("mine")
    theirs = planted(place.old if what == "old" else place.new, index=True)
    settled(place.path)
    assert place.path.read_text() == "mine"
    with writing(place.path, force=True) as temporary:
        temporary.write_text("new")
    assert place.path.read_text() == "new"
    assert what == "new" or content(place.old) == theirs


def test_a_hidden_folder_without_an_index_is_no_old_one(there: Path) -> None:
    """It is neither moved into the place nor merged with what lies there; a link is no index either."""
    place = Place.of(there)
    theirs = planted(place.old, index=False)
    settled(there)
    (place.old / INDEX).symlink_to(there / INDEX)
    settled(there)
    assert content(place.old) == theirs
    assert content(there) == {**OLD, **MINE}
    (place.old / INDEX).unlink()
    there.rename(there.parent / "elsewhere")
    settled(there)
    assert not there.exists()
    assert content(place.old) == theirs


def test_hidden_folders_of_any_depth_are_deleted(there: Path) -> None:
    """Also those whose path is longer than systems take."""
    place = Place.of(there)
    here = os.getcwd()
    place.new.mkdir()
    try:
        os.chdir(place.new)
        for _ in range(1200):
            os.mkdir("0")
            os.chdir("0")
        Path("file").touch()
    finally:
        os.chdir(here)
    settled(there)
    assert os.listdir(there.parent) == ["parts"]
    assert content(there) == {**OLD, **MINE}


def test_deep_and_many_names_of_an_index(there: Path) -> None:
    """Names are looked up, not unfolded: a thousand levels and a hundred thousand names are quick."""
    deep = "/".join(["d"] * 1000)
    for level in range(1000):
        (there / deep[: 2 * level + 1]).mkdir()
    (there / deep / "x").touch()
    names = [f"{deep}/x", *(f"{number}/{number}" for number in range(100_000)), "e/" * 2_000_000]
    (there / INDEX).write_text(json.dumps({"files": names}))
    found = list(foreign(there, listed(there)))
    delete(there / "d")  # pytest could not
    assert found == [".hidden", "a.onnx", "extra", "notes.txt", "parent", "plans"]
