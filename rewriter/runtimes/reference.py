"""onnx's reference evaluator: the standard, in numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime


class Reference(Runtime):
    """The evaluator that onnx brings along."""

    name = "reference"
    module = "onnx.reference"
    distributions = ("onnx",)
    install = "onnx"
    slow = True

    def open(self, model: Path, threads: int) -> Run:
        """Load a file; numpy decides about threads."""
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(str(model))

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            return list(evaluator.run(None, dict(inputs)))

        return run
