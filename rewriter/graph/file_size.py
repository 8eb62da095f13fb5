"""Bytes of a model: of its file, and of the files beside it that hold its weights."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from graft.rewriter.graph.light import load_light
from graft.rewriter.graph.walk import tensors


def stored_bytes(path: Path) -> tuple[int, int]:
    """Return the bytes of an ONNX file, and of the files with external data that it names.

    Args:
        path: an ONNX file that can be read.
    """
    proto, _held = load_light(path)
    beside = {file.resolve(): file.stat().st_size for file in _named(proto, path) if file.is_file()}
    return path.stat().st_size, sum(beside.values())


def files_beside(path: Path) -> set[Path]:
    """Return the files with external data that an ONNX file names; none where it cannot be read."""
    try:
        return _named(load_light(path)[0], path)
    except (OSError, DecodeError):
        return set()


def _named(proto: onnx.ModelProto, path: Path) -> set[Path]:
    return {
        path.parent / entry.value
        for _, tensor in tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
