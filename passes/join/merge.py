"""Networks side by side: one graph, one input, one operator set, and the scores of each at hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.compare.branch import Branch, joint_places
from graft.passes.join.adapt import RAW, Adapt, raw_input
from graft.passes.join.compatibility import batch_of, signature
from graft.passes.join.convert import Convert
from graft.passes.join.deduplicate import Deduplicate, DeduplicateReport
from graft.passes.join.network import class_summary
from graft.rewriter.card.decoder_card import DecoderCard
from graft.rewriter.card.input_card import InputCard
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import KEY, Mahalanobis

INPUTS = ("raw", "parent")


def input_of(
    models: Sequence[Model], wanted: str | None, raw_if_images: bool, batch: bool = True
) -> InputCard | None:
    """Return the raw input to adapt ``models`` to; ``None`` where they take their own, which is the same.

    Args:
        models: with their cards.
        wanted: of :data:`INPUTS`; ``None``: raw for images ``raw_if_images``.
        raw_if_images: see ``wanted``.
        batch: inputs of another fixed batch are others.

    Raises:
        GraftError: no images, or inputs that differ.
    """
    cards = [model.require_card() for model in models]
    images = all(len(card.inputs) == 1 and card.inputs[0].kind == "image" for card in cards)
    if (wanted or ("raw" if images and raw_if_images else "parent")) == "raw":
        if not images:
            raise GraftError(
                "input-kind", "--input raw is for models that take one image", "use --input parent"
            )
        return raw_input([card.inputs[0] for card in cards], _free_name(models))
    signatures = [signature(model, batch) for model in models]
    for card, own in zip(cards, signatures, strict=True):
        if own != signatures[0]:
            raise GraftError(
                "inputs-differ",
                f"{class_summary(cards[0])} and {class_summary(card)} take different inputs",
                "use --input raw" if images else "join modules whose inputs agree in shape and type",
            )
    return None


@dataclass(frozen=True, kw_only=True)
class MeetReport(Report):
    """Networks that take one input now; ``changed`` counts those that were converted or adapted.

    Attributes:
        adapted: for each network the steps from the raw input to its own; empty where all take the same.
    """

    adapted: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Meet:
    """Give networks one opset, one IR version and, where there is one, one raw input.

    Attributes:
        raw: the raw input; ``None``: they take the same already.
        dtype: type of raw images.
        opset: operator set; ``None``: the highest among the networks.
        ir_version: as ``opset``.
    """

    raw: InputCard | None
    dtype: type[np.generic] = np.uint8
    opset: int | None = None
    ir_version: int | None = None

    def __call__(self, models: Sequence[Model], context: Context) -> MeetReport:
        """Change ``models``.

        Args:
            models: with their cards, changed in place.
            context: nothing of it is used.

        Raises:
            GraftError: a version does not exist, or a model cannot be converted or adapted.
        """
        opset = self.opset or max(model.opset for model in models)
        opsets = [Convert(opset)(model, context) for model in models]
        highest = self.ir_version or max(model.ir_version for model in models)
        versions = [Convert(None, highest)(model, context) for model in models]
        adapts = [Adapt(self.raw, self.dtype)(model, context) for model in models] if self.raw else []
        for model in models:
            model.refresh_shapes()  # branches need the ranks of what they read
        declined = [each for report in (*opsets, *versions, *adapts) for each in report.declined]
        by_model = itertools.zip_longest(opsets, versions, adapts, fillvalue=Report())
        return MeetReport(
            changed=sum(any(report.changed for report in reports) for reports in by_model),
            declined=tuple(declined),
            adapted=tuple(report.steps for report in adapts),
        )


@dataclass(frozen=True, kw_only=True)
class MergeReport(Report):
    """A model that was merged of several.

    Attributes:
        model: with its card.
        shared: what was equal in them.
    """

    model: Model
    shared: DeduplicateReport | None = None


class Merge:
    """One graph for several models that :class:`Meet` made alike; it has no output yet.

    Args:
        models: left as they are. Input, output, and metadata that are not ours are those of the first.
        activations: branches say which activations a joint head reads.

    Attributes:
        branches: the scores of each model, in order.
        build: adds nodes that belong to none of them.
        inputs: of the graph, in the order of the card.
    """

    def __init__(self, models: Sequence[Model], activations: bool) -> None:
        first = models[0]
        self._first = first
        self._batch = batch_of(models)
        self._model = first.copy()
        self._graph = gs.Graph(inputs=list(self._model.graph.inputs), opset=first.opset, name="composite")
        domains = {each.domain: each for model in models for each in model.graph.import_domains or ()}
        self._graph.import_domains = list(domains.values()) or None
        for model in models[1:]:  # keys that are not ours are kept, of all parents
            self._model.metadata = {**model.metadata, **self._model.metadata}
        self._model.sizes = dict(pair for model in models[::-1] for pair in model.sizes.items())
        self._model.metadata.pop(KEY, None)
        inputs = [each.name for each in first.require_card().inputs]
        named = {tensor.name: tensor for tensor in self._graph.inputs}
        self.inputs: list[gs.Tensor] = [named[name] for name in inputs]
        self.build = Builder(self._graph, first.opset, "graft")
        self.branches = [
            _branch(model.copy(), f"m{number}", self._graph, inputs, activations)
            for number, model in enumerate(models)
        ]

    def finish(
        self,
        scores: gs.Variable,
        labels: Sequence[str],
        kind: str,
        dtype: np.dtype[np.generic],
        reads: Mapping[str, Sequence[gs.Tensor]] | None = None,
        decoder: DecoderCard | None = None,
    ) -> MergeReport:
        """Return the model that puts out ``scores``, under the name of the first model's output.

        Args:
            scores: logits (samples, classes) or (samples, steps, classes).
            labels: names of the columns.
            kind: ``logits`` or ``probabilities``.
            dtype: of ``scores``.
            reads: name to contents of further outputs, float32.
            decoder: of the result; ``None``: it is a classifier.
        """
        card, graph = self._first.require_card(), self._graph
        if kind == "probabilities":
            scores = self.build.node("Softmax", "softmax", [scores], axis=-1)
        like = next(tensor for tensor in self._first.graph.outputs if tensor.name == card.output.name)
        scores.name, scores.dtype = card.output.name, np.dtype(dtype)
        before = 2 if card.output.steps else 1
        scores.shape = [*list(like.shape or [None] * before)[:before], len(labels)]
        if self._batch is not None:
            axes = self._first.sample_axes()
            for tensor in (*graph.inputs, scores):
                axis, shape = axes.get(tensor.name, 0), list(tensor.shape or [None])
                if axis is not None:
                    tensor.shape = [*shape[:axis], self._batch, *shape[axis + 1 :]]
        graph.outputs = [scores]
        for name, parts in (reads or {}).items():
            floats = [
                self.build.cast(part, np.float32, f"{name}/float_{number}")
                for number, part in enumerate(parts)
            ]
            joined = self.build.node("Concat", f"{name}/all", floats, axis=-1)
            joined.name, joined.dtype = name, np.dtype(np.float32)
            graph.outputs.append(joined)
        model = self._model
        model.graph, model.node_metadata = graph, {}
        model.card = card.replace(
            labels=tuple(labels),
            decoder=decoder,
            display_names=None,
            expect=None,
            output={"name": card.output.name, "kind": kind, "steps": card.output.steps},
        )
        model.tidy()
        report = Deduplicate()(model, Context())
        model.refresh_shapes()
        return MergeReport(changed=report.changed, declined=report.declined, model=model, shared=report)


def _branch(model: Model, prefix: str, graph: gs.Graph, names: Sequence[str], activations: bool) -> Branch:
    """Move the nodes of ``model``, a copy that may be changed, into ``graph`` under ``prefix``.

    Its inputs, in the order of its card, become those of the graph that ``names`` says. With
    ``activations`` the branch says which ones a joint head reads.
    """
    statistics = Mahalanobis.of(model)
    tensors: Mapping[str, gs.Tensor] = model.graph.tensors()
    places = joint_places(model) if activations else []
    named = {tensor.name: tensor for tensor in graph.inputs}
    own = [each.name for each in model.require_card().inputs]
    inputs = {old: named[new] for old, new in zip(own, names, strict=True)}
    outputs = {tensor.name: tensor for tensor in model.graph.outputs}
    for node in model.graph.nodes:
        node.name = f"{prefix}/{node.name}"
        node.inputs = [inputs.get(t.name, t) if t.name else t for t in node.inputs]
    graph.nodes.extend(model.graph.nodes)
    for name, tensor in tensors.items():
        if name not in inputs:
            tensor.name = f"{prefix}/{name}"
    build = Builder(graph, graph.opset, f"graft/{prefix}")  # no tensor of the model begins so
    tensors = {**tensors, **inputs}
    features = tensors.get(statistics.tensor) if statistics else None
    reads = [(tensors[place.tensor], place.axis) for place in places]
    return Branch(model.require_card(), build, outputs, statistics, features, reads)


def _free_name(models: Sequence[Model]) -> str:
    """Return a name for the raw input that no tensor of ``models`` but an input has."""
    taken = {
        name
        for model in models
        for name in model.graph.tensors().keys() - {tensor.name for tensor in model.graph.inputs}
    }
    names = itertools.chain((RAW, f"raw_{RAW}"), (f"raw_{RAW}_{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)
