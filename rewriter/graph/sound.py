"""Checks of a file before anything interprets it: what is not sound is refused with the name of its place.

The tools behind (onnx's checker and inference, the importer, numpy, onnxruntime) trust lengths and types
more or less, and each has words of its own where they do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from graft.rewriter.graph.functions import check_functions
from graft.rewriter.graph.walk import DRAWS, all_graphs, all_nodes, nested, sparse_tensors, tensors
from graft.rewriter.graph.weights import is_reference
from graft.rewriter.regular_files import found_at

DENSE_VALUES = 2**28
"""The most values of a sparse weight, which becomes a dense one: 1 GB as float32, of a few bytes."""
PACKED_BITS = {
    "INT4": 4,
    "UINT4": 4,
    "FLOAT4E2M1": 4,
    "INT2": 2,
    "UINT2": 2,
    "FLOAT6E2M3": 6,
    "FLOAT6E3M2": 6,
}
"""Types of which several values share a byte; of six bits only in ``raw_data``."""
FIELDS: dict[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 1),
    TensorProto.COMPLEX64: ("float_data", 2),
    TensorProto.DOUBLE: ("double_data", 1),
    TensorProto.COMPLEX128: ("double_data", 2),
    TensorProto.INT64: ("int64_data", 1),
    TensorProto.UINT32: ("uint64_data", 1),
    TensorProto.UINT64: ("uint64_data", 1),
    TensorProto.STRING: ("string_data", 1),
}
"""Where values lie that are not in ``raw_data``, and how many numbers a value is; else in ``int32_data``."""

DIVISORS = frozenset({"q_num_heads", "kv_num_heads", "num_heads", "group", "num_groups", "blocksize"})
"""Attributes that operators divide by."""
SINGLE_VALUES = {
    "If": (0,),
    "Loop": (0, 1),
    "OneHot": (1,),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
}
"""Inputs of which onnxruntime reads the first value, and crashes where there is none."""


def check_sound(proto: onnx.ModelProto, folder: Path) -> None:
    """Refuse a model whose names, weights, external data or functions cannot be what they say.

    Args:
        proto: as it is in the file; where the length of external data is left out it is written in.
        folder: of the file.

    Raises:
        ValueError: it is not sound; the text names the place.
    """
    for text in _names(proto):
        if isinstance(text, bytes):
            raise ValueError(f"the name {text[:60]!r} is not UTF-8")
    check_functions(proto)
    _check_references(proto)
    _check_single_values(proto)
    _check_draws(proto)
    _check_divisors(proto)
    for sparse in sparse_tensors(proto):
        if min(sparse.dims, default=1) < 0 or math.prod(sparse.dims) > DENSE_VALUES:
            raise ValueError(
                f"sparse weight '{sparse.values.name}' of shape {list(sparse.dims)} has "
                f"more than {DENSE_VALUES} values"
            )
    for place, tensor in tensors(proto):
        _check_tensor(place, tensor, folder)


def _check_references(proto: onnx.ModelProto) -> None:
    """Refuse attributes that are those of a function's call, outside of a function."""
    for graph in nested(proto.graph):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.ref_attr_name:
                    raise ValueError(
                        f"'{attribute.name}' of node '{node.name}' refers to the attribute "
                        f"'{attribute.ref_attr_name}' of a function, but is in none"
                    )


def _check_single_values(proto: onnx.ModelProto) -> None:
    """Refuse an empty constant where one value is read."""
    empty = {tensor.name for graph in all_graphs(proto) for tensor in graph.initializer if 0 in tensor.dims}
    for node in all_nodes(proto):
        if node.op_type == "Constant" and any(0 in attribute.t.dims for attribute in node.attribute):
            empty.update(node.output)
    for node in all_nodes(proto):
        for place in SINGLE_VALUES.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in empty:
                raise ValueError(
                    f"input {place} of node '{node.name}' ({node.op_type}) has no value, expected one"
                )


def _check_draws(proto: onnx.ModelProto) -> None:
    """Refuse distributions that there are not: onnxruntime ends the process."""
    for node in all_nodes(proto):
        if node.op_type not in DRAWS:
            continue
        numbers = {attribute.name: attribute.f for attribute in node.attribute}
        normal, uniform = map(node.op_type.startswith, ("RandomNormal", "RandomUniform"))
        if normal and not numbers.get("scale", 1.0) > 0:
            raise ValueError(f"'scale' of node '{node.name}' ({node.op_type}) is not above 0")
        if uniform and not numbers.get("low", 0.0) <= numbers.get("high", 1.0):
            raise ValueError(f"'low' of node '{node.name}' ({node.op_type}) is above 'high'")


def _check_divisors(proto: onnx.ModelProto) -> None:
    """Refuse numbers of heads, groups and blocks that are not above 0: onnxruntime ends the process."""
    for node in all_nodes(proto):
        for attribute in node.attribute:
            if attribute.name in DIVISORS and attribute.type == attribute.INT and attribute.i < 1:
                raise ValueError(
                    f"'{attribute.name}' of node '{node.name}' ({node.op_type}) is {attribute.i}, "
                    "expected 1 or more"
                )


def _names(proto: onnx.ModelProto) -> Iterator[object]:
    """Yield what should be text; protobuf gives bytes where it is not UTF-8."""
    yield from (proto.producer_name, proto.producer_version, proto.domain, proto.doc_string)
    yield from (entry.domain for entry in proto.opset_import)
    for entry in proto.metadata_props:
        yield from (entry.key, entry.value)
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output, *function.attribute)
    for graph in all_graphs(proto):
        yield from (graph.name, graph.doc_string)
        yield from (tensor.name for tensor in graph.initializer)
        yield from _value_names((*graph.input, *graph.output, *graph.value_info))
    for node in all_nodes(proto):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
        for entry in node.metadata_props:
            yield from (entry.key, entry.value)


def _value_names(values: Iterable[onnx.ValueInfoProto]) -> Iterator[object]:
    for value in values:
        yield value.name
        for dimension in value.type.tensor_type.shape.dim:
            yield dimension.dim_param


# ------------------------------------------------------------------------------- tensors


def _check_tensor(place: str, tensor: TensorProto, folder: Path) -> None:
    kind = tensor.data_type
    if kind == TensorProto.UNDEFINED or kind not in TensorProto.DataType.values():
        raise ValueError(f"{place} has the unknown type {kind}")
    if tensor.HasField("segment"):
        raise ValueError(f"{place} is split into segments, which no runtime joins")
    if min(tensor.dims, default=1) < 0:
        raise ValueError(f"{place} has the negative size {min(tensor.dims)}")
    count = math.prod(tensor.dims)
    if is_reference(tensor):
        return  # its values were read as they are said to be
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_external(place, tensor, -(-count * bits(kind) // 8), folder)
    elif tensor.HasField("raw_data") and kind != TensorProto.STRING:
        _check_length(place, tensor, len(tensor.raw_data), -(-count * bits(kind) // 8), "bytes")
    else:
        field, times = FIELDS.get(kind, ("int32_data", 1))
        packed = bits(kind) if bits(kind) <= 4 else 8
        expected = -(-count * packed // 8) if field == "int32_data" else count * times
        _check_length(place, tensor, len(getattr(tensor, field)), expected, "values")
    if kind == TensorProto.STRING:
        _check_text(place, tensor.string_data)


def bits(kind: int) -> int:
    """Return the bits that a value of an ONNX type takes; text has none of its own."""
    name = TensorProto.DataType.Name(kind)
    return PACKED_BITS.get(name) or 8 * helper.tensor_dtype_to_np_dtype(kind).itemsize


def _check_length(place: str, tensor: TensorProto, found: int, expected: int, unit: str) -> None:
    if found != expected:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        raise ValueError(
            f"{place} of type {kind} and shape {list(tensor.dims)} has {found} {unit}, expected {expected}"
        )


def _check_text(place: str, values: Iterable[bytes]) -> None:
    for value in values:
        try:
            value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{place} holds the text {value[:60]!r}, which is not UTF-8") from None


def _check_external(place: str, tensor: TensorProto, expected: int, folder: Path) -> None:
    """Refuse external data that is no regular file in ``folder``, or not as long as the tensor needs."""
    if tensor.data_type == TensorProto.STRING:
        raise ValueError(f"{place} holds text in external data")
    written = {entry.key: entry.value for entry in tensor.external_data}
    for key in ("offset", "length"):
        if not written.get(key, "0").isdecimal():
            raise ValueError(f"{place}: the {key} {written[key]!r} of its external data is no number")
    location, offset = written.get("location", ""), int(written.get("offset", "0"))
    if not location:
        raise ValueError(f"{place} does not say where its external data is")
    if Path(location).is_absolute():
        raise ValueError(f"{place} lies outside of the model's folder, at the absolute path {location!r}")
    path = folder / location
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{place} lies outside of the model's folder, in {location!r}")
    found = found_at(path)
    if found:
        raise ValueError(f"{place} lies in the file {location!r}, but {found} is there")
    length = int(written.get("length", "0"))
    if length not in (0, expected):
        _check_length(place, tensor, length, expected, "bytes of external data")
    if path.stat().st_size < offset + expected:
        raise ValueError(f"{location} is cut off: {place} ends behind it")
    if "length" not in written:
        tensor.external_data.add(key="length", value=str(expected))
