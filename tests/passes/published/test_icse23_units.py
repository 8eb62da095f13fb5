"""Which units and gates go, and what of their weights, by the rules written out."""

from __future__ import annotations

import numpy as np
import pytest

from graft.passes.published.icse23_cell import Cell
from graft.passes.published.icse23_units import central_tendency, opening, removed_units, walk_gates


def test_outliers_do_not_count() -> None:
    values = np.array([[1.0, -2.0], [1.1, 2.0], [-0.9, 2.0], [1.05, -2.0], [50.0, 2.0]])
    np.testing.assert_allclose(central_tendency(values), [(1 + 1.1 + 1.05) / 3, 2.0])
    np.testing.assert_allclose(opening(np.array([[0.5, 0.2], [-0.7, 0.4]])), [1.0, 0.0])


def test_units_go_until_the_cap_and_those_nearly_like_the_first() -> None:
    difference = np.array([-1.0, 0.3, -0.95, -0.5, -0.92, 0.1, -0.2, 0.2, 0.4, 0.5])
    assert removed_units(difference, 0.2, nearly=False).tolist() == [0, 2]
    assert removed_units(difference, 0.2, nearly=True).tolist() == [0, 2, 4], "1 / 0.92 is below 1.1"
    assert removed_units(difference, 0.9, nearly=False).tolist() == [0, 2, 4, 3, 6], "others are on for it"


def test_gates_go_in_one_order_with_a_cap_for_each() -> None:
    walk = walk_gates([np.array([-0.5, -0.1, 0.2]), np.array([-0.5, -0.3, 0.1])], 0.4)
    assert walk == [
        *((0, 0, True), (1, 0, True), (1, 1, True)),
        *((0, 1, True), (1, 2, False), (0, 2, False)),
    ]
    assert [goes for *_, goes in walk_gates([np.array([-3.0, -2.0, -1.0])], 0.3)] == [True, False, False]


def cell(gates: int = 3, units: int = 4, inputs: int = 2) -> Cell:
    """Weights without zeros."""
    draw = np.random.default_rng(0)
    shapes = (gates, units, inputs), (gates, units, units), (2, gates, units)
    return Cell(*(draw.uniform(1, 2, shape).astype(np.float32) for shape in shapes))


def test_a_unit_is_removed_with_all_that_reads_it() -> None:
    found, old = cell(), cell()
    found.remove(np.array([1, 3]))
    kept = [0, 2]
    for values in (found.weight, found.recurrence):
        assert not values[:, [1, 3]].any()
    assert not found.bias[:, :, [1, 3]].any() and not found.recurrence[:, :, [1, 3]].any()
    np.testing.assert_array_equal(found.weight[:, kept], old.weight[:, kept])
    np.testing.assert_array_equal(found.recurrence[:, kept][:, :, kept], old.recurrence[:, kept][:, :, kept])


def test_at_a_step_only_what_removed_units_read_of_each_other_is_gone() -> None:
    """The authors' code: units that are kept last write back what they read and what reads them."""
    found, old = cell(), cell()
    found.remove_at_a_step(np.array([1, 3]))
    assert not found.weight[:, [1, 3]].any() and not found.bias[:, :, [1, 3]].any()
    both = np.zeros((4, 4), bool)
    both[np.ix_([1, 3], [1, 3])] = True
    np.testing.assert_array_equal(found.recurrence == 0, np.broadcast_to(both, old.recurrence.shape))


@pytest.mark.parametrize("keep", [False, True])
def test_gates_are_removed_one_by_one(keep: bool) -> None:
    """The first gate takes what reads the unit along; a gate that is kept later gets its weights back."""
    walk = [(0, 1, True), (2, 0, True), (1, 1, False), (0, 0, False)]
    found, old = cell(), cell()
    units = found.remove_gates(walk, keep)
    assert units.tolist() == [1]
    assert not found.weight[0, 1].any() and not found.weight[2, 0].any()
    assert not found.bias[:, 0, 1].any() and not found.bias[:, 2, 0].any()
    np.testing.assert_array_equal(found.weight[1], old.weight[1])
    assert not found.recurrence[2, :, 1].any() and not found.recurrence[0, 2:, 1].any()
    back = found.recurrence[1, 1], found.recurrence[:, :, 0]
    if keep:
        np.testing.assert_array_equal(back[0], old.recurrence[1, 1])
        np.testing.assert_array_equal(back[1], old.recurrence[:, :, 0])
    else:
        expected = old.recurrence[1, 1].copy()
        expected[1] = 0
        np.testing.assert_array_equal(back[0], expected)
        assert not found.recurrence[2, 0].any() and not found.recurrence[0, 1].any()
