"""Raise a recurrent cell that is spelled out in a Loop or Scan to the operator that it is.

As tf2onnx writes cells whose gates are not the usual ones. What the body computes is read as an expression
of the data of a step and the states of the step before; where it is exactly that of an ``LSTM``, ``GRU`` or
``RNN`` the node becomes one. Anything else stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined, Report
from graft.passes.normalize.cells import LoopCell, match_cell
from graft.passes.normalize.expressions import Expressions, NoCellError, Source
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import given, is_constant


@dataclass(frozen=True)
class RaiseLoops:
    """Turn each ``Loop`` and ``Scan`` that runs a recurrent cell into its operator.

    The report counts the nodes that became one; those that stay whole are declined.
    """

    def __call__(self, subject: Model, context: Context) -> Report:
        """Change the graph of ``subject`` in place.

        Args:
            subject: the model.
            context: not needed.
        """
        changed, declined = 0, []
        for node in list(subject.graph.nodes):
            if node.op not in ("Loop", "Scan"):
                continue
            try:
                body = LoopBody.read(node, subject.opset)
                _write(subject, body, body.cell())
                changed += 1
            except NoCellError as reason:
                declined.append(Declined(f"{node.op} {node.name}", f"stays whole: {reason}"))
        if changed:
            subject.tidy()
        return Report(changed=changed, declined=tuple(declined))


@dataclass
class LoopBody:
    """The body of a node that runs step by step, and what of the outer graph it is tied to.

    Attributes:
        node: the ``Loop`` or ``Scan``.
        graph: the body.
        expressions: of its tensors.
        data: (steps, samples, features) of the outer graph.
        starts: number of each state to what the first step gets.
        new: number of each state to the tensor of the body that is the next one.
        ends: number of each state to the output of the node that holds it after the last step.
        each: output of the node that gathers what every step makes, and the tensor of the body.
    """

    node: gs.Node
    graph: gs.Graph
    expressions: Expressions
    data: gs.Tensor | None = None
    starts: dict[int, gs.Tensor] = field(default_factory=dict)
    new: dict[int, gs.Tensor] = field(default_factory=dict)
    ends: dict[int, gs.Tensor] = field(default_factory=dict)
    each: list[tuple[gs.Tensor, gs.Tensor]] = field(default_factory=list)

    @classmethod
    def read(cls, node: gs.Node, opset: int) -> LoopBody:
        """Read a ``Loop`` that counts its steps, or a ``Scan`` over one tensor.

        Args:
            node: the node.
            opset: of the model.

        Raises:
            NoCellError: it does not run over all steps of one tensor.
        """
        graph: gs.Graph = next(value for value in node.attrs.values() if isinstance(value, gs.Graph))
        body = cls(node, graph, Expressions(graph, opset))
        body._read_loop() if node.op == "Loop" else body._read_scan()
        return body

    def cell(self) -> LoopCell:
        """Return the operator that the body is a step of.

        Raises:
            NoCellError: it is none, or shows something else than its states.
        """
        found = match_cell(
            self.expressions, {number: self.expressions.read(new) for number, new in self.new.items()}
        )
        hidden = self.expressions.read(self.new[found.states[0]])
        if not all(self.expressions.read(made) is hidden for _, made in self.each):
            raise NoCellError("what is gathered of each step is not the hidden state")
        return found

    def _read_loop(self) -> None:
        inputs, outputs = self.graph.inputs, self.graph.outputs
        carried = list(zip(inputs[2:], self.node.inputs[2:], outputs[1:], self.node.outputs, strict=False))
        counter = None
        for number, (inner, start, new, end) in enumerate(carried):
            if new is inner:
                if not is_constant(start):
                    raise NoCellError("a tensor is handed on unchanged that is no constant")
                self.expressions.known[inner.name] = start.values
            elif _counts(inner, new) and is_constant(start) and not start.values.any() and not end.outputs:
                counter = inner.name
            else:
                self._carry(number, inner, start, new, end)
        gathered = zip(self.node.outputs[len(carried) :], outputs[1 + len(carried) :], strict=True)
        self.each = [(end, made) for end, made in gathered if end.outputs]
        counter = counter or inputs[0].name
        self._find_data(counter)
        self._check_steps(outputs[0], counter)

    def _read_scan(self) -> None:
        attributes = self.node.attrs
        wide = int(attributes["num_scan_inputs"])
        odd = [name for name in attributes if name.startswith("scan_") and np.any(attributes[name])]
        if wide != 1 or odd:
            raise NoCellError("it scans several tensors, or not forward along the first axis")
        states = len(self.node.inputs) - 1
        for number in range(states):
            ends = self.graph.outputs[number], self.node.outputs[number]
            self._carry(number, self.graph.inputs[number], self.node.inputs[number], *ends)
        self.data = self.node.inputs[states]
        self.expressions.known[self.graph.inputs[states].name] = Source()
        gathered = zip(self.node.outputs[states:], self.graph.outputs[states:], strict=True)
        self.each = [(end, made) for end, made in gathered if end.outputs]

    def _carry(self, number: int, inner: gs.Tensor, start: gs.Tensor, new: gs.Tensor, end: gs.Tensor) -> None:
        """Note state ``number``: in the body, before the first step, after a step, and after the last one."""
        self.expressions.known[inner.name] = Source(number)
        self.starts[number], self.new[number], self.ends[number] = start, new, end

    def _find_data(self, counter: str) -> None:
        """Find what is gathered at the number of the step."""
        gathers = [n for n in self.graph.nodes if n.op == "Gather" and n.inputs[1].name == counter]
        if len(gathers) != 1 or gathers[0].attrs.get("axis", 0):
            raise NoCellError("it does not take one step of one tensor at a time")
        self.data = gathers[0].inputs[0]
        self.expressions.known[gathers[0].outputs[0].name] = Source()

    def _check_steps(self, goes_on: gs.Tensor, counter: str) -> None:
        """Make sure that all steps of the data are run: by the loop's count, or by comparing its counter."""
        steps = (self.data.shape or [None])[0] if self.data is not None else None
        most, first = given(self.node, 0), given(self.node, 1)
        if first is not None and not (is_constant(first) and first.values.all()):
            raise NoCellError("it may not run at all")
        limit = int(most.values.reshape(-1)[0]) if isinstance(most, gs.Constant) else None
        always = goes_on is self.graph.inputs[1] or (is_constant(goes_on) and goes_on.values.all())
        if isinstance(steps, int) and limit == steps and always:
            return
        compared = self._compared_steps(goes_on, counter)
        if not isinstance(steps, int) or (limit is not None and limit < steps) or compared != steps:
            raise NoCellError("it does not run over all steps of its data")

    def _compared_steps(self, goes_on: gs.Tensor, counter: str) -> int | None:
        """Return the constant below which the counter has to stay for another step."""
        less = _behind_casts(goes_on)
        maker = less.inputs[0] if less.inputs else None
        if maker is None or maker.op != "Less":
            return None
        left, right = (_behind_casts(tensor) for tensor in maker.inputs)
        limit = self.expressions.known.get(right.name, right.values if is_constant(right) else None)
        counted = left.inputs and _counts(left.inputs[0].inputs[0], left, counter)
        if not counted or not isinstance(limit, np.ndarray) or limit.size != 1:
            return None
        return int(limit.reshape(-1)[0])


def _behind_casts(tensor: gs.Tensor) -> gs.Tensor:
    while tensor.inputs and tensor.inputs[0].op in ("Cast", "Identity"):
        tensor = tensor.inputs[0].inputs[0]
    return tensor


def _counts(inner: gs.Tensor, new: gs.Tensor, name: str | None = None) -> bool:
    """Return whether ``new`` is ``inner`` plus one; ``name``: of ``inner``, if that is to be checked."""
    maker = new.inputs[0] if new.inputs else None
    if maker is None or maker.op != "Add" or maker.inputs[0] is not inner or name not in (None, inner.name):
        return False
    one = maker.inputs[1]
    return is_constant(one) and one.values.size == 1 and bool((one.values == 1).all())


def _write(model: Model, body: LoopBody, cell: LoopCell) -> None:
    """Put the operator in the place of the node."""
    node = body.node
    build = Builder(model.graph, model.opset, node.name)
    weight, recurrent = (np.concatenate([m.T for m in each])[None] for each in (cell.data, cell.recurrent))
    bias = np.concatenate([np.concatenate([pair[half] for pair in cell.biases]) for half in (0, 1)])[None]
    inputs: list[gs.Tensor] = [body.data or gs.Variable.empty()]
    inputs += [build.constant("W", weight), build.constant("R", recurrent), build.constant("B", bias)]
    starts = [_with_axis(build, body.starts[number], f"start_{number}") for number in cell.states]
    outputs = [gs.Variable(f"{node.name}/states", weight.dtype)]
    outputs += [gs.Variable(f"{node.name}/last_{number}", weight.dtype) for number in cell.states]
    ends = [(end, outputs[0], 1) for end, _ in body.each]
    ends += [(body.ends[n], made, 0) for n, made in zip(cell.states, outputs[1:], strict=True)]
    if any(tensor.outputs and all(tensor is not end for end, *_ in ends) for tensor in node.outputs):
        raise NoCellError("more of it is read than its states")
    node.outputs.clear()
    for inner in body.graph.nodes:
        inner.inputs.clear()  # tensors of the outer graph would still count it among their readers
    read = [*inputs, gs.Variable.empty(), *starts]
    model.graph.nodes.append(gs.Node(cell.op, f"{node.name}/cell", cell.attributes(), read, outputs))
    for end, made, axis in ends:
        if end.outputs:
            end.inputs.clear()
            build.squeeze(made, axis, f"{made.name}/{axis}").inputs[0].outputs = [end]


def _with_axis(build: Builder, tensor: gs.Tensor, name: str) -> gs.Tensor:
    """Return a state (samples, units) with the axis of directions."""
    if isinstance(tensor, gs.Constant):
        return build.constant(name, tensor.values[None])
    return build.expand(tensor, 0, name)
