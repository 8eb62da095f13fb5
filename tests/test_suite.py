"""The suite itself: what it runs does not depend on what was imported, or lies beside the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import cases, cases_attention, cases_operators, graphs

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("tests", "benchmarks")


def test_all_cases_are_there() -> None:
    parts = (graphs.CASES, cases_operators.CASES, cases_attention.CASES)
    assert [len(part) for part in parts] == [81, 38, 21]
    assert len(cases.CASES) == sum(map(len, parts)) == 140
    assert len(cases.ALL) == 221
    assert len(cases.STRUCTURES) == len(set(cases.STRUCTURES)) == 31


@pytest.mark.parametrize(
    ("test", "count"),
    [
        ("passes/join/test_deduplicate.py::test_regression_graphs_compute_the_same", 140),
        ("rewriter/operators/test_operators.py::test_a_cut_keeps_names_inputs_outputs_and_opset", 140),
        ("rewriter/operators/test_law.py::test_law_holds_for", 221),
    ],
)
def test_a_file_alone_runs_every_case(test: str, count: int) -> None:
    line = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-qq", "tests/" + test]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{test.split('::')[0]}: {count}" in done.stdout


@pytest.mark.parametrize("folder", SEARCHED)
def test_nothing_beside_the_repository_is_used(folder: str) -> None:
    """The benchmark is where GRAFT_BENCH says; only .ci/run may look for it."""
    beside = "shared" + "/bench"
    found = [p for p in (ROOT / folder).rglob("*.py") if beside in p.read_text(encoding="utf-8")]
    assert not found
