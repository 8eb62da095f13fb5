"""What runs in the process of a runtime: ``python -m graft.rewriter.runtimes.child FOLDER``.

The folder holds ``request.json`` and ``inputs.npz``; ``report.json`` and ``outputs.npz`` are written there.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import SilentError

RUNS, SECONDS = 50, 1.0
"""A batch is run again for its time: at most so often, and no longer than these seconds."""
STANDARD = "biuf"
"""Kinds of numbers that numpy stores; those that it does not know are stored in single precision."""


def main(folder: Path) -> None:
    """Run what the folder asks for, and report it there.

    Args:
        folder: of the request and the result.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    report: dict[str, Any] = {"done": 0, "error": None, "seconds": None, "printed": False}
    outputs: dict[str, Array] = {}
    with np.load(folder / "inputs.npz") as stored:
        batches = [
            {name: stored[f"{number}_{place}"] for place, name in enumerate(names)}
            for number, names in enumerate(request["batches"])
        ]
    try:
        module, _, kind = request["runtime"].partition(":")
        run = getattr(import_module(module), kind)().open(Path(request["model"]), request["threads"])
        for number, batch in enumerate(batches):
            for place, value in enumerate(run(batch)):
                outputs[f"{number}_{place}"] = _plain(value)
            report["done"] += 1
        if request["timed"]:
            report["seconds"] = _seconds(run, batches[0])
    except Exception as error:  # a runtime may raise anything
        report["printed"] = isinstance(error, SilentError)
        report["error"] = (str(error) if report["printed"] else f"{type(error).__name__}: {error}")[:2000]
    np.savez(folder / "outputs.npz", **outputs)  # type: ignore[arg-type]
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _plain(value: Any) -> Array:
    """Return an output as numpy stores it, names as numbers; what is no tensor is empty."""
    if isinstance(value, list | dict) or value is None:
        return np.zeros(0)
    array = np.asarray(value)
    if array.dtype.kind in "OUS":  # names of classes
        codes = [zlib.crc32(str(word).encode()) for word in array.ravel()]
        return np.array(codes, np.int64).reshape(array.shape)
    return array if array.dtype.kind in STANDARD else array.astype(np.float32)


def _seconds(run: Callable[[Mapping[str, Array]], Sequence[Any]], batch: Mapping[str, Array]) -> float:
    """Return the time of the fastest run: others may run beside it."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < RUNS and (len(times) < 2 or time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - start)
    return min(times[1:])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
