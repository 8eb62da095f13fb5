"""Operator classes: everything Graft knows of an ONNX operator is in one class here."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from graft.rewriter.operators.base import Operator, Parameter, Pinning, Read, Work
from graft.rewriter.operators.convolution import Convolution, TransposedConvolution
from graft.rewriter.operators.einsum import Einsum
from graft.rewriter.operators.elementwise import (
    Activation,
    Broadcast,
    Dropout,
    Elementwise,
    MicrosoftGelu,
    ParametricRelu,
)
from graft.rewriter.operators.matmul import Gemm, MatMul
from graft.rewriter.operators.normalization import (
    BatchNormalization,
    GroupNormalization,
    InstanceNormalization,
    LayerNormalization,
    LocalResponse,
    LpNormalization,
    MeanVarianceNormalization,
    NormalizationGroups,
    Softmax,
)
from graft.rewriter.operators.pooling import Pooling
from graft.rewriter.operators.recurrent import Recurrent
from graft.rewriter.operators.reduction import ArgMax, CumSum, Reduction, SelectiveReduction, TopK
from graft.rewriter.operators.reshape import Expand, Reshape, Shape
from graft.rewriter.operators.shape import (
    Concat,
    Constants,
    Gather,
    Pad,
    Slice,
    Split,
    Squeeze,
    Tile,
    Transpose,
    Unsqueeze,
)
from graft.rewriter.operators.space import DepthToSpace, Resize, Sampling, SpaceToDepth

OPERATORS: tuple[Operator, ...] = (
    *(Convolution(), TransposedConvolution(), Gemm(), MatMul(), Einsum(), Recurrent()),
    *(Elementwise(), Activation(), Dropout(), Broadcast(), MicrosoftGelu(), ParametricRelu()),
    *(BatchNormalization(), InstanceNormalization(), GroupNormalization(), NormalizationGroups()),
    *(LayerNormalization(), Softmax(), LocalResponse(), LpNormalization(), MeanVarianceNormalization()),
    *(Pooling(), Reduction(), SelectiveReduction(), ArgMax(), TopK(), CumSum()),
    *(Resize(), Sampling(), DepthToSpace(), SpaceToDepth()),
    *(Concat(), Split(), Slice(), Pad(), Gather(), Tile(), Transpose(), Squeeze(), Unsqueeze()),
    *(Reshape(), Expand(), Shape(), Constants()),
)

_PINNING = Pinning()
_BY_TYPE: dict[str, list[Operator]] = {}
for _operator in OPERATORS:
    for _name in _operator.types:
        _BY_TYPE.setdefault(_name, []).append(_operator)


def operator_of(node: gs.Node) -> Operator:
    """The class for ``node``; one that pins whatever reaches it where there is no rule."""
    name = node.op if node.domain in (None, "", "ai.onnx") else f"{node.domain}::{node.op}"
    return next((each for each in _BY_TYPE.get(name, ()) if each.fits(node)), _PINNING)


def same_shape() -> frozenset[str]:
    """Operators whose output is shaped as their first input, for which onnx infers nothing."""
    return frozenset(
        n for known in _BY_TYPE.values() for each in known if each.same_shape for n in each.types
    )


__all__ = ["OPERATORS", "Operator", "Parameter", "Pinning", "Read", "Work", "operator_of", "same_shape"]
