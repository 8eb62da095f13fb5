"""Which edges a module keeps, against the algorithms written out edge by edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from graft.passes.published.dense_network import Dense
from graft.passes.published.fse20_edges import Procedure
from graft.passes.published.fse20_head import Channel, RemoveIrrelevant, negative_node


def network(seed: int, *sizes: int) -> list[Dense]:
    """Layers with weights and biases of both signs."""
    draw = np.random.default_rng(seed)
    return [
        Dense(draw.normal(size=(a, b)).astype(np.float32), draw.normal(size=b).astype(np.float32))
        for a, b in pairwise(sizes)
    ]


def examples(seed: int, count: int, values: int) -> np.ndarray:
    """Inputs of the network."""
    return np.random.default_rng(seed).normal(size=(count, values)).astype(np.float32)


class Literal:
    """Algorithms 1 and 2 as the authors' scripts run them: one example, one unit, one edge at a time."""

    def __init__(self, how: Procedure, parent: Sequence[Dense]) -> None:
        self.how = how
        self.parent = [layer.copy() for layer in parent]
        self.module = [layer.zeros() for layer in parent]
        self.last = len(parent) - 1
        self.afresh = True

    def forward(self, x: np.ndarray, relu: bool) -> list[np.ndarray]:
        found = []
        for layer in self.parent:
            found.append(x @ layer.weights + layer.bias)
            x = np.maximum(found[-1], 0) if relu else found[-1]
        return [each[0] for each in found]

    def edge(self, layer: int, edge: int, unit: int) -> np.float32:
        old, own = self.module[layer].weights[edge, unit], self.parent[layer].weights[edge, unit]
        if self.afresh:
            return own
        if own >= 0:
            return min(old, own)
        new = max(old, own)
        return np.float32(0) if layer < self.last and new < 0 else new

    def keep(self, layer: int, unit: int) -> None:
        for edge in range(len(self.module[layer].weights)):
            self.module[layer].weights[edge, unit] = self.edge(layer, edge, unit)
        self.module[layer].bias[unit] = self.parent[layer].bias[unit]

    def drop(self, layer: int, unit: int) -> None:
        self.module[layer].weights[:, unit] = 0
        self.module[layer].bias[unit] = 0
        if self.how.clear_next_rows and layer < self.last - 1:
            self.module[layer + 1].weights[unit] = 0

    def positive(self, x: np.ndarray) -> None:
        found = self.forward(x[None], False)
        for layer in range(self.last):
            for unit, value in enumerate(found[layer]):
                (self.keep if value > 0 else self.drop)(layer, unit)
        for unit in np.flatnonzero(found[-2] <= 0) if self.how.clear_output_rows else ():
            self.module[-1].weights[unit] = 0
        for unit, share in enumerate(softmax(found[-1])):
            if self.how.punish_at_or_below is not None and share <= self.how.punish_at_or_below:
                self.module[-1].weights[:, unit] = 0
                self.parent[-1].bias[unit] = 0
            else:
                self.keep(self.last, unit)
        self.afresh = np.count_nonzero(self.module[-1].weights) < self.how.few_edges

    def negative(self, x: np.ndarray) -> None:
        found = self.forward(x[None], self.how.relu_negatives)
        limit = self.how.restore_output_above
        for layer in range(self.last + 1):
            values = found[layer] if layer < self.last else softmax(found[-1])
            least = 0 if layer < self.last else 2 if limit is None else limit
            for unit in np.flatnonzero(values > least):
                self.module[layer].weights[:, unit] = self.parent[layer].weights[:, unit]
                self.module[layer].bias[unit] = self.parent[layer].bias[unit]

    def run(self, positives: np.ndarray, negatives: np.ndarray) -> list[Dense]:
        steps = [(self.positive, positives), (self.negative, negatives)]
        for step, inputs in reversed(steps) if self.how.negatives_first else steps:
            for x in inputs:
                step(x)
        return self.module


CHOICES = [
    {},
    {"negatives_first": True},
    {"punish_at_or_below": 0.05},
    {"restore_output_above": None},
    {"clear_next_rows": False},
    {"clear_output_rows": True, "punish_at_or_below": 0.2},
    {"relu_negatives": True},
]


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize("hidden", [(5,), (5, 4), (4, 4, 3)])
@given(seed=st.integers(0, 10_000), few=st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_every_edge_is_the_one_of_the_algorithms(
    choices: dict[str, Any], hidden: tuple[int, ...], seed: int, few: int
) -> None:
    parent = network(seed, 6, *hidden, 3)
    how = replace(Procedure(few_edges=few), **choices)
    positives, negatives = examples(seed + 1, 4, 6), examples(seed + 2, 2, 6)
    before = [layer.copy() for layer in parent]
    found = how.module(parent, positives, negatives)
    for layer, expected, own, old in zip(
        found, Literal(how, parent).run(positives, negatives), parent, before, strict=True
    ):
        np.testing.assert_array_equal(layer.weights, expected.weights)
        np.testing.assert_array_equal(layer.bias, expected.bias)
        np.testing.assert_array_equal(own.weights, old.weights)
        np.testing.assert_array_equal(own.bias, old.bias)


def test_without_negatives_an_inactive_unit_is_gone_for_good() -> None:
    """One positive example after another: what one does not use, no later one brings back."""
    parent = network(3, 6, 5, 3)
    positives = examples(4, 6, 6)
    values = positives @ parent[0].weights + parent[0].bias
    silent = (values[1:] <= 0).any(axis=0)
    assert silent.any() and not silent.all()
    found = Procedure(few_edges=0).module(parent, positives, positives[:0])
    assert not found[0].weights[:, silent].any()
    assert (found[0].weights >= 0).all(), "negative edges go with the second example"


@pytest.mark.parametrize("place", [0, 2])
def test_channelling_averages_the_other_outputs(place: int) -> None:
    layers, before = network(0, 3, 4, 5), network(0, 3, 4, 5)
    Channel(slip=False).apply(layers, place)
    node, others = negative_node(place), [each for each in range(5) if each != place]
    output, old = layers[-1], before[-1]
    np.testing.assert_array_equal(output.weights[:, place], old.weights[:, place])
    np.testing.assert_allclose(output.weights[:, node], old.weights[:, others].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(output.bias[node], old.bias[others].mean(), rtol=1e-6)
    silent = [each for each in others if each != node]
    assert not output.weights[:, silent].any() and not output.bias[silent].any()


def test_the_slip_of_the_code_divides_the_bias_by_one_more() -> None:
    right, slipped, first = network(0, 3, 4, 5), network(0, 3, 4, 5), network(0, 3, 4, 5)
    Channel(slip=False).apply(right, 2)
    Channel(slip=True).apply(slipped, 2)
    np.testing.assert_allclose(slipped[-1].bias[0], right[-1].bias[0] * 4 / 5, rtol=1e-6)
    Channel(slip=True).apply(first, 0)
    other = network(0, 3, 4, 5)
    Channel(slip=False).apply(other, 0)
    assert first[-1].bias[1] == other[-1].bias[1], "not for the first class"


def test_units_that_serve_others_become_one() -> None:
    """The paper's reading: the mean of their weights stays, and what leads to them is averaged."""
    layers, before = network(1, 3, 4, 3), network(1, 3, 4, 3)
    for each in (layers, before):
        each[-1].weights[[1, 3], 0] = 0
    units = RemoveIrrelevant(below=0.0, keep_mean=True).apply(layers, 0)
    assert units.tolist() == [1, 3]
    means = before[-1].weights[[1, 3], 1:].mean(axis=1)
    np.testing.assert_allclose(layers[-1].weights[1], [0, means.mean(), 0], rtol=1e-6)
    assert not layers[-1].weights[3].any()
    np.testing.assert_allclose(layers[0].weights[:, 1], before[0].weights[:, [1, 3]].mean(axis=1), rtol=1e-6)
    assert not layers[0].weights[:, 3].any()


def test_the_code_clears_the_mean_again() -> None:
    layers = network(1, 3, 4, 3)
    layers[-1].weights[:, 0] = [1, 0.01, 1, 1]
    units = RemoveIrrelevant(with_edge=True).apply(layers, 0)
    assert units.tolist() == [1] and not layers[-1].weights[1, 1:].any()
    layers[-1].weights[1, 0] = 0
    assert not len(RemoveIrrelevant(with_edge=True).apply(layers, 0)), "a weight of 0 is none"
