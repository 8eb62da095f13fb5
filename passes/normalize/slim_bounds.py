"""What onnxslim may take while it infers shapes: it writes down every axis of a shape that is computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from onnxslim.core.shape_inference.context import InferenceContext

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
