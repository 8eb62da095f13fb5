"""Bounds on what onnxslim takes: it writes down every axis of a shape, and compares constants in pairs."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnxslim.core.optimization import weight_tying
from onnxslim.core.shape_inference.context import InferenceContext

from graft.passes.normalize.slim_readers import move_readers

AXES = 64
"""More axes than numpy takes."""


@contextlib.contextmanager
def axes_bounded() -> Iterator[None]:
    """Let onnxslim fail inside of the block at a shape of more axes than a tensor can have."""
    whole = InferenceContext.new_symbolic_shape

    def bounded(self: Any, rank: int, *args: Any, **options: Any) -> Any:
        if rank > AXES:
            raise ValueError(f"a shape of {rank} axes")
        return whole(self, rank, *args, **options)

    InferenceContext.new_symbolic_shape = bounded
    try:
        yield
    finally:
        InferenceContext.new_symbolic_shape = whole


@contextlib.contextmanager
def constants_bounded() -> Iterator[None]:
    """Let onnxslim compare only constants that may be equal: thousands in pairs take it minutes."""
    pairs = weight_tying.find_and_remove_replaceable_constants

    def bounded(constants: Sequence[Any]) -> None:
        alike = defaultdict[Hashable, list[Any]](list)
        for constant in constants:
            alike[key(constant)].append(constant)
        move_readers([pair for some in alike.values() for pair in _equal(some)])

    weight_tying.find_and_remove_replaceable_constants = bounded
    try:
        yield
    finally:
        weight_tying.find_and_remove_replaceable_constants = pairs


def _equal(constants: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the constants that are equal to one before them, and that one."""
    firsts = list[Any]()
    for constant in constants:
        first = next((each for each in firsts if each == constant), None)
        if first is None:
            firsts.append(constant)
        else:
            yield constant, first


def key(constant: Any) -> Hashable:
    """Return the same for constants of the same numbers; those that lie elsewhere are not read, and stay.

    Args:
        constant: of onnxslim's graph.
    """
    held = constant._values
    if not isinstance(held, np.ndarray) and held.tensor.data_location == onnx.TensorProto.EXTERNAL:
        return str(constant.name)
    if isinstance(held.dtype, int):  # a type that numpy has not
        return held.dtype
    dtype = np.dtype(held.dtype)
    if dtype.kind not in "biufc":
        return str(dtype)
    values = held if isinstance(held, np.ndarray) else held.load()
    numbers = (values + dtype.type(0)).tobytes()  # minus zero is zero
    return str(dtype), values.shape, hashlib.blake2b(numbers).digest()
