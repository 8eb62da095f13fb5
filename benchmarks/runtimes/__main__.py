"""Runtime x kind of file: the largest difference from onnxruntime; is what is smaller faster there, too?

    GRAFT_BENCH=... python -m benchmarks.runtimes [--only SECTION ...] [--json FILE] [--keep FOLDER]

Without ``GRAFT_BENCH`` only the bundled models and the zoo are run. onnxruntime-web takes part after
``npm install --prefix benchmarks/runtimes``, TFLite where ``GRAFT_TFLITE`` names a Python that has onnx2tf.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runtimes import SECTIONS
from benchmarks.runtimes.quantized import quantized
from benchmarks.runtimes.subjects import File, bench, bundled, zoo
from benchmarks.runtimes.tflite import TFLite
from benchmarks.runtimes.web import OnnxWeb
from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtimes
from graft.rewriter.runtimes.base import Runtime
from graft.rewriter.runtimes.trial import Trial
from graft.rewriter.runtimes.verification import TOLERANCE, Verdict, Verification

SAMPLES, BATCH, THREADS, REPEATS = 16, 8, 2, 2
FAST = ("onnxruntime", "openvino", "onnxruntime-web")
"""Runtimes whose times are compared."""


def every() -> list[Runtime]:
    """Return all runtimes, installed or not."""
    return [*runtimes().values(), OnnxWeb(), TFLite()]


def measured(file: File, asked: list[Runtime], timed: bool, batch: int = BATCH) -> dict[str, Verdict]:
    """Return what runtimes make of a file, by their names.

    Args:
        file: the file.
        asked: the runtimes.
        timed: measure times.
        batch: samples at once.
    """
    verification = Verification(asked, batch, threads=THREADS, limit=600, timed=timed)
    model = Model.load(file.path)
    subject = verification.subject(file.path, model, Trial.drawn(model, SAMPLES))
    return {verdict.name: verdict for verdict in verification.measure(subject)}


def differences(files: list[File], names: Sequence[str]) -> dict[str, Any]:
    """Print a row a file, and return the figures.

    Args:
        files: a row each.
        names: of the runtimes.
    """
    asked = [each for each in every() if each.installed and each.name in names]
    for each in every():
        if not each.installed:
            print(f"{each.name} is left out: {each.command}")
    head = [f"{each.name} {each.version}" for each in asked]
    print(f"\n| file | {' | '.join(head)} |\n|{' --- |' * (len(head) + 1)}")
    found = {}
    for file in files:
        verdicts = measured(file, asked, timed=False)
        cells = [_cell(verdicts[each.name]) for each in asked]
        print(f"| {file.name} | {' | '.join(cells)} |", flush=True)
        found[file.name] = {name: verdict.plain() for name, verdict in verdicts.items()}
    return found


def _cell(verdict: Verdict) -> str:
    if verdict.error is not None:
        return f"error: {verdict.error[:80]}"
    assert verdict.difference is not None
    said = f"{verdict.difference.largest:.0e}"
    return said if verdict.difference.largest <= TOLERANCE else f"**{said}**"


def latency(files: list[File]) -> dict[str, Any]:
    """Print the time of a module over its parent's, in each runtime, and return the figures.

    Parent and module are timed in turns; the fastest of each counts.
    """
    asked = [each for each in every() if each.installed and each.name in FAST]
    parents = {file.path: file for file in files}
    found: dict[str, Any] = {}
    print(f"\n| module over parent, batch | {' | '.join(each.name for each in asked)} |")
    print(f"|{' --- |' * (len(asked) + 1)}")
    for file in files:
        if file.parent is None or file.data is None:
            continue
        for batch in (1, BATCH):
            runs = [
                [measured(each, asked, timed=True, batch=batch) for each in (file, parents[file.parent])]
                for _ in range(REPEATS)
            ]
            pairs = {each.name: [_fastest(runs, k, each.name) for k in (0, 1)] for each in asked}
            cells = [_ratio(*pair) for pair in pairs.values()]
            print(f"| {file.name}, {batch} | {' | '.join(cells)} |", flush=True)
            found[f"{file.name}, {batch}"] = pairs
    return found


def _fastest(runs: list[list[dict[str, Verdict]]], place: int, name: str) -> float | None:
    """Return seconds of a module (0) or a parent (1) in a runtime."""
    times = [run[place][name].seconds for run in runs]
    return min((each for each in times if each is not None), default=None)


def _ratio(one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return "error"
    return f"{one / other:.2f} ({1e3 * one:.2f} ms)"


def main() -> None:
    """Make the files and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS)
    names = [each.name for each in every()]
    parser.add_argument("--runtime", choices=names, nargs="+", default=names, help="columns of differences")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", type=Path, help="keep models in this folder, and take those that are there")
    options = parser.parse_args()
    print(f"Machine: {platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}.")
    print(f"Seed 0, {SAMPLES} samples drawn for differences, {BATCH} at once, {THREADS} threads.")
    with contextlib.nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as text:
        folder, result = Path(text), {}
        folder.mkdir(parents=True, exist_ok=True)
        own = bench(folder) if os.environ.get("GRAFT_BENCH") else []
        if "differences" in options.only:
            files = [*own, *zoo(folder), *bundled(folder)]
            result["differences"] = differences(files, options.runtime)
        if "latency" in options.only:
            result["latency"] = latency(own)
        if "quantized" in options.only:
            result["quantized"] = quantized(own, folder)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
