"""The command that reruns the papers' tables: rows without networks or data say why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = ["paper", "table", "row", "printed", "here", "reason"]
ROOT = Path(__file__).parents[2]


def papers(*line: object) -> subprocess.CompletedProcess[str]:
    """Run the command without the folder of networks."""
    path = os.pathsep.join(map(str, (ROOT, *sys.path)))
    environment = {**os.environ, "PYTHONPATH": path, "GRAFT_BENCH": ""}
    command = [sys.executable, "-m", "benchmarks.papers", *map(str, line)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("only", "rows"),
    [("fse20:1", 208), ("fse20:4", 48), ("icse22:1", 99), ("icse23:2", 328), ("icse23:3", 21)],
)
def test_rows_without_data_say_why(tmp_path: Path, only: str, rows: int) -> None:
    result = papers("--only", only, "--json", tmp_path / "rows.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert len(found) == rows
    for row in found:
        assert list(row) == KEYS and f"{row['paper']}:{row['table']}" == only
        assert row["here"] is None and row["reason"]
        assert row["printed"] is None or 0 <= abs(row["printed"]) <= 1
    assert f"## {only}" in result.stdout


def test_a_table_that_there_is_not_is_one_line() -> None:
    result = papers("--only", "fse21")
    assert result.returncode == 2 and "no table fse21; there are fse20:1" in result.stderr
    assert result.stderr.count("\n") == 1
