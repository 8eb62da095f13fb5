"""Weights outside of a model's message, for onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graft.rewriter.graph.weights import arrays


def add_external(proto: onnx.ModelProto, options: ort.SessionOptions) -> list[ort.OrtValue]:
    """Give onnxruntime the weights that ``proto`` refers to, which are not copied.

    Returns:
        What has to live as long as the session.
    """
    found = arrays(proto)
    values = [_value(array, kind) for array, kind in found.values()]
    if values:
        options.add_external_initializers([*found], values)
    return values


def _value(array: NDArray[Any], kind: int) -> ort.OrtValue:
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":  # numpy has no such type of its own
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), kind)
    return ort.OrtValue.ortvalue_from_numpy(array)
