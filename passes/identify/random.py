"""Random importance: the baseline that every method has to beat."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graft.passes.identify.method import ImportanceInputs, Method, readers
from graft.rewriter.arrays import Scores


@dataclass(frozen=True)
class Random(Method):
    """Draw uniform numbers, once for each reader, anew for every seed and set of classes."""

    name: ClassVar[str] = "random"

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return from 0 to the number of readers."""
        classes = zlib.crc32("\n".join(inputs.classes).encode())
        draw = np.random.default_rng([inputs.seed, classes]).random(inputs.groups.count)
        return draw * readers(inputs.groups)
