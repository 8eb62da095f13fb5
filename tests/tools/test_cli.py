"""Signals, closed pipes and full disks: exit codes, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graft.tools.cli import run
from tests.integration import kit

PROGRAM = [sys.executable, "-c", "from graft.tools.cli import main; main()"]
CUT = ("decompose", "dense.onnx", "--data", "dense.npz", "--keep", "0.7", "-o", "out")

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and devices of POSIX")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return kit.place(tmp_path).folder


def closed_pipe(here: Path, *words: str) -> int:
    """The exit code where nobody reads what is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    code = subprocess.run([*PROGRAM, *words], cwd=here, stdout=writer, stderr=writer).returncode
    os.close(writer)
    return code


@posix
@pytest.mark.parametrize(
    "words", ["inspect dense.onnx", "inspect dense.onnx --json", "--help", "inspect --help", "--version"]
)
def test_a_closed_pipe_is_no_failed_check(words: str, here: Path) -> None:
    assert closed_pipe(here, *words.split()) == 141


@posix
@pytest.mark.parametrize("words", ["inspect none.onnx --json", "nothing --json", "inspect none.onnx"])
def test_a_closed_pipe_leaves_the_code_of_an_error(words: str, here: Path) -> None:
    """Python itself would try to print the rest at its end, and end with 120."""
    assert closed_pipe(here, *words.split()) == 2


@posix
def test_a_closed_pipe_does_not_stop_the_work(here: Path) -> None:
    """``graft decompose ... | head -0``: the first line is lost, the folder is written."""
    assert closed_pipe(here, *CUT) == 141
    assert (here / "out/graft.json").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("words", ["inspect dense.onnx", "inspect dense.onnx --json", "--help"])
def test_a_full_disk_behind_standard_output_is_said(words: str, here: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, *words.split()], cwd=here, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "graft: error: cannot write what there is to print: No space left on device; free some space there"
    ]


@posix
@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_ask_to_end_leave_nothing(number: int, here: Path) -> None:
    """SIGTERM and SIGHUP do what Ctrl-C does; an old folder stays, nothing lies beside it."""
    assert subprocess.run([*PROGRAM, *CUT], cwd=here, stdout=subprocess.DEVNULL).returncode == 0
    before = kit.listing(here)
    with subprocess.Popen([*PROGRAM, *CUT, "--force"], cwd=here, stderr=subprocess.PIPE, text=True) as run:
        for _ in range(3000):  # until it has claimed its output
            if (here / ".out.graft-lock").exists():
                break
            time.sleep(0.02)
        run.send_signal(number)
        _, said = run.communicate(timeout=60)
    assert (run.returncode, said.split()[-2:]) == (130, ["graft:", "interrupted"])
    assert kit.listing(here) == before


@pytest.mark.parametrize(
    "line", [["compose", "{}"], ["evaluate", "{}", "--data", "x.npz"], ["inspect", "{}"]]
)
def test_a_path_that_nobody_can_use_is_named(line: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    name = "x" * 300
    more = ["-o", "out.onnx"] if line[0] == "compose" else []
    assert run([*(word.format(name) for word in line), *more]) == 2
    error = capfd.readouterr().err
    assert error.startswith("graft: error: ") and error.count("\n") == 1
    assert "unexpected" not in error and "name too long" in error.lower()


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be deleted there")
def test_a_current_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = f"import os; os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd()); "
    code += "from graft.tools.cli import run; raise SystemExit(run(['inspect', 'm.onnx']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "graft: error: the current folder was deleted; change to another one\n"
