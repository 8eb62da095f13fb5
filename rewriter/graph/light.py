"""Read and write models whose weights stay arrays: a message of protobuf holds them several times over.

An ONNX file is a protobuf message: fields, each a key, a length and bytes. What holds the values of a large
weight is read into an array of its own, and a reference (:mod:`graft.rewriter.graph.weights`) takes its place
in the message. To write it, or to hash it, the pieces are put together in the order that protobuf has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper

from graft.rewriter.graph.weights import LARGE, PIECE, array_of, is_reference, raw, reference, size_of
from graft.rewriter.memory import give_back

Bytes = bytes | memoryview
GRAPH, INITIALIZER, RAW = 7, 5, 9
"""Numbers of fields: of a model, of its graph, of a weight."""
_HELD = frozenset((1, 2, 8, RAW))
"""A weight that has more than dimensions, type, name and values stays as it is."""


class _UnreadableError(Exception):
    """The file is no message, or one that is left to protobuf."""


def load_light(path: Path) -> tuple[onnx.ModelProto, list[NDArray[Any]]]:
    """Read a file, without external data.

    Returns:
        The model, and weights that it refers to, to be held until a graph holds them.

    Raises:
        DecodeError: it is no ONNX model.
        OSError: it cannot be read.
    """
    if path.stat().st_size > LARGE:
        give_back()
        held: list[NDArray[Any]] = []
        try:
            with path.open("rb") as file:
                content = b"".join(_model(file, path.stat().st_size, held))
            return onnx.ModelProto.FromString(content), held
        except (_UnreadableError, DecodeError):
            pass  # protobuf says what is wrong
    return onnx.load(path, load_external_data=False), []


def _model(file: BinaryIO, end: int, held: list[NDArray[Any]]) -> Iterator[bytes]:
    graphs = 0
    for number, whole, inner in _fields(file, 0, end):
        if number != GRAPH:
            yield _part(file, *whole)
            continue
        graphs += 1
        if graphs > 1:  # protobuf merges them
            raise _UnreadableError
        parts = b"".join(_graph(file, *inner, held))
        yield _key(GRAPH) + _varint(len(parts)) + parts


def _graph(file: BinaryIO, start: int, end: int, held: list[NDArray[Any]]) -> Iterator[bytes]:
    for number, whole, inner in _fields(file, start, end):
        found = None
        if number == INITIALIZER and inner[1] - inner[0] > PIECE:
            found = _weight(file, *inner)
        if found is None:
            yield _part(file, *whole)
            continue
        held.append(found[1])
        part = reference(*found).SerializeToString()
        yield _key(INITIALIZER) + _varint(len(part)) + part


def _weight(file: BinaryIO, start: int, end: int) -> tuple[str, NDArray[Any], int] | None:
    """Return name, values and type of a weight; ``None`` where it is one to be left as it is."""
    fields = list(_fields(file, start, end))
    places = [inner for number, _, inner in fields if number == RAW]
    if len(places) != 1 or not _HELD.issuperset(number for number, _, _ in fields):
        return None
    head = TensorProto.FromString(
        b"".join(_part(file, *whole) for number, whole, _ in fields if number != RAW)
    )
    length = places[0][1] - places[0][0]
    if (
        length < PIECE
        or min(head.dims, default=0) < 1
        or size_of(head) != length
        or isinstance(head.name, bytes)
    ):
        return None
    dtype = helper.tensor_dtype_to_np_dtype(head.data_type)
    file.seek(places[0][0])
    values = np.empty(tuple(head.dims), dtype)
    if file.readinto(raw(values)) != length:  # type: ignore[attr-defined]
        raise _UnreadableError
    return head.name, values, head.data_type


Place = tuple[int, int]


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, Place, Place]]:
    """Yield number, place of the whole field, and place of its content."""
    place = start
    while place < end:
        file.seek(place)
        head = file.read(20)
        key, used = _read_varint(head, 0)
        kind, content = key & 7, place + used
        if kind == 2:
            length, used = _read_varint(head, used)
            content = place + used
        elif kind == 0:
            _, used = _read_varint(head, used)
            length = place + used - content
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _UnreadableError
        if content + length > end:
            raise _UnreadableError
        yield key >> 3, (place, content + length), (content, content + length)
        place = content + length


def _part(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            break
        byte = content[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise _UnreadableError


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _key(field: int) -> bytes:
    return _varint(field << 3 | 2)


# -------------------------------------------------------------------- writing


def model_pieces(proto: onnx.ModelProto, outside: Collection[str] = ()) -> Iterator[Bytes]:
    """Yield the bytes of a model, as protobuf writes it, with the weights that it refers to in it.

    Args:
        proto: refers to weights.
        outside: names of those that stay references.
    """
    graph = list(graph_pieces(proto.graph, outside))
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    before, after = _split(rest, GRAPH)
    yield before
    yield _key(GRAPH) + _varint(sum(map(_size, graph)))
    yield from graph
    yield after


def graph_pieces(graph: onnx.GraphProto, outside: Collection[str] = ()) -> Iterator[Bytes]:
    """Yield the bytes of a graph, as protobuf writes it, with the weights that it refers to in it.

    Args:
        graph: refers to weights.
        outside: names of those that stay references.
    """
    rest = onnx.GraphProto()
    rest.CopyFrom(graph)
    weights = list(graph.initializer)
    rest.ClearField("initializer")
    before, after = _split(rest, INITIALIZER)
    yield before
    for tensor in weights:
        yield from _tensor_pieces(tensor, tensor.name not in outside)
    yield after


def _tensor_pieces(tensor: TensorProto, inside: bool) -> Iterator[Bytes]:
    if not (inside and is_reference(tensor)):
        content = tensor.SerializeToString(deterministic=True)
        yield _key(INITIALIZER) + _varint(len(content)) + content
        return
    values = raw(array_of(tensor))
    head = TensorProto(dims=tensor.dims, data_type=tensor.data_type, name=tensor.name)
    content = head.SerializeToString(deterministic=True) + _key(RAW) + _varint(values.nbytes)
    yield _key(INITIALIZER) + _varint(len(content) + values.nbytes) + content
    yield values


def _split(message: Any, field: int) -> tuple[bytes, bytes]:
    """Return the bytes of the fields before and behind a number."""
    before, after = type(message)(), type(message)()
    for description, value in message.ListFields():
        part = before if description.number < field else after
        if description.is_repeated:
            getattr(part, description.name).extend(value)
        elif description.message_type:
            getattr(part, description.name).CopyFrom(value)
        else:
            setattr(part, description.name, value)
    return before.SerializeToString(deterministic=True), after.SerializeToString(deterministic=True)


def _size(piece: Bytes) -> int:
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)


def file_sha256(path: Path) -> str:
    """Return the hash of a file, which is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
