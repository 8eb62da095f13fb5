"""Concern identification by chance: the baseline that every method has to beat."""

from __future__ import annotations

import zlib

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, readers
from graft.rewriter.arrays import Scores


class Random(Method):
    """Uniform numbers, once for each reader, drawn anew for every seed and set of classes."""

    name = "random"

    def scores(self, question: ImportanceInputs) -> Scores:
        """From 0 to the number of readers."""
        classes = zlib.crc32("\n".join(question.classes).encode())
        draw = np.random.default_rng([question.seed, classes]).random(question.groups.count)
        return draw * readers(question.groups)
