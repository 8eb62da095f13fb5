"""The mode *unrolled* as a module that is really cut: plain nodes, one cut for every time step.

The published form (``icse23:unrolled``) zeroes weights of units that go on living. Here a unit that is
removed at a step has the state zero there, and its weights are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.icse23 import NONE, Icse23
from graft.passes.published.icse23_examples import Examples
from graft.passes.published.icse23_network import RecurrentNetwork
from graft.passes.published.unrolled_layer import State, UnrolledLayer, align
from graft.rewriter.arrays import Integers, Mask
from graft.rewriter.graph.builder import Builder
from graft.rewriter.operators.base import dtype_of
from graft.rewriter.operators.recurrent import LAST, SEQUENCE

ROLLED, UNROLLED = MODES = ("rolled", "unrolled")


@dataclass(frozen=True)
class UnrolledCut(Icse23):
    """Remove the units of each time step that are least on for the class, with all of their weights.

    Every step has nodes and weights of its own: a module is larger and slower than a cut of the layer.

    Attributes:
        keep: share of the units of a layer that stays at each step, one at least.
    """

    keep: float = 0.95

    name: ClassVar[str] = "unrolled"

    def remove(
        self, network: RecurrentNetwork, seen: Sequence[Sequence[Examples]], many: bool
    ) -> tuple[int, Integers]:
        """Write the layers step by step; the dense layer reads zeros of what is not there."""
        network.steps(self.name)
        removed = 0
        for node, steps in zip(network.nodes, seen, strict=True):
            kept = [self._kept(node, examples) for examples in steps]
            removed += sum(int((~mask).sum()) for mask in kept)
            build = Builder(network.model.graph, network.model.opset, f"{node.name}/step")
            states = UnrolledLayer(node, build, "--mode unrolled").write(kept)
            _give(network, node, build, states, len(kept[0]))
        return removed, NONE

    def _kept(self, node: gs.Node, examples: Examples) -> Mask:
        """Return which units stay at a step: bool (units,)."""
        difference = examples.difference(node, gates=False)
        units = len(difference[0]) if difference else int(node.attrs["hidden_size"])
        kept = np.ones(units, bool)
        if difference:
            gone = min(units - 1, round(units * (1 - self.keep)))
            kept[np.argsort(difference[0], kind="stable")[:gone]] = False
        return kept


def _give(
    network: RecurrentNetwork, node: gs.Node, build: Builder, states: Sequence[State], units: int
) -> None:
    """Let what read a layer read its steps: states of all units, zero where there are none."""
    everything, dtype = np.arange(units), dtype_of(node.inputs[1])
    hidden = [state.hidden for state in states if state.hidden is not None]
    wide = [
        build.expand(
            align(build, f"{number}/all", values, state.units, everything, dtype), 0, f"{number}/row"
        )
        for number, (state, values) in enumerate(zip(states, hidden, strict=True))
    ]
    rows: dict[int, gs.Tensor] = {LAST: wide[-1]}
    if any(tensor.outputs for tensor in node.outputs[:1]):
        joined = build.node("Concat", "states", wide, axis=0)
        rows[SEQUENCE] = build.expand(joined, 1, "all_states")
    for place, value in rows.items():
        if place < len(node.outputs):
            old = node.outputs[place]
            for reader in list(old.outputs):
                reader.inputs = [value if tensor is old else tensor for tensor in reader.inputs]
    network.model.tidy()
    network.model.refresh_shapes()
