"""Refit a recurrent layer of a cut model: every gate to what it is in the parent, over all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.passes.compensate.layer import ROWS
from graft.passes.compensate.least_squares import correction
from graft.rewriter.arrays import Single, Table
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.run.recurrent_cell import Part, RecurrentCell
from graft.rewriter.run.session import Device
from graft.rewriter.run.staged import ROOM

SWEEPS = 3
"""The gates read what they made the step before: they are fitted, run, and fitted again."""


@dataclass
class RecurrentLayer:
    """The gates of a recurrent node, fitted by least squares to what comes before them in the parent.

    What a gate reads are the data of the step and the units of the step before, both as the cut model
    really has them. Other weights make other units, so this is repeated; what comes nearest to the
    parent's units stays.

    Attributes:
        node: of the cut model.
        whole: the same of the parent.
        stays: which units of the parent the cut node has.
        model: the cut model.
        device: where the node runs.
        weights: of all samples.
        draw: draws steps, where there are many.
    """

    node: gs.Node
    whole: gs.Node
    stays: NDArray[np.bool_]
    model: Model
    device: Device
    weights: Table
    draw: np.random.Generator
    _seen: list[tuple[Mapping[str, Single], Mapping[str, Single]]] = field(default_factory=list)
    _bytes: int = 0

    @classmethod
    def find(
        cls,
        node: gs.Node,
        parents: Mapping[str, gs.Node],
        groups: ChannelGroups,
        kept: NDArray[np.bool_],
        model: Model,
        device: Device,
        weights: Table,
        draw: np.random.Generator,
    ) -> RecurrentLayer | None:
        """Of ``node``; ``None`` where its steps cannot be told, or do not hold one row a sample."""
        whole = parents.get(node.name)
        if (
            whole is None
            or not RecurrentCell.fits(node)
            or not RecurrentCell.fits(whole)
            or groups.sample_axis(whole.outputs[0]) != 2
        ):
            return None
        units = groups.of(whole.outputs[0])[3]
        stays = np.ones(RecurrentCell(whole).units, bool) if units is None else groups.close(kept)[units]
        return cls(node, whole, stays, model, device, weights, draw)

    @property
    def reads(self) -> list[str]:
        """Tensors of the cut model that are needed."""
        return RecurrentCell(self.node).reads()

    @property
    def targets(self) -> list[str]:
        """Tensors of the parent that are needed."""
        return [*RecurrentCell(self.whole).reads(), self.whole.outputs[0].name]

    def add(self, cut: Mapping[str, Single], uncut: Mapping[str, Single]) -> None:
        """Take a batch in."""
        self._bytes += sum(array.nbytes for array in (*cut.values(), *uncut.values()))
        self._seen.append((cut, uncut))
        if self._bytes > ROOM:
            self._seen.clear()

    def fit(self) -> None:
        """Change the weights of the node; nothing where there is no room for all samples."""
        if not self._seen or self._bytes > ROOM:
            return
        cell, parent = RecurrentCell(self.node), RecurrentCell(self.whole)
        wanted = [uncut[self.whole.outputs[0].name][..., self.stays] for _, uncut in self._seen]
        places, shares = self._places(wanted)
        targets = _gather(
            [parent.parts(uncut, uncut[self.whole.outputs[0].name]) for _, uncut in self._seen], places
        )
        rows = np.tile(self.stays, parent.gates)
        best, least = None, np.inf
        for sweep in range(SWEEPS + 1):
            states = self._run()
            error = self._error(states, wanted)
            if error < least:
                best, least = (cell.weight.copy(), cell.recurrence.copy(), cell.bias.copy()), error
            if sweep == SWEEPS:
                break
            found = _gather(
                [cell.parts(cut, made) for (cut, _), made in zip(self._seen, states, strict=True)], places
            )
            for part, target in zip(found, targets, strict=True):
                of_gates = rows[: len(part.gates) * len(self.stays)]
                self._solve(cell, part, target.made[:, of_gates], shares)
            cell.write()
        if best:
            cell.weight, cell.recurrence, cell.bias = best
            cell.write()

    @staticmethod
    def _solve(cell: RecurrentCell, part: Part, target: Single, share: Single) -> None:
        old, beside = cell.coefficients(part), np.zeros((1, 1, target.shape[1]), np.float32)
        solved = correction(part.rows[None], target[None], beside, share, old[None])
        if np.isfinite(solved.step).all() and np.isfinite(solved.constant).all():
            cell.set(part, old + solved.step[0], solved.constant[0])

    def _places(self, wanted: list[Single]) -> tuple[list[NDArray[np.int64]], Single]:
        """Which steps of which samples count, in each batch, and their weights."""
        total, start = sum(states.shape[0] * states.shape[2] for states in wanted), 0
        places, shares = [], []
        for states in wanted:
            steps, _, samples, _ = states.shape
            count = steps * samples
            drawn = np.sort(self.draw.permutation(count)[: max(1, count * ROWS // max(ROWS, total))])
            places.append(drawn)
            shares.append(np.tile(self.weights[start : start + samples], steps)[drawn])
            start += samples
        share: Single = np.concatenate(shares).astype(np.float32)
        return places, share / share.sum()

    def _run(self) -> list[Single]:
        name = self.node.outputs[0].name
        feeds = [{read: cut[read] for read in self.reads} for cut, _ in self._seen]
        session = self.device.open(self.model.piece([self.node], feeds[0], [name]))
        return [session.run(feed, [name])[name] for feed in feeds]

    def _error(self, states: list[Single], wanted: list[Single]) -> float:
        start, total = 0, 0.0
        for made, target in zip(states, wanted, strict=True):
            each = ((made - target) ** 2).mean(axis=(0, 1, 3))
            total += float(each @ self.weights[start : start + len(each)])
            start += len(each)
        return total


def _gather(batches: list[list[Part]], places: list[NDArray[np.int64]]) -> list[Part]:
    """The parts of all batches, one behind the other, at some places of each."""
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
