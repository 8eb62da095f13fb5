"""Validity of a model, and equivalence of two."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from graft.rewriter.arrays import Array
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.weights import arrays, without_references
from graft.rewriter.memory import free_bytes
from graft.rewriter.run.bounds import UNBOUNDED, Bounds
from graft.rewriter.run.computed_constants import weight_bytes
from graft.rewriter.run.session import Device

LARGEST_INPUT = 1e8
"""Values in an input beyond which models are not compared on random numbers."""
MEMORY = 1 << 30
"""Bytes that a comparison may take; more where weights or inputs are large."""
INSIDE = 200
"""A network holds at most so many times its inputs at once, where these are large."""
SECONDS = 2.0
"""How long the loops of a graph may run in a comparison."""
AGAIN = 10
log = logging.getLogger("graft")


def check(model: Model) -> None:
    """Run onnx.checker on ``model``.

    Raises:
        GraftError: ``result-invalid`` where it refuses the model.
    """
    try:
        onnx.checker.check_model(without_references(model.message()), full_check=True)
    except MemoryError:
        raise
    except Exception as error:  # the checker raises several unrelated types
        reason = str(error).strip().splitlines()[0]
        raise GraftError(
            "result-invalid",
            f"onnx.checker refuses the result: {reason[:200]}",
            "please report this model",
        ) from error


def run_once(
    model: Model | onnx.ModelProto, device: Device, inputs: Mapping[str, Array], bounds: Bounds = UNBOUNDED
) -> dict[str, Array]:
    """Run a model on one batch; onnxruntime makes no copy of weights that are arrays beside its message.

    Args:
        model: is not kept.
        device: where it runs.
        inputs: input name to array.
        bounds: on memory and time.

    Raises:
        GraftError: onnxruntime cannot run it.
    """
    proto = model.message() if isinstance(model, Model) else model
    held = arrays(proto)
    if not held or any(array.dtype.name == "bfloat16" for array, _ in held.values()):
        return device.open(model, bounds).run(inputs)
    weights = {name: array for name, (array, _) in held.items()}
    try:
        return device.open(without_references(proto), bounds).run({**inputs, **weights})
    except GraftError as error:
        if error.code not in ("model-not-runnable", "run-failed"):
            raise
    return device.open(model, bounds).run(inputs)  # some operators take constants only


def differs(original: onnx.ModelProto, changed: onnx.ModelProto) -> str:
    """Return how ``changed`` differs from ``original`` on seeded random inputs; ``""`` if it does not."""
    signature = [
        [(value.name, value.type.SerializeToString()) for value in ends]
        for graph in (original.graph, changed.graph)
        for ends in (graph.input, graph.output)
    ]
    if [name for name, _ in signature[0] + signature[1]] != [n for n, _ in signature[2] + signature[3]]:
        return "inputs or outputs have changed"
    inputs = random_inputs(original.graph)
    if inputs is None:
        return ""
    bounds = _bounds(original, inputs)
    expected = _outputs(original, inputs, bounds)
    if expected is None:
        return ""
    seconds = AGAIN * SECONDS  # the simplified graph is no slower
    found = run_once(changed, Device(("cpu",)), inputs, replace(bounds, seconds=seconds))
    for name, reference in expected.items():
        if reference.dtype.kind != "f":
            continue
        allowed = 1e-4 * max(1.0, float(np.abs(reference[np.isfinite(reference)]).max(initial=0)))
        if not np.allclose(found[name], reference, rtol=1e-3, atol=allowed, equal_nan=True):
            return f"the changed graph computes another {name}"
    return ""


def _outputs(model: onnx.ModelProto, inputs: Mapping[str, Array], bounds: Bounds) -> dict[str, Array] | None:
    """Return the outputs of ``model``; ``None`` where it does not run: random values need not fit it.

    Real samples are compared when it is cut.
    """
    try:
        return run_once(model, Device(("cpu",)), inputs, bounds)
    except GraftError as error:
        if error.code == "run-endless":
            log.warning("the simplified graph was not compared with the original: %s", error.message)
        return None


def _bounds(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Bounds:
    """Return what a comparison may take: it runs what nobody has asked to run."""
    given = sum(array.nbytes for array in inputs.values())
    most = max(MEMORY, 4 * weight_bytes(model), INSIDE * given)
    return Bounds(min(most, free_bytes()), SECONDS, lean=True)


def random_inputs(graph: onnx.GraphProto) -> dict[str, Array] | None:
    """Return seeded inputs of the declared types and shapes; free dimensions count as 2 (batch) or 8.

    ``None`` where a shape is unknown, or an input would have more than 1e8 values.
    """
    stored = {tensor.name for tensor in graph.initializer}
    signature = {}
    for value in graph.input:
        tensor = value.type.tensor_type
        if value.name in stored:
            continue
        if not tensor.HasField("shape"):
            return None
        shape = [d.dim_value or (8 if axis else 2) for axis, d in enumerate(tensor.shape.dim)]
        if np.prod(shape, dtype=float) > LARGEST_INPUT:
            return None
        signature[value.name] = (np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)
    return draw_inputs(signature)


def draw_inputs(signature: Mapping[str, tuple[np.dtype[Any], Sequence[int]]]) -> dict[str, Array]:
    """Draw seeded inputs: normally distributed numbers, bytes of all values, other integers 0 or 1.

    Args:
        signature: input name to dtype and shape, in the order of the draw.
    """
    random = np.random.default_rng(0)
    inputs = {}
    for name, (dtype, shape) in signature.items():
        high = 256 if dtype == np.uint8 else 2
        draw = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, high, shape)
        inputs[name] = np.asarray(draw).astype(dtype)
    return inputs
