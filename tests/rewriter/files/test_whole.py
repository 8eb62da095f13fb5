"""A reader gets all of the old folder or all of the new one, whenever another run replaces it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from graft.rewriter.errors import GraftError
from graft.rewriter.files import Seen, read_whole, writing
from graft.rewriter.record.folder import ModuleFolder, module_files


def write(path: Path, text: str) -> None:
    with ModuleFolder(path, force=True) as folder:
        for name in ("a.onnx", f"{text}.onnx"):
            folder.file(name).write_text(text)
        folder.index({"modules": [{"file": "a.onnx"}, {"file": f"{text}.onnx"}]})


def test_what_is_replaced_meanwhile_is_read_again(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    write(parts, "old")
    calls = []

    def read() -> list[str]:
        files = module_files([parts])
        calls.append(files[0].read_text())
        if len(calls) == 1:
            write(parts, "new")
        return [calls[-1], files[1].read_text()]

    assert read_whole([parts], read) == ["new", "new"]
    assert calls == ["old", "new"]
    seen = Seen.of([parts / "a.onnx"])
    seen.require_unchanged()
    (parts / "notes.txt").write_text("a file of others")
    seen.require_unchanged()
    write(parts, "new")
    assert seen.changed() == parts / "a.onnx"


def test_what_is_replaced_all_the_time_is_said(tmp_path: Path) -> None:
    """A file, too; errors of what stays as it was pass."""
    path, calls = tmp_path / "a.onnx", []

    def read() -> None:
        calls.append(path)
        with writing(path, force=True) as temporary:
            temporary.write_text(str(calls))

    with pytest.raises(GraftError, match=r"a\.onnx was replaced while it was read") as caught:
        read_whole([path], read)
    assert (caught.value.code, len(calls)) == ("input-changed", 5)
    with pytest.raises(FileNotFoundError):
        read_whole([path, tmp_path / "none"], (tmp_path / "none").read_text)


@pytest.mark.skipif(sys.platform == "win32", reason="open files hold the folder")
def test_readers_beside_a_writer(tmp_path: Path) -> None:
    """Of forty replacements no reader sees two at once, nor a folder that is not there."""
    parts, found = tmp_path / "parts", []
    write(parts, "0")

    def writer() -> None:
        for number in range(1, 40):
            write(parts, str(number))

    thread = threading.Thread(target=writer)
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(GraftError):  # replaced five times running
            found.append(read_whole([parts], lambda: {each.read_text() for each in module_files([parts])}))
    thread.join()
    assert len(found) > 1
    assert all(len(each) == 1 for each in found)
    assert json.loads((parts / "graft.json").read_text())["files"] == ["39.onnx", "a.onnx"]
    assert os.listdir(tmp_path) == ["parts"]
