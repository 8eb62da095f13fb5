"""Weights of a large model that are read now and then: in a temporary file, not in memory."""

from __future__ import annotations

import contextlib
import gc
import mmap
import shutil
import sys
import tempfile
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from graft.rewriter.graph.weights import PIECE, raw
from graft.rewriter.memory import trim

LEAST = 256 << 20
"""Fewer bytes than these stay in memory."""
PAGE_OUT = 21
"""Of madvise, since Linux 5.4: drop the pages, and read them from the file when they are used next."""

_maps: WeakSet[mmap.mmap] = WeakSet()


def set_aside(*graphs: gs.Graph) -> None:
    """Map the weights of graphs from a file, which has no name: what shares an array goes on sharing it.

    Their values stay the same. They stay in memory where the disk has no room for them.
    """
    holders: dict[int, list[gs.Constant]] = {}
    arrays: dict[int, NDArray[Any]] = {}
    for graph in graphs:
        for tensor in _large(graph):
            values, place = tensor.values, _place(tensor.values)
            same = arrays.setdefault(place, values)
            if (same.shape, same.dtype, same.strides) == (values.shape, values.dtype, values.strides):
                holders.setdefault(place, []).append(tensor)
    total = sum(array.nbytes for array in arrays.values())
    if total < LEAST or total > shutil.disk_usage(tempfile.gettempdir()).free // 2:
        return
    with contextlib.suppress(OSError):
        for place, array in _mapped(arrays).items():
            for tensor in holders[place]:
                tensor.values = array
    del arrays
    gc.collect()  # graphs that are gone are cycles, which hold weights
    trim()


def page_out() -> None:
    """Drop what is in memory of weights that were set aside, where the system can: files still have it."""
    if sys.platform == "linux":
        for each in list(_maps):
            with contextlib.suppress(OSError, ValueError):
                each.madvise(PAGE_OUT)


def _mapped(own: Mapping[int, NDArray[Any]]) -> dict[int, NDArray[Any]]:
    """Return the same arrays, mapped from a file."""
    ends = np.cumsum([array.nbytes for array in own.values()])
    with tempfile.TemporaryFile(prefix="graft-") as file:
        for array in own.values():
            file.write(raw(array))
        file.flush()
        whole = np.memmap(file, np.uint8, "c")
    base: Any = whole.base
    if isinstance(base, mmap.mmap):
        _maps.add(base)
    parts = np.split(whole, ends[:-1])
    pairs = zip(own.items(), parts, strict=True)
    return {
        place: np.require(part.view(np.ndarray).view(array.dtype).reshape(array.shape), requirements=["A"])
        for (place, array), part in pairs
    }


def _large(graph: gs.Graph) -> list[gs.Constant]:
    """Return the large weights that are at hand."""
    constants = [each for each in graph.tensors().values() if isinstance(each, gs.Constant)]
    held = [each for each in constants if not isinstance(each._values, LazyValues)]
    return [each for each in held if each.values.nbytes >= PIECE]


def _place(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
