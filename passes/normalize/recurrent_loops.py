"""Raise a recurrent cell that is spelled out in a Loop or Scan to the operator that it is.

As tf2onnx writes cells whose gates are not the usual ones. What the body computes is read as an expression
of the data of a step and the states of the step before; where it is exactly that of an ``LSTM``, ``GRU`` or
``RNN`` the node becomes one. Anything else stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from graft.rewriter.arrays import Single
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import given, is_constant

PLAIN = ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")


class UnlikeError(Exception):
    """The body is no cell that has an operator."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """The data of a step, or a state of the step before (by its number)."""

    state: int | None = None


@dataclass(frozen=True, eq=False)
class Affine:
    """``scale * (sum of sources times matrices + bias) + shift``."""

    terms: dict[Any, Single]
    bias: Single
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class Applied:
    """An activation, with its alpha and beta where it has some."""

    name: str
    inner: Any
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def kind(self) -> tuple[str, float, float]:
        """What has to be the same for two gates of one operator."""
        return self.name, round(self.alpha, 6), round(self.beta, 6)


@dataclass(frozen=True, eq=False)
class Product:
    """Of two expressions."""

    parts: tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Total:
    """Of two expressions that are not both affine."""

    parts: tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Rest:
    """One minus an expression."""

    of: Any


@dataclass(frozen=True)
class LoopCell:
    """A recurrent operator's weights, gate by gate in its own order, and activations."""

    op: str
    data: list[Single]
    own: list[Single]
    biases: list[tuple[Single, Single]]
    activations: list[Applied]
    states: tuple[int, ...]
    reset_after: bool = False


def raised(model: Model, node: gs.Node) -> bool:
    """A ``Loop`` or ``Scan`` whose body is a recurrent cell, as that operator."""
    if node.op not in ("Loop", "Scan"):
        return False
    try:
        body = _Body.of(node)
        _write(model, node, body, body.cell())
    except UnlikeError:
        return False
    return True


class _Body:
    """The body of a node, read as expressions.

    Attributes:
        data: (steps, samples, features) of the outer graph.
        starts: the states that the first step gets.
        ends: for each state, the output of the node that holds it after the last step.
        each: output of the node that gathers what every step makes, and the tensor of the body.
    """

    def __init__(self, node: gs.Node) -> None:
        self.node = node
        self.graph: gs.Graph = next(value for value in node.attrs.values() if isinstance(value, gs.Graph))
        self.known: dict[str, Any] = {}
        self.data: gs.Tensor | None = None
        self.counter: str | None = None
        self.starts: dict[int, gs.Tensor] = {}
        self.ends: dict[int, gs.Tensor] = {}
        self.new: dict[int, gs.Tensor] = {}
        self.each: list[tuple[gs.Tensor, gs.Tensor]] = []

    @classmethod
    def of(cls, node: gs.Node) -> _Body:
        """Of a ``Loop`` that counts its steps, or of a ``Scan`` over one tensor."""
        body = cls(node)
        body._loop() if node.op == "Loop" else body._scan()
        return body

    def _loop(self) -> None:
        inputs, outputs = self.graph.inputs, self.graph.outputs
        carried = list(zip(inputs[2:], self.node.inputs[2:], outputs[1:], self.node.outputs, strict=False))
        for number, (inner, start, new, end) in enumerate(carried):
            if new is inner:
                if not is_constant(start):
                    raise UnlikeError
                self.known[inner.name] = start.values
            elif _counts(inner, new) and is_constant(start) and not start.values.any() and not end.outputs:
                self.counter = inner.name
            else:
                self._carry(number, inner, start, new, end)
        gathered = zip(self.node.outputs[len(carried) :], outputs[1 + len(carried) :], strict=True)
        self.each = [(end, made) for end, made in gathered if end.outputs]
        if self.counter is None:
            self.counter = inputs[0].name
        self._find_data()
        self._check_steps(outputs[0])

    def _scan(self) -> None:
        attributes = self.node.attrs
        wide = int(attributes["num_scan_inputs"])
        odd = [name for name in attributes if name.startswith("scan_") and np.any(attributes[name])]
        if wide != 1 or odd:
            raise UnlikeError
        states = len(self.node.inputs) - 1
        for number in range(states):
            ends = self.graph.outputs[number], self.node.outputs[number]
            self._carry(number, self.graph.inputs[number], self.node.inputs[number], *ends)
        self.data = self.node.inputs[states]
        self.known[self.graph.inputs[states].name] = Leaf()
        gathered = zip(self.node.outputs[states:], self.graph.outputs[states:], strict=True)
        self.each = [(end, made) for end, made in gathered if end.outputs]

    def _carry(self, number: int, inner: gs.Tensor, start: gs.Tensor, new: gs.Tensor, end: gs.Tensor) -> None:
        self.known[inner.name] = Leaf(number)
        self.starts[number], self.new[number], self.ends[number] = start, new, end

    def _find_data(self) -> None:
        """What is gathered at the number of the step."""
        gathers = [n for n in self.graph.nodes if n.op == "Gather" and n.inputs[1].name == self.counter]
        if len(gathers) != 1 or gathers[0].attrs.get("axis", 0):
            raise UnlikeError
        self.data = gathers[0].inputs[0]
        self.known[gathers[0].outputs[0].name] = Leaf()

    def _check_steps(self, goes_on: gs.Tensor) -> None:
        """The loop has to run over all steps of the data: by its count, or by comparing its counter."""
        steps = (self.data.shape or [None])[0] if self.data is not None else None
        most, first = given(self.node, 0), given(self.node, 1)
        if first is not None and not (is_constant(first) and first.values.all()):
            raise UnlikeError
        if isinstance(most, gs.Constant):
            always = goes_on is self.graph.inputs[1] or (is_constant(goes_on) and goes_on.values.all())
            if int(most.values.reshape(-1)[0]) == steps and always:
                return
        less = _behind_casts(goes_on)
        maker = less.inputs[0] if less.inputs else None
        if (
            maker is None
            or maker.op != "Less"
            or (isinstance(most, gs.Constant) and most.values.max() < (steps or 0))
        ):
            raise UnlikeError
        left, right = (_behind_casts(tensor) for tensor in maker.inputs)
        limit = self.known.get(right.name, right.values if is_constant(right) else None)
        counted = left.inputs and _counts(left.inputs[0].inputs[0], left, self.counter)
        if (
            not counted
            or not isinstance(limit, np.ndarray)
            or limit.size != 1
            or int(limit.reshape(-1)[0]) != steps
        ):
            raise UnlikeError

    # ------------------------------------------------------------ expressions

    def read(self, tensor: gs.Tensor) -> Any:
        """What a tensor of the body is."""
        if is_constant(tensor):
            return tensor.values
        if tensor.name not in self.known:
            if not tensor.inputs or tensor.inputs[0] not in self.graph.nodes:
                raise UnlikeError
            self._visit(tensor.inputs[0])
        return self.known[tensor.name]

    def _visit(self, node: gs.Node) -> None:
        given = [self.read(tensor) for tensor in node.inputs if tensor.name]
        if given and all(isinstance(value, np.ndarray) for value in given):
            for output, value in zip(node.outputs, _evaluate(node, given), strict=True):
                self.known[output.name] = value
            return
        rule = getattr(self, f"_{node.op.lower()}", None)
        if node.op in PLAIN:
            found: Any = Applied(node.op, _plain(given[0]))
        elif rule is None:
            raise UnlikeError
        else:
            found = rule(node, *given)
        self.known[node.outputs[0].name] = found

    def _identity(self, node: gs.Node, value: Any) -> Any:
        return value

    def _matmul(self, node: gs.Node, left: Any, right: Any) -> Affine:
        if not isinstance(right, np.ndarray) or right.ndim != 2 or isinstance(left, np.ndarray | Affine):
            raise UnlikeError
        return Affine({left: right.astype(np.float32)}, np.zeros(right.shape[1], np.float32))

    def _gemm(self, node: gs.Node, left: Any, right: Any, bias: Any = None) -> Affine:
        attributes = node.attrs
        if attributes.get("alpha", 1) != 1 or attributes.get("beta", 1) != 1 or attributes.get("transA", 0):
            raise UnlikeError
        made = self._matmul(node, left, right.T if attributes.get("transB", 0) else right)
        return made if bias is None else _added(made, bias)

    def _add(self, node: gs.Node, left: Any, right: Any) -> Any:
        if isinstance(left, np.ndarray):
            left, right = right, left
        if isinstance(left, Affine) and isinstance(right, np.ndarray):
            return _added(left, right)
        if isinstance(left, Affine) and isinstance(right, Affine):
            return _summed(_plain(left), _plain(right))
        if isinstance(right, np.ndarray):
            raise UnlikeError
        return Total((left, right))

    def _mul(self, node: gs.Node, left: Any, right: Any) -> Any:
        if isinstance(left, np.ndarray):
            left, right = right, left
        if isinstance(right, np.ndarray):
            if not isinstance(left, Affine) or right.size != 1:
                raise UnlikeError
            times = float(right.reshape(-1)[0])
            return Affine(left.terms, left.bias, left.scale * times, left.shift * times)
        return Product((left, right))

    def _sub(self, node: gs.Node, left: Any, right: Any) -> Rest:
        if not isinstance(left, np.ndarray) or not (left == 1).all():
            raise UnlikeError
        return Rest(right)

    def _hardsigmoid(self, node: gs.Node, value: Any) -> Applied:
        alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
        return Applied("HardSigmoid", _plain(value), alpha, beta)

    def _min(self, node: gs.Node, left: Any, right: Any) -> Any:
        return _Bounded(left, right)

    def _max(self, node: gs.Node, left: Any, right: Any) -> Any:
        if isinstance(left, _Bounded) and left.bounds(right) == (0, 1):
            return _hard(left.value)
        raise UnlikeError

    def _clip(self, node: gs.Node, value: Any, least: Any, most: Any) -> Applied:
        if float(least) != 0 or float(most) != 1:
            raise UnlikeError
        return _hard(value)

    # ------------------------------------------------------------ cells

    def cell(self) -> LoopCell:
        """The operator that the body is a step of."""
        states = list(self.new)
        for match in (self._lstm, self._gru, self._rnn):
            found = match({number: self.read(self.new[number]) for number in states})
            if found and all(
                self.read(made) is self.read(self.new[found.states[0]]) for _, made in self.each
            ):
                return found
        raise UnlikeError

    def _leaf(self, number: int) -> Leaf:
        return next(v for v in self.known.values() if isinstance(v, Leaf) and v.state == number)

    def _source(self) -> Leaf:
        return next(v for v in self.known.values() if isinstance(v, Leaf) and v.state is None)

    def _lstm(self, new: dict[int, Any]) -> LoopCell | None:
        if len(new) != 2:
            return None
        for hidden, cell in (sorted(new), sorted(new, reverse=True)):
            out, total = new[hidden], new[cell]
            if not isinstance(out, Product) or not isinstance(total, Total):
                continue
            last, output = _pick(
                out.parts, lambda v, total=total: isinstance(v, Applied) and v.inner is total
            )
            parts = [part for part in total.parts if isinstance(part, Product)]
            if last is None or len(parts) != 2:
                continue
            keeps, adds = _pick(tuple(parts), lambda p, cell=cell: self._leaf(cell) in p.parts)
            if keeps is None or adds is None:
                continue
            _, forget = _pick(keeps.parts, lambda v, cell=cell: v is self._leaf(cell))
            gates = [output, forget, *adds.parts]
            if not all(isinstance(gate, Applied) and isinstance(gate.inner, Affine) for gate in gates):
                continue
            entry, candidate = adds.parts
            if entry.kind != forget.kind:
                entry, candidate = candidate, entry
            if not entry.kind == forget.kind == output.kind:
                continue
            return self._cell(
                "LSTM", [entry, output, forget, candidate], (hidden, cell), [forget, candidate, last]
            )
        return None

    def _gru(self, new: dict[int, Any]) -> LoopCell | None:
        if len(new) != 1:
            return None
        ((number, total),) = new.items()
        before, parts = self._leaf(number), getattr(total, "parts", ())
        if not isinstance(total, Total) or not all(isinstance(part, Product) for part in parts):
            return None
        kept, made = _pick(parts, lambda p: before in p.parts)
        if kept is None or made is None:
            return None
        _, update = _pick(kept.parts, lambda v: v is before)
        rest, candidate = _pick(made.parts, lambda v: isinstance(v, Rest) and v.of is update)
        if rest is None or not isinstance(candidate, Applied) or not isinstance(update, Applied):
            return None
        return self._candidate(number, before, update, candidate)

    def _candidate(self, number: int, before: Leaf, update: Applied, candidate: Applied) -> LoopCell | None:
        """The gate that resets units, before they are weighed or after."""
        inner, own = candidate.inner, None
        if isinstance(inner, Total):
            inner, product = _pick(inner.parts, lambda v: isinstance(v, Affine))
            if inner is None or not isinstance(product, Product):
                return None
            own, reset = _pick(product.parts, lambda v: isinstance(v, Affine))
        elif isinstance(inner, Affine):
            product = next((term for term in inner.terms if isinstance(term, Product)), None)
            reset = _pick(product.parts, lambda v: v is before)[1] if product else None
        else:
            return None
        if not isinstance(reset, Applied) or reset.kind != update.kind:
            return None
        made = self._cell("GRU", [update, reset], (number,), [update, candidate])
        source = self._source()
        if own is not None:
            if set(inner.terms) != {source} or set(own.terms) != {before}:
                return None
            data, weights, biases = inner.terms[source], own.terms[before], (inner.bias, own.bias)
        else:
            if set(inner.terms) != {source, product}:
                return None
            data, weights, biases = inner.terms[source], inner.terms[product], (inner.bias, 0 * inner.bias)
        lists = ([*made.data, data], [*made.own, weights], [*made.biases, biases])
        return LoopCell("GRU", *lists, made.activations, made.states, own is not None)

    def _rnn(self, new: dict[int, Any]) -> LoopCell | None:
        if len(new) != 1:
            return None
        ((number, gate),) = new.items()
        if not isinstance(gate, Applied) or not isinstance(gate.inner, Affine):
            return None
        return self._cell("RNN", [gate], (number,), [gate])

    def _cell(
        self, op: str, gates: list[Applied], states: tuple[int, ...], activations: list[Applied]
    ) -> LoopCell:
        source, before = self._source(), self._leaf(states[0])
        if any(
            not isinstance(gate.inner, Affine) or set(gate.inner.terms) != {source, before} for gate in gates
        ):
            raise UnlikeError
        data = [gate.inner.terms[source] for gate in gates]
        own = [gate.inner.terms[before] for gate in gates]
        return LoopCell(op, data, own, [(g.inner.bias, 0 * g.inner.bias) for g in gates], activations, states)


@dataclass(frozen=True, eq=False)
class _Bounded:
    """An expression with its upper bound."""

    value: Any
    bound: Any

    def bounds(self, lower: Any) -> tuple[float, float] | None:
        """The lower and the upper bound, if both are numbers."""
        both = [np.asarray(each) for each in (lower, self.bound) if isinstance(each, np.ndarray)]
        return (float(both[0].reshape(-1)[0]), float(both[1].reshape(-1)[0])) if len(both) == 2 else None


def _hard(value: Any) -> Applied:
    if not isinstance(value, Affine):
        raise UnlikeError
    return Applied("HardSigmoid", Affine(value.terms, value.bias), value.scale, value.shift)


def _plain(value: Any) -> Any:
    """An affine expression that is not scaled."""
    if isinstance(value, Affine) and (value.scale, value.shift) != (1.0, 0.0):
        terms = {source: matrix * np.float32(value.scale) for source, matrix in value.terms.items()}
        return Affine(terms, value.bias * np.float32(value.scale) + np.float32(value.shift))
    return value


def _added(value: Affine, constant: NDArray[Any]) -> Affine:
    if constant.size == 1 and (value.scale, value.shift) != (1.0, 0.0):
        return Affine(value.terms, value.bias, value.scale, value.shift + float(constant.reshape(-1)[0]))
    value = _plain(value)
    if constant.size not in (1, len(value.bias)):
        raise UnlikeError
    return Affine(value.terms, value.bias + constant.reshape(-1).astype(np.float32))


def _summed(left: Affine, right: Affine) -> Affine:
    if set(left.terms) & set(right.terms):
        raise UnlikeError
    return Affine({**left.terms, **right.terms}, left.bias + right.bias)


def _pick(parts: Any, wanted: Any) -> tuple[Any, Any]:
    """The part that is wanted, and the other one; nothing where not just one is."""
    if len(parts) != 2 or wanted(parts[0]) == wanted(parts[1]):
        return None, None
    return (parts[0], parts[1]) if wanted(parts[0]) else (parts[1], parts[0])


def _behind_casts(tensor: gs.Tensor) -> gs.Tensor:
    while tensor.inputs and tensor.inputs[0].op in ("Cast", "Identity"):
        tensor = tensor.inputs[0].inputs[0]
    return tensor


def _counts(inner: gs.Tensor, new: gs.Tensor, name: str | None = None) -> bool:
    """Whether ``new`` is ``inner`` and one."""
    maker = new.inputs[0] if new.inputs else None
    if maker is None or maker.op != "Add" or maker.inputs[0] is not inner:
        return False
    one = maker.inputs[1]
    return (
        is_constant(one)
        and one.values.size == 1
        and bool((one.values == 1).all())
        and name in (None, inner.name)
    )


def _evaluate(node: gs.Node, given: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """What a node makes of constants."""
    inputs = [gs.Variable(f"in_{n}", value.dtype, value.shape) for n, value in enumerate(given)]
    outputs = [gs.Variable(f"out_{n}", given[0].dtype) for n in range(len(node.outputs))]
    graph = gs.Graph(
        [gs.Node(node.op, "alone", dict(node.attrs), inputs, outputs)], inputs, outputs, opset=15
    )
    proto = gs.export_onnx(graph, do_type_check=False)
    feed = {tensor.name: value for tensor, value in zip(inputs, given, strict=True)}
    return list(ReferenceEvaluator(proto).run(None, feed))


def _write(model: Model, node: gs.Node, body: _Body, cell: LoopCell) -> None:
    """Put the operator in the place of ``node``."""
    build = Builder(model.graph, model.opset, node.name)
    weight, own = (np.concatenate([m.T for m in each])[None] for each in (cell.data, cell.own))
    bias = np.concatenate([np.concatenate([pair[half] for pair in cell.biases]) for half in (0, 1)])[None]
    inputs: list[gs.Tensor] = [body.data or gs.Variable.empty()]
    inputs += [build.constant("W", weight), build.constant("R", own), build.constant("B", bias)]
    starts = [_with_axis(build, body.starts[number], f"start_{number}") for number in cell.states]
    outputs = [gs.Variable(f"{node.name}/states", weight.dtype)]
    outputs += [gs.Variable(f"{node.name}/last_{number}", weight.dtype) for number in cell.states]
    attributes = _attributes(cell)
    ends = [(end, outputs[0], 1) for end, _ in body.each]
    ends += [(body.ends[n], made, 0) for n, made in zip(cell.states, outputs[1:], strict=True)]
    others = [t for t in node.outputs if t.outputs and all(t is not end for end, *_ in ends)]
    if others:
        raise UnlikeError
    node.outputs.clear()
    for inner in body.graph.nodes:
        inner.inputs.clear()  # tensors of the outer graph would still count it among their readers
    model.graph.nodes.append(
        gs.Node(cell.op, f"{node.name}/cell", attributes, [*inputs, gs.Variable.empty(), *starts], outputs)
    )
    for end, made, axis in ends:
        if end.outputs:
            end.inputs.clear()
            build.squeeze(made, axis, f"{made.name}/{axis}").inputs[0].outputs = [end]


def _with_axis(build: Builder, tensor: gs.Tensor, name: str) -> gs.Tensor:
    """A state (samples, units) with the axis of directions."""
    if isinstance(tensor, gs.Constant):
        return build.constant(name, tensor.values[None])
    return build.expand(tensor, 0, name)


def _attributes(cell: LoopCell) -> dict[str, Any]:
    kinds = [activation.kind for activation in cell.activations]
    attributes: dict[str, Any] = {"hidden_size": int(cell.own[0].shape[0]), "direction": "forward"}
    attributes["activations"] = [name for name, *_ in kinds]
    scaled = [(alpha, beta) for name, alpha, beta in kinds if name == "HardSigmoid"]
    if scaled:
        attributes["activation_alpha"] = [alpha for alpha, _ in scaled]
        attributes["activation_beta"] = [beta for _, beta in scaled]
    if cell.op == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    return attributes
