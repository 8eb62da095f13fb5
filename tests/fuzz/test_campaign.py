"""300 mutants, the same every time; ``python -m benchmarks.fuzz`` runs thousands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import child

ROOT = Path(__file__).parents[2]
MUTANTS = 300


@pytest.mark.skipif(bool(child.supported()), reason=child.supported())
def test_mutants_end_in_one_line_or_a_right_result() -> None:
    """In a process of its own, whose children are forked: that of the tests has threads."""
    line = [sys.executable, "-m", "benchmarks.fuzz", "--mutants", str(MUTANTS)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    counts = dict(part.rsplit(" ", 1) for part in done.stdout.splitlines()[-1].split(", "))
    assert int(counts["mutants"]) == MUTANTS
    assert int(counts["clean error"]) + int(counts["success"]) == MUTANTS
    assert int(counts["compared"]) >= 10
