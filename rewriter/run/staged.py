"""Run a graph piece by piece over many samples, so that weights may change behind the current node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.run.session import Device, Session

Tensors = Mapping[str, NDArray[Any]]
ROOM = 1 << 30
"""Bytes of values that are remembered. What takes more, as behind the expansions of MobileNet, is computed
again from what came before."""


@dataclass(frozen=True)
class Batches:
    """Inputs of a model, in batches.

    Attributes:
        inputs: input name to array, one a batch.
        count: number of samples.
    """

    inputs: list[Tensors]
    count: int

    @classmethod
    def read(cls, samples: Samples, device: Device, model: Model, size: int) -> Batches:
        """Read batches as the model takes them; of a fixed size the rest is left out.

        Args:
            samples: matched to the card of the model.
            device: where the model runs.
            model: takes the batches.
            size: samples a batch, unless the model fixes it.

        Raises:
            GraftError: ``refit-few`` where there are fewer samples than a batch of fixed size has.
        """
        session = device.open(model)
        session.probe(samples)
        fixed = session.batch
        if fixed and len(samples) < fixed:
            raise GraftError(
                "refit-few",
                f"the model takes {fixed} samples at once, and there are {len(samples)}",
                "give more samples, or compensate by fold",
            )
        read: list[Tensors] = [session.feed(inputs) for inputs, _ in samples.batches(fixed or size)]
        if fixed and len(samples) % fixed and len(read) > 1:
            read.pop()
        return cls(read, sum(map(session.count, read)))


class StagedRun:
    """A run along the nodes of a model, in stages.

    Args:
        model: its graph is in topological order. Weights of nodes that were not passed may change.
        batches: inputs of the model.
        device: where pieces run.

    Attributes:
        nodes: name to node.
    """

    def __init__(self, model: Model, batches: Batches, device: Device) -> None:
        self._model = model
        self._device = device
        self._known: list[Tensors] = batches.inputs
        self.nodes: dict[str, gs.Node] = {node.name: node for node in model.graph.nodes}

    def known(self, node: gs.Node) -> frozenset[str]:
        """Return the names of the tensors that nodes before ``node`` make."""
        nodes = self._model.graph.nodes
        return frozenset(t.name for before in nodes[: nodes.index(node)] for t in before.outputs) | {
            t.name for t in self._model.graph.inputs
        }

    def at(self, node: gs.Node, wanted: Sequence[str]) -> Iterator[Tensors]:
        """Yield tensors, batch after batch; the run moves on to ``node`` where there is room.

        Args:
            node: of the model, not before the one of the last call.
            wanted: names of tensors.
        """
        names = self.living(node)
        piece = self._piece([*dict.fromkeys([*names, *wanted])])
        moved: list[Tensors] = []
        for known in self._known:
            found = {**known, **piece.run(known)} if piece else known
            moved.append({name: found[name] for name in names})
            yield {name: found[name] for name in wanted}
        if _size(moved) <= max(ROOM, _size(self._known)):
            self._known = moved

    def living(self, node: gs.Node) -> list[str]:
        """Return the tensors that are made before ``node`` and read from there on."""
        graph = self._model.graph
        place = graph.nodes.index(node)
        made = {t.name for before in graph.nodes[:place] for t in before.outputs}
        made |= {t.name for t in graph.inputs}
        read = [t.name for after in graph.nodes[place:] for t in _reads(after)]
        return [*dict.fromkeys(name for name in [*read, *(t.name for t in graph.outputs)] if name in made)]

    def _piece(self, wanted: Sequence[str]) -> _Piece | None:
        """The nodes between the known tensors and ``wanted``; ``None`` where all of these are known."""
        known, graph = self._known[0], self._model.graph
        missing = [name for name in wanted if name not in known]
        if not missing:
            return None
        needed, nodes = set(missing), []
        for node in reversed(graph.nodes):
            if any(tensor.name in needed for tensor in node.outputs):
                nodes.append(node)
                needed |= {tensor.name for tensor in _reads(node)} - set(known)
        return _Piece(self._model, nodes[::-1], known, missing, self._device)


class _Piece:
    """Some nodes of a model as a session of their own."""

    def __init__(
        self, model: Model, nodes: Sequence[gs.Node], known: Tensors, wanted: Sequence[str], device: Device
    ) -> None:
        read = {tensor.name for node in nodes for tensor in _reads(node)}
        self._inputs = [name for name in known if name in read]
        self._outputs = list(wanted)
        self._session: Session = device.open(
            model.piece(nodes, {name: known[name] for name in self._inputs}, wanted)
        )

    def run(self, known: Tensors) -> Tensors:
        """Return the wanted tensors of one batch."""
        return self._session.run({name: known[name] for name in self._inputs}, self._outputs)


def _reads(node: gs.Node) -> list[gs.Tensor]:
    """Tensors that a node reads, in its bodies, too."""
    bodies = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    inner = [tensor for body in bodies for each in body.nodes for tensor in _reads(each)]
    return [t for t in (*node.inputs, *inner) if t.name]


def _size(batches: Sequence[Tensors]) -> int:
    return sum(np.asarray(array).nbytes for tensors in batches for array in tensors.values())
