"""onnxruntime, which all others are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime

QUIET = 4


class OnnxRuntime(Runtime):
    """onnxruntime on the CPU, with all of its optimizations."""

    name = "onnxruntime"
    module = "onnxruntime"
    distributions = ("onnxruntime-gpu", "onnxruntime")
    install = "onnxruntime"
    optimized: ClassVar[bool] = True

    def open(self, model: Path, threads: int) -> Run:
        """Load a file; a ZipMap's dictionaries become columns."""
        import onnxruntime as ort

        ort.set_default_logger_severity(QUIET)
        options, level = ort.SessionOptions(), ort.GraphOptimizationLevel
        options.intra_op_num_threads = threads
        options.graph_optimization_level = level.ORT_ENABLE_ALL if self.optimized else level.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            return [_columns(value) for value in session.run(None, dict(inputs))]

        return run


class PlainOnnxRuntime(OnnxRuntime):
    """onnxruntime without optimizations: the graph as it is written."""

    optimized = False


def _columns(value: Any) -> Any:
    zipped = isinstance(value, list) and value and isinstance(value[0], dict)
    return np.array([list(row.values()) for row in value]) if zipped else value
