"""The benchmark models and data: a folder that the environment variable GRAFT_BENCH names.

Tests that need them carry the mark ``bench`` and are skipped without the variable; ``-m bench`` runs
nothing else. What lies beside the repository plays no part.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])
FOLDER = Path(os.environ.get("GRAFT_BENCH") or "GRAFT_BENCH is not set")
VISION, RECURRENT = FOLDER / "vision", FOLDER / "rnn"
MARKS = [
    pytest.mark.bench,
    pytest.mark.skipif(not os.environ.get("GRAFT_BENCH"), reason="no benchmark models: set GRAFT_BENCH"),
]
"""For ``pytestmark`` of a module."""


def needed(test: Test) -> Test:
    """Mark one test."""
    for mark in MARKS:
        test = mark(test)
    return test
