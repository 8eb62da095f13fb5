"""Tensors of many samples: in memory while there is room, else in a file without a name."""

from __future__ import annotations

import errno
import gc
import re
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.run import budget, values
from graft.rewriter.run.budget import parse_size, require, resident_bytes
from graft.rewriter.run.session import Device
from graft.rewriter.run.values import Room, Values

ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4).T,
    np.zeros((0, 4), np.float32),
    np.array(1.5),
    np.array([True, False]),
    np.arange(3, dtype=np.float16),
    np.arange(3).astype(ml_dtypes.bfloat16),
    np.array(["a", "bc"], object),
    np.broadcast_to(np.arange(3.0), (2, 3)),
]


@pytest.mark.parametrize("limit", [0, 20, 1 << 20])
def test_what_was_put_in_comes_out(limit: int) -> None:
    room = Room(limit)
    kept = Values(room)
    for array in ARRAYS:
        kept.append(array)
    assert len(kept) == len(ARRAYS)
    for number, array in enumerate(ARRAYS):
        found = kept[number]
        assert found.dtype == array.dtype and kept.shape(number) == array.shape
        np.testing.assert_array_equal(found, array)
    assert room.taken > 0
    del kept
    gc.collect()
    assert room.taken == 0


def test_no_file_is_left_and_none_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Values(Room(0))
    kept.append(np.ones(1000))
    file = kept._held.file
    assert file is not None and not list(tmp_path.iterdir())
    del kept
    gc.collect()
    assert file.closed


def test_memory_of_a_base_is_not_kept() -> None:
    kept = Values(Room())
    kept.append(np.ones(1000)[:2])
    assert kept[0].base is None


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(values._Stored, "write", write)
    with pytest.raises(GraftError, match="no room for 0.1 GB of values in ") as caught:
        Values(Room(0)).append(np.ones(9))
    assert caught.value.code == "disk-full" and "TMPDIR" in caught.value.hint


def test_a_disk_that_is_too_small_is_said_before_it_is_full() -> None:
    Room(100).require(100)
    with pytest.raises(GraftError, match="no room for"):
        Room(100).require(1 << 60)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("4g", 4 * 10**9), (" 1.5 GiB", 3 << 29), ("500MB", 5 * 10**8), ("8192", 8192)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "free_bytes", lambda: 1000)
    monkeypatch.setattr(budget, "resident_bytes", lambda: 10)
    assert parse_size("50%") == 510


@pytest.mark.parametrize("text", ["", "much", "4 GBit", "-1GB", "0", "120%", "nan", "1e9"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(GraftError) as caught:
        parse_size(text)
    assert caught.value.code == "memory-size"


def test_room_is_what_is_left_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "resident_bytes", lambda: 300)
    assert Device(memory=1000).room() == 700
    assert Device(memory=100).room() == 0
    monkeypatch.setattr(budget, "free_bytes", lambda: 1000)
    assert Device().room() == 500
    monkeypatch.setattr(budget, "free_bytes", lambda: 10**12)
    assert Device().room() == budget.USUAL - 300


def test_a_lack_of_memory_says_what_is_needed() -> None:
    require(1000, None, "the work")
    require(1000, 1 << 50, "the work")
    with pytest.raises(GraftError, match="GB of memory, and --memory allows 1.0 GB") as caught:
        require(2 * 10**9, 10**9, "the work")
    taken = re.match(r"the work takes ([\d.]+) GB", caught.value.message)  # with what the process has
    assert taken and float(taken[1]) >= 2.0
    assert caught.value.hint.startswith("give --memory ") and "GB or more" in caught.value.hint
    with pytest.raises(GraftError, match="not enough memory"):
        require(1 << 60, None, "the work")


def test_the_memory_of_this_process() -> None:
    before = resident_bytes()
    more = np.ones(1 << 24)
    assert 50 << 20 < before < 100 << 30
    assert resident_bytes() - before > more.nbytes / 2
