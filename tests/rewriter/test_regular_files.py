"""Only regular files are opened: pipes, devices, sockets and folders are named instead, at once."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from graft.rewriter.regular_files import found_at, is_regular, read_regular, require_regular

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, devices and links have no paths on Windows")


def test_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert is_regular(tmp_path / "a") and require_regular(tmp_path / "a") == 3
    assert read_regular(tmp_path / "a", 3) == b"abc"


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(OSError, match="found 3 bytes, at most 2 are read"):
        read_regular(tmp_path / "a", 2)


def test_what_lies_there_instead(tmp_path: Path) -> None:
    assert found_at(tmp_path) == "a folder"
    assert found_at(tmp_path / "none") == found_at("a\0b") == found_at("") == "nothing"
    assert not is_regular(tmp_path / ("x" * 5000))


@posix
def test_what_never_ends_or_never_begins(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("/nowhere")
    (tmp_path / "circle").symlink_to("circle")
    assert found_at(tmp_path / "pipe") == "a named pipe"
    assert found_at("/dev/zero") == "a device"
    assert found_at(tmp_path / "dangling") == "a link to nothing"
    assert found_at(tmp_path / "circle") == "a link that leads nowhere"
    with pytest.raises(OSError, match="found a named pipe where a file was expected"):
        read_regular(tmp_path / "pipe")
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as each:
        each.bind(f"{short}/s")  # the path of a socket has at most some 100 bytes
        assert found_at(f"{short}/s") == "a socket"
