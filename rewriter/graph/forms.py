"""Spellings of one and the same thing in ONNX files, brought to one form in place."""

from __future__ import annotations

import logging

import numpy as np
import onnx
from onnx import helper, numpy_helper

from graft.rewriter.graph.walk import all_nodes, nested

STANDARD = ("", "ai.onnx")
"""Names of the domain of the standard operators; onnx knows the first, onnxruntime both."""
NO_NAMES = frozenset({"", "?", "-1", "*", "none", "null", "unknown"})
"""What exporters write for a dimension that has no name."""
FIRST_IR = 4
"""Older files list every initializer among the inputs, which few tools still write right."""
log = logging.getLogger("graft")


def standardize(proto: onnx.ModelProto) -> None:
    """Bring ``proto`` to the form that onnx's own tools read, in place; a second call changes nothing.

    The standard domain is ``""`` and is imported once, sparse weights are dense, weights need not be
    inputs, and free dimensions have a name that says something or none. What the model computes stays.
    """
    _free_dimensions(proto.graph)
    for node in all_nodes(proto):
        if node.domain in STANDARD[1:]:
            node.domain = STANDARD[0]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                _make_dense(attribute)
    for graph in nested(proto.graph):
        graph.initializer.extend(map(dense, graph.sparse_initializer))
        del graph.sparse_initializer[:]
    for function in proto.functions:
        _import_once(function.opset_import)
    if proto.opset_import:
        _import_once(proto.opset_import)
        _import_standard(proto)
    if proto.ir_version:
        proto.ir_version = max(proto.ir_version, FIRST_IR)


def _free_dimensions(graph: onnx.GraphProto) -> None:
    """Leave open the dimensions that exporters write as -1, 0 or ``?``: several need not be one size."""
    ends = {value.name for value in (*graph.input, *graph.output)}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            written = dimension.HasField("dim_value")
            if written and (dimension.dim_value < 0 or (value.name in ends and dimension.dim_value == 0)):
                dimension.ClearField("dim_value")
            elif dimension.HasField("dim_param") and dimension.dim_param.strip().lower() in NO_NAMES:
                dimension.ClearField("dim_param")


def dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return the tensor that a sparse one is, under the same name.

    Args:
        sparse: its indices count along the flattened tensor (values,), or are places (values, axes).
    """
    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    whole = np.zeros(shape, values.dtype)
    whole[np.unravel_index(places, shape) if places.ndim == 1 else tuple(places.T)] = values
    found: onnx.TensorProto = numpy_helper.from_array(whole, sparse.values.name)
    return found


def _make_dense(attribute: onnx.AttributeProto) -> None:
    tensor = dense(attribute.sparse_tensor)
    attribute.ClearField("sparse_tensor")
    attribute.type = onnx.AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)
    if attribute.name == "sparse_value":  # of a Constant
        attribute.name = "value"


def _import_once(imports: list[onnx.OperatorSetIdProto]) -> None:
    """Leave one import of each domain: the last, as onnxruntime does."""
    versions: dict[str, int] = {}
    for entry in imports:
        versions["" if entry.domain in STANDARD else entry.domain] = entry.version
    if len(versions) < len(imports) or any(entry.domain in STANDARD[1:] for entry in imports):
        del imports[:]
        imports.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())


def _import_standard(proto: onnx.ModelProto) -> None:
    """Import the standard operators where a file does not: converters of scikit-learn leave them out.

    Their version is the newest that goes with the version of the file format.
    """
    if any(entry.domain == "" for entry in proto.opset_import):
        return
    newest = onnx.defs.onnx_opset_version()
    fits = [
        version
        for version in range(7, newest + 1)
        if helper.find_min_ir_version_for([helper.make_opsetid("", version)])
        <= max(proto.ir_version, FIRST_IR)
    ]
    version = max(fits, default=newest)
    if any(node.domain == "" for node in all_nodes(proto)):
        log.warning("the file does not say the version of its standard operators: taken as %d", version)
    proto.opset_import.insert(0, helper.make_opsetid("", version))
