"""Kill runs that replace a folder or a model, and fill their disk: old or new, whole, and the next run works.

    python -m benchmarks.kill [--moments 200] [--seed 0] [--few N] [--json kill.json]

A child of this process, with everything imported, runs one command after the other on a small bundled model.
It is struck by SIGKILL, SIGTERM and SIGINT at random moments (half of them while it writes) and before each
operation on the folder of its output; and the disk is full from each write on. Then the output has to be the
old or the new one, byte for byte, at the latest when a command has read it; foreign files in a folder stay;
the next run has to work and to leave nothing beside. POSIX only, no models and no data needed. Takes about
20 minutes on two cores; the exit code is 1 where anything was wrong.
"""  # fmt: skip

from __future__ import annotations

import argparse
import builtins
import errno
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.common import Run, start
from graft.rewriter.files.place import Place
from graft.rewriter.graph import weights
from graft.tools import cli
from tests.rewriter.files.strike import Strike

MODELS = Path(__file__).resolve().parents[1] / "models"
DIGITS = ("--data", str(MODELS / "digits_sample.npz"), "--threads", "1", "--providers", "cpu")
FOREIGN = {"notes.txt": "mine", "plans/notes.txt": "mine", "more/notes.txt": "mine"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
AGAIN = 20
"""Random moments after which it is measured again how long a command takes."""
Words = tuple[str, ...]
AT_END: list[Callable[[], object]] = []
"""Called by a child at its end."""


@dataclass(frozen=True)
class Scene:
    """A command that replaces an output, in a folder of its own.

    Attributes:
        title: what it is, for the table.
        box: the folder; holds nothing but the output.
        name: of the output.
        command: writes the new output.
        old: what the folder holds before: names and content.
        new: what it holds after.
        large: weights go to a file of their own.
        foreign: what a user keeps in an output that is a folder.
    """

    title: str
    box: Path
    name: str
    command: Words
    old: dict[str, bytes]
    new: dict[str, bytes]
    large: bool = False

    def restore(self) -> None:
        """Put the old output in place, and nothing else."""
        shutil.rmtree(self.box, ignore_errors=True)
        for name, content in self.old.items():
            (self.box / name).parent.mkdir(parents=True, exist_ok=True)
            (self.box / name).write_bytes(content)

    def state(self) -> str:
        """Return ``old``, ``new``, or what is wrong; hidden files and unnamed weights do not count."""
        have = {name: content for name, content in contents(self.box).items() if not name.startswith(".")}
        for state, whole in (("old", self.old), ("new", self.new)):
            named = {name: content for name, content in have.items() if not self.large or name in whole}
            if named == whole:
                return state
        return f"{len(have)} files of {len(self.old)} or {len(self.new)}"

    def fault(self, code: int, said: str) -> str:
        """Return what is wrong after a run that was struck, or ``""``; runs the command again."""
        state = self.state()
        if state not in ("old", "new") and not self.large:
            child(("compose", str(self.box / self.name), "-o", str(self.box.parent / "read"), "--dry-run"))
            state = self.state()
        again, told = child(self.command, large=self.large)
        beside = sorted(set(contents(self.box)) ^ set(self.new))
        if state in ("old", "new") and not again and self.state() == "new" and not beside:
            return ""
        return f"{state}, exit code {code}, next run {again}, too much or little {beside}: {said} {told}"


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# ------------------------------------------------------------------------------- children


def begin(words: Words, log: int, large: bool, prepare: Callable[[], object]) -> int:
    """Fork a child that runs a command line; return its process id."""
    process = os.fork()
    if process:
        return process
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream, target in ((0, nothing), (1, nothing), (2, log)):
            os.dup2(target, stream)
        if large:
            weights.PROTO_BYTES = 100
        prepare()
        sys.argv = ["graft", *words]
        cli.main()
    except SystemExit as end:
        for last in AT_END:
            last()
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(99)


def child(
    words: Words,
    prepare: Callable[[], object] = lambda: None,
    large: bool = False,
    meanwhile: Callable[[int], object] = lambda process: None,
) -> tuple[int, str]:
    """Run a command line in a child.

    Args:
        words: the command line.
        prepare: called in the child before.
        large: weights go to a file of their own.
        meanwhile: called with its process id while it runs.

    Returns:
        Its exit code, and the end of what it said on standard error.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = begin(words, log.fileno(), large, prepare)
        meanwhile(process)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        log.seek(0)
        return code, log.read()[-600:]


def scenes(folder: Path, names: tuple[str, ...]) -> Iterator[Scene]:
    """Yield the scenes of these names, with their outputs before and after."""
    base = ("decompose", str(MODELS / "digits_sklearn.onnx"), *DIGITS, "--compensate", "none", "--no-verify")
    for name, keep, classes in (("old", "0.6", "zero,one"), ("new", "0.4", "zero,two")):
        done = child((*base, "--keep", keep, "--classes", classes, "-o", str(folder / name)))
        assert done[0] == 0, done
    ways: dict[str, tuple[str, Callable[[str], Words]]] = {
        "decompose": ("parts", lambda age: (*base, "--keep", "0.6", "--classes", CLASSES[age])),
        "compose": ("m.onnx", lambda age: ("compose", str(folder / age), "--strategy", "branches")),
        "replace": (
            "r.onnx",
            lambda age: (
                *("replace", str(MODELS / "digits_sklearn.onnx"), "--class", "five"),
                *("--with", str(folder / age / "zero.onnx"), "--rename", "zero=nil"),
            ),
        ),
    }
    for title in names:
        large = title.endswith(" with a data file")
        output, words = ways[title.removesuffix(" with a data file")]
        box = folder / f"box {title}"
        command = [(*words(age), "-o", str(box / output), "--force") for age in ("old", "new")]
        states = []
        for each in command:
            box.mkdir(exist_ok=True)
            done = child(each, large=large)
            assert done[0] == 0, done
            if output == "parts":
                for name, text in FOREIGN.items():
                    (box / output / name).parent.mkdir(exist_ok=True)
                    (box / output / name).write_text(text)
            states.append(contents(box))
        assert states[0] != states[1]
        yield Scene(title, box, output, command[1], states[0], states[1], large)


CLASSES = {"old": "zero,one,two", "new": "zero,two,three"}


# ------------------------------------------------------------------------------- sections


def moments(run: Run) -> None:
    """Signals at random moments, half of them while the output is written."""
    run.output.section("SIGKILL, SIGTERM and SIGINT at random moments")
    drawn, faults = random.Random(run.options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        (scene,) = scenes(Path(folder), ("decompose",))
        place = Place.of(scene.box / scene.name)
        count = run.few or run.options.moments
        states: Counter[str] = Counter()
        for number in range(count):
            if number % AGAIN == 0:  # a machine that others use is not as fast all the time
                before, during = spans(scene, place)
            number_of = SIGNALS[number % len(SIGNALS)]
            late = number % 2 == 1
            wait = drawn.uniform(0, during if late else before + during)

            def strike(
                process: int, late: bool = late, wait: float = wait, number_of: int = number_of
            ) -> None:
                while late and not place.new.exists() and not ended(process):
                    time.sleep(0.0005)
                time.sleep(wait)
                os.kill(process, number_of)

            scene.restore()
            code, said = child(scene.command, meanwhile=strike)
            states[scene.state()] += 1
            if fault := scene.fault(code, said):
                faults.append(f"{number}: {signal.Signals(number_of).name}, {fault}")
    note = f"{before:.2f} s of work, {during:.3f} s of writing; {found(states)}"
    report(run, f"{count} random moments, seed {run.options.seed}: {note}", faults)


def spans(scene: Scene, place: Place) -> tuple[float, float]:
    """Return the seconds of a command before and while it writes, medians of three runs."""
    lengths = []

    def watch(process: int) -> None:
        begun = time.monotonic()
        while not place.new.exists() and not ended(process):
            time.sleep(0.0005)
        written = time.monotonic()
        while place.lock.exists() and not ended(process):
            time.sleep(0.0005)
        lengths.append((written - begun, time.monotonic() - written))

    for _ in range(3):
        scene.restore()
        child(scene.command, meanwhile=watch)
    before, during = (sorted(each)[1] for each in zip(*lengths, strict=True))
    return before, during


def ended(process: int) -> bool:
    """Return whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def operations(run: Run) -> None:
    """Signals before each rename, removal and new folder, of outputs of all kinds."""
    run.output.section("SIGKILL, SIGTERM and SIGINT before each operation on the folder of the output")
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes(Path(folder), ("decompose", "compose", "compose with a data file")):
            count = operations_of(scene)
            states: Counter[str] = Counter()
            faults = [fault for number in run.some(range(count)) for fault in struck(scene, number, states)]
            report(run, f"{scene.title}: signals before each of {count} operations; {found(states)}", faults)


def struck(scene: Scene, number: int, states: Counter[str]) -> Iterator[str]:
    """Strike before an operation with each signal; yield what was wrong, and count what was left."""
    for number_of in SIGNALS:
        scene.restore()
        code, said = child(scene.command, partial(hook, scene, number, number_of), scene.large)
        states[scene.state()] += 1
        if fault := scene.fault(code, said):
            yield f"{number}: {signal.Signals(number_of).name}, {fault}"


def hook(scene: Scene, number: int, number_of: int) -> None:
    """Let this process be struck by a signal before an operation."""
    strike = Strike()
    strike.number, strike.folder = number, str(scene.box)
    strike.action = lambda: os.kill(os.getpid(), number_of)


def operations_of(scene: Scene) -> int:
    """Return the number of operations of a run."""
    log = scene.box.parent / "count"

    def counted() -> None:
        strike = Strike()
        strike.folder = str(scene.box)
        AT_END.append(lambda: log.write_text(str(strike.count)))

    scene.restore()
    child(scene.command, counted, scene.large)
    return int(log.read_text())


def full_disk(run: Run) -> None:
    """A disk that is full from each write on."""
    run.output.section("A disk that is full")
    names = ("decompose", "compose", "compose with a data file", "replace")
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes(Path(folder), names):
            faults, number = [], 0
            while run.few is None or number < run.few:
                scene.restore()
                code, said = child(scene.command, Full(scene.box, number).patch, scene.large)
                if code == 0:
                    break
                clean = (
                    code == 2 and said.count("graft: error: cannot write") == 1 and "unexpected" not in said
                )
                early = scene.state() == "old" and set(contents(scene.box)) == set(scene.old)
                fault = scene.fault(code, said)
                if fault or not clean or not early:
                    faults.append(f"{number}: {fault or said or 'not as it was'}")
                number += 1
            report(run, f"{scene.title}: a disk that is full from each of {number} writes on", faults)


class Full:
    """A disk below a folder that is full from one write on: of content, of a new file, of a new folder."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = str(folder)
        self.left = number

    def patch(self) -> None:
        """Put it in place of the functions of this process that write."""
        opened, low, mkdir = io.open, os.open, os.mkdir

        def open_file(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if self.folder not in str(file) or not set(mode) & set("wxa+"):
                return opened(file, mode, *more, **options)
            if not os.path.lexists(file):
                self.write()
            return _Narrow(opened(file, mode, *more, **options), self)

        def open_low(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if self.folder in str(path) and flags & os.O_CREAT and not os.path.lexists(path):
                self.write()
            return low(path, flags, *more, **options)

        def make(path: Any, *more: Any, **options: Any) -> None:
            if self.folder in str(path) and not os.path.lexists(path):
                self.write()
            mkdir(path, *more, **options)

        patched: dict[Any, dict[str, Any]] = {
            io: {"open": open_file},
            builtins: {"open": open_file},
            os: {"open": open_low, "mkdir": make},
        }
        for module, functions in patched.items():
            for name, function in functions.items():
                setattr(module, name, function)

    def write(self) -> None:
        """Count a write, and fail from the chosen one on."""
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Narrow:
    """A file on a disk that may be full."""

    def __init__(self, file: Any, disk: Full) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Narrow:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, content: Any) -> Any:
        try:
            self._disk.write()
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return self._file.write(content)


def found(states: Counter[str]) -> str:
    """Return how often the folder was in what state before any command read it; renamed away counts, too."""
    return ", ".join(f"{count} times {state}" for state, count in states.most_common())


def report(run: Run, title: str, faults: list[str]) -> None:
    """Print a line, and end with exit code 1 where there were faults."""
    run.output.note(f"{title}: {len(faults)} wrong")
    for fault in faults[:10]:
        run.output.note(f"  {fault}")
    if faults:
        sys.exit(1)


SECTIONS = {each.__name__: each for each in (moments, operations, full_disk)}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--moments", type=int, default=200, help="random moments")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")


if __name__ == "__main__":
    for module in cli.COMMANDS:
        import_module(f"graft.tools.commands.{module}")
    start(__doc__, SECTIONS, options, data=False)
