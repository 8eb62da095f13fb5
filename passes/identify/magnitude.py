"""Importance by magnitude: the baseline that looks at weights only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, mean_over_places, readers
from graft.rewriter.arrays import Scores
from graft.rewriter.operators import operator_of


@dataclass(frozen=True)
class Magnitude(Method):
    """Take the mean absolute weight that makes a channel, over the mean of its layer, for each reader.

    Knows nothing of classes: it gives the same plan for all of them.
    """

    name: ClassVar[str] = "magnitude"

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return 1 for a channel with one reader that is like the average of its layer."""
        found = []
        for node in inputs.groups.nodes:
            for parameter in operator_of(node).parameters(node, inputs.groups):
                values = node.inputs[parameter.index].values
                for axis, channels in parameter.axes.items():
                    others = tuple(a for a in range(values.ndim) if a != axis)
                    if axis != parameter.reads and others:
                        size = np.abs(values.astype(np.float64)).mean(axis=others)
                        found.append((channels, size / max(float(size.mean()), 1e-30)))
        return mean_over_places(inputs.groups, found) * readers(inputs.groups)
