"""Run Graft on mutants of models, cards, data, plans, profiles, folders and command lines.

Every mutant is given by its seed, and runs in a process of its own that may take ten seconds and 2 GB::

    python -m benchmarks.fuzz [--mutants 5000] [--seed 0] [--only KIND ...] [--jobs N] [--json FILE]
    python -m benchmarks.fuzz --reproduce SEED

A mutant is right that ends in one clear line (exit code 2), or succeeds: modules are compared with the parent
in onnxruntime, independently of Graft's own verification. Anything else is a fault: an unexpected error, a
crash, a hang, too much memory, files changed, left behind or reached outside the folder, a wrong cut. Exits
with 1 if there was one. 5,000 mutants take about seven minutes on two cores, the time left is said every
minute. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from benchmarks.common import stop
from tests.fuzz import child
from tests.fuzz.campaign import Campaign, Result, counts, prepare
from tests.fuzz.mutant import KINDS, kind_of

SECTIONS = tuple(KINDS)
MUTANTS = 5000
APART = 1_000_000
"""Seeds of mutants that lie between the first ones of two campaigns."""
EVERY = 60.0
"""Seconds after which the time left is said again."""


def main() -> None:
    """Read the command line, run the mutants, print the counts."""
    options = _options()
    reason = child.supported()
    if reason:
        stop(reason)
    prepare()
    if options.reproduce is not None:
        raise SystemExit(_reproduce(options.reproduce))
    seeds = islice(_seeds(options.seed * APART, options.only), options.mutants)
    with tempfile.TemporaryDirectory(prefix="graft-fuzz-") as folder:
        results: list[Result] = []
        left = _Left(options.mutants)
        for result in Campaign(Path(folder), options.jobs).run(seeds):
            results.append(result)
            left.tell(len(results))
            if result.verdict.fault:
                print(_told(result), flush=True)
            elif options.verbose:
                print(f"{result.line()} -> {result.checked or result.ended.err.strip()[:300]}", flush=True)
    found = counts(results)
    print(", ".join(f"{name} {number}" for name, number in found.items()))
    faults = [result for result in results if result.verdict.fault]
    if options.json:
        content = {"schema": "graft/fuzz/1", **found, "faults": [each.line() for each in faults]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    raise SystemExit(1 if faults else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=MUTANTS, metavar="N", help="how many (5000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the campaign (0)")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, help="kinds of mutants")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="mutants at a time"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep counts and faults in this file, too")
    parser.add_argument("--reproduce", type=int, metavar="SEED", help="run one mutant and leave its folder")
    parser.add_argument("--verbose", action="store_true", help="print every mutant")
    return parser.parse_args()


def _seeds(first: int, kinds: tuple[str, ...]) -> Iterator[int]:
    return (seed for seed in count(first) if kind_of(seed) in kinds)


class _Left:
    """Says on standard error how long the rest takes, from time to time."""

    def __init__(self, mutants: int) -> None:
        self._mutants = mutants
        self._begun = self._said = time.monotonic()

    def tell(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said < EVERY or done == self._mutants:
            return
        self._said = now
        left = (now - self._begun) / done * (self._mutants - done)
        print(
            f"{done} of {self._mutants} mutants, about {left / 60:.0f} min left", file=sys.stderr, flush=True
        )


def _told(result: Result) -> str:
    seed = result.mutant.seed
    return f"{result.line()}\n  again: python -m benchmarks.fuzz --reproduce {seed}"


def _reproduce(seed: int) -> int:
    """Run one mutant; print what it is, what its command printed, and the verdict."""
    folder = Path(tempfile.mkdtemp(prefix="graft-fuzz-"))
    (result,) = Campaign(folder, 1).run([seed], keep=True)
    print(f"folder: {folder}/mutant-{seed}/work")
    sys.stdout.write(result.ended.out)
    sys.stderr.write(result.ended.err)
    print(result.line())
    print(f"{result.ended.seconds:.2f} s, {result.ended.peak >> 20} MiB; {result.checked}")
    return int(result.verdict.fault)


if __name__ == "__main__":
    main()
