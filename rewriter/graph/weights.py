"""Weights that are too many for a protobuf message: arrays beside the message.

A message holds at most 2 GB, and every tool that gets one copies it. A message that :func:`exported` makes
of a large graph names such an array by a key, in the fields that ONNX has for external files. The array is
that of the graph, no copy, and is there as long as the graph holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import secrets
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from graft.rewriter.errors import GraftError

LARGE = 32 << 20
"""Messages of a graph with more bytes of weights refer to these."""
PIECE = 64 << 10
"""Weights with fewer bytes stay in the message."""
PROTO_BYTES = 1_500_000_000
"""Of a graph with more bytes of weights they are written to a file of their own."""
LEAST = 1024
"""Weights with fewer bytes stay in the message of such a graph."""
DIGITS = 12
"""Hexadecimal digits of a hash of their content, in the name of a file of weights."""
KEY = f"graft-memory-{secrets.token_hex(8)}/"
"""How the location of an array in memory begins: as no file can know."""

ITEM_BYTES: dict[int, int] = {
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT64), 8),
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32), 4),
    **dict.fromkeys((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16), 2),
    **dict.fromkeys((TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL), 1),
}

_arrays: WeakValueDictionary[str, NDArray[Any]] = WeakValueDictionary()
_numbers = itertools.count()


def exported(graph: gs.Graph) -> onnx.ModelProto:
    """Return ``graph`` as a message, which refers to the largest weights of a large one (:func:`arrays`)."""
    with contextlib.ExitStack() as stack:
        for tensor in outside(graph):
            stack.enter_context(_referred(tensor))
        proto: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
    return proto


def outside(graph: gs.Graph) -> list[gs.Constant]:
    """Return the weights of a large graph that its message refers to."""
    constants = [tensor for tensor in graph.tensors().values() if isinstance(tensor, gs.Constant)]
    total = sum(map(_bytes, constants))
    if total > PROTO_BYTES:
        return [tensor for tensor in constants if _bytes(tensor) >= LEAST]
    if total > LARGE:
        return [tensor for tensor in constants if _bytes(tensor) >= PIECE and _is_array(tensor)]
    return []


def in_own_file(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the weights that lie beside the file of a model: the largest of a very large one.

    So many that half of a message is free.
    """
    sizes = {tensor.name: size_of(tensor) for tensor in proto.graph.initializer}
    left, found = sum(sizes.values()), []
    if left > PROTO_BYTES:
        for name in sorted(sizes, key=lambda name: sizes[name], reverse=True):
            if left <= PROTO_BYTES // 2 or sizes[name] < LEAST:
                break
            found.append(name)
            left -= sizes[name]
    return frozenset(found)


def arrays(proto: onnx.ModelProto) -> dict[str, tuple[NDArray[Any], int]]:
    """Return the weights that ``proto`` refers to: name to the array and its type in ONNX's numbering."""
    return {tensor.name: (array_of(tensor), tensor.data_type) for tensor in _references(proto)}


def put_in(proto: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a copy of ``proto`` that holds weights which it refers to.

    Args:
        proto: stays as it is.
        names: of the weights.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        if tensor.name in names and is_reference(tensor):
            values = array_of(tensor)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = bytes(raw(values))
    return result


def attach(graph: gs.Graph) -> None:
    """Give the constants of a graph that was made of a message the arrays that it refers to."""
    for tensor in graph.tensors().values():
        held = getattr(tensor, "_values", None)
        if isinstance(held, LazyValues) and is_reference(getattr(held, "tensor", None)):
            tensor.values = array_of(held.tensor)
            tensor.data_location = None


def is_reference(tensor: object) -> bool:
    """Return whether a tensor of a message is one of :func:`exported` or :func:`map_files`."""
    return (
        isinstance(tensor, TensorProto)
        and tensor.data_location == TensorProto.EXTERNAL
        and any(entry.key == "location" and entry.value.startswith(KEY) for entry in tensor.external_data)
    )


def without_references(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``proto`` or, for onnx's tools, a copy in which the weights that it refers to are inputs."""
    held = _references(proto)
    if not held:
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    names = {tensor.name for tensor in held}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in names]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    known = {value.name for value in proto.graph.input}
    result.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in held if t.name not in known
    )
    return result


def with_references(proto: onnx.ModelProto, like: onnx.ModelProto) -> onnx.ModelProto:
    """Give ``proto``, which a tool made of ``like`` without references, the weights back, in place."""
    held = _references(like)
    if held:
        names = {tensor.name for tensor in held} - {value.name for value in like.graph.input}
        inputs = [value for value in proto.graph.input if value.name not in names]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
        proto.graph.initializer.extend(held)
    return proto


# -------------------------------------------------------------------- files


def external_bytes(proto: onnx.ModelProto) -> int:
    """Return the bytes of external data that are read at once: none where they are mapped."""
    external = [t for t in proto.graph.initializer if external_data_helper.uses_external_data(t)]
    total = sum(size_of(tensor) for tensor in external if not is_reference(tensor))
    return total if total <= PROTO_BYTES else 0


def read_external(proto: onnx.ModelProto, folder: Path) -> list[NDArray[Any]]:
    """Load the external data of ``proto``; of a large model its weights are mapped from the file.

    Args:
        proto: changed in place.
        folder: of its file.

    Returns:
        Arrays, mapped where the model is very large, to be held until a graph holds them.

    Raises:
        GraftError: ``model-invalid`` where a file does not hold what the model names.
        OSError: a file is missing.
    """
    external = [t for t in proto.graph.initializer if external_data_helper.uses_external_data(t)]
    external = [tensor for tensor in external if not is_reference(tensor)]
    total = sum(map(size_of, external))
    least = LEAST if total > PROTO_BYTES else PIECE
    large = [t for t in external if size_of(t) >= least] if total > LARGE else []
    held, files = [], dict[str, NDArray[np.uint8]]()
    for tensor in large:
        array = _mapped(tensor, folder, files)
        array = array if total > PROTO_BYTES else np.array(array)
        held.append(array)
        tensor.CopyFrom(reference(tensor.name, array, tensor.data_type))
    known = _references(proto)
    for tensor in known:
        tensor.data_location = TensorProto.DEFAULT  # onnx loads all others
    onnx.load_external_data_for_model(proto, str(folder))
    for tensor in known:
        tensor.data_location = TensorProto.EXTERNAL
    return held


def write_external(proto: onnx.ModelProto, path: Path, name: str) -> str:
    """Write the weights that lie beside a model (:func:`in_own_file`) into a file, and let it refer to that.

    Args:
        proto: changed in place.
        path: of the file, which is not yet where it will be.
        name: of the model's file.

    Returns:
        The name that the file must get: of the model and of its own content, so that it never takes the
        place of the weights of another model.
    """
    digest, written, names = hashlib.sha256(), [], in_own_file(proto)
    with path.open("wb") as file:
        for tensor in (tensor for tensor in _references(proto) if tensor.name in names):
            array = array_of(tensor)
            padding = b"\0" * (-file.tell() % 64)
            for content in (padding, raw(array)):
                digest.update(content)
                file.write(content)
            written.append((tensor, file.tell() - array.nbytes, array.nbytes))
    location = f"{name}.{digest.hexdigest()[:DIGITS]}.data"
    for tensor, place, length in written:
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", place), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    return location


def _mapped(tensor: TensorProto, folder: Path, files: dict[str, NDArray[np.uint8]]) -> NDArray[Any]:
    """Return the values of a tensor as the file holds them, read when they are used."""
    info = external_data_helper.ExternalDataInfo(tensor)
    path = (folder / info.location).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise GraftError(
            "model-invalid",
            f"weights lie outside of the model's folder, in {info.location}",
            "export it again",
        )
    if info.location not in files:
        files[info.location] = np.memmap(path, np.uint8, "c")
    dtype, start = helper.tensor_dtype_to_np_dtype(tensor.data_type), info.offset or 0
    values = files[info.location][start : start + size_of(tensor)]
    if values.nbytes < size_of(tensor):
        raise GraftError(
            "model-invalid",
            f"{info.location} is cut off: {tensor.name} ends behind it",
            "copy the file again",
        )
    return np.require(values.view(dtype).reshape(tuple(tensor.dims)), requirements=["A"])


# -------------------------------------------------------------------- references


def raw(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array as they lie in memory, which are not copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def _referred(tensor: gs.Constant) -> Iterator[None]:
    """Let the exporter write a reference in place of the values of a constant."""
    array = np.asarray(tensor.values)
    tensor.values = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    array = tensor.values
    kind = int(helper.np_dtype_to_tensor_dtype(array.dtype))
    tensor.values = LazyValues(reference(tensor.name, array, kind))
    try:
        yield
    finally:
        tensor.values = array


def reference(name: str, array: NDArray[Any], kind: int) -> TensorProto:
    """Return a weight of a message that refers to an array, which has to be held.

    Args:
        name: of the weight.
        array: its values.
        kind: its type in ONNX's numbering.
    """
    key = f"{KEY}{next(_numbers)}"
    _arrays[key] = array
    tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=key)
    return tensor


def _references(proto: onnx.ModelProto) -> list[TensorProto]:
    return [tensor for tensor in proto.graph.initializer if is_reference(tensor)]


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """Return the values that a weight of a message refers to."""
    key = next(entry.value for entry in tensor.external_data if entry.key == "location")
    return _arrays[key]


def _is_array(tensor: gs.Constant) -> bool:
    """Return whether the values are at hand: what the importer left in its message has fields of its own."""
    held = tensor._values
    return not isinstance(held, LazyValues) or is_reference(getattr(held, "tensor", None))


def _bytes(tensor: gs.Constant) -> int:
    """Return the bytes of a constant; types that are packed in a message count none, and stay there."""
    kind = tensor.dtype if isinstance(tensor.dtype, int) else helper.np_dtype_to_tensor_dtype(tensor.dtype)
    return _bytes_of(tensor.shape, int(kind))


def size_of(tensor: TensorProto) -> int:
    """Return the bytes of a weight; those of types that are packed in a message count none."""
    return _bytes_of(tensor.dims, tensor.data_type)


def _bytes_of(sizes: Sequence[int], kind: int) -> int:
    return math.prod(sizes) * ITEM_BYTES.get(kind, 0)
