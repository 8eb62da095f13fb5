"""Validity of a model, and equivalence of two."""

from __future__ import annotations

import numpy as np
import onnx

from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device


def check(model: Model) -> None:
    """Run onnx.checker on ``model``.

    Raises:
        GraftError: ``result-invalid`` where it refuses the model.
    """
    try:
        onnx.checker.check_model(model.proto(), full_check=True)
    except Exception as error:  # the checker raises several unrelated types
        reason = str(error).strip().splitlines()[0]
        raise GraftError(
            "result-invalid",
            f"onnx.checker refuses the result: {reason[:200]}",
            "please report this model",
        ) from error


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
    device = Device(("cpu",))
    try:
        expected = device.open(original).run(inputs)
    except GraftError:
        return ""  # random values need not fit the model; real samples are compared when it is cut
    found = device.open(changed).run(inputs)
    for name, reference in expected.items():
        if reference.dtype.kind != "f":
            continue
        allowed = 1e-4 * max(1.0, float(np.nanmax(np.abs(reference), initial=0)))
        if not np.allclose(found[name], reference, rtol=1e-3, atol=allowed, equal_nan=True):
            return f"the changed graph computes another {name}"
    return ""


def random_inputs(graph: onnx.GraphProto) -> dict[str, np.ndarray] | None:
    """Return seeded inputs of the declared types and shapes; free dimensions count as 2 (batch) or 8."""
    random = np.random.default_rng(0)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {}
    for value in graph.input:
        tensor = value.type.tensor_type
        if value.name in stored:
            continue
        if not tensor.HasField("shape"):
            return None
        shape = [d.dim_value or (8 if axis else 2) for axis, d in enumerate(tensor.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if np.prod(shape, dtype=float) > 1e8:
            return None
        high = 256 if dtype == np.uint8 else 2
        draw = random.normal(size=shape) if np.dtype(dtype).kind == "f" else random.integers(0, high, shape)
        inputs[value.name] = draw.astype(dtype)
    return inputs
