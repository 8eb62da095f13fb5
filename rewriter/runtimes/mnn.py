"""MNN, of Alibaba."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graft.rewriter.arrays import Array
from graft.rewriter.runtimes.base import Run, Runtime, SilentError

KINDS = {"f": np.float32, "u": np.uint8, "i": np.int32, "b": np.int32}
"""What MNN has for a kind of numbers: it knows no integers of 64 bits in a network, and no booleans."""


class MNN(Runtime):
    """MNN on the CPU, in single precision; the file is converted to its own format first."""

    name = "mnn"
    module = "MNN"
    distributions = ("MNN",)
    install = "onnx-graft[mnn]"

    def open(self, model: Path, threads: int) -> Run:
        """Convert a file and load it.

        The converter is called by itself: MNN's script around it installs a package and sends a record of
        what is converted to its makers.
        """
        import _tools
        import MNN.expr as F  # noqa: N812
        from MNN import nn

        graph = onnx.load(str(model), load_external_data=False).graph
        stored = {tensor.name for tensor in graph.initializer}
        names = [value.name for value in graph.input if value.name not in stored]
        ends = names, [value.name for value in graph.output]
        with tempfile.TemporaryDirectory() as folder:
            converted = Path(folder, "model.mnn")
            words = ["--modelFile", str(model), "--MNNModel", str(converted), "--bizCode", "graft"]
            _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *words])
            if not converted.exists():
                raise SilentError("MNN's converter writes no file")
            manager = nn.create_runtime_manager(
                ({"backend": "CPU", "numThread": threads, "precision": "high"},)
            )
            network = nn.load_module_from_file(str(converted), *ends, runtime_manager=manager)
        types = {"f": F.float, "u": F.uint8, "i": F.int, "b": F.int}

        def run(inputs: Mapping[str, Array]) -> Sequence[Any]:
            given = []
            for name in names:
                kind = inputs[name].dtype.kind
                array = np.ascontiguousarray(inputs[name].astype(KINDS[kind]))
                given.append(F.const(array, list(array.shape), F.NCHW, types[kind]))
            found = network.forward(given)
            found = found if isinstance(found, list | tuple) else [found]
            if not found:
                raise SilentError("MNN gives no outputs")
            return [np.array(F.convert(value, F.NCHW).read()) for value in found]

        return run
