"""Expressions of the data of a step and the states of the step before: how the body of a loop is read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from graft.rewriter.arrays import Array, Single
from graft.rewriter.operators.base import is_constant
from graft.rewriter.run.constants import evaluate

PLAIN = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")
"""Activations without parameters that a recurrent operator may have."""


class NoCellError(Exception):
    """The body is no cell that has an operator; the message says why."""


@dataclass(frozen=True, eq=False)
class Source:
    """The data of a step, or a state of the step before (by its number)."""

    state: int | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """``scale * (sum of sources times matrices + bias) + shift``.

    Attributes:
        terms: source to its matrix, float32 (features or units, units).
        bias: float32 (units,).
        scale: of all of it.
        shift: added at the end.
    """

    terms: dict[Any, Single]
    bias: Single
    scale: float = 1.0
    shift: float = 0.0

    def plain(self) -> Affine:
        """Return the same expression without scale and shift."""
        if (self.scale, self.shift) == (1.0, 0.0):
            return self
        terms = {source: matrix * np.float32(self.scale) for source, matrix in self.terms.items()}
        return Affine(terms, self.bias * np.float32(self.scale) + np.float32(self.shift))

    def plus(self, constant: Array) -> Affine:
        """Return the sum with a constant of one number, or of one for each unit.

        Raises:
            NoCellError: the constant has another size.
        """
        if constant.size == 1 and (self.scale, self.shift) != (1.0, 0.0):
            shift = self.shift + float(constant.reshape(-1)[0])
            return Affine(self.terms, self.bias, self.scale, shift)
        value = self.plain()
        if constant.size not in (1, len(value.bias)):
            raise NoCellError("a constant is added that is not one number for each unit")
        return Affine(value.terms, value.bias + constant.reshape(-1).astype(np.float32))

    def merged(self, other: Affine) -> Affine:
        """Return the sum with another affine expression.

        Raises:
            NoCellError: both weigh one source.
        """
        left, right = self.plain(), other.plain()
        if set(left.terms) & set(right.terms):
            raise NoCellError("a source is weighed twice in one gate")
        return Affine({**left.terms, **right.terms}, left.bias + right.bias)


@dataclass(frozen=True, eq=False)
class Applied:
    """An activation, with its alpha and beta where it has some."""

    name: str
    inner: Any
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def kind(self) -> tuple[str, float, float]:
        """Name and parameters, which have to be the same for two gates of one operator."""
        return self.name, round(self.alpha, 6), round(self.beta, 6)


@dataclass(frozen=True, eq=False)
class Product:
    """The product of two expressions."""

    parts: tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Total:
    """The sum of two expressions that are not both affine."""

    parts: tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Complement:
    """One minus an expression."""

    of: Any


@dataclass(frozen=True, eq=False)
class Bounded:
    """An expression with an upper bound."""

    value: Any
    bound: Any

    def bounds(self, lower: Any) -> tuple[float, float] | None:
        """Return the lower and the upper bound; ``None`` unless both are numbers."""
        both = [np.asarray(each) for each in (lower, self.bound) if isinstance(each, np.ndarray)]
        return (float(both[0].reshape(-1)[0]), float(both[1].reshape(-1)[0])) if len(both) == 2 else None


class Expressions:
    """The tensors of one body as expressions, each read once.

    Args:
        graph: the body.
        opset: of the model.

    Attributes:
        known: tensor name to its expression, or to its values where it is a constant; sources are entered
            by the caller.
    """

    def __init__(self, graph: gs.Graph, opset: int) -> None:
        self.known: dict[str, Any] = {}
        self._graph = graph
        self._opset = opset

    def read(self, tensor: gs.Tensor) -> Any:
        """Return the expression of a tensor of the body.

        Raises:
            NoCellError: it is made in a way that no recurrent operator has.
        """
        if is_constant(tensor):
            return tensor.values
        if tensor.name not in self.known:
            if not tensor.inputs or tensor.inputs[0] not in self._graph.nodes:
                raise NoCellError(f"{tensor.name} comes from outside of the body")
            self._visit(tensor.inputs[0])
        return self.known[tensor.name]

    def state(self, number: int) -> Source:
        """Return the source that is state ``number`` of the step before."""
        return next(v for v in self.known.values() if isinstance(v, Source) and v.state == number)

    def data(self) -> Source:
        """Return the source that is the data of a step."""
        return next(v for v in self.known.values() if isinstance(v, Source) and v.state is None)

    def _visit(self, node: gs.Node) -> None:
        operands = [self.read(tensor) if tensor.name else None for tensor in node.inputs]
        if operands and all(value is None or isinstance(value, np.ndarray) for value in operands):
            for output, value in zip(node.outputs, evaluate(node, operands, self._opset), strict=True):
                self.known[output.name] = value
            return
        operands = [value for value in operands if value is not None]
        if node.op in PLAIN:
            found: Any = Applied(node.op, _plain(operands[0]))
        elif node.op in _RULES:
            found = _RULES[node.op](node, *operands)
        else:
            raise NoCellError(f"{node.op} is part of no recurrent operator")
        self.known[node.outputs[0].name] = found


def pick(parts: Collection[Any], wanted: Callable[[Any], bool]) -> tuple[Any, Any]:
    """Return the one of two parts that is wanted, and the other one; twice ``None`` unless just one is."""
    if len(parts) != 2:
        return None, None
    one, other = parts
    if wanted(one) == wanted(other):
        return None, None
    return (one, other) if wanted(one) else (other, one)


# ------------------------------------------------------------------------------- rules


def _plain(value: Any) -> Any:
    return value.plain() if isinstance(value, Affine) else value


def _identity(_: gs.Node, value: Any) -> Any:
    return value


def _matmul(_: gs.Node, left: Any, right: Any) -> Affine:
    if not isinstance(right, np.ndarray) or right.ndim != 2 or isinstance(left, np.ndarray | Affine):
        raise NoCellError("a product of matrices is not data or a state times a constant")
    return Affine({left: right.astype(np.float32)}, np.zeros(right.shape[1], np.float32))


def _gemm(node: gs.Node, left: Any, right: Any, bias: Any = None) -> Affine:
    attributes = node.attrs
    if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1 or attributes.get("transA", 0):
        raise NoCellError("a Gemm scales or transposes what it reads")
    made = _matmul(node, left, right.T if attributes.get("transB", 0) else right)
    return made if bias is None else made.plus(bias)


def _add(_: gs.Node, left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray):
        left, right = right, left
    if isinstance(left, Affine) and isinstance(right, np.ndarray):
        return left.plus(right)
    if isinstance(left, Affine) and isinstance(right, Affine):
        return left.merged(right)
    if isinstance(right, np.ndarray):
        raise NoCellError("a constant is added behind an activation")
    return Total((left, right))


def _mul(_: gs.Node, left: Any, right: Any) -> Any:
    if isinstance(left, np.ndarray):
        left, right = right, left
    if not isinstance(right, np.ndarray):
        return Product((left, right))
    if not isinstance(left, Affine) or right.size != 1:
        raise NoCellError("a constant scales an activation, or single units")
    times = float(right.reshape(-1)[0])
    return Affine(left.terms, left.bias, left.scale * times, left.shift * times)


def _sub(_: gs.Node, left: Any, right: Any) -> Complement:
    if not isinstance(left, np.ndarray) or not (left == 1).all():
        raise NoCellError("a difference is not one minus a gate")
    return Complement(right)


def _hard_sigmoid(node: gs.Node, value: Any) -> Applied:
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    return Applied("HardSigmoid", _plain(value), alpha, beta)


def _min(_: gs.Node, left: Any, right: Any) -> Bounded:
    return Bounded(left, right)


def _max(_: gs.Node, left: Any, right: Any) -> Applied:
    if isinstance(left, Bounded) and left.bounds(right) == (0, 1):
        return _hard(left.value)
    raise NoCellError("what is bounded is not bounded by 0 and 1")


def _clip(_: gs.Node, value: Any, least: Any, most: Any) -> Applied:
    if float(least) != 0 or float(most) != 1:
        raise NoCellError("what is clipped is not clipped to 0 and 1")
    return _hard(value)


def _hard(value: Any) -> Applied:
    if not isinstance(value, Affine):
        raise NoCellError("what is bounded is not affine")
    return Applied("HardSigmoid", Affine(value.terms, value.bias), value.scale, value.shift)


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": _identity,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    "Mul": _mul,
    "Sub": _sub,
    "HardSigmoid": _hard_sigmoid,
    "Min": _min,
    "Max": _max,
    "Clip": _clip,
}
