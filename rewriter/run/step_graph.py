"""Split an encoder-decoder: what runs once a sentence, and what runs once a word, states in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.graph.model import Model
from graft.rewriter.operators.base import is_constant

RECURRENT = ("GRU", "LSTM", "RNN")
STATE = "graft/state"


@dataclass(frozen=True, eq=False)
class StepGraph:
    """The two halves of an encoder-decoder.

    Attributes:
        encoder: makes what the decoder reads of all other inputs; ``None``: it reads nothing
            but the written words.
        step: takes the words of one time step or more, ``reads`` and ``states``, and makes the scores and
            the next states.
        reads: names of tensors that the step reads of the encoder.
        states: name of each state to the name of the output that holds it after the step.
        starts: name of each state to the output of the encoder that it starts from, or to its values
            (1, 1, units), the same for all samples.
    """

    encoder: onnx.ModelProto | None
    step: onnx.ModelProto
    reads: tuple[str, ...]
    states: Mapping[str, str]
    starts: Mapping[str, str | NDArray[Any]]


def step_graph(model: Model, written: str, output: str) -> StepGraph | None:
    """Split a model whose decoder remembers what was written in the states of recurrent layers.

    Args:
        model: left as it is.
        written: the input that takes the words written so far, (samples, steps).
        output: the scores, (samples, steps, words).

    Returns:
        The halves; ``None`` where no recurrent layer reads the words, one reads them backwards or in a way
        of its own, or a body of a node does. Whether the halves compute what the whole does is left to the
        caller: other nodes may look at several steps, too.
    """
    copy = model.copy()
    copy.graph.outputs = [tensor for tensor in copy.graph.outputs if tensor.name == output]
    copy.tidy()
    behind = _behind(copy.graph, written)
    decoder = [node for node in copy.graph.nodes if id(node) in behind]
    layers = [node for node in decoder if node.op in RECURRENT]
    if not layers or any(map(_has_body, decoder)) or not all(map(_forward, layers)):
        return None
    starts: dict[str, str | NDArray[Any]] = {}
    states: dict[str, str] = {}
    examples: dict[str, NDArray[Any]] = {}
    for number, layer in enumerate(layers):
        for slot in range(2 if layer.op == "LSTM" else 1):
            name = f"{STATE}/{number}/{slot}"
            given = _state(layer, 5 + slot)
            kind = next(tensor.dtype for tensor in layer.inputs[1:3] if tensor.dtype is not None)
            if given is None:
                starts[name] = np.zeros((1, 1, int(layer.attrs["hidden_size"])), kind)
            else:
                starts[name] = given.values if is_constant(given) else given.name
            examples[name] = np.zeros((1, 1, 1), kind)
            _read_state(layer, 5 + slot, gs.Variable(name, np.dtype(kind)))
            states[name] = _made_state(layer, 1 + slot, f"{name}/next")
    made = {tensor.name for node in decoder for tensor in node.outputs}
    read = {t.name: t for node in decoder for t in node.inputs if isinstance(t, gs.Variable) and t.name}
    reads = [name for name in read if name not in made and name not in starts and name != written]
    needed = dict.fromkeys([*reads, *(each for each in starts.values() if isinstance(each, str))])
    first = [node for node in copy.graph.nodes if id(node) not in behind]
    inputs = {
        tensor.name: np.zeros([1] * len(tensor.shape or ()), tensor.dtype) for tensor in copy.graph.inputs
    }
    ends = {tensor.name for node in first for tensor in node.outputs}
    if any(name not in ends for name in needed):  # an input that is read on both sides
        return None
    words = {written: inputs.pop(written)}
    encoder = copy.piece(first, inputs, [*needed]) if needed else None
    known = {name: np.zeros([1] * len(read[name].shape or ()), read[name].dtype) for name in reads}
    step = copy.piece(decoder, {**words, **known, **examples}, [output, *states.values()])
    return StepGraph(encoder, step, tuple(reads), states, starts)


def _behind(graph: gs.Graph, name: str) -> set[int]:
    """Return the ids of the nodes that depend on an input."""
    ends = [tensor for tensor in graph.inputs if tensor.name == name]
    found: set[int] = set()
    while ends:
        for node in ends.pop().outputs:
            if id(node) not in found:
                found.add(id(node))
                ends += node.outputs
    return found


def _has_body(node: gs.Node) -> bool:
    """Return whether a node runs a graph of its own, as loops do."""
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())


def _forward(layer: gs.Node) -> bool:
    """Return whether a recurrent layer reads all steps of all samples, the first one first."""
    backwards = layer.attrs.get("direction", "forward") not in ("forward", b"forward")
    return not backwards and not layer.attrs.get("layout", 0) and _state(layer, 4) is None


def _state(layer: gs.Node, place: int) -> gs.Tensor | None:
    """Return an optional input; ``None`` where it is not given."""
    found = layer.inputs[place] if place < len(layer.inputs) else None
    return None if found is None or not found.name else found


def _read_state(layer: gs.Node, place: int, tensor: gs.Variable) -> None:
    """Let a layer start from ``tensor``."""
    while len(layer.inputs) <= place:
        layer.inputs.append(gs.Variable.empty())
    layer.inputs[place] = tensor


def _made_state(layer: gs.Node, place: int, name: str) -> str:
    """Return the name of the output that holds the last state of a layer, which it gets where it has none."""
    while len(layer.outputs) <= place:
        layer.outputs.append(gs.Variable.empty())
    if not layer.outputs[place].name:
        layer.outputs[place] = gs.Variable(name, layer.inputs[1].dtype)
    return str(layer.outputs[place].name)
