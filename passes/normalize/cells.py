"""Recurrent cells among expressions: which operator computes just what the body of a loop computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graft.passes.normalize.expressions import (
    Affine,
    Applied,
    Complement,
    Expressions,
    NoCellError,
    Product,
    Source,
    Total,
    pick,
)
from graft.rewriter.arrays import Single


@dataclass(frozen=True)
class LoopCell:
    """A recurrent operator's weights, gate by gate in its own order, and activations.

    Attributes:
        op: ``LSTM``, ``GRU`` or ``RNN``.
        data: for each gate float32 (features, units).
        recurrent: for each gate float32 (units, units).
        biases: for each gate two of float32 (units,): of the data and of the states.
        activations: as the operator lists them.
        states: numbers of the states: the hidden one, and the one of the cell.
        reset_after: the reset gate of a GRU acts on what the states were weighed to.
    """

    op: str
    data: list[Single]
    recurrent: list[Single]
    biases: list[tuple[Single, Single]]
    activations: list[Applied]
    states: tuple[int, ...]
    reset_after: bool = False

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the operator."""
        kinds = [activation.kind for activation in self.activations]
        found: dict[str, Any] = {"hidden_size": int(self.recurrent[0].shape[0]), "direction": "forward"}
        found["activations"] = [name for name, *_ in kinds]
        scaled = [(alpha, beta) for name, alpha, beta in kinds if name == "HardSigmoid"]
        if scaled:
            found["activation_alpha"] = [alpha for alpha, _ in scaled]
            found["activation_beta"] = [beta for _, beta in scaled]
        if self.op == "GRU":
            found["linear_before_reset"] = int(self.reset_after)
        return found


def match_cell(body: Expressions, new: Mapping[int, Any]) -> LoopCell:
    """Return the operator whose step makes the states ``new``.

    Args:
        body: sources and expressions of a step.
        new: number of each state to its expression after the step.

    Raises:
        NoCellError: no operator does.
    """
    if len(new) == 2:
        found = _lstm(body, new)
    elif len(new) == 1:
        ((number, state),) = new.items()
        found = _gru(body, number, state) or _rnn(body, number, state)
    else:
        found = None
    if found is None:
        raise NoCellError("its states are not those of an LSTM, a GRU or an RNN")
    return found


def _lstm(body: Expressions, new: Mapping[int, Any]) -> LoopCell | None:
    for hidden, cell in (sorted(new), sorted(new, reverse=True)):
        found = _lstm_of(body, new, hidden, cell)
        if found:
            return found
    return None


def _lstm_of(body: Expressions, new: Mapping[int, Any], hidden: int, cell: int) -> LoopCell | None:
    """Return the LSTM ``h = o * f(c)``, ``c = forget * c + entry * candidate`` with these two states."""
    out, total, before = new[hidden], new[cell], body.state(cell)
    if not isinstance(out, Product) or not isinstance(total, Total):
        return None
    last, output = pick(out.parts, lambda part: isinstance(part, Applied) and part.inner is total)
    if last is None or not all(isinstance(part, Product) for part in total.parts):
        return None
    keeps, adds = pick(total.parts, lambda part: before in part.parts)
    if keeps is None:
        return None
    _, forget = pick(keeps.parts, lambda part: part is before)
    entry, candidate = adds.parts
    if not all(_is_gate(gate) for gate in (output, forget, entry, candidate)):
        return None
    if entry.kind != forget.kind:
        entry, candidate = candidate, entry
    if not entry.kind == forget.kind == output.kind:
        return None
    gates, activations = [entry, output, forget, candidate], [forget, candidate, last]
    return _cell(body, "LSTM", gates, (hidden, cell), activations)


def _gru(body: Expressions, number: int, total: Any) -> LoopCell | None:
    """Return the GRU ``h = update * h + (1 - update) * candidate``."""
    before = body.state(number)
    if not isinstance(total, Total) or not all(isinstance(part, Product) for part in total.parts):
        return None
    kept, made = pick(total.parts, lambda part: before in part.parts)
    if kept is None:
        return None
    _, update = pick(kept.parts, lambda part: part is before)
    rest, candidate = pick(made.parts, lambda part: isinstance(part, Complement) and part.of is update)
    if rest is None or not isinstance(candidate, Applied) or not isinstance(update, Applied):
        return None
    reset = _reset_of(candidate.inner, before)
    if reset is None or reset.kind != update.kind:
        return None
    return _gru_of(body, number, (update, reset), candidate)


def _reset_of(inner: Any, before: Source) -> Applied | None:
    """Return the gate that resets units in a candidate: before they are weighed, or after."""
    product: Any = None
    if isinstance(inner, Total):
        _, product = pick(inner.parts, lambda part: isinstance(part, Affine))
        reset = pick(product.parts, lambda part: isinstance(part, Affine)) if _is_product(product) else None
    elif isinstance(inner, Affine):
        product = next((term for term in inner.terms if isinstance(term, Product)), None)
        reset = pick(product.parts, lambda part: part is before) if product else None
    else:
        return None
    return reset[1] if reset and isinstance(reset[1], Applied) else None


def _gru_of(
    body: Expressions, number: int, gates: tuple[Applied, Applied], candidate: Applied
) -> LoopCell | None:
    """Return the GRU of update and reset gate and the candidate that the latter acts in."""
    update, reset = gates
    made = _cell(body, "GRU", [update, reset], (number,), [update, candidate])
    source, before, inner = body.data(), body.state(number), candidate.inner
    after = isinstance(inner, Total)
    if after:
        inner, product = pick(inner.parts, lambda part: isinstance(part, Affine))
        recurrent, _ = pick(product.parts, lambda part: isinstance(part, Affine))
        if set(inner.terms) != {source} or set(recurrent.terms) != {before}:
            return None
        weights, biases = recurrent.terms[before], (inner.bias, recurrent.bias)
    else:
        product = next(term for term in inner.terms if isinstance(term, Product))
        if set(inner.terms) != {source, product}:
            return None
        weights, biases = inner.terms[product], (inner.bias, 0 * inner.bias)
    data = [*made.data, inner.terms[source]]
    lists = (data, [*made.recurrent, weights], [*made.biases, biases])
    return LoopCell("GRU", *lists, made.activations, made.states, after)


def _rnn(body: Expressions, number: int, gate: Any) -> LoopCell | None:
    return _cell(body, "RNN", [gate], (number,), [gate]) if _is_gate(gate) else None


def _is_gate(value: Any) -> bool:
    return isinstance(value, Applied) and isinstance(value.inner, Affine)


def _is_product(value: Any) -> bool:
    return isinstance(value, Product)


def _cell(
    body: Expressions, op: str, gates: list[Applied], states: tuple[int, ...], activations: list[Applied]
) -> LoopCell:
    """Return the operator whose gates all read the data and the hidden state.

    Args:
        body: the sources.
        op: its type.
        gates: in its order.
        states: numbers of the states, the hidden one first.
        activations: as it lists them.

    Raises:
        NoCellError: a gate reads something else.
    """
    source, before = body.data(), body.state(states[0])
    for gate in gates:
        if not _is_gate(gate) or set(gate.inner.terms) != {source, before}:
            raise NoCellError("a gate does not read the data and the hidden state")
    data = [gate.inner.terms[source] for gate in gates]
    recurrent = [gate.inner.terms[before] for gate in gates]
    return LoopCell(
        op, data, recurrent, [(g.inner.bias, 0 * g.inner.bias) for g in gates], activations, states
    )
