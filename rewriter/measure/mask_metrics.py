"""How far modules that are masks of one parent differ, and how much of their weights is 0.

Published figures of modules that keep the parent's shape: the authors' Jaccard index, one of masks, zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array
from graft.rewriter.graph.model import Model
from graft.rewriter.operators import consumer_of

Kernels = Sequence[Array]
"""The weights of the layers of a model, biases left out, of any float type and shape."""


def kernels(model: Model) -> list[Array]:
    """Return the weights of all layers, in the order of the file."""
    return [
        tensor.values
        for node in model.graph.nodes
        if consumer_of(node)
        for tensor in node.inputs[1:]
        if isinstance(tensor, gs.Constant) and len(tensor.shape) > 1
    ]


def zero_share(weights: Kernels) -> float:
    """Return the share of the weights that are 0."""
    total = sum(each.size for each in weights)
    return sum(int((each == 0).sum()) for each in weights) / max(1, total)


def value_jaccard(first: Kernels, second: Kernels) -> float:
    """Return the index that the authors of the papers compute (Pan and Rajan, ESEC/FSE 2020).

    The number of *different values* that occur in both, over the numbers of weights of both less that number.
    All zeros count once above and each below the line: two equal modules with many zeros have a low index.
    """
    one, two = _flat(first), _flat(second)
    both = np.intersect1d(one, two).size
    return both / max(1, one.size + two.size - both)


def mask_jaccard(first: Kernels, second: Kernels) -> float:
    """Return the number of places that are not 0 in both over those that are not in one of them at least."""
    one, two = _flat(first) != 0, _flat(second) != 0
    return int((one & two).sum()) / max(1, int((one | two).sum()))


def _flat(weights: Kernels) -> Array:
    return np.concatenate([each.reshape(-1) for each in weights])
