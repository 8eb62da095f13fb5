"""OpenVINO, of Intel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime


class OpenVINO(Runtime):
    """OpenVINO on the CPU, in single precision on every processor."""

    name = "openvino"
    module = "openvino"
    distributions = ("openvino",)
    install = "onnx-graft[openvino]"

    def open(self, model: Path, threads: int) -> Run:
        """Load a file."""
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(model), "CPU", settings)
        request, outputs = compiled.create_infer_request(), list(compiled.outputs)

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            wanted = {
                port: next(inputs[name] for name in inputs if name in port.get_names())
                for port in compiled.inputs
            }
            found = request.infer(wanted)
            return [np.array(found[port]) for port in outputs]

        return run
