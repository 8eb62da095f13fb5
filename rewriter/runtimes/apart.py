"""A runtime in a process of its own: some end the process, some never come back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Runtime

LOG = 1 << 16
"""Bytes at the end of what a process prints that are searched for the reason."""
REASON = re.compile(r"error|panicked|check failed|exception|assert|not support|can't|cannot|unable", re.I)
PLACES = re.compile(r"(?:Exception from|Check '[^']*' failed at) \S+:\d+:\s*")
"""Where in its own source a runtime noticed: OpenVINO says that first, often several times."""
SHOWN = 300


@dataclass(frozen=True)
class Ran:
    """What a runtime made of batches.

    Attributes:
        outputs: of every batch, in the order of the file; fewer batches where it failed.
        seconds: of the fastest run of the first batch; ``None``: not timed.
        error: why it did not run all of them; ``None``: it did.
    """

    outputs: tuple[tuple[Array, ...], ...] = ()
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Apart:
    """Runs a runtime on a file, in another process.

    Attributes:
        threads: that a runtime may use.
        limit: seconds for everything that one runtime does with one file.
    """

    threads: int
    limit: float

    def run(
        self, runtime: Runtime, model: Path, batches: Sequence[Mapping[str, Array]], timed: bool = True
    ) -> Ran:
        """Run batches.

        Args:
            runtime: the runtime.
            model: the file.
            batches: input name to array.
            timed: measure the time of the first batch.
        """
        with tempfile.TemporaryDirectory(prefix="graft-runtime-") as text:
            folder = Path(text)
            self._ask(folder, runtime, model, batches, timed)
            failure = self._wait(folder)
            return _read(folder, failure, len(batches))

    def _ask(
        self,
        folder: Path,
        runtime: Runtime,
        model: Path,
        batches: Sequence[Mapping[str, Array]],
        timed: bool,
    ) -> None:
        kind = type(runtime)
        request = {
            "runtime": f"{kind.__module__}:{kind.__name__}",
            "model": str(model.resolve()),
            "threads": self.threads,
            "timed": timed,
            "batches": [list(batch) for batch in batches],
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        arrays = {
            f"{number}_{place}": array
            for number, batch in enumerate(batches)
            for place, array in enumerate(batch.values())
        }
        np.savez(folder / "inputs.npz", **arrays)  # type: ignore[arg-type]

    def _wait(self, folder: Path) -> str | None:
        """Start the process and wait for its end; the reason where it did not end well."""
        words = [sys.executable, "-P", "-m", "graft.rewriter.runtimes.child", str(folder)]
        with (folder / "log").open("wb") as log:
            paths = os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,  # some leave files there
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
            try:
                code = process.wait(self.limit if self.limit != float("inf") else None)
            except subprocess.TimeoutExpired:
                return f"it did not end within {self.limit:g} s"
            finally:
                _end(process)
        if code == 0:
            return None
        said = _reason(folder / "log")
        how = f"it ended the process by {_signal(-code)}" if code < 0 else f"it ended with exit code {code}"
        return f"{how}{f': {said}' if said else ''}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, as runtimes do that are no library."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _reason(log: Path) -> str:
    """Return the last line of a log that looks like a reason."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG))
        lines = file.read().decode("utf-8", "replace").splitlines()
    said = [" ".join(line.split()) for line in lines if REASON.search(line)]
    return said[-1][:SHOWN] if said else ""


def _read(folder: Path, failure: str | None, count: int) -> Ran:
    report = folder / "report.json"
    if failure is not None or not report.exists():
        return Ran(error=failure or "it ended without a result")
    found = json.loads(report.read_text(encoding="utf-8"))
    with np.load(folder / "outputs.npz") as stored:
        outputs = tuple(
            tuple(stored[f"{number}_{place}"] for place in range(_places(stored.files, number)))
            for number in range(found["done"])
        )
    error = found["error"]
    if error is not None:
        error = PLACES.sub("", " ".join(error.partition("Stack backtrace")[0].split()))[:SHOWN]
        hint = _reason(folder / "log") if found["printed"] else ""
        error = f"{error}: {hint}" if hint else error
        where = f"batch {found['done'] + 1} of {count}: " if 0 < found["done"] < count else ""
        error = f"{where}{error}"
    return Ran(outputs, found["seconds"], error)


def _places(names: Sequence[str], number: int) -> int:
    return sum(1 for name in names if name.startswith(f"{number}_"))
