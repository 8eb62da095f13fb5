"""Recurrent layers: hidden units as channels, through every gate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    ChannelLookup,
    Cut,
    Parameter,
    Read,
    Work,
    count,
    given,
    is_constant,
    set_constant,
)
from graft.rewriter.operators.consumer import Consumer

DATA, WEIGHT, RECURRENCE, BIAS, LENGTHS, HIDDEN, CELL, PEEPHOLES = range(8)
"""Inputs of the operators; ``GRU`` and ``RNN`` have the first six."""
STATES = (HIDDEN, CELL)
SEQUENCE, LAST, LAST_CELL = range(3)
"""Outputs: the hidden states of all steps, the last, and the last cell states of ``LSTM``."""
FEATURES = 2
"""The axis of the data, the weights and the states that holds features; of all steps the one behind."""


class Recurrent(Consumer):
    """``LSTM``, ``GRU`` and ``RNN``: a hidden unit goes with its row of every gate and its column of R.

    Both directions of a bidirectional node hold the same units: what one output tensor has room for. Where
    the graph allows it, :mod:`graft.passes.normalize.recurrent_layout` makes a node of each direction before.
    """

    types = ("LSTM", "GRU", "RNN")
    gates: ClassVar[dict[str, int]] = {"LSTM": 4, "GRU": 3, "RNN": 1}
    activates = True

    def units(self, node: gs.Node, channels: ChannelLookup | Flow) -> Channels | None:
        """Return the hidden units: channels of whatever output there is."""
        for tensor in node.outputs:
            axes = channels.of(tensor) if tensor.name else []
            if axes and axes[-1] is not None:
                return axes[-1]
        return None

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Consume the features, and its own units of the step before; make units."""
        weights = [given(node, index) for index in (WEIGHT, RECURRENCE, BIAS, PEEPHOLES)]
        if not all(tensor is None or is_constant(tensor) for tensor in weights):
            flow.pin_inputs(node, "its weights are computed at run time")
            return
        for axes in (flow.of(node.inputs[DATA])[:FEATURES], *(flow.of(t) for t in node.inputs[4:5])):
            for channels in axes:
                flow.pin(channels, node, "channels along time or samples")
        units = flow.make(node, node.inputs[RECURRENCE].shape[FEATURES])
        for state in filter(None, (given(node, index) for index in STATES)):
            self._start(node, state, units, flow)
        for place, tensor in enumerate(node.outputs):
            if tensor.name:
                flow.give(tensor, [None] * (3 if place == SEQUENCE else 2) + [units])

    def _start(self, node: gs.Node, state: gs.Tensor, units: Channels, flow: Flow) -> None:
        """Tie the units of a state to start with to those of the node; of a whole state they are picked."""
        if is_constant(state):
            return
        *others, channels = flow.of(state) or [None]
        for other in others:
            flow.pin(other, node, "channels of a state along directions or samples")
        if channels is not None and len(channels) == len(units):
            flow.tie(units, channels)
        elif channels is not None or _width(state, flow) != len(units):
            flow.pin(units, node, "starts with a state that holds no channels")
            flow.pin(channels, node, "starts with a state of another size")

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return both weights, their biases, peepholes, and constant states to start with."""
        units = self.units(node, channels)
        if units is None:
            return []
        gates = np.tile(units, self.gates[node.op])
        features = channels.of(node.inputs[DATA])[FEATURES]
        read = {} if features is None else {FEATURES: features}
        found = [
            Parameter(WEIGHT, {1: gates, **read}, reads=FEATURES if read else None),
            Parameter(RECURRENCE, {1: gates, FEATURES: units}, reads=FEATURES),
        ]
        if given(node, BIAS) is not None:
            found.append(Parameter(BIAS, {1: np.tile(gates, 2)}))
        for index in STATES:
            if is_constant(given(node, index)):
                found.append(Parameter(index, {FEATURES: units}))
        if given(node, PEEPHOLES) is not None:
            found.append(Parameter(PEEPHOLES, {1: np.tile(units, 3)}))
        return found

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the features of a step, and the node's own units of the step before."""
        units, features = self.units(node, channels), channels.of(node.inputs[DATA])
        found = []
        wide = features[FEATURES] if features else None
        if wide is not None and units is not None:
            found.append(Read(DATA, FEATURES, wide))
        if units is not None and node.outputs[SEQUENCE].name:
            found.append(Read(SEQUENCE, FEATURES + 1, units, recurrent_weight=RECURRENCE))
        return found

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return the products with both weights, of all gates and directions, at every step."""
        steps, *weights = (channels.shape(tensor) for tensor in node.inputs[:3])
        if not steps or any(shape is None for shape in weights):
            return []
        times = count(steps[:2])
        units, features = self.units(node, channels), channels.of(node.inputs[DATA])
        if units is None:
            return [Work(times * sum(count(shape or ()) for shape in weights), ())]
        times *= count((node.inputs[WEIGHT].shape[0], self.gates[node.op]))
        wide = features[FEATURES] if features else None
        own = Work(times, (units, units))
        if wide is None:
            return [Work(times * node.inputs[WEIGHT].shape[FEATURES], (units,)), own]
        return [Work(times, (units, wide)), own]

    def rewrite(self, node: gs.Node, cut: Cut) -> None:
        """Write ``hidden_size``; pick the units that stay out of states that come whole, such as inputs."""
        node.attrs["hidden_size"] = int(node.inputs[RECURRENCE].shape[FEATURES])
        made = next(tensor for tensor in node.outputs if tensor.name)
        kept = cut.keeps(made, len(cut.shape(made) or ()) - 1)
        if kept is None or kept.all():
            return
        for index in STATES:
            state = given(node, index)
            if state is None or is_constant(state) or cut.keeps(state, FEATURES) is not None:
                continue
            name = f"{state.name}/units_of_{node.name}_{index}"  # another name with every cut
            units = gs.Constant(f"{name}/kept", np.flatnonzero(kept))
            picked = gs.Variable(name, state.dtype, [*(cut.shape(state) or ())[:FEATURES], int(kept.sum())])
            cut.graph.nodes.append(
                gs.Node("Gather", name, {"axis": FEATURES}, inputs=[state, units], outputs=[picked])
            )
            node.inputs[index] = picked

    # ------------------------------------------------------------ compensation

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return what reads the features, or the units of the step before; taps are gates and directions."""
        weight = node.inputs[_weight_of(read)].values.astype(np.float64)
        by_gate = weight.reshape(len(weight), self.gates[node.op], -1, weight.shape[FEATURES])
        units: Array = np.moveaxis(by_gate, 2, 0).reshape(by_gate.shape[2], -1, weight.shape[FEATURES])
        return units

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Let all gates take the matrix; either half of the biases gets the constant.

        For the units of the step before exact but for a ``GRU`` that resets units before it weighs them: its
        candidate counts as if the gates of pruned units were as far open as those of the units that remain,
        and half for the constant.

        Returns:
            (directions, 2, gates * units): for the data, and for the units of the step before.
        """
        delta = self._folded(node, _weight_of(read), into, constant)
        if read.recurrent_weight is None:
            return np.stack([delta, np.zeros_like(delta)], axis=1)
        if node.op == "GRU" and not node.attrs.get("linear_before_reset", 0):
            delta[:, 2 * delta.shape[1] // 3 :] /= 2
        return np.stack([np.zeros_like(delta), delta], axis=1)

    @staticmethod
    def _folded(node: gs.Node, index: int, into: Array, constant: Array) -> Array:
        """Multiply a weight with ``into``; return ``constant`` times its rows (directions, gates * units)."""
        weight = node.inputs[index]
        values = weight.values.astype(np.float64)
        set_constant(node, index, (values @ into).astype(weight.dtype))
        delta: Array = values @ constant
        return delta

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add ``delta`` (directions, 2, gates * units) to the biases of the data and of the step before."""
        bias, kind = given(node, BIAS), node.inputs[WEIGHT].dtype
        old = np.zeros(()) if bias is None else bias.values.astype(np.float64)
        set_constant(node, BIAS, (old + delta.reshape(len(delta), -1)).astype(kind))


def _width(state: gs.Tensor, flow: Flow) -> int | None:
    """Return the number of units in a state."""
    shape = flow.shape(state)
    return shape[-1] if shape else None


def _weight_of(read: Read) -> int:
    """Return which input holds the weights that ``read`` is for."""
    return WEIGHT if read.recurrent_weight is None else read.recurrent_weight
