"""A dense network as a list of layers: read from a graph, and written back with other weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Single
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.operators import AffineMap, affine_map_of
from graft.rewriter.operators.base import is_constant, set_constant

ACTIVATION = "Relu"
PRODUCTS = ("Gemm", "MatMul")
ONLY = "it is for dense networks: Gemm or MatMul with Relu between them, and logits or a softmax at the end"


@dataclass(frozen=True)
class Dense:
    """Weights of a dense layer.

    Attributes:
        weights: float32 (inputs, units).
        bias: float32 (units,).
    """

    weights: Single
    bias: Single

    def copy(self) -> Dense:
        """Return the same layer with arrays of its own."""
        return Dense(self.weights.copy(), self.bias.copy())

    def zeros(self) -> Dense:
        """Return a layer of the same shape without any edge."""
        return Dense(np.zeros_like(self.weights), np.zeros_like(self.bias))


@dataclass(frozen=True)
class DenseLayer:
    """Nodes of a dense layer in a graph.

    Attributes:
        product: ``Gemm`` or ``MatMul``.
        sum: the ``Add`` behind a ``MatMul`` that has the bias.
    """

    product: gs.Node
    sum: gs.Node | None = None

    @property
    def _map(self) -> AffineMap:
        found = affine_map_of(self.product)
        assert found is not None
        return found

    @property
    def input(self) -> gs.Tensor:
        """The tensor that it reads."""
        return self.product.inputs[0]

    def weights(self) -> Single:
        """Return the matrix, float32 (inputs, units)."""
        return np.asarray(self._map.coefficients(self.product)[0].T, np.float32)

    def offset(self) -> Single:
        """Return the bias, float32 (units,); zeros where there is none."""
        bias = self._map.offset(self.product)
        if self.sum is not None:
            bias = bias + self.sum.inputs[_bias_input(self.sum)].values.reshape(-1)
        return np.asarray(bias, np.float32)

    def write(self, layer: Dense) -> None:
        """Take the weights of ``layer``."""
        self._map.set_coefficients(self.product, layer.weights.T[None])
        if self.sum is None:
            self.product.attrs["beta"] = 1.0
            set_constant(self.product, 2, layer.bias.astype(self.product.inputs[1].dtype))
        else:
            place = _bias_input(self.sum)
            old = self.sum.inputs[place].values
            set_constant(self.sum, place, layer.bias.astype(old.dtype))


class DenseNetwork:
    """The layers of a dense classifier, from its input to its logits.

    Args:
        model: with one output, the parent's.
        method: named in errors.

    Attributes:
        input: name of the tensor (samples, values) that the first layer reads.

    Raises:
        GraftError: ``method-dense`` where anything else is between input and logits, or there is no hidden
            layer.
    """

    def __init__(self, model: Model, method: str) -> None:
        self._places = dense_layers(model)
        tensor = self._places[0].input if self._places else logits_of(model)
        if len(self._places) < 2:
            node = tensor.inputs[0] if tensor.inputs else None
            found = f"found {node.op} {node.name}" if node is not None else "there is no hidden layer"
            raise GraftError(
                "method-dense",
                f"the method {method} does not fit the model ({found}): {ONLY}",
                "choose another method, such as ablation",
            )
        self.input: str = tensor.name

    @property
    def layers(self) -> list[Dense]:
        """Copies of the weights, the output layer last."""
        return [Dense(place.weights(), place.offset()) for place in self._places]

    def write(self, layers: Sequence[Dense]) -> None:
        """Give the graph other weights.

        Args:
            layers: of the shapes of :attr:`layers`.
        """
        for place, layer in zip(self._places, layers, strict=True):
            place.write(layer)


def _bias_input(node: gs.Node) -> int:
    return 0 if is_constant(node.inputs[0]) else 1


def logits_of(model: Model) -> gs.Tensor:
    """Return the only output of a model, before its softmax where it has one."""
    tensor: gs.Tensor = model.graph.outputs[0]
    softmax = tensor.inputs and tensor.inputs[0].op == "Softmax"
    return tensor.inputs[0].inputs[0] if softmax else tensor


def dense_layers(model: Model) -> list[DenseLayer]:
    """Return the dense layers that end in the logits, with Relu between them, the first one first."""
    found: list[DenseLayer] = []
    layer = layer_behind(logits_of(model))
    while layer is not None:
        found.insert(0, layer)
        maker = layer.input.inputs[0] if layer.input.inputs else None
        layer = layer_behind(maker.inputs[0]) if maker is not None and maker.op == ACTIVATION else None
    return found


def layer_behind(tensor: gs.Tensor) -> DenseLayer | None:
    """Return the layer that makes a tensor, its bias included; ``None`` where something else does."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None:
        return None
    if node.op != "Add":
        return DenseLayer(node) if node.op in PRODUCTS and affine_map_of(node) else None
    data, bias = node.inputs[1 - _bias_input(node)], node.inputs[_bias_input(node)]
    product = data.inputs[0] if data.inputs else None
    if product is None or product.op != "MatMul" or not is_constant(bias) or affine_map_of(product) is None:
        return None
    units = product.inputs[1].shape[1]
    return DenseLayer(product, node) if bias.values.size == units == bias.shape[-1] else None
