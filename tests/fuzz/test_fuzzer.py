"""The fuzzer itself: mutants are repeatable, and every kind of fault is seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import bases, child, verdict
from tests.fuzz.child import Ended
from tests.fuzz.mutant import KINDS, Mutant, draw, kind_of, make
from tests.fuzz.verdict import SECRET, judge, listing

pytestmark = pytest.mark.skipif(bool(child.supported()), reason=child.supported())

LINE = Mutant(0, "model", "gemms", ("inspect", "model.onnx"))
ERROR = "graft: error: no model; check the path\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of a mutant."""
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    (tmp_path / "work" / "model.onnx").write_bytes(b"model")
    (tmp_path / "outside.bin").write_bytes(SECRET)
    return tmp_path


def ended(code: int = 2, err: str = ERROR, out: str = "", peak: int = 1, hung: bool = False) -> Ended:
    return Ended(code, 0.1, peak, out, err, hung)


def test_one_clear_line_and_success_are_right(place: Path) -> None:
    before = listing(place / "work")
    assert judge(LINE, ended(), place, before).kind == verdict.CLEAN
    assert (
        judge(LINE, ended(0, "graft: warning: few samples\n", "fine"), place, before).kind == verdict.SUCCESS
    )


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (ended(err="graft: error: unexpected KeyError: 1; report it\n"), verdict.UNEXPECTED),
        (ended(err="Traceback (most recent call last):\n"), verdict.UNEXPECTED),
        (ended(err=ERROR + "[E:onnxruntime:, sequential_executor.cc]\n"), verdict.UNEXPECTED),
        (ended(err=ERROR * 2), verdict.UNEXPECTED),
        (ended(err=""), verdict.UNEXPECTED),
        (ended(0), verdict.UNEXPECTED),
        (ended(3), verdict.UNEXPECTED),
        (ended(err="graft: error: \x1b[31mred\n"), verdict.UNEXPECTED),
        (ended(err=f"graft: error: {'x' * 2000}\n"), verdict.UNEXPECTED),
        (ended(-11), verdict.CRASH),
        (ended(-9, hung=True), verdict.HANG),
        (ended(peak=3 << 30), verdict.MEMORY),
    ],
)
def test_faults_of_an_end_are_seen(end: Ended, kind: str, place: Path) -> None:
    assert judge(LINE, end, place, listing(place / "work")).kind == kind


def _changed_input(place: Path) -> None:
    (place / "work" / "model.onnx").write_bytes(b"other")


def _left_output(place: Path) -> None:
    (place / "work" / "out").mkdir()


def _left_temporary_file(place: Path) -> None:
    (place / "tmp" / "x").touch()


def _changed_outside(place: Path) -> None:
    (place / "outside.bin").write_bytes(b"")


def _ran_code(place: Path) -> None:
    (place / "work" / "pwned").mkdir()


@pytest.mark.parametrize(
    ("does", "kind"),
    [
        (_changed_input, verdict.FILES),
        (_left_output, verdict.FILES),
        (_left_temporary_file, verdict.FILES),
        (_changed_outside, verdict.ESCAPED),
        (_ran_code, verdict.ESCAPED),
    ],
)
def test_faults_in_files_are_seen(does: Callable[[Path], None], kind: str, place: Path) -> None:
    before = listing(place / "work")
    does(place)
    assert judge(LINE, ended(), place, before).kind == kind


def test_content_of_outside_in_the_output_is_seen(place: Path) -> None:
    before = listing(place / "work")
    (place / "work" / "out").write_bytes(b"weights" + SECRET)
    assert judge(LINE, ended(0, ""), place, before).kind == verdict.ESCAPED


# ------------------------------------------------------------------- children

FORKS = """
import os, sys, time
from pathlib import Path
from tests.fuzz import child
child.PEAK = 200 << 20
def crash(): os.abort()
def hang(): time.sleep(9)
def grow(): kept = b"x" * (400 << 20); time.sleep(2); return len(kept)
def fine(): print("out"); print("err", file=sys.stderr); return 3
for number, work in enumerate((fine, crash, hang, grow)):
    folder = Path(sys.argv[1], str(number)); (folder / "work").mkdir(parents=True)
    child.WAITING = 0.5 if work is hang else 30.0
    end = child.Child(work, folder).wait()
    print(end.code, end.hung, end.grown, end.out.strip(), end.err.strip())
"""


def test_children_are_limited(tmp_path: Path) -> None:
    """In a process of its own: that of the tests has threads."""
    root = Path(__file__).parents[2]
    line = [sys.executable, "-c", FORKS, str(tmp_path)]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=True, timeout=300)
    fine, crash, hang, grow = done.stdout.splitlines()
    assert fine == "3 False False out err"
    assert crash.startswith("-6 False False")
    assert hang.startswith("-9 True False")
    assert grow.startswith("-9 False True")


# ------------------------------------------------------------------- mutants


def test_a_seed_says_all(tmp_path: Path) -> None:
    made = tmp_path / "bases"
    for name in bases.names():
        bases.write(bases.base(name), made / name)
    for seed in range(40):
        if kind_of(seed) in ("plan", "profile", "folder"):
            continue  # of files that Graft writes
        found = []
        for round_ in ("one", "two"):
            folder = tmp_path / round_ / str(seed)
            mutant = make(seed, made, folder)
            found.append((mutant, listing(folder)))
        assert found[0] == found[1]


def test_every_kind_and_many_commands_are_drawn() -> None:
    drawn = [draw(seed)[0] for seed in range(400)]
    assert {mutant.kind for mutant in drawn} == set(KINDS)
    assert len({mutant.command for mutant in drawn}) > 9
    assert len({mutant.base for mutant in drawn}) == len(bases.names())
