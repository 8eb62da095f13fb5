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
from graft.rewriter.run.bounds import of_piece
from graft.rewriter.run.session import Device, Session
from graft.rewriter.run.values import Room, Values

Tensors = Mapping[str, NDArray[Any]]
PIECE = 1 << 26
"""Bytes of the largest tensor of the samples that run at once: in the caches of the processor more are no
faster, and a few of such tensors are in memory at a time."""


@dataclass(frozen=True)
class Batches:
    """Inputs of a model, in batches.

    Attributes:
        inputs: input name to arrays, one a batch.
        count: number of samples.
        block: samples for which places are drawn together: one batch or more.
        room: what values of the samples may take in memory.
    """

    inputs: Mapping[str, Values]
    count: int
    block: int
    room: Room

    @classmethod
    def of(cls, inputs: Tensors, count: int) -> Batches:
        """Return one batch, in memory.

        Args:
            inputs: input name to array.
            count: number of samples.
        """
        room = Room()
        values = {name: Values(room) for name in inputs}
        for name, array in inputs.items():
            values[name].append(array)
        return cls(values, count, max(1, count), room)

    @classmethod
    def read(
        cls,
        samples: Samples,
        device: Device,
        model: Model,
        block: int,
        each: int = 0,
        room: Room | None = None,
    ) -> Batches:
        """Read batches as the model takes them; of a fixed size the rest is left out.

        Args:
            samples: matched to the card of the model.
            device: where the model runs.
            model: takes the batches.
            block: samples for which places are drawn together, unless the model fixes its batch.
            each: bytes of the largest tensor of one sample; so many samples of a block run at once as go into
                :data:`PIECE`.
            room: what values of the samples may take in memory.

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
        size = block
        while size > 1 and size * each > PIECE:
            size //= 2
        if fixed and len(samples) > fixed:
            samples = samples.take(np.arange(len(samples) // fixed * fixed))
        room, count, read = room or Room(), 0, dict[str, Values]()
        for inputs, _ in samples.batches(fixed or size):
            fed = session.feed(inputs)
            count += session.count(fed)
            for name, array in fed.items():
                read.setdefault(name, Values(room)).append(array)
        return cls(read, count, fixed or block, room)


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
        self._room = batches.room
        self._known: Mapping[str, Values] = batches.inputs
        self._count = max(map(len, batches.inputs.values()), default=0)
        self.nodes: dict[str, gs.Node] = {node.name: node for node in model.graph.nodes}

    def known(self, node: gs.Node) -> frozenset[str]:
        """Return the names of the tensors that nodes before ``node`` make."""
        nodes = self._model.graph.nodes
        return frozenset(t.name for before in nodes[: nodes.index(node)] for t in before.outputs) | {
            t.name for t in self._model.graph.inputs
        }

    def at(self, node: gs.Node, wanted: Sequence[str]) -> Iterator[Tensors]:
        """Yield tensors, batch after batch; the run moves on to ``node`` behind the last one.

        Args:
            node: of the model, not before the one of the last call.
            wanted: names of tensors.

        Raises:
            GraftError: ``disk-full``.
        """
        known, names = self._known, self.living(node)
        piece = self._piece([*dict.fromkeys([*names, *wanted])])
        moved = {name: known[name] if name in known else Values(self._room) for name in names}
        fresh = [name for name in names if name not in known]
        needed = dict.fromkeys([name for name in wanted if name in known] + (piece.inputs if piece else []))
        for number in range(self._count):
            read = {name: known[name][number] for name in needed}
            made = piece.run(read) if piece else {}
            if not number:
                self._room.require(self._count * sum(made[name].nbytes for name in fresh))
            for name in fresh:
                moved[name].append(made[name])
            yield {name: made[name] if name in made else read[name] for name in wanted}
        self._known = moved

    def values(self, name: str) -> Values:
        """Return a tensor of all samples that is known where the run has moved to."""
        return self._known[name]

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
        known, graph = self._known, self._model.graph
        missing = [name for name in wanted if name not in known]
        if not missing:
            return None
        needed, nodes = set(missing), []
        for node in reversed(graph.nodes):
            if any(tensor.name in needed for tensor in node.outputs):
                nodes.append(node)
                needed |= {tensor.name for tensor in _reads(node)} - set(known)
        read = {tensor.name for node in nodes for tensor in _reads(node)}
        examples = {name: values[0] for name, values in known.items() if name in read}
        return _Piece(self._model, nodes[::-1], examples, missing, self._device)


class _Piece:
    """Some nodes of a model as a session of their own.

    Attributes:
        inputs: names of the tensors that they read and do not make.
    """

    def __init__(
        self, model: Model, nodes: Sequence[gs.Node], examples: Tensors, wanted: Sequence[str], device: Device
    ) -> None:
        self.inputs = list(examples)
        self._outputs = list(wanted)
        self._session: Session = device.open(model.piece(nodes, examples, wanted), of_piece())

    def run(self, known: Tensors) -> Tensors:
        """Return the wanted tensors of one batch."""
        return self._session.run({name: known[name] for name in self.inputs}, self._outputs)


def _reads(node: gs.Node) -> list[gs.Tensor]:
    """Tensors that a node reads, in its bodies, too."""
    bodies = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
    inner = [tensor for body in bodies for each in body.nodes for tensor in _reads(each)]
    return [t for t in (*node.inputs, *inner) if t.name]
