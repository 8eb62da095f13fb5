"""Refit a recurrent layer of a cut model: every gate to what it is in the parent, over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Declined
from graft.passes.compensate.layer import ROWS, CutAndParent, declined
from graft.passes.compensate.least_squares import correction
from graft.rewriter.arrays import Integers, Mask, Single
from graft.rewriter.operators.recurrent import Recurrent
from graft.rewriter.run.recurrent_cell import Part, RecurrentCell
from graft.rewriter.run.staged import ROOM

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
    _batches: list[tuple[Mapping[str, Single], Mapping[str, Single]]] = field(default_factory=list)
    _bytes: int = 0

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
        self._bytes += sum(array.nbytes for array in (*cut.values(), *uncut.values()))
        self._batches.append((cut, uncut))
        if self._bytes > ROOM:
            self._batches.clear()

    def fit(self) -> Declined | None:
        """Change the weights of the node; return why not, where they stay as they were."""
        if not self._batches or self._bytes > ROOM:
            return declined(self.node, "there is no room for all samples")
        cell, parent = RecurrentCell(self.node), RecurrentCell(self.whole)
        states = self.whole.outputs[0].name
        wanted = [uncut[states][..., self.stays] for _, uncut in self._batches]
        places, shares = self._places(wanted)
        targets = _gather([parent.parts(uncut, uncut[states]) for _, uncut in self._batches], places)
        rows = np.tile(self.stays, parent.gates)
        best, nearest, least = None, 0, np.inf
        for sweep in range(SWEEPS + 1):
            made = self._run()
            error = self._error(made, wanted)
            if error < least:
                best, nearest, least = (
                    (cell.weight.copy(), cell.recurrence.copy(), cell.bias.copy()),
                    sweep,
                    error,
                )
            if sweep == SWEEPS:
                break
            read = zip(self._batches, made, strict=True)
            for part, target in zip(
                _gather([cell.parts(cut, each) for (cut, _), each in read], places), targets, strict=True
            ):
                of_gates = rows[: len(part.gates) * len(self.stays)]
                _solve(cell, part, target.made[:, of_gates], shares)
            cell.write()
        if best:
            cell.weight, cell.recurrence, cell.bias = best
            cell.write()
        return None if nearest else declined(self.node, "no other weights come nearer to the parent's units")

    def _places(self, wanted: list[Single]) -> tuple[list[Integers], Single]:
        """Return which steps of which samples count, in each batch, and their weights."""
        total, start = sum(states.shape[0] * states.shape[2] for states in wanted), 0
        places, shares = [], []
        for states in wanted:
            steps, _, samples, _ = states.shape
            count = steps * samples
            drawn = np.sort(self.draw.permutation(count)[: max(1, count * ROWS // max(ROWS, total))])
            places.append(drawn)
            shares.append(np.tile(self.sides.weights[start : start + samples], steps)[drawn])
            start += samples
        share: Single = np.concatenate(shares).astype(np.float32)
        return places, share / share.sum()

    def _run(self) -> list[Single]:
        name = self.node.outputs[0].name
        feeds = [{read: cut[read] for read in self.reads} for cut, _ in self._batches]
        session = self.sides.device.open(self.sides.model.piece([self.node], feeds[0], [name]))
        return [session.run(feed, [name])[name] for feed in feeds]

    def _error(self, states: list[Single], wanted: list[Single]) -> float:
        start, total = 0, 0.0
        for made, target in zip(states, wanted, strict=True):
            each = ((made - target) ** 2).mean(axis=(0, 1, 3))
            total += float(each @ self.sides.weights[start : start + len(each)])
            start += len(each)
        return total


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


def _gather(batches: list[list[Part]], places: list[Integers]) -> list[Part]:
    """Join the parts of all batches, at some places of each."""
    return [
        Part(
            *(parts[0].gates, parts[0].data, parts[0].own),
            *(
                np.concatenate([getattr(p, name)[at] for p, at in zip(parts, places, strict=True)])
                for name in ("rows", "made")
            ),
        )
        for parts in zip(*batches, strict=True)
    ]
