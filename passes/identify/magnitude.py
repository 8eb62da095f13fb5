"""Concern identification by magnitude: the baseline that looks at weights only."""

from __future__ import annotations

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, gather, readers
from graft.rewriter.arrays import Scores
from graft.rewriter.operators import operator_of


class Magnitude(Method):
    """Mean absolute weight that makes a channel, over the mean of its layer, once for each reader.

    Knows nothing of classes: it gives the same plan for all of them.
    """

    name = "magnitude"

    def scores(self, question: ImportanceInputs) -> Scores:
        """1 for a channel with one reader that is like the average of its layer."""
        found = []
        for node in question.groups.nodes:
            for parameter in operator_of(node).parameters(node, question.groups):
                values = node.inputs[parameter.index].values
                for axis, channels in parameter.axes.items():
                    others = tuple(a for a in range(values.ndim) if a != axis)
                    if axis != parameter.reads and others:
                        size = np.abs(values.astype(np.float64)).mean(axis=others)
                        found.append((channels, size / max(float(size.mean()), 1e-30)))
        return gather(question.groups, found) * readers(question.groups)
