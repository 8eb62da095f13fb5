"""Refit a recurrent layer of a cut model: every gate to what it is in the parent, over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Declined
from graft.passes.compensate.layer import ROWS, CutAndParent, declined
from graft.passes.compensate.least_squares import correction
from graft.rewriter.arrays import Integers, Mask, Single
from graft.rewriter.operators.recurrent import Recurrent
from graft.rewriter.run.recurrent_cell import Part, RecurrentCell
from graft.rewriter.run.values import Values

SWEEPS = 3
"""The gates read what they made the step before: they are fitted, run, and fitted again."""


@dataclass
class RecurrentLayer:
    """A recurrent node whose gates are fitted by least squares to what comes before them in the parent.

    What a gate reads are the data of the step and the units of the step before, both as the cut model
    really has them. Other weights make other units, so this is repeated; what comes nearest to the
    parent's units stays.

    Attributes:
        node: of the cut model.
        whole: the same of the parent.
        stays: which units of the parent the cut node has.
        sides: both models.
        draw: draws steps, where there are many.
    """

    node: gs.Node
    whole: gs.Node
    stays: Mask
    sides: CutAndParent
    draw: np.random.Generator
    _cut: dict[str, Values] = field(default_factory=dict)
    _uncut: dict[str, Values] = field(default_factory=dict)
    _count: int = 0

    @classmethod
    def find(
        cls, node: gs.Node, sides: CutAndParent, draw: np.random.Generator
    ) -> RecurrentLayer | Declined | None:
        """Find what the gates of ``node`` are fitted to.

        Args:
            node: of the cut model.
            sides: both models.
            draw: draws steps, where there are many.

        Returns:
            The layer; the reason where it cannot be refitted; ``None`` where the node is not recurrent.
        """
        if node.op not in Recurrent.types:
            return None
        whole, groups = sides.parent.nodes.get(node.name), sides.groups
        if whole is None:
            return declined(node, "the parent has no such node")
        if not RecurrentCell.fits(node) or not RecurrentCell.fits(whole):
            return declined(node, "its gates cannot be computed from its states")
        if groups.sample_axis(whole.outputs[0]) != 2:
            return declined(node, "its steps do not hold one row a sample")
        units = groups.of(whole.outputs[0])[3]
        every = units is None
        stays = np.ones(RecurrentCell(whole).units, bool) if every else groups.close(sides.kept)[units]
        return cls(node, whole, stays, sides, draw)

    @property
    def reads(self) -> list[str]:
        """Return the tensors of the cut model that are needed."""
        return RecurrentCell(self.node).reads()

    @property
    def targets(self) -> list[str]:
        """Return the tensors of the parent that are needed."""
        return [*RecurrentCell(self.whole).reads(), self.whole.outputs[0].name]

    def add(self, cut: Mapping[str, Single], uncut: Mapping[str, Single]) -> None:
        """Take a batch in: tensors of the cut model and of the parent."""
        for values, tensors in ((self._cut, cut), (self._uncut, uncut)):
            for name, array in tensors.items():
                values.setdefault(name, Values(self.sides.room)).append(array)
        self._count += 1

    def fit(self) -> Declined | None:
        """Change the weights of the node; return why not, where they stay as they were."""
        cell, parent = RecurrentCell(self.node), RecurrentCell(self.whole)
        places, shares = self._places()
        targets = self._targets(parent, places)
        rows = np.tile(self.stays, parent.gates)
        best, nearest, least = None, 0, np.inf
        for sweep in range(SWEEPS + 1):
            error, read = self._run(cell, places if sweep < SWEEPS else None)
            if error < least:
                best, nearest, least = (
                    (cell.weight.copy(), cell.recurrence.copy(), cell.bias.copy()),
                    sweep,
                    error,
                )
            if sweep == SWEEPS:
                break
            for part, target in zip(read, targets, strict=True):
                of_gates = rows[: len(part.gates) * len(self.stays)]
                _solve(cell, part, target.made[:, of_gates], shares)
            cell.write()
        if best:
            cell.weight, cell.recurrence, cell.bias = best
            cell.write()
        return None if nearest else declined(self.node, "no other weights come nearer to the parent's units")

    def _wanted(self, number: int) -> Single:
        """Return the states of the parent of a batch, of the units that the cut node has."""
        return self._uncut[self.whole.outputs[0].name][number][..., self.stays]

    def _places(self) -> tuple[list[Integers], Single]:
        """Return which steps of which samples count, in each batch, and their weights."""
        states = self._uncut[self.whole.outputs[0].name]
        shapes = [states.shape(number) for number in range(self._count)]
        total, start = sum(steps * samples for steps, _, samples, _ in shapes), 0
        places, shares = [], []
        for steps, _, samples, _ in shapes:
            count = steps * samples
            drawn = np.sort(self.draw.permutation(count)[: max(1, count * ROWS // max(ROWS, total))])
            places.append(drawn)
            own = slice(start, start + samples)
            each = self.sides.weigh(self.node.name, own, steps)
            alike = np.tile(self.sides.weights[own], steps)
            shares.append((alike if each is None else each.T.ravel())[drawn])
            start += samples
        share: Single = np.concatenate(shares).astype(np.float32)
        return places, share / share.sum()

    def _targets(self, parent: RecurrentCell, places: list[Integers]) -> list[Part]:
        """Return the parts of the parent's gates, at some places of each batch."""
        found, states = [], self.whole.outputs[0].name
        for number, at in enumerate(places):
            uncut = {name: values[number] for name, values in self._uncut.items()}
            found.append(_at(parent.parts(uncut, uncut[states]), at))
        return _join(found)

    def _run(self, cell: RecurrentCell, places: list[Integers] | None) -> tuple[float, list[Part]]:
        """Run the node as it is.

        Args:
            cell: the weights of the node.
            places: of each batch, where the parts are wanted.

        Returns:
            The error of its states, and the parts of its gates.
        """
        name, error, start, found = self.node.outputs[0].name, 0.0, 0, []
        session = None
        for number in range(self._count):
            cut = {read: values[number] for read, values in self._cut.items()}
            feed = {read: cut[read] for read in self.reads}
            if session is None:
                session = self.sides.device.open(self.sides.model.piece([self.node], feed, [name]))
            made = session.run(feed, [name])[name]
            missed = (made - self._wanted(number)) ** 2
            own = slice(start, start + missed.shape[2])
            each = self.sides.weigh(self.node.name, own, len(missed))
            if each is None:
                error += float(missed.mean(axis=(0, 1, 3)) @ self.sides.weights[own])
            else:
                error += float((missed.mean(axis=(1, 3)) * each.T).sum())
            start = own.stop
            if places is not None:
                found.append(_at(cell.parts(cut, made), places[number]))
        return error, _join(found)


def _solve(cell: RecurrentCell, part: Part, target: Single, share: Single) -> None:
    """Fit one linear part; it stays as it is where the values are not finite.

    Args:
        cell: holds the weights.
        part: what is read, float32 (rows, columns).
        target: float32 (rows, outputs).
        share: weights of the rows.
    """
    old, beside = cell.coefficients(part), np.zeros((1, 1, target.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        solved = correction(part.rows[None], target[None], beside, share, old[None])
    if np.isfinite(solved.step).all() and np.isfinite(solved.constant).all():
        cell.set(part, old + solved.step[0], solved.constant[0])


def _at(parts: list[Part], places: Integers) -> list[Part]:
    """Return the parts of a batch, at some places of it."""
    return [replace(part, rows=part.rows[places], made=part.made[places]) for part in parts]


def _join(batches: list[list[Part]]) -> list[Part]:
    """Return the parts of all batches."""
    return [
        replace(
            parts[0],
            rows=np.concatenate([part.rows for part in parts]),
            made=np.concatenate([part.made for part in parts]),
        )
        for parts in zip(*batches, strict=True)
    ]
