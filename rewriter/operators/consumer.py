"""Operators that read channels by weights: what compensation and importance methods ask them."""

from __future__ import annotations

from abc import abstractmethod

import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array
from graft.rewriter.operators.base import ChannelLookup, Operator, Read


class Consumer(Operator):
    """A linear layer. Its methods are for nodes of which :meth:`reads` returns something.

    Every method takes one of these reads where the layer may have several: a recurrent layer reads data, and
    its own units of the step before (``Read.recurrent_weight``).
    """

    @abstractmethod
    def matrix(self, node: gs.Node, read: Read) -> Array:
        """Return the weights that read channels, factors such as ``alpha`` included.

        Args:
            node: the node.
            read: one of its reads.

        Returns:
            float64 (outputs, kernel taps, positions of the axis read).
        """

    @abstractmethod
    def fold(self, node: gs.Node, read: Read, into: Array, constant: Array, channels: ChannelLookup) -> Array:
        """Let the node read ``into @ x + constant`` where it reads ``x`` so far.

        The weights take the matrix.

        Args:
            node: the node, which is changed.
            read: one of its reads.
            into: float64 (positions, positions) of the axis read; the identity unless
                :meth:`accepts_dense_map`.
            constant: float64 (positions,).
            channels: the analysis.

        Returns:
            What the constant adds to each output, averaged over positions: for :meth:`add_bias`.
        """

    @abstractmethod
    def add_bias(self, node: gs.Node, delta: Array, graph: gs.Graph) -> None:
        """Add to what the node puts out.

        Args:
            node: the node, which is changed.
            delta: what :meth:`fold` returned, a value for each output channel.
            graph: of the node; may get another node.
        """

    def accepts_dense_map(self, node: gs.Node) -> bool:
        """Return whether :meth:`fold` takes any matrix; if not, only the identity."""
        return True

    def constant_output(self, node: gs.Node) -> Array | None:
        """Return what the node puts out when no channel is left to read; it broadcasts to the output.

        ``None``: it has to read something.
        """
        return None
