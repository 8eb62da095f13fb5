"""A recurrent node step by step: inputs and outputs of its gates, from the states of all steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Single
from graft.rewriter.operators.base import given, is_constant
from graft.rewriter.operators.recurrent import (
    BIAS,
    CELL,
    DATA,
    HIDDEN,
    LENGTHS,
    RECURRENCE,
    WEIGHT,
    Recurrent,
)

ACTIVATIONS: dict[str, Callable[[Single, float, float], Single]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha, _: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha, _: np.where(x < 0, alpha * x, x),
    "relu": lambda x, *_: np.maximum(x, 0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "sigmoid": lambda x, *_: 1 / (1 + np.exp(-np.clip(x, -80, 80))),
    "softplus": lambda x, *_: np.logaddexp(x, 0),
    "softsign": lambda x, *_: x / (1 + np.abs(x)),
    "tanh": lambda x, *_: np.tanh(x),
    "thresholdedrelu": lambda x, alpha, _: np.where(x > alpha, x, 0),
}
"""Activation functions of the ONNX operators, by their names in lower case, with alpha and beta."""
ALPHA = {
    "elu": 1.0,
    "hardsigmoid": 0.2,
    "leakyrelu": 0.01,
    "affine": 1.0,
    "scaledtanh": 1.0,
    "thresholdedrelu": 1.0,
}
BETA = {"hardsigmoid": 0.5, "affine": 0.0, "scaledtanh": 1.0}
"""Default alpha and beta of the functions that have them."""
RESET, CANDIDATE = 1, 2
"""Gates of a ``GRU``."""


@dataclass(frozen=True)
class Part:
    """Gates that are one affine map of one list of values.

    Attributes:
        gates: their numbers, in the order of the weights.
        data: true where they read the data.
        own: true where they read the units of the step before.
        rows: float32 (steps * samples, columns), the values they read.
        made: float32 (steps * samples, gates * units), before their activations.
    """

    gates: tuple[int, ...]
    data: bool
    own: bool
    rows: Single
    made: Single


class RecurrentCell:
    """One node of one direction.

    Args:
        node: an ``LSTM``, ``GRU`` or ``RNN`` with constant weights.
        dtype: precision of what is computed.
    """

    def __init__(self, node: gs.Node, dtype: type[np.floating[Any]] = np.float32) -> None:
        self.node = node
        self.dtype = dtype
        self.gates = Recurrent.gates[node.op]
        self.weight = node.inputs[WEIGHT].values[0].astype(dtype)
        self.recurrence = node.inputs[RECURRENCE].values[0].astype(dtype)
        self.units = self.recurrence.shape[1]
        bias = given(node, BIAS)
        both = np.zeros((2, len(self.weight)), dtype)
        self.bias = both if bias is None else bias.values.astype(dtype).reshape(2, -1)

    @staticmethod
    def fits(node: gs.Node) -> bool:
        """Return true where the gates of ``node`` can be computed from its states."""
        if node.op not in Recurrent.types or not node.outputs[0].name or node.inputs[WEIGHT].shape[0] != 1:
            return False
        weights = [given(node, index) for index in (WEIGHT, RECURRENCE, BIAS)]
        constant = all(tensor is None or is_constant(tensor) for tensor in weights)
        return constant and given(node, LENGTHS) is None and not node.attrs.get("layout", 0)

    def reads(self) -> list[str]:
        """Return the names of the tensors that the node reads: data, and states that are no constants."""
        read = [given(self.node, index) for index in (DATA, HIDDEN, CELL)]
        return [tensor.name for tensor in read if tensor is not None and not is_constant(tensor)]

    def parts(self, tensors: Mapping[str, NDArray[Any]], states: Single) -> list[Part]:
        """Return the linear parts over all steps.

        Args:
            tensors: those that :meth:`reads` names.
            states: (steps, 1, samples, units), the node's first output.
        """
        data = tensors[self.node.inputs[DATA].name].astype(self.dtype)
        data = data.reshape(-1, data.shape[-1])
        before = self._before(tensors, states[:, 0])
        if self.node.op != "GRU":
            return [self._part(tuple(range(self.gates)), data, before)]
        gates = self._part((0, RESET), data, before)
        reset = self.activation(0)(gates.made[:, self.units :])
        if not self.node.attrs.get("linear_before_reset", 0):
            return [gates, self._part((CANDIDATE,), data, reset * before)]
        return [gates, self._part((CANDIDATE,), data, None), self._part((CANDIDATE,), None, before)]

    def opened(self, tensors: Mapping[str, NDArray[Any]], states: Single) -> Single:
        """Return the gates behind their activations, without peepholes: (steps * samples, gates, units).

        Args:
            tensors: as in :meth:`parts`.
            states: as in :meth:`parts`.
        """
        parts = self.parts(tensors, states)
        made = {
            gate: part.made[:, self._of(place)] for part in parts for place, gate in enumerate(part.gates)
        }
        if len(parts) > 2:  # the candidate of a GRU that resets what its units add
            reset = self.activation(0)(made[RESET])
            made[CANDIDATE] = parts[1].made + reset * parts[2].made
        return np.stack([self.activation(self.place(gate))(made[gate]) for gate in sorted(made)], axis=1)

    def place(self, gate: int) -> int:
        """Return the place of the function of a gate in :attr:`functions`; the last gate is the candidate."""
        return int(gate == self.gates - 1 > 0)

    def _of(self, place: int) -> slice:
        return slice(place * self.units, (place + 1) * self.units)

    def _before(self, tensors: Mapping[str, NDArray[Any]], states: Single) -> Single:
        """The states that each step starts from: (steps * samples, units)."""
        start, first = given(self.node, HIDDEN), np.zeros_like(states[:1])
        if start is not None:
            values = start.values if is_constant(start) else tensors[start.name]
            first = np.broadcast_to(values, first.shape).astype(self.dtype)
        reverse = self.node.attrs.get("direction", "forward") in ("reverse", b"reverse")
        parts = [states[1:], first] if reverse else [first, states[:-1]]
        return np.concatenate(parts).reshape(-1, self.units).astype(self.dtype)

    def _part(self, gates: tuple[int, ...], data: Single | None, before: Single | None) -> Part:
        read = [values for values in (data, before) if values is not None]
        rows, coefficients = (
            np.concatenate(read, axis=1),
            self._joined(gates, data is not None, before is not None),
        )
        offset = self._offset(gates, data is not None, before is not None)
        return Part(gates, data is not None, before is not None, rows, rows @ coefficients.T + offset)

    def _rows(self, gates: Sequence[int]) -> NDArray[np.int64]:
        return np.concatenate([np.arange(gate * self.units, (gate + 1) * self.units) for gate in gates])

    def _joined(self, gates: Sequence[int], data: bool, own: bool) -> Single:
        weights = [weight for weight, read in ((self.weight, data), (self.recurrence, own)) if read]
        return np.concatenate([weight[self._rows(gates)] for weight in weights], axis=1)

    def _offset(self, gates: Sequence[int], data: bool, own: bool) -> Single:
        offset: Single = (self.bias * np.array([[data], [own]]))[:, self._rows(gates)].sum(axis=0)
        return offset

    def coefficients(self, part: Part) -> Single:
        """Return the weights of a part: float32 (gates * units, columns)."""
        return self._joined(part.gates, part.data, part.own)

    def offset(self, part: Part) -> Single:
        """Return the offset of a part: float32 (gates * units,)."""
        return self._offset(part.gates, part.data, part.own)

    def set(self, part: Part, coefficients: Single, offset: Single) -> None:
        """Give a part other weights and another offset.

        Args:
            part: of this node.
            coefficients: (gates * units, columns).
            offset: (gates * units,).
        """
        rows, width = self._rows(part.gates), self.weight.shape[1] if part.data else 0
        if part.data:
            self.weight[rows] = coefficients[:, :width]
        if part.own:
            self.recurrence[rows] = coefficients[:, width:]
        half = 0 if part.data else 1
        self.bias[half, rows] += offset - self.offset(part)

    def write(self) -> None:
        """Write the weights into the node."""
        kind = self.node.inputs[WEIGHT].dtype
        for index, values in (
            (WEIGHT, self.weight),
            (RECURRENCE, self.recurrence),
            (BIAS, self.bias.reshape(-1)),
        ):
            while len(self.node.inputs) <= index:
                self.node.inputs.append(gs.Variable.empty())
            name = f"{self.node.name}/input_{index}"
            self.node.inputs[index] = gs.Constant(name, np.ascontiguousarray(values[None]).astype(kind))

    @property
    def functions(self) -> list[str]:
        """Names of the activation functions in lower case: of gates, candidate, and output."""
        usual = ["Tanh"] if self.node.op == "RNN" else ["Sigmoid", "Tanh", "Tanh"]
        named = self.node.attrs.get("activations") or usual
        return [(name.decode() if isinstance(name, bytes) else name).lower() for name in named]

    def parameter(self, place: int, kind: str) -> float:
        """Return ``alpha`` or ``beta`` of the function at this place of :attr:`functions`."""
        names, defaults = self.functions, {"alpha": ALPHA, "beta": BETA}[kind]
        values = iter(np.atleast_1d(self.node.attrs.get(f"activation_{kind}", [])).tolist())
        # only functions that have the parameter take the next of the list
        taken = [next(values, defaults[name]) if name in defaults else 0.0 for name in names]
        return float(taken[place])

    def activation(self, place: int) -> Callable[[Single], Single]:
        """Return the function at this place of :attr:`functions`."""
        function = ACTIVATIONS[self.functions[place]]
        parameters = [self.parameter(place, kind) for kind in ("alpha", "beta")]
        return lambda made: np.asarray(function(made, *parameters), self.dtype)
