"""Operator classes: everything Graft knows of an ONNX operator is in one class here.

* :class:`Operator`: how channels pass, what is cut, how much work it is;
* :class:`Consumer`: a layer that reads channels by weights;
* :class:`AffineMap`: one that constants make an affine map of its input.

:func:`operator_of` finds the class of a node; :func:`consumer_of` and :func:`affine_map_of` find it where it
is one of these, else ``None``.
"""

from __future__ import annotations

from functools import cache

import onnx_graphsurgeon as gs

from graft.rewriter.operators.affine_map import AffineMap
from graft.rewriter.operators.attention import Attention, FusedAttention, MultiHeadAttention
from graft.rewriter.operators.base import Operator, Parameter, Pinning, Read, Work
from graft.rewriter.operators.consumer import Consumer
from graft.rewriter.operators.convolution import Convolution, TransposedConvolution
from graft.rewriter.operators.einsum import Einsum
from graft.rewriter.operators.elementwise import (
    Activation,
    Broadcast,
    Dropout,
    Elementwise,
    MicrosoftGelu,
    ParametricRelu,
    Preprocessing,
)
from graft.rewriter.operators.indexing import (
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
from graft.rewriter.operators.spatial import DepthToSpace, Resampling, Resize, Sampling, SpaceToDepth
from graft.rewriter.operators.uncut import Fused, LinearModel, PackedMatrix, Quantization, UncutLayer
from graft.rewriter.plug_ins import plug_ins

OPERATORS: tuple[Operator, ...] = (
    Resampling(),
    *(Convolution(), TransposedConvolution(), Gemm(), MatMul(), Einsum(), Recurrent()),
    *(Attention(), MultiHeadAttention(), FusedAttention()),
    *(Elementwise(), Activation(), Dropout(), Broadcast(), MicrosoftGelu(), ParametricRelu()),
    Preprocessing(),
    *(BatchNormalization(), InstanceNormalization(), GroupNormalization(), NormalizationGroups()),
    *(LayerNormalization(), Softmax(), LocalResponse(), LpNormalization(), MeanVarianceNormalization()),
    *(Pooling(), Reduction(), SelectiveReduction(), ArgMax(), TopK(), CumSum()),
    *(Resize(), Sampling(), DepthToSpace(), SpaceToDepth()),
    *(Concat(), Split(), Slice(), Pad(), Gather(), Tile(), Transpose(), Squeeze(), Unsqueeze()),
    *(Reshape(), Expand(), Shape(), Constants()),
    *(UncutLayer(), PackedMatrix(), Quantization(), Fused(), LinearModel()),
)

ENTRY_POINTS = "graft.operators"
"""Where other distributions name operator classes of their own (see docs/operators.md)."""

_PINNING = Pinning()


def operator_of(node: gs.Node) -> Operator:
    """Return the class for ``node``; one that pins whatever reaches it where there is no rule."""
    name = node.op if node.domain in (None, "", "ai.onnx") else f"{node.domain}::{node.op}"
    return next((each for each in _by_type().get(name, ()) if each.fits(node)), _PINNING)


def consumer_of(node: gs.Node) -> Consumer | None:
    """Return the class for ``node`` where it may read channels by weights, else ``None``."""
    operator = operator_of(node)
    return operator if isinstance(operator, Consumer) else None


def affine_map_of(node: gs.Node) -> AffineMap | None:
    """Return the class for ``node`` where it is an affine map of its first input, else ``None``."""
    operator = operator_of(node)
    return operator if isinstance(operator, AffineMap) and operator.is_affine(node) else None


def same_shape() -> frozenset[str]:
    """Return the operators whose output is shaped as their first input, for which onnx infers nothing."""
    return frozenset(name for name, known in _by_type().items() if any(each.same_shape for each in known))


@cache
def _by_type() -> dict[str, list[Operator]]:
    """Map the name of an operator to its classes; those of other distributions come first."""
    found: dict[str, list[Operator]] = {}
    foreign = plug_ins(ENTRY_POINTS, Operator, "types", several=True)  # type: ignore[type-abstract]
    for operator in (*foreign, *OPERATORS):
        for name in operator.types:
            found.setdefault(name, []).append(operator)
    return found


__all__ = [
    "ENTRY_POINTS",
    "OPERATORS",
    "AffineMap",
    "Consumer",
    "Operator",
    "Parameter",
    "Pinning",
    "Read",
    "Work",
    "affine_map_of",
    "consumer_of",
    "operator_of",
    "same_shape",
]
