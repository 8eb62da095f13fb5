"""Channel numbers: which of them are pruned together, and which stay only as long as others do.

A channel is an *atom*, or a *product* of atoms: kept as long as all of them are. Products come from
axes that are split and merged: column ``h * D + d`` of a projection to heads is kept as long as head h
and place d of the width are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graft.rewriter.arrays import Axes, Channels, Integers


class UnionFind:
    """Numbers from 0 up, in sets that are joined; a set's root is its smallest number."""

    def __init__(self) -> None:
        self._parent: list[int] = []

    def new(self, size: int) -> Channels:
        """Return ``size`` numbers that were not there before, each in a set of its own."""
        first = len(self._parent)
        self._parent.extend(range(first, first + size))
        return np.arange(first, first + size, dtype=np.int64)

    def root(self, channel: int) -> int:
        """Return the number that all share that are tied to ``channel``."""
        parent = self._parent
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    def roots(self) -> Channels:
        """Return the root of every number."""
        found = np.array(self._parent, np.int64)
        while not np.array_equal(found, above := found[found]):
            found = above
        return found

    def tie(self, one: int, other: int) -> None:
        """Join the sets of two numbers."""
        self._join(self.root(one), self.root(other))

    def _join(self, first: int, second: int) -> None:
        """Join the sets of two roots."""
        low, high = (first, second) if first < second else (second, first)
        self._parent[high] = low


class Coupling(UnionFind):
    """A union-find over channel numbers, some of which are products of others; a product is the root."""

    def __init__(self) -> None:
        super().__init__()
        self._made_of: dict[int, tuple[int, ...]] = {}
        self._known: dict[frozenset[int], int] = {}

    def resolved(self) -> tuple[Channels, dict[int, tuple[int, ...]]]:
        """Return the root of every channel, and the atoms of every root that is a product."""
        roots = self.roots()
        products = np.unique(roots[[*self._made_of]]).tolist() if self._made_of else []
        return roots, {root: self.atoms(root) for root in products}

    def atoms(self, channel: int) -> tuple[int, ...]:
        """Return the roots that ``channel`` is the product of, by axis; itself if it is an atom."""
        root = self.root(channel)
        if root not in self._made_of:
            return (root,)
        found = dict.fromkeys(atom for part in self._made_of[root] for atom in self.atoms(part))
        return tuple(found)

    def product(self, channels: Iterable[int]) -> int:
        """Return the channel that is kept as long as all of ``channels`` are."""
        atoms = tuple(dict.fromkeys(atom for channel in channels for atom in self.atoms(channel)))
        if len(atoms) == 1:
            return atoms[0]
        known = self._known.get(frozenset(atoms))
        if known is None:
            known = int(self.new(1)[0])
            self._known[frozenset(atoms)] = known
            self._made_of[known] = atoms
        return known

    # ------------------------------------------------------------ ties

    def tie(self, one: int, other: int) -> None:
        """Prune both or neither."""
        first, second = self.root(one), self.root(other)
        if first == second:
            return
        if first in self._made_of and second in self._made_of:
            mine, theirs = self.atoms(first), self.atoms(second)
            self._parent[second] = first
            self._tie_products(mine, theirs)
        elif first in self._made_of:
            self._become(second, first)
        elif second in self._made_of:
            self._become(first, second)
        else:
            self._join(first, second)

    def _tie_products(self, mine: Sequence[int], theirs: Sequence[int]) -> None:
        """Tie factor by factor; where one side has more factors, all of them are tied."""
        if len(mine) == len(theirs):
            pairs = list(zip(mine, theirs, strict=True))
        else:
            pairs = [(mine[0], other) for other in (*mine[1:], *theirs)]
        for one, other in pairs:
            self.tie(one, other)

    def _become(self, atom: int, product: int) -> None:
        """Let ``atom`` be ``product``; if it is one of the factors, all of these are tied."""
        atoms = self.atoms(product)
        if atom in atoms:
            for other in atoms:
                self.tie(atom, other)
        else:
            self._parent[atom] = product

    # ------------------------------------------------------------ axes

    def merge(self, lists: Sequence[Channels | None], sizes: Sequence[int]) -> Channels:
        """Return the channels of axes that become one: at each place the product of the channels there.

        Args:
            lists: the channels of each axis, or ``None``.
            sizes: of the axes.
        """
        places = [place for place, channels in enumerate(lists) if channels is not None]
        found = [channels for channels in lists if channels is not None]
        shape = [size if place in places else 1 for place, size in enumerate(sizes)]
        merged = found[0]
        if len(found) > 1:
            pairs = np.stack(np.meshgrid(*found, indexing="ij"), axis=-1).reshape(-1, len(found))
            distinct, places_of = np.unique(pairs, axis=0, return_inverse=True)
            numbers = np.array([self.product(row) for row in distinct.tolist()], np.int64)
            merged = numbers[places_of.ravel()]
        return np.ascontiguousarray(np.broadcast_to(merged.reshape(shape), sizes)).reshape(-1)

    def split(self, channels: Channels, sizes: Sequence[int]) -> Axes:
        """Return the channels of the axes that one axis becomes.

        An axis along which nothing changes gets none. Where channels are products of a channel for
        each axis, the axes get those; else new atoms are made, and the channels become their products.

        Args:
            channels: along the axis.
            sizes: of the axes that it becomes.
        """
        roots = np.array([self.root(channel) for channel in channels.tolist()], np.int64)
        table = roots.reshape(sizes)
        kinds = [_kinds(table, axis) for axis in range(len(sizes))]
        varying = [axis for axis, kind in enumerate(kinds) if kind.max() > 0]
        if len(varying) < 2:
            axis = varying[0] if varying else max(range(len(sizes)), key=lambda axis: sizes[axis] > 1)
            rest = [slice(None) if other == axis else 0 for other in range(len(sizes))]
            return [table[tuple(rest)] if other == axis else None for other in range(len(sizes))]
        for cut in range(1, len(sizes)):
            left, right = int(np.prod(sizes[:cut])), int(np.prod(sizes[cut:]))
            apart = self._apart(table.reshape(left, right))
            if apart is not None:
                return [*self._side(apart[0], sizes[:cut]), *self._side(apart[1], sizes[cut:])]
        lists: Axes = [self.new(int(kind.max()) + 1)[kind] if kind.max() else None for kind in kinds]
        for pair in {*zip(roots.tolist(), self.merge(lists, sizes).tolist(), strict=True)}:
            self.tie(*pair)
        return lists

    def _side(self, channels: Channels | None, sizes: Sequence[int]) -> Axes:
        return [None] * len(sizes) if channels is None else self.split(channels, sizes)

    def _apart(self, table: Channels) -> tuple[Channels | None, Channels | None] | None:
        """Return channels of rows and of columns whose products ``table`` holds, or ``None``."""
        if (table == table[:1]).all():
            return None, table[0]
        if (table == table[:, :1]).all():
            return table[:, 0], None
        atoms = {channel: frozenset(self.atoms(channel)) for channel in np.unique(table).tolist()}
        cells = [[atoms[channel] for channel in row] for row in table.tolist()]
        rows = [frozenset.intersection(*row) for row in cells]
        columns = [frozenset.intersection(*column) for column in zip(*cells, strict=True)]
        if not all(rows) or not all(columns):
            return None
        for row, found in zip(rows, cells, strict=True):
            if any(row | column != cell for column, cell in zip(columns, found, strict=True)):
                return None
        return self._numbers(rows), self._numbers(columns)

    def _numbers(self, products: Sequence[frozenset[int]]) -> Channels:
        return np.array([self.product(sorted(atoms)) for atoms in products], np.int64)


def _kinds(table: Channels, axis: int) -> Integers:
    """Return for each place of an axis which of its distinct slices lies there, counted as they come."""
    slices = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(part.tobytes(), len(seen)) for part in slices], np.int64)


def distinct(channels: Channels) -> Channels:
    """Return the distinct numbers in order; numpy's own way, by hashing, takes seconds for long lists."""
    ordered: Channels = np.sort(channels, axis=None)
    found: Channels = ordered[np.diff(ordered, prepend=ordered[:1] - 1) != 0]
    return found
