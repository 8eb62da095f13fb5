"""Many mutants, a few at a time: bases are made once, every mutant runs in a child of its own."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

from graft.tools import cli
from tests.fuzz import bases, checks, verdict
from tests.fuzz.child import Child, Ended
from tests.fuzz.mutant import Mutant, make
from tests.fuzz.verdict import SECRET, Listing, Verdict

LAZY = (
    *("onnx.reference", "onnxslim", "onnxruntime", "scipy.optimize", "scipy.linalg", "scipy.special", "yaml"),
    *(
        "safetensors.numpy",
        "PIL.Image",
        "PIL.PngImagePlugin",
        "pyarrow.parquet",
        "rich.table",
        "rich.progress",
    ),
    *("onnx.version_converter", "onnx.shape_inference", "onnx.inliner", "onnx.compose", "numpy.random"),
)
"""Modules that commands import when they need them."""


Ends = tuple[Path, Ended, Ended | None]


@dataclass(frozen=True)
class Result:
    """One mutant and what it led to.

    Attributes:
        mutant: the mutant.
        ended: how its command ended.
        verdict: what that is.
        checked: what its result was compared with; empty: nothing to compare.
    """

    mutant: Mutant
    ended: Ended
    verdict: Verdict
    checked: str = ""

    def line(self) -> str:
        """One line that says all."""
        mutant, told = self.mutant, self.verdict
        what = f"{mutant.seed} {mutant.kind} of {mutant.base}: {told.kind}"
        reason = f" ({told.reason})" if told.reason else ""
        return f"{what}{reason}; {mutant.change}; graft {' '.join(mutant.arguments)}"


def prepare() -> None:
    """Import what commands import, so that children find it."""
    for name in (*(f"graft.tools.commands.{name}" for name in cli.COMMANDS), *LAZY):
        importlib.import_module(name)
    image = importlib.import_module("PIL.Image")
    image.preinit()


def make_bases(folder: Path, names: Iterable[str], jobs: int) -> None:
    """Write bases, with modules where a base has some, into ``folder``."""
    tasks = []
    for name in names:
        place = folder / "making" / name
        place.mkdir(parents=True)

        def work(name: str = name) -> int:
            bases.write(bases.base(name), Path("base"))
            if name in bases.WITH_MODULES:
                os.chdir("base")
                bases.derive(Path(), lambda line: cli.run(line))
            return 0

        (place / "work").mkdir()
        tasks.append((place, work))
    for place, ended, _ in _parallel(tasks, jobs):
        if ended.code != 0:
            raise RuntimeError(f"base {place.name} cannot be made: {ended.err}")
        (place / "work" / "base").rename(folder / place.name)
    shutil.rmtree(folder / "making")


Task = tuple[Path, Callable[[], int]]
Follow = Callable[[Path, Ended], Task | None]


def _parallel(
    tasks: Iterable[Task], jobs: int, follow: Follow = lambda folder, ended: None
) -> Iterator[Ends]:
    """Run functions in children, ``jobs`` at a time, in the order of their ends.

    Args:
        tasks: folders and functions.
        jobs: children at a time.
        follow: given how a child ended, what another one does after it.

    Yields:
        The folder of a task, how it ended, and how what followed it did.
    """
    waiting, running = iter(tasks), dict[Path, tuple[Child, Ended | None]]()
    done = False
    while running or not done:
        while not done and len(running) < jobs:
            task = next(waiting, None)
            done = task is None
            if task is not None:
                running[task[0]] = Child(task[1], task[0]), None
        time.sleep(0.002)
        for folder, (child, first) in list(running.items()):
            ended = child.poll()
            if ended is None:
                continue
            second = follow(folder, ended) if first is None else None
            if second is not None:
                running[folder] = Child(second[1], second[0]), ended
                continue
            del running[folder]
            yield (folder, ended, None) if first is None else (folder, first, ended)


class Campaign:
    """Runs mutants.

    Args:
        folder: working folder; bases are made in it.
        jobs: children at a time.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self._folder = folder
        self._jobs = jobs
        self._made = folder / "bases"
        self._mutants: dict[Path, tuple[Mutant, Listing]] = {}
        self._results: dict[Path, Result] = {}

    def run(self, seeds: Iterable[int], keep: bool = False) -> Iterator[Result]:
        """Run the mutants of these seeds; yield each result.

        Args:
            seeds: of the mutants.
            keep: leave their folders.
        """
        if not self._made.exists():
            self._made.mkdir(parents=True)
            make_bases(self._made, bases.names(), self._jobs)
        for folder, ended, checked in _parallel(map(self._task, seeds), self._jobs, self._check):
            result = self._results.pop(folder, None) or self._judged(folder, ended)
            if not keep:
                shutil.rmtree(folder)
            yield result if checked is None else _compared(result, checked)

    def _judged(self, folder: Path, ended: Ended) -> Result:
        mutant, before = self._mutants.pop(folder)
        return Result(mutant, ended, verdict.judge(mutant, ended, folder, before))

    def _check(self, folder: Path, ended: Ended) -> Task | None:
        """Compare what a command made with the parent, in a child, too: onnxruntime runs a mutant there."""
        result = self._results[folder] = self._judged(folder, ended)
        work = checks.check_of(result.mutant)
        if work is None or result.verdict.kind != verdict.SUCCESS:
            return None
        place = folder / "check"
        place.mkdir()
        (place / "work").symlink_to(folder / "work")

        def check() -> int:
            print(work(result.mutant, ended.out))
            return 0

        return place, check

    def _task(self, seed: int) -> Task:
        folder = self._folder / f"mutant-{seed}"
        folder.mkdir()
        (folder / "outside.bin").write_bytes(SECRET)
        mutant = make(seed, self._made, folder / "work")
        self._mutants[folder] = mutant, verdict.listing(folder / "work")
        return folder, lambda: cli.run(mutant.arguments)


def _compared(result: Result, checked: Ended) -> Result:
    """The result, with what the comparison said."""
    if checked.code == 0:
        return replace(result, checked=checked.out.strip())
    last = (checked.err.strip().splitlines() or [f"exit code {checked.code}"])[-1]
    name, _, reason = last.partition(": ")
    if name == "tests.fuzz.running.WrongError":
        return replace(result, verdict=Verdict(verdict.WRONG, reason))
    if name == "tests.fuzz.embedded.UnknownError" or checked.hung or checked.grown:
        return replace(result, checked=f"not: {reason or 'onnxruntime takes too long, or too much'}"[:200])
    return replace(result, verdict=Verdict(verdict.UNEXPECTED, f"in the comparison: {last}"[:300]))


def counts(results: Iterable[Result]) -> dict[str, Any]:
    """How many of each verdict, how many successes were compared, the longest and the largest."""
    results = list(results)
    kinds = Counter(each.verdict.kind for each in results)
    compared = [each.checked for each in results if each.checked]
    return {
        "mutants": len(results),
        **{kind: kinds[kind] for kind in (verdict.CLEAN, verdict.SUCCESS, *verdict.FAULTS)},
        "compared": sum(not each.startswith("not: ") for each in compared),
        "not compared": sum(each.startswith("not: ") for each in compared),
        "slowest": round(max((each.ended.seconds for each in results), default=0), 2),
        "largest": max((each.ended.peak for each in results), default=0),
    }
