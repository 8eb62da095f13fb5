"""Imtiaz et al., "Decomposing a Recurrent Neural Network into Modules" (ICSE 2023): masks of its layers.

A unit goes that is less strongly on for the class than for the others: in all time steps together (rolled),
or in each (unrolled, with a copy of the layers a step). The outputs of all other classes become one, their
mean.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.dense_network import Dense
from graft.passes.published.fse20_head import Channel, negative_node
from graft.passes.published.icse23_cell import ORDER, Cell
from graft.passes.published.icse23_examples import Examples, Rows, observe, together
from graft.passes.published.icse23_network import RecurrentNetwork
from graft.passes.published.icse23_units import removed_units, walk_gates
from graft.passes.published.method import CODE, MaskInputs, MaskMethod, MaskReport
from graft.rewriter.arrays import Integers
from graft.rewriter.data.samples import IGNORED
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model

CAP = {"code": 0.05, "paper": 0.2}
"""Share of the units at which no more go."""
NONE: Integers = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Icse23(MaskMethod):
    """Base of the modes.

    Attributes:
        variant: ``code`` or ``paper``.
        concerned: so many examples of the class, and as many of all others over their number.
        cap: share of the units at which no more go; ``None``: the variant's.
    """

    variant: str = CODE
    concerned: int = 500
    cap: float | None = None

    scores: ClassVar[str] = "odds"
    pair: ClassVar[bool] = True
    gates: ClassVar[bool] = False
    """Gates go by themselves, by their own activations (option (i) of the paper)."""

    @abstractmethod
    def remove(
        self, network: RecurrentNetwork, seen: Sequence[Sequence[Examples]], many: bool
    ) -> tuple[int, Integers]:
        """Change the recurrent layers in place.

        Args:
            network: in the graph of the module.
            seen: for each layer, what it holds at each step.
            many: there is one output a time step.

        Returns:
            How many units or gates were removed, and the units that the dense layer reads no more.
        """

    def mask(self, model: Model, inputs: MaskInputs) -> MaskReport:
        """Remove units or gates, and let one output be that of all other classes."""
        network = RecurrentNetwork.of(model, self.name)
        rows = self._rows(inputs)
        seen = observe(network, inputs, rows, self.gates)
        removed, unread = self.remove(network, seen, len(rows) > 1)
        head = Dense(network.head.weights(), network.head.offset())
        head.weights[unread] = 0
        Channel(slip=False).apply([head], inputs.place)
        network.head.write(head)
        own, others = (sum(map(len, each)) for each in zip(*rows, strict=True))
        node = negative_node(inputs.place)
        return MaskReport(changed=removed, positives=own, negatives=others, negative=node)

    def clear(self, node: gs.Node, cell: Cell, examples: Examples, at_a_step: bool) -> tuple[int, Integers]:
        """Decide what goes of one layer, and change its weights in place.

        Args:
            node: the layer.
            cell: its weights, or their copy for a time step.
            examples: what it holds.
            at_a_step: it is such a copy.

        Returns:
            How many units or gates were removed, and the units that nothing reads any more.
        """
        difference = examples.difference(node, self.gates)
        if difference is None:
            return 0, NONE
        most = CAP[self.variant] if self.cap is None else self.cap
        written_back = at_a_step and self.variant == CODE
        if self.gates:
            order = ORDER[node.op]
            walk = walk_gates([difference[gate] for gate in order], most)
            own = [(order[gate], unit, goes) for gate, unit, goes in walk]
            return sum(goes for *_, goes in walk), cell.remove_gates(own, written_back)
        units = removed_units(difference[0], most, nearly=self.variant == CODE)
        (cell.remove_at_a_step if written_back else cell.remove)(units)
        return len(units), units

    def _rows(self, inputs: MaskInputs) -> list[Rows]:
        """Return positions of examples of the class and of the others: once, or for each labelled step."""
        labels, others = inputs.samples.labels, len(inputs.card.labels) - 1
        found = []
        for column in (labels[:, None] if labels.ndim == 1 else labels).T:
            own = np.flatnonzero(column == inputs.place)[: self.concerned]
            rest = np.flatnonzero((column != inputs.place) & (column != IGNORED))
            if self.variant == CODE:
                rest = rest[: math.ceil(self.concerned / others)]
            else:  # as many of every class
                each = max(1, self.concerned // others)
                rest = np.concatenate([rest[column[rest] == number][:each] for number in range(others + 1)])
            found.append((own, np.sort(rest)))
        if not any(len(own) and len(rest) for own, rest in found):
            raise GraftError(
                "method-examples",
                f"the method {self.name} takes samples of '{inputs.name}' and of other classes",
                "give samples of both",
            )
        return found


@dataclass(frozen=True)
class Rolled(Icse23):
    """The mode *rolled*: one copy of the layers for all time steps.

    The code looks at the last step only where there is one output, the paper at all of them.
    """

    name: ClassVar[str] = "icse23:rolled"

    def remove(
        self, network: RecurrentNetwork, seen: Sequence[Sequence[Examples]], many: bool
    ) -> tuple[int, Integers]:
        """Remove units from all steps; the layer behind reads them no more."""
        cells, removed, unread = network.cells(), 0, NONE
        for number, (node, cell, steps) in enumerate(zip(network.nodes, cells, seen, strict=True)):
            last = self.variant == CODE and not many
            count, unread = self.clear(node, cell, steps[-1] if last else together(steps), at_a_step=False)
            removed += count
            for behind in cells[number + 1 : number + 2]:
                behind.weight[:, :, unread] = 0
        for node, cell in zip(network.nodes, cells, strict=True):
            cell.write(node)
        return removed, unread


@dataclass(frozen=True)
class RolledGates(Rolled):
    """The mode *rolled* with gates that go by themselves."""

    name: ClassVar[str] = "icse23:rolled-gates"
    gates: ClassVar[bool] = True


@dataclass(frozen=True)
class Unrolled(Icse23):
    """The mode *unrolled*: a copy of the layers for every time step; larger and slower than the parent.

    In the code a unit that is removed at a step goes on reading the units that are kept; the dense layer
    lacks what goes at the last step, and where there is one output a step, at the first.
    """

    name: ClassVar[str] = "icse23:unrolled"

    def remove(
        self, network: RecurrentNetwork, seen: Sequence[Sequence[Examples]], many: bool
    ) -> tuple[int, Integers]:
        """Remove units from the copies of the steps."""
        number, removed, unread = network.steps(self.name), 0, NONE
        for node, steps in zip(network.nodes, seen, strict=True):
            cells = [Cell.of(node) for _ in range(number)]
            found = [
                self.clear(node, cell, examples, at_a_step=True)
                for cell, examples in zip(cells, steps, strict=True)
            ]
            removed += sum(count for count, _ in found)
            unread = found[0 if many else -1][1]
            network.unroll(node, cells)
        return removed, unread


@dataclass(frozen=True)
class UnrolledGates(Unrolled):
    """The mode *unrolled* with gates that go by themselves."""

    name: ClassVar[str] = "icse23:unrolled-gates"
    gates: ClassVar[bool] = True
