"""Weights that are not read until they are written: in a temporary file, not in memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from graft.rewriter.graph.weights import PIECE, raw

LEAST = 256 << 20
"""Fewer bytes than these stay in memory."""


def set_aside(graph: gs.Graph, like: gs.Graph) -> None:
    """Map the weights of a graph from a file, which has no name, where another graph has others.

    Their values stay the same. They stay in memory where the disk has no room for them.

    Args:
        graph: of a model that is only kept to be written.
        like: the graph that is used in its place.
    """
    used = {_place(array) for array in _arrays(like).values()}
    own = {key: array for key, array in _arrays(graph).items() if _place(array) not in used}
    total = sum(array.nbytes for array in own.values())
    if total < LEAST or total > shutil.disk_usage(tempfile.gettempdir()).free // 2:
        return
    tensors = graph.tensors()
    with contextlib.suppress(OSError):
        for name, array in _mapped(own).items():
            tensors[name].values = array


def _mapped(own: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the same arrays, mapped from a file."""
    ends = np.cumsum([array.nbytes for array in own.values()])
    with tempfile.TemporaryFile(prefix="graft-") as file:
        for array in own.values():
            file.write(raw(array))
        file.flush()
        whole = np.memmap(file, np.uint8, "c")
    parts = np.split(whole, ends[:-1])
    pairs = zip(own.items(), parts, strict=True)
    return {
        name: np.require(part.view(np.ndarray).view(array.dtype).reshape(array.shape), requirements=["A"])
        for (name, array), part in pairs
    }


def _arrays(graph: gs.Graph) -> dict[str, NDArray[Any]]:
    """Return the large weights that are at hand, by their names."""
    constants = [each for each in graph.tensors().values() if isinstance(each, gs.Constant)]
    held = {each.name: each._values for each in constants if not isinstance(each._values, LazyValues)}
    return {name: array for name, array in held.items() if array.nbytes >= PIECE}


def _place(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
