"""Why onnxruntime does not run a model: the answer where an error inside Graft says too little."""

from __future__ import annotations

from pathlib import Path

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.importing import read_proto
from graft.rewriter.run.bounds import Bounds
from graft.rewriter.run.equivalence import random_inputs
from graft.rewriter.run.session import Device

SECONDS = 2.0
"""How long loops may run."""


def unrunnable(path: Path) -> str:
    """Return why a model file cannot be read, loaded by onnxruntime, or run on random values.

    Rules of operators trust what the ONNX standard says of attributes and shapes. Where a file breaks it they
    fail in any way; onnxruntime names the node. Empty where the model runs.
    """
    try:
        proto, _held = read_proto(path)
        session = Device(("cpu",), threads=1).open(proto, Bounds(seconds=SECONDS, plain=True))
        inputs = random_inputs(proto.graph)
        if inputs is not None:
            session.run(inputs)
    except GraftError as error:
        return error.message
    except Exception:  # nothing is known then: the first error is reported
        return ""
    return ""
