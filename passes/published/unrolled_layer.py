"""A recurrent layer as plain nodes, every time step with units of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.published.icse23_cell import Cell
from graft.rewriter.arrays import Array, Integers, Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.operators.base import dtype_of, given
from graft.rewriter.operators.recurrent import CELL, DATA, HIDDEN, PEEPHOLES
from graft.rewriter.run.recurrent_cell import ALPHA, BETA, RecurrentCell

NAMES = {"sigmoid": "Sigmoid", "hardsigmoid": "HardSigmoid", "tanh": "Tanh", "relu": "Relu"}
"""Activations of recurrent layers that are operators of their own."""
I, O, F, C = range(4)  # noqa: E741 - gates of LSTM in the order of ONNX
Z, R, H = range(3)
"""Gates of GRU."""


@dataclass
class State:
    """What one step hands on.

    Attributes:
        units: int64 (n,), the units that there are.
        hidden: their states, (samples, n); ``None``: all are zero.
        cell: of LSTM.
    """

    units: Integers
    hidden: gs.Tensor | None = None
    cell: gs.Tensor | None = None


@dataclass
class UnrolledLayer:
    """Writes the steps of one layer.

    Attributes:
        node: the layer, one direction.
        build: adds nodes.
        method: named in errors.
    """

    node: gs.Node
    build: Builder
    method: str
    weights: Cell = field(init=False)

    def __post_init__(self) -> None:
        odd = [index for index in (HIDDEN, CELL, PEEPHOLES) if given(self.node, index) is not None]
        names = RecurrentCell(self.node).functions
        strange = [name for name in names if name not in NAMES]
        if odd or strange or self.node.attrs.get("clip") or self.node.attrs.get("input_forget"):
            what = strange[0] if strange else "states to start with, peepholes, clip or coupled gates"
            raise GraftError(
                "method-unrolled",
                f"{self.method} does not write out {self.node.op} {self.node.name}: it has {what}",
                "leave out --mode unrolled",
            )
        self.weights = Cell.of(self.node)

    def write(self, kept: Sequence[Mask]) -> list[State]:
        """Add the nodes of all steps.

        Args:
            kept: bool (units,) of each step: the others have the state zero.

        Returns:
            The states of each step.
        """
        step_of: Callable[[int, gs.Tensor, State, Integers], State]
        step_of = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.node.op]
        state, found = State(np.arange(0)), []
        for number, mask in enumerate(kept):
            at = self.build.constant(f"{number}/number", np.array(number, np.int64))
            data = self.build.node("Gather", f"{number}/data", [self.node.inputs[DATA], at], axis=0)
            state = step_of(number, data, state, np.flatnonzero(mask))
            found.append(state)
        return found

    def _lstm(self, step: int, data: gs.Tensor, before: State, units: Integers) -> State:
        sums = self._sums(step, "gates", data, before, (I, O, F, C), units)
        gates, candidate = self._split(f"{step}/split", sums, [3 * len(units), len(units)])
        opened = self._split(f"{step}/opened", self._activate(f"{step}/open", gates, 0), [len(units)] * 3)
        new = self.build.node(
            "Mul", f"{step}/new", [opened[0], self._activate(f"{step}/candidate", candidate, 1)]
        )
        if before.cell is not None:
            old = self._align(f"{step}/old", before.cell, before.units, units)
            new = self.build.node("Add", f"{step}/cell", [new, self._product(f"{step}/kept", opened[2], old)])
        shown = self._product(f"{step}/state", opened[1], self._activate(f"{step}/shown", new, 2))
        return State(units, shown, new)

    def _gru(self, step: int, data: gs.Tensor, before: State, units: Integers) -> State:
        """Write a step: what is reset are the states before, or what they add, with gates of their units."""
        after = bool(self.node.attrs.get("linear_before_reset", 0))
        update = self._activate(f"{step}/update", self._sums(step, "z", data, before, (Z,), units), 0)
        reset_of = units if after else before.units
        reset = before.hidden
        if after or reset is not None:
            reset = self._activate(f"{step}/reset", self._sums(step, "r", data, before, (R,), reset_of), 0)
        if after:
            own = self._product(f"{step}/own_left", reset, self._own(step, before, H, units))
            made = self._sums(step, "h", data, State(before.units), (H,), units, own=False)
            made = self.build.node("Add", f"{step}/h_all", [made, own])
        else:
            left = before.hidden and self._product(f"{step}/left", reset, before.hidden)
            made = self._sums(step, "h", data, State(before.units, left), (H,), units)
        candidate = self._activate(f"{step}/candidate", made, 1)
        share = self.build.node("Sub", f"{step}/share", [self._constant(f"{step}/one", np.array(1)), update])
        new = self._product(f"{step}/new", share, candidate)
        if before.hidden is not None:
            old = self._align(f"{step}/old", before.hidden, before.units, units)
            new = self.build.node("Add", f"{step}/state", [new, self._product(f"{step}/kept", update, old)])
        return State(units, new)

    def _rnn(self, step: int, data: gs.Tensor, before: State, units: Integers) -> State:
        sums = self._sums(step, "sums", data, before, (0,), units)
        return State(units, self._activate(f"{step}/state", sums, 0))

    def _sums(
        self,
        step: int,
        name: str,
        data: gs.Tensor,
        before: State,
        gates: Sequence[int],
        units: Integers,
        own: bool = True,
    ) -> gs.Tensor:
        """Return what gates of units add up, (samples, gates * units).

        Args:
            step: number of the step.
            name: of the nodes.
            data: of the step, (samples, inputs).
            before: the states before, with their units.
            gates: of the layer.
            units: of the layer.
            own: with what the states before add, and its bias; else of the data alone.
        """
        cells = self.weights
        weight = np.concatenate([cells.weight[gate][units] for gate in gates])
        bias = np.concatenate([cells.bias[: 1 + own, gate].sum(axis=0)[units] for gate in gates])
        parts = [self._constant(f"{step}/{name}/{k}", v) for k, v in (("weight", weight), ("bias", bias))]
        sums: gs.Tensor = self.build.node("Gemm", f"{step}/{name}/of_data", [data, *parts], transB=1)
        if not own or before.hidden is None:
            return sums
        rows = np.concatenate([cells.recurrence[gate][np.ix_(units, before.units)] for gate in gates])
        weights = self._constant(f"{step}/{name}/recurrence", rows)
        return self.build.node("Gemm", f"{step}/{name}/all", [before.hidden, weights, sums], transB=1)

    def _own(self, step: int, before: State, gate: int, units: Integers) -> gs.Tensor:
        """Return what the states before add to a gate, with its bias: (samples, units), or (units,)."""
        bias = self._constant(f"{step}/own/bias", self.weights.bias[1, gate][units])
        if before.hidden is None:
            return bias
        rows = self.weights.recurrence[gate][np.ix_(units, before.units)]
        weights = self._constant(f"{step}/own/recurrence", rows)
        return self.build.node("Gemm", f"{step}/own/all", [before.hidden, weights, bias], transB=1)

    def _align(self, name: str, values: gs.Tensor, have: Integers, want: Integers) -> gs.Tensor:
        """Return the states of other units; zero for those that there were none of."""
        return align(self.build, name, values, have, want, self._dtype)

    def _activate(self, name: str, values: gs.Tensor, place: int) -> gs.Variable:
        """Add the activation function at a place of the layer's list."""
        cell = RecurrentCell(self.node)
        function = cell.functions[place]
        attributes = {}
        for key, defaults in (("alpha", ALPHA), ("beta", BETA)):
            if function in defaults and NAMES[function] == "HardSigmoid":
                attributes[key] = cell.parameter(place, key)
        return self.build.node(NAMES[function], name, [values], **attributes)

    def _product(self, name: str, one: gs.Tensor, two: gs.Tensor) -> gs.Variable:
        return self.build.node("Mul", name, [one, two])

    def _split(self, name: str, values: gs.Tensor, sizes: Sequence[int]) -> list[gs.Variable]:
        """Cut the last axis into pieces."""
        outputs = [gs.Variable(f"{self.build.prefix}/{name}_{k}") for k in range(len(sizes))]
        where = np.array(sizes, np.int64)
        attributes: dict[str, object] = {"axis": 1}
        inputs = [values]
        if self.build.opset < 13:
            attributes["split"] = [int(size) for size in where]
        else:
            inputs.append(self.build.constant(f"{name}/sizes", where))
        node = gs.Node("Split", f"{self.build.prefix}/{name}", attributes, inputs, outputs)
        self.build.graph.nodes.append(node)
        return outputs

    @property
    def _dtype(self) -> np.dtype[np.generic]:
        return dtype_of(self.node.inputs[1])

    def _constant(self, name: str, values: Array) -> gs.Constant:
        return self.build.constant(name, np.array(values, self._dtype, order="C"))


def align(
    build: Builder, name: str, values: gs.Tensor, have: Integers, want: Integers, dtype: np.dtype[np.generic]
) -> gs.Tensor:
    """Return columns for other units, zeros for those that there are none of.

    Args:
        build: adds nodes.
        name: of the nodes.
        values: (samples, units).
        have: int64 (units,), in ascending order.
        want: int64 (n,).
        dtype: of the values.
    """
    if np.array_equal(have, want):
        return values
    places = np.searchsorted(have, want)
    there = np.isin(want, have)
    if there.all():
        return build.pick(values, places.tolist(), name)
    pads = np.array([0, 0, 0, 1], np.int64)
    zero = build.constant(f"{name}/zero", np.zeros((), dtype))
    if build.opset < 11:
        padded = build.node("Pad", f"{name}/with_zero", [values], pads=pads.tolist())
    else:
        padded = build.node("Pad", f"{name}/with_zero", [values, build.constant(f"{name}/pads", pads), zero])
    return build.pick(padded, np.where(there, places, len(have)).tolist(), name)
