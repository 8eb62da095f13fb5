"""One run at a time writes an output; readers wait only between two renames."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files import claim, claimed, lock, settled, writing
from graft.rewriter.files.place import Place

HOLD = """
import sys, pathlib
from graft.rewriter.files import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds ``path`` until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "WAIT", 0.1)


def refused(path: Path) -> str:
    with pytest.raises(GraftError) as caught, writing(path, force=True):
        pass
    assert caught.value.code == "output-busy"
    return caught.value.message


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    """By whatever name it calls the output; one that is killed holds nothing, and leaves nothing."""
    path = tmp_path / "parts"
    (tmp_path / "link").symlink_to(tmp_path)
    for end in ("kill", "close"):
        with holder(path) as first:
            assert "another run writes" in refused(path)
            assert "another run writes" in refused(tmp_path / "link/parts")
            settled(path)
            with writing(tmp_path / "other", force=True):
                pass
            first.kill() if end == "kill" else first.stdin.close()  # type: ignore[union-attr]
            first.wait(10)
        with writing(path, force=True) as temporary:
            temporary.write_text(end)
        assert path.read_text() == end
        assert sorted(os.listdir(tmp_path)) == ["link", "other", "parts"]


def test_a_writer_waits_for_one_that_is_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "WAIT", 30)
    with holder(tmp_path / "a") as first:
        threading.Timer(0.3, first.kill).start()
        with writing(tmp_path / "a"):
            pass


def test_threads_are_writers_of_their_own(tmp_path: Path) -> None:
    found: list[str] = []
    with claimed(tmp_path / "a"), claimed(tmp_path / "a"):
        thread = threading.Thread(target=lambda: found.append(refused(tmp_path / "a")))
        thread.start()
        thread.join()
    assert len(found) == 1


def test_a_reader_waits_between_two_renames(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "a")
    place.old.mkdir()
    with claimed(tmp_path / "b"), lock.locked(place.lock, 0):
        timer = threading.Timer(0.3, place.path.mkdir)
        start = time.monotonic()
        timer.start()
        settled(place.path)
    assert time.monotonic() - start >= 0.25
    assert place.path.is_dir()


def test_where_there_are_no_locks_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(_: int) -> None:
        raise OSError(next(iter(lock.NO_LOCKS)), "no locks")

    monkeypatch.setattr(lock, "_lock", no_locks)
    with writing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert "has no locks" in caplog.text
    place = Place.of(tmp_path / "a")
    place.new.touch()
    settled(place.path)
    assert place.new.exists(), "another run may be writing it"
    place.path.unlink()
    place.old.mkdir()
    settled(place.path)
    assert place.path.is_dir()
