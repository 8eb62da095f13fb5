"""Runtime x kind of file: the largest difference from onnxruntime; and what is smaller, is it faster there, too?

    GRAFT_BENCH=... python -m benchmarks.runtimes [--only differences|latency] [--json FILE]

Without ``GRAFT_BENCH`` the bundled models and the zoo are run. onnxruntime-web takes part after ``npm install
--prefix benchmarks/runtimes``, TFLite where ``GRAFT_TFLITE`` names a Python that has onnx2tf.
"""  # fmt: skip

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.runtimes.subjects import File, bench, bundled, zoo
from benchmarks.runtimes.tflite import TFLite
from benchmarks.runtimes.web import OnnxWeb
from graft.rewriter.graph.model import Model
from graft.rewriter.runtimes import runtimes
from graft.rewriter.runtimes.base import Runtime
from graft.rewriter.runtimes.trial import Trial
from graft.rewriter.runtimes.verification import TOLERANCE, Verdict, Verification

SAMPLES, BATCH = 16, 8


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
    verification = Verification(asked, batch, threads=2, limit=600, timed=timed)
    model = Model.load(file.path)
    subject = verification.subject(file.path, model, Trial.drawn(model, SAMPLES))
    return {verdict.name: verdict for verdict in verification.measure(subject)}


def differences(files: list[File]) -> dict[str, Any]:
    """Print a row a file, and return the figures."""
    asked = [each for each in every() if each.installed]
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
    """Print the time of a module over its parent's, in each runtime, and return the figures."""
    asked = [each for each in every() if each.installed and each.name in ("onnxruntime", "openvino", "onnxruntime-web")]
    parents = {file.path: file for file in files}
    found = {}
    print(f"\n| module over parent, batch | {' | '.join(each.name for each in asked)} |")
    print(f"|{' --- |' * (len(asked) + 1)}")
    for file in files:
        if file.parent is None:
            continue
        for batch in (1, BATCH):
            one = measured(file, asked, timed=True, batch=batch)
            other = measured(parents[file.parent], asked, timed=True, batch=batch)
            ratios = {name: _ratio(one[name], other[name]) for name in one}
            cells = [f"{ratio:.2f}" if ratio else "error" for ratio in ratios.values()]
            print(f"| {file.name}, {batch} | {' | '.join(cells)} |", flush=True)
            found[f"{file.name}, {batch}"] = ratios
    return found


def _ratio(one: Verdict, other: Verdict) -> float | None:
    return one.seconds / other.seconds if one.seconds and other.seconds else None


def main() -> None:
    """Make the files and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("differences", "latency"))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder, result = Path(text), {}
        own = bench(folder) if os.environ.get("GRAFT_BENCH") else []
        if options.only != "latency":
            result["differences"] = differences([*own, *zoo(folder), *bundled(folder)])
        if options.only != "differences":
            result["latency"] = latency([file for file in own if file.timed])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
