"""Sums of products over named axes: ``Einsum``, and what ``MatMul`` has in common with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Channels
from graft.rewriter.channels.flow import Flow
from graft.rewriter.operators.base import (
    ChannelLookup,
    Parameter,
    Read,
    Work,
    dtype_of,
    insert_after,
    is_constant,
    set_constant,
)
from graft.rewriter.operators.consumer import Consumer

Names = tuple[str, ...]


@dataclass(frozen=True)
class Equation:
    """A name for every axis of every input, and of the output; an axis that broadcasts has size 1."""

    inputs: tuple[Names, ...]
    output: Names

    @property
    def names(self) -> list[str]:
        """All names, once."""
        return list(dict.fromkeys(name for names in self.inputs for name in names))


class Contraction(Consumer):
    """A sum of products of tensors and constants over the axes that the output lacks.

    Axes of one name are tied. A name that only constants have makes new channels; constants are cut along
    every axis. Where one constant reads one axis and has no other name in common with the data, it is a
    dense layer (:meth:`reads`), else removed channels have to be masked in the data (:meth:`masks`).
    """

    @abstractmethod
    def equation(self, node: gs.Node, shapes: Flow | ChannelLookup | None) -> Equation | None:
        """Return the names of the axes of ``node``, or ``None`` for a form without a rule.

        Without ``shapes`` the leading axes that broadcast may be left out.
        """

    def flow(self, node: gs.Node, flow: Flow) -> None:
        """Tie, make and consume channels as the class says."""
        equation = self.equation(node, flow)
        if equation is None or all(map(is_constant, node.inputs)):
            flow.pin_inputs(node, "operands of a form without a rule")
            return
        lists = {name: self._meet(node, flow, equation, name) for name in equation.names}
        flow.give(node.outputs[0], [lists[name] for name in equation.output])

    @staticmethod
    def _meet(node: gs.Node, flow: Flow, equation: Equation, name: str) -> Channels | None:
        """Tie what meets on the axes called ``name``; their channels."""
        places = _places(equation, name)
        sizes = [flow.size(node.inputs[index], axis) for index, axis in places]
        widest = max((size or 1 for size in sizes), default=1)
        data = [(node.inputs[i], axis) for i, axis in places if not is_constant(node.inputs[i])]
        if not data:
            return flow.make(node, widest) if name in equation.output else None
        return flow.meet(node, data, widest)

    # ------------------------------------------------------------ what is cut

    def parameters(self, node: gs.Node, channels: ChannelLookup) -> list[Parameter]:
        """Return the constants along every axis that holds channels."""
        equation, found = self.equation(node, channels), []
        lists = {} if equation is None else _lists(node, equation, channels)
        dense = self._dense(node, channels)
        for index, names in enumerate(() if equation is None else equation.inputs):
            tensor = node.inputs[index]
            if not is_constant(tensor):
                continue
            axes = {a: lists[name] for a, name in enumerate(names) if name in lists and tensor.shape[a] > 1}
            if axes:
                reads = names.index(dense.name) if dense and dense.constant == index else None
                found.append(Parameter(index, axes, reads=reads if reads in axes else None))
        return found

    def reads(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the axis of the data that a dense layer reads."""
        dense = self._dense(node, channels)
        if dense is None:
            return []
        found = channels.of(node.inputs[dense.data])[dense.axis]
        return [] if found is None else [Read(dense.data, dense.axis, found)]

    def masks(self, node: gs.Node, channels: ChannelLookup) -> list[Read]:
        """Return the summed axes of the data where this is no dense layer."""
        equation = self.equation(node, channels)
        if equation is None or self._dense(node, channels) is not None:
            return []
        return [
            Read(index, axis, found)
            for name in equation.names
            if name not in equation.output
            for index, axis in _places(equation, name)
            if not is_constant(node.inputs[index])
            and (found := channels.of(node.inputs[index])[axis]) is not None
        ]

    def work(self, node: gs.Node, channels: ChannelLookup) -> list[Work]:
        """Return the product of the sizes of all axes."""
        equation = self.equation(node, channels)
        if equation is None or len(equation.inputs) < 2:
            return []
        lists = _lists(node, equation, channels)
        times = 1.0
        for name in equation.names:
            if name not in lists:
                shapes = [(channels.shape(node.inputs[i]) or (), axis) for i, axis in _places(equation, name)]
                times *= max(shape[axis] or 1 for shape, axis in shapes)
        return [Work(times, tuple(lists.values()))]

    def unknown_work(self, node: gs.Node, channels: ChannelLookup) -> bool:
        """Return whether two tensors are multiplied and a rank is not known."""
        return len(node.inputs) > 1 and not self.work(node, channels)

    # ------------------------------------------------------------ as a dense layer

    def _dense(self, node: gs.Node, channels: ChannelLookup | None = None) -> _Dense | None:
        """Return the dense layer that ``node`` is, if it is one."""
        equation = self.equation(node, channels)
        constants = [index for index, tensor in enumerate(node.inputs) if is_constant(tensor)]
        if equation is None or len(node.inputs) != 2 or len(constants) != 1:
            return None
        constant, data = constants[0], 1 - constants[0]
        common = [name for name in equation.inputs[constant] if name in equation.inputs[data]]
        if len(common) != 1 or common[0] in equation.output:
            return None
        made = tuple(name for name in equation.output if name in equation.inputs[constant])
        behind = equation.output[equation.output.index(made[0]) :] if made else ()
        if len(made) + 1 != len(equation.inputs[constant]) or any(map(_spreads, set(behind) - {*made})):
            return None
        return _Dense(equation, constant, data, common[0], made)

    def _require(self, node: gs.Node) -> _Dense:
        dense = self._dense(node)
        if dense is None:
            raise ValueError(f"{node.op} {node.name} is no dense layer")
        return dense

    def constant_output(self, node: gs.Node) -> Array:
        """Return zero."""
        return np.zeros((), dtype_of(node.inputs[self._require(node).constant]))

    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return the constant as (outputs, 1, inputs)."""
        dense = self._require(node)
        values = node.inputs[dense.constant].values.astype(np.float64)
        turned = values.transpose(dense.order)
        matrix: Array = turned.reshape(-1, 1, turned.shape[-1])
        return matrix

    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Multiply the constant with ``into``."""
        dense = self._require(node)
        weight = node.inputs[dense.constant]
        along = weight.values.astype(np.float64).transpose(dense.order)
        folded = (along @ into).transpose(np.argsort(dense.order))
        set_constant(node, dense.constant, folded.astype(weight.dtype))
        delta: Array = along @ constant
        return delta

    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add to the constant of an ``Add`` that alone follows, else insert an ``Add``."""
        dense = self._require(node)
        sizes = dict(zip(dense.made, delta.shape, strict=True))
        first = min(map(dense.equation.output.index, dense.made), default=len(dense.equation.output))
        delta = delta.reshape([sizes.get(name, 1) for name in dense.equation.output[first:]])
        users = node.outputs[0].outputs
        if len(users) == 1 and users[0].op == "Add" and node.outputs[0] not in graph.outputs:
            index = 1 if users[0].inputs[0] is node.outputs[0] else 0
            bias = users[0].inputs[index]
            if is_constant(bias) and bias.values.squeeze().shape == delta.squeeze().shape:
                fresh = bias.values + delta.reshape(bias.shape)
                set_constant(users[0], index, fresh.astype(bias.dtype))
                return
        values = delta.astype(node.inputs[dense.constant].dtype)
        add = gs.Node("Add", f"{node.name}/bias", inputs=[gs.Constant(f"{node.name}/bias", values)])
        insert_after(node, add, graph)


class Einsum(Contraction):
    """``Einsum`` without diagonals."""

    types = ("Einsum",)

    def equation(self, node: gs.Node, shapes: Flow | ChannelLookup | None) -> Equation | None:
        """Return the equation of the attribute; ``...`` counts from the back."""
        left, arrow, right = node.attrs["equation"].replace(" ", "").partition("->")
        terms = left.split(",")
        known = [None if shapes is None else shapes.shape(tensor) for tensor in node.inputs]
        if len(terms) != len(known) or (shapes is not None and None in known):
            return None
        inputs = [_names(term, 0 if s is None else len(s)) for term, s in zip(terms, known, strict=True)]
        if any(len(set(names)) != len(names) for names in inputs):
            return None
        every = [name for names in inputs for name in names]
        spread = sorted({name for name in every if _spreads(name)}, reverse=True)
        if arrow:
            before, dots, after = right.partition("...")
            output = (*before, *(spread if dots else ()), *after)
        else:
            output = (*spread, *sorted(name for name in set(every) - {*spread} if every.count(name) == 1))
        return Equation(tuple(inputs), output)


# ------------------------------------------------------------------------------- helpers


@dataclass(frozen=True)
class _Dense:
    """An equation with one constant that reads the axis ``name`` of the data and makes the axes ``made``."""

    equation: Equation
    constant: int
    data: int
    name: str
    made: Names

    @property
    def axis(self) -> int:
        """The axis of the data that is read."""
        return self.equation.inputs[self.data].index(self.name)

    @property
    def order(self) -> list[int]:
        """Return the permutation that transposes the constant to (made ..., read)."""
        return [self.equation.inputs[self.constant].index(name) for name in (*self.made, self.name)]


def rank_name(back: int) -> str:
    """Return the name of axis ``-back`` of those that broadcast; names sort from the back."""
    return f"...{back:04d}"


def _spreads(name: str) -> bool:
    return name.startswith("...")


def _names(term: str, rank: int) -> Names:
    before, dots, after = term.partition("...")
    spread = rank - len(before) - len(after)
    return (*before, *(rank_name(back) for back in range(spread if dots else 0, 0, -1)), *after)


def _places(equation: Equation, name: str) -> list[tuple[int, int]]:
    """Return the inputs and axes with this name."""
    return [(index, names.index(name)) for index, names in enumerate(equation.inputs) if name in names]


def _lists(node: gs.Node, equation: Equation, channels: ChannelLookup) -> dict[str, Channels]:
    """Return the channels on the axes of each name that has any."""
    found: dict[str, Channels] = {}
    sides: Sequence[tuple[gs.Tensor, Names]] = [
        (node.outputs[0], equation.output),
        *zip(node.inputs, equation.inputs, strict=True),
    ]
    for tensor, names in sides:
        for name, axis in zip(names, channels.of(tensor), strict=False):
            if axis is not None and len(axis) > len(found.get(name, ())):
                found[name] = axis
    return found
