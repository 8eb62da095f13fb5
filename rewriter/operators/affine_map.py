"""Operators that are an affine map of their first input: what refitting solves for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Integers
from graft.rewriter.graph.builder import Builder
from graft.rewriter.operators.base import set_constant
from graft.rewriter.operators.consumer import Consumer


class AffineMap(Consumer):
    """A layer with constant weights: outputs are ``rows @ coefficients' + offset``.

    Its methods are for nodes that :meth:`is_affine`.
    """

    made_axis: ClassVar[int] = -1
    """The axis of the output along which the map makes channels."""

    @abstractmethod
    def is_affine(self, node: gs.Node) -> bool:
        """Return whether constants alone say what the node makes of its first input."""

    @abstractmethod
    def coefficients(self, node: gs.Node) -> Array:
        """Return the weights, factors such as ``alpha`` included.

        Returns:
            float64 (groups, outputs of a group, columns); see :meth:`rows`.
        """

    @abstractmethod
    def weight(self, node: gs.Node, coefficients: Array) -> Array:
        """Return the second input for other coefficients, of the shape that :meth:`coefficients` has."""

    @abstractmethod
    def offset(self, node: gs.Node) -> Array:
        """Return what is added to every output channel: float64 (groups * outputs,)."""

    @abstractmethod
    def rows(self, node: gs.Node, data: Array, places: Integers) -> Array:
        """Return what the weights are multiplied with.

        Args:
            node: the node.
            data: its first input.
            places: which places of the output, counted over all axes but samples and channels.

        Returns:
            (groups, samples * places, columns), of the type of ``data``.
        """

    @abstractmethod
    def transpose(
        self, node: gs.Node, build: Builder, errors: gs.Tensor, weight: gs.Tensor, sizes: Sequence[int]
    ) -> gs.Variable:
        """Write the transpose of the map without its offset: the gradient with regard to the input.

        Args:
            node: the node, of which ``weight`` replaces the second input.
            build: adds nodes.
            errors: of the shape of the node's output.
            weight: of the shape of the node's second input.
            sizes: of the axes of the first input behind the samples.

        Returns:
            Of the shape of the first input.
        """

    def set_coefficients(self, node: gs.Node, values: Array) -> None:
        """Give the node weights of its own, of the shape of :meth:`coefficients`."""
        set_constant(node, 1, self.weight(node, values).astype(node.inputs[1].dtype))
