"""Channels that zeros among the weights leave without a part in the output."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Mask, Scores
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import consumer_of, operator_of
from graft.rewriter.operators.base import Parameter

ZERO_STAYS = frozenset(
    ("Add", "AveragePool", "Conv", "Dropout", "Flatten", "Gemm", "GlobalAveragePool", "Identity")
    + ("LeakyRelu", "MatMul", "Mul", "Relu", "Reshape", "Squeeze", "Tanh", "Transpose", "Unsqueeze")
)
"""Operators that make zeros of a channel of zeros, and of weights and biases of zeros."""


def unused_channels(groups: ChannelGroups) -> Mask:
    """Return the channels that can be removed exactly: bool (``groups.count``,).

    These are channels that are read by weights of 0 only, and channels that are 0 whatever the input, because
    all weights that make them are. One of each list that needs one is left.
    """
    read, made = np.zeros(groups.count), np.zeros(groups.count)
    for node in groups.nodes:
        _count_reads(node, groups, read)
        _count_makers(node, groups, made)
    unused = np.asarray((groups.to_atoms(read) == 0) | (groups.to_atoms(made) == 0))
    unused &= groups.cuttable() & groups.atoms
    for channels in groups.needed():
        if unused[channels].all():
            unused[channels[0]] = False
    return unused


def _count_reads(node: gs.Node, groups: ChannelGroups, read: Scores) -> None:
    """Add 1 to the channels that a node reads by weights that are not all 0, or without weights."""
    for place in operator_of(node).masks(node, groups):
        np.add.at(read, place.channels, 1)
    consumer = consumer_of(node)
    if consumer is not None:
        for place in consumer.reads(node, groups):
            np.add.at(read, place.channels, consumer.matrix(node, place).any(axis=(0, 1)))


def _count_makers(node: gs.Node, groups: ChannelGroups, made: Scores) -> None:
    """Add 1 to the channels that a node makes, or may make, anything but zeros of."""
    for parameter in operator_of(node).parameters(node, groups):
        for axis, channels in parameter.axes.items():
            if axis not in (parameter.reads, parameter.inside):
                np.add.at(made, channels, _nonzero(node, parameter, axis))
    if node.op not in ZERO_STAYS:
        for tensor in (*node.inputs, *node.outputs):
            for found in groups.of(tensor) if isinstance(tensor, gs.Variable) else ():
                if found is not None:
                    made[found] += 1


def _nonzero(node: gs.Node, parameter: Parameter, axis: int) -> Mask:
    """Return at which positions of an axis a constant holds anything but zeros."""
    values = node.inputs[parameter.index].values
    others = tuple(each for each in range(values.ndim) if each != axis)
    return np.asarray((values != 0).any(axis=others), bool)
