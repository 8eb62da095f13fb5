"""Open sessions of onnxruntime within bounds."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import onnx
import onnxruntime as ort

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.set_aside import page_out
from graft.rewriter.graph.weights import arrays
from graft.rewriter.memory import free_bytes, give_back, require
from graft.rewriter.run.bounds import Bounds, limited, out_of_memory, released
from graft.rewriter.run.computed_constants import refuse_large_constants
from graft.rewriter.run.external import add_external

LARGE = 512 << 20
"""Weights of so many bytes are left in the order of the file: onnxruntime holds several copies of them
while it brings them into one that is faster."""
WAYS = 10_000_000
"""Nodes times outputs up to which onnxruntime changes the graph: it looks through all outputs at each node,
several times. A ResNet-152 of which every statistic is an output has 2 million."""
ONCE = 5000
"""Nodes up to which onnxruntime changes a graph for one run on a few numbers; more take longer than it."""
COPY = 1.1
"""Bytes that a session takes for its own copy of weights, over their number."""


def open_bounded(
    proto: onnx.ModelProto, options: ort.SessionOptions, providers: Sequence[str], bounds: Bounds
) -> tuple[ort.InferenceSession, list[ort.OrtValue]]:
    """Return a session, and what has to live as long as it does.

    Args:
        proto: the model.
        options: are changed.
        providers: onnxruntime's names.
        bounds: of memory.

    Raises:
        GraftError: ``model-not-runnable``, ``memory`` or ``constants-large``.
    """
    if bounds.plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    else:
        refuse_large_constants(proto)
    held = add_external(proto, options)
    if not bounds.plain:
        options.graph_optimization_level = _level(proto, bounds)
    if bounds.lean:
        options.add_session_config_entry("session.disable_prepacking", "1")
    limited(options, bounds.memory or free_bytes())
    if held:  # graphs that are gone are cycles, which hold weights until they are collected
        gc.collect()
        give_back()
        page_out()
        require(COPY * _bytes(proto), "a copy of the weights")
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=[*providers]), held
    except Exception as error:  # onnxruntime's errors have no common public type
        reason = str(error).strip().splitlines()[0]
        raise out_of_memory(error) or GraftError(
            "model-not-runnable",
            f"onnxruntime {ort.__version__} cannot run the model: {reason[:300]}",
            "check the model with onnxruntime, or export it for this version",
        ) from error
    finally:
        released()
        page_out()


def _level(proto: onnx.ModelProto, bounds: Bounds) -> ort.GraphOptimizationLevel:
    """Return how far onnxruntime changes the graph.

    Less for large weights, which it would copy for that; not at all for thousands of outputs, among which it
    would look for minutes, and where that takes longer than the run.
    """
    nodes = len(proto.graph.node)
    if nodes * len(proto.graph.output) > WAYS or (bounds.lean and nodes > ONCE):
        return ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    weights = _bytes(proto)
    if weights and bounds.lean:
        return ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if weights > LARGE and not bounds.quick:
        return ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def _bytes(proto: onnx.ModelProto) -> int:
    """Return the bytes of the weights that a message refers to."""
    return sum(array.nbytes for array, _ in arrays(proto).values())
