"""Operator classes: everything Graft knows of an ONNX operator is in one class here."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.operators.base import Operator, Parameter, Pinning, Read, Work
from graft.rewriter.operators.convolution import Convolution
from graft.rewriter.operators.einsum import Einsum
from graft.rewriter.operators.elementwise import (
    Activation,
    Broadcast,
    Dropout,
    Elementwise,
    ParametricRelu,
)
from graft.rewriter.operators.matmul import Gemm, MatMul
from graft.rewriter.operators.normalization import BatchNormalization, Softmax
from graft.rewriter.operators.pooling import Pooling, Reduction
from graft.rewriter.operators.reshape import Expand, Reshape, Shape
from graft.rewriter.operators.shape import (
    Concat,
    Constants,
    Gather,
    Pad,
    Slice,
    Split,
    Squeeze,
    Transpose,
    Unsqueeze,
)

OPERATORS: tuple[Operator, ...] = (
    *(Convolution(), Gemm(), MatMul(), Einsum()),
    *(Elementwise(), Activation(), Dropout(), Broadcast(), ParametricRelu()),
    *(BatchNormalization(), Softmax(), Pooling(), Reduction()),
    *(Concat(), Split(), Slice(), Pad(), Gather(), Transpose(), Squeeze(), Unsqueeze()),
    *(Reshape(), Expand(), Shape(), Constants()),
)

_BY_TYPE = {name: operator for operator in OPERATORS for name in operator.types}
_PINNING = Pinning()


def operator_of(node: gs.Node) -> Operator:
    """The class for ``node``; one that pins whatever reaches it where there is no rule."""
    if node.domain not in (None, "", "ai.onnx"):
        return _PINNING
    return _BY_TYPE.get(node.op, _PINNING)


__all__ = ["OPERATORS", "Operator", "Parameter", "Pinning", "Read", "Work", "operator_of"]
