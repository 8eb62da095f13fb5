"""Modules of the authors' networks give the figures that they print."""

from __future__ import annotations

import pytest

from benchmarks.papers import icse23
from benchmarks.papers.table import printed
from tests import bench

pytestmark = bench.MARKS
SAMPLE = 1 / 4500
WITHIN_A_SAMPLE = ("clinc lstm-1", "unrolled-gates")


@pytest.mark.parametrize("network", ["clinc lstm-1", "clinc gru-1"])
@pytest.mark.parametrize("mode", icse23.MODES)
def test_accuracy_is_the_printed_one(network: str, mode: str) -> None:
    accuracy = printed()["icse23"]["2"][network][mode][0]
    off = SAMPLE if (network, mode) == WITHIN_A_SAMPLE else 0
    assert icse23.composed(network, mode) == pytest.approx(accuracy, abs=off + 1e-6)


@pytest.mark.parametrize("network", ["clinc lstm-1", "clinc gru-1"])
@pytest.mark.parametrize("mode", ["rolled", "unrolled", "rolled-gates"])
def test_the_index_is_the_printed_one(network: str, mode: str) -> None:
    index = printed()["icse23"]["2"][network][mode][1]
    assert icse23.jaccard(network, mode, slip=True) == pytest.approx(index, abs=5e-5)


def test_without_the_slip_the_index_is_another_one() -> None:
    assert icse23.jaccard("clinc gru-1", "unrolled", slip=False) == pytest.approx(0.8125, abs=5e-5)
