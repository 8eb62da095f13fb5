"""Channels that are products of others: splitting, merging, tying."""

from __future__ import annotations

import numpy as np

from graft.rewriter.channels.coupling import Coupling


def lists(ties: Coupling, size: int, *sizes: int) -> list[list[int] | None]:
    found = ties.split(ties.new(size), sizes)
    return [None if channels is None else channels.tolist() for channels in found]


def test_a_split_makes_a_channel_for_every_place_of_every_axis() -> None:
    ties = Coupling()
    channels = ties.new(6)
    rows, columns = ties.split(channels, [2, 3])
    assert rows is not None
    assert columns is not None
    for place, channel in enumerate(channels.tolist()):
        assert ties.atoms(channel) == (rows[place // 3], columns[place % 3])


def test_splitting_again_finds_the_same_channels() -> None:
    ties = Coupling()
    channels = ties.new(6)
    rows, columns = ties.split(channels, [2, 3])
    again = ties.split(channels, [2, 3])
    assert np.array_equal(again[0], rows)
    assert np.array_equal(again[1], columns)


def test_merging_what_was_split_gives_equal_channels_in_any_order() -> None:
    ties = Coupling()
    channels = ties.new(6)
    rows, columns = ties.split(channels, [2, 3])
    turned = ties.merge([columns, rows], [3, 2]).reshape(3, 2).T.ravel()
    for one, other in zip(channels.tolist(), turned.tolist(), strict=True):
        assert set(ties.atoms(one)) == set(ties.atoms(other))
    back = ties.split(ties.merge([columns, rows], [3, 2]), [3, 2])
    assert np.array_equal(back[0], columns)
    assert np.array_equal(back[1], rows)


def test_a_part_that_was_split_before_is_split_further() -> None:
    ties = Coupling()
    channels = ties.new(12)
    rows, columns = ties.split(channels, [2, 6])
    finer = ties.split(channels, [2, 3, 2])
    assert np.array_equal(finer[0], rows)
    assert columns is not None
    assert [len(ties.atoms(channel)) for channel in columns.tolist()] == [2] * 6
    assert len(ties.atoms(int(channels[0]))) == 3


def test_axes_along_which_nothing_changes_get_no_channels() -> None:
    ties = Coupling()
    space = np.repeat(ties.new(4), 6)
    assert [None if found is None else len(found) for found in ties.split(space, [4, 2, 3])] == [
        4,
        None,
        None,
    ]
    tiled = np.tile(ties.new(4), 6)
    assert [None if found is None else len(found) for found in ties.split(tiled, [6, 4])] == [None, 4]


def test_groups_of_repeated_channels_share_their_column() -> None:
    """Two groups of two channels over three places: one channel for a group, one for its members."""
    ties = Coupling()
    rows, columns = ties.split(np.repeat(ties.new(4), 3), [2, 6])
    assert rows is not None
    assert columns is not None
    assert len({ties.root(channel) for channel in columns.tolist()}) == 2
    assert columns.tolist() == np.repeat(columns[::3], 3).tolist()


def test_products_are_tied_factor_by_factor() -> None:
    ties = Coupling()
    left, right = ties.new(6), ties.new(6)
    first, second = ties.split(left, [2, 3]), ties.split(right, [2, 3])
    for pair in zip(left.tolist(), right.tolist(), strict=True):
        ties.tie(*pair)
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        assert [ties.root(c) for c in one.tolist()] == [ties.root(c) for c in other.tolist()]
    assert len({ties.root(channel) for axis in first if axis is not None for channel in axis.tolist()}) == 5


def test_products_with_other_numbers_of_factors_go_together() -> None:
    ties = Coupling()
    left, right = ties.new(8), ties.new(8)
    ties.split(left, [2, 4])
    ties.split(right, [2, 2, 2])
    ties.tie(int(left[0]), int(right[0]))
    assert len({*ties.atoms(int(left[0])), *ties.atoms(int(right[0]))}) == 1


def test_an_atom_that_is_tied_to_its_own_product_takes_the_other_factors_along() -> None:
    ties = Coupling()
    rows, columns = ties.split(ties.new(4), [2, 2])
    assert rows is not None
    assert columns is not None
    product = ties.product([int(rows[0]), int(columns[0])])
    ties.tie(int(rows[0]), product)
    assert ties.root(int(rows[0])) == ties.root(int(columns[0]))
    assert ties.atoms(product) == (ties.root(int(rows[0])),)


def test_all_channels_are_resolved_at_once_as_one_by_one() -> None:
    ties = Coupling()
    left, right = ties.new(8), ties.new(8)
    ties.split(left, [2, 4])
    ties.split(right, [2, 2, 2])
    ties.tie(int(left[0]), int(right[0]))
    roots, factors = ties.resolved()
    assert len(roots) > 16, "atoms of the axes were made"
    for channel, root in enumerate(roots.tolist()):
        assert root == ties.root(channel)
        assert factors.get(root, (root,)) == ties.atoms(channel)


def test_three_axes() -> None:
    ties = Coupling()
    assert [len(found or []) for found in lists(ties, 24, 3, 2, 4)] == [3, 2, 4]


def test_a_table_that_is_no_product_of_rows_and_columns_is_not_taken_for_one() -> None:
    ties = Coupling()
    first, second, third, fourth = ties.new(4).tolist()
    cells = [(first, second), (first, second, third), (first, second, fourth), (first, second)]
    channels = np.array([ties.product(cell) for cell in cells])
    before = [set(ties.atoms(channel)) for channel in channels.tolist()]
    rows, columns = ties.split(channels, [2, 2])
    assert rows is not None
    assert columns is not None
    for place, channel in enumerate(channels.tolist()):
        row, column = int(rows[place // 2]), int(columns[place % 2])
        assert set(ties.atoms(channel)) == {*ties.atoms(row), *ties.atoms(column)}
    assert before[0] != before[1]
