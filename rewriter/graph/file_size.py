"""Bytes of a model: of its file, and of the files beside it that hold its weights."""

from __future__ import annotations

from pathlib import Path

import onnx

from graft.rewriter.graph.walk import tensors


def stored_bytes(path: Path) -> tuple[int, int]:
    """Return the bytes of an ONNX file, and of the files with external data that it names.

    Args:
        path: an ONNX file that can be read.
    """
    proto = onnx.load(path, load_external_data=False)
    found = {
        path.parent / entry.value
        for _, tensor in tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location" and tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    beside = {file.resolve(): file.stat().st_size for file in found if file.is_file()}
    return path.stat().st_size, sum(beside.values())
