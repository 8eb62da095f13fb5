"""Modules of the authors' networks equal the authors' modules, and give the figures that they print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.papers import fse20
from benchmarks.papers.table import Row
from graft.passes.published.dense_network import Dense
from tests import bench

pytestmark = bench.MARKS
NETWORKS = [f"{data}-{depth}" for data in ("MNIST", "FMNIST") for depth in (1, 2, 3, 4)]


def equal(layers: Sequence[Dense], sums: Sequence[Sequence[float]]) -> bool:
    """Compare with the checksums: entries that are not 0, sum, sum of squares, sum by position."""
    tensors = [each for layer in layers for each in (layer.weights, layer.bias)]
    for values, (nonzero, *expected) in zip(tensors, sums, strict=True):
        flat = values.astype(np.float64).reshape(-1)
        found = flat.sum(), (flat**2).sum(), (flat * (np.arange(flat.size) % 101)).sum()
        if np.count_nonzero(flat) != nonzero or not np.allclose(found, expected, rtol=1e-6, atol=1e-6):
            return False
    return True


@pytest.mark.parametrize("network", NETWORKS)
def test_every_weight_is_the_authors(network: str) -> None:
    """Of 48 sets 42 are equal, and of two more some modules; the rest nobody reproduced."""
    published = fse20.published()
    for approach in fse20.APPROACHES:
        expected = published["networks"][network]["approaches"][approach]["rerun"]["modules_equal"]
        sums = published["modules"][network][approach]
        found = [equal(*pair) for pair in zip(fse20.modules(network, approach), sums, strict=True)]
        assert sum(found) == expected, approach


def test_so_many_sets_are_equal() -> None:
    published = fse20.published()["networks"]
    sets = [
        each["rerun"]["modules_equal"] for name in NETWORKS for each in published[name]["approaches"].values()
    ]
    assert len(sets) == 48 and sets.count(10) == 42


def rows(found: Sequence[Row]) -> dict[str, float]:
    """What was rerun, by name."""
    return {row.row: row.here for row in found if row.here is not None}


def test_table_1() -> None:
    found, published = rows(fse20.table_1()), fse20.published()["networks"]
    for network in NETWORKS:
        assert found[f"{network} parent"] == pytest.approx(published[network]["parent"]["accuracy"] / 100)
        for approach, figures in published[network]["approaches"].items():
            accuracy = figures["rerun"]["accuracy"] / 100
            assert found[f"{network} {approach}"] == pytest.approx(accuracy, abs=1e-6)
            if figures["rerun"]["modules_equal"] == 10:
                index = figures["authors_modules"]["jaccard"]
                assert found[f"{network} {approach} jaccard"] == pytest.approx(index, abs=6e-5)


def test_tables_2_and_4() -> None:
    pairs, replaced, published = rows(fse20.table_2()), rows(fse20.table_4()), fse20.published()
    for network, cells in published["table2"].items():
        for cell in cells:
            one, two = cell["classes"]
            assert pairs[f"{network} {one} {two}"] == pytest.approx(cell["correct"] / cell["images"])
    for data, figures in published["table4"].items():
        assert replaced[f"{data} before"] == pytest.approx(figures["before"] / 100)
        for place, accuracy in enumerate(figures["replaced"]):
            assert replaced[f"{data} replaced {place}"] == pytest.approx(accuracy / 100)
