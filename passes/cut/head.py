"""Turn the output for all classes of a parent into the output of a module."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.cut.slice import cut_graph
from graft.rewriter.arrays import Channels
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.logits import bounded, finite, logits_behind, note_shapes
from graft.rewriter.groups.outputs import class_axis, flatten_output, keep_output
from graft.rewriter.operators.base import dtype_of

REST = "rest"


@dataclass(frozen=True, kw_only=True)
class HeadReport(Report):
    """Outputs of the module; ``changed`` counts the classes that are left out.

    Attributes:
        labels: names of its columns.
        nodes: names of the nodes that make the parent's scores, and of those added here.
    """

    labels: tuple[str, ...]
    nodes: frozenset[str]


@dataclass(frozen=True)
class Head:
    """Give a model an output for some of its classes, in place.

    * one class, not ``together``: two columns, the class and ``(other)``, the logsumexp of the logits
      of all other classes: the softmax of both is what the parent says;
    * several: their columns in the order of ``classes``; ``other`` adds a column ``(other)``; without it
      ``rest`` adds a second output ``rest`` (samples, 1), the logsumexp of the logits left out
      (for probabilities: the logarithm of the probability left out).

    The output keeps the parent's name and type and means the same: logits or probabilities.

    Attributes:
        classes: names, in the order of the columns.
        together: one set, even if it is one class.
        other: add the column ``(other)``.
        rest: add the output ``rest``, unless there is a column ``(other)``.
    """

    classes: tuple[str, ...]
    together: bool = False
    other: bool = False
    rest: bool = False

    @property
    def _pair(self) -> bool:
        """True for one class against all others."""
        return len(self.classes) == 1 and not self.together

    @property
    def _with_other(self) -> bool:
        return self.other or self._pair

    def __call__(self, model: Model, context: Context) -> HeadReport:
        """Change the outputs of ``model`` and its card.

        Args:
            model: a classifier with a card, changed in place.
            context: not used.

        Returns:
            The columns, and the nodes that do not count as parameters of the body.

        Raises:
            GraftError: a class is unknown, or the model's output is of another kind.
        """
        card = model.require_card()
        wanted = [card.class_index(name) for name in self.classes]
        if card.output.kind not in ("logits", "probabilities"):
            raise GraftError(
                "output-kind",
                f"cannot cut classes out of an output of kind {card.output.kind}",
                "supported are logits and probabilities",
            )
        if not self._with_other and wanted == list(range(len(card.labels))):
            shape = keep_output(model, card.output.name).shape or ()
            if not card.output.steps and class_axis(shape, len(card.labels)) != len(shape) - 1:
                flatten_output(model)  # passes read classes on the last axis
                model.tidy()
            return HeadReport(labels=card.labels, nodes=frozenset(_makers(model, card.output.name)))
        if self._with_other and card.decoder is not None:
            raise GraftError(
                "output-kind",
                "a decoder writes words: there is no column (other) beside them",
                "name its languages: " + ", ".join(card.decoder.languages),
            )
        if self._with_other and len(wanted) == len(card.labels):
            raise GraftError(
                "other-empty",
                "all classes are in the module, nothing is left for (other)",
                "leave out --other",
            )
        before = {node.name for node in model.graph.nodes}
        logits, output = open_output(model, card)
        makers = _makers(model, logits.name)
        others = [index for index in range(len(card.labels)) if index not in wanted]
        if (self._with_other or self.rest) and others:
            self._write_with_rest(model, card, logits, output, wanted, others)
        else:
            self._write_alone(model, card, logits, output, wanted)
        labels = (*self.classes, *([OTHER] if self._with_other else []))
        decoder = card.decoder and card.decoder.with_labels(wanted)
        model.card = card.replace(labels=labels, display_names=None, expect=None, decoder=decoder)
        model.tidy()
        model.refresh_shapes()
        added = {node.name for node in model.graph.nodes} - before
        return HeadReport(changed=len(others), labels=labels, nodes=frozenset(makers | added))

    def _write_alone(
        self, model: Model, card: Card, logits: gs.Variable, output: gs.Variable, wanted: list[int]
    ) -> None:
        """Write the wanted columns only: where the head allows it, its other rows are removed."""
        build = HeadBuilder(model, card)
        model.graph.outputs = [logits]
        model.tidy()  # a softmax left behind the logits would pin them
        groups = ChannelGroups(model, outputs_open=True)
        axes = groups.of(logits)
        channels = axes[-1] if axes else None
        if channels is not None and _only_columns(groups, channels):
            kept = groups.everything()
            kept[np.delete(channels, wanted)] = False
            cut_graph(model, groups, kept)
            order = np.argsort(np.argsort(wanted)).tolist()
            scores = logits if order == sorted(order) else build.pick(logits, order, "order")
        else:
            scores = build.pick(logits, wanted, "wanted")
        model.graph.outputs = []
        build.finish(scores, output, len(wanted))

    def _write_with_rest(
        self,
        model: Model,
        card: Card,
        logits: gs.Variable,
        output: gs.Variable,
        wanted: list[int],
        others: list[int],
    ) -> None:
        """Write the wanted columns, and the rest as one more column or as an output of its own."""
        build = HeadBuilder(model, card)
        scores = build.pick(logits, wanted, "wanted")
        left = build.pick(logits, others, "others")
        rest = build.logsumexp(bounded(left, dtype_of(output), build), "rest") if len(others) > 1 else left
        if self._with_other:
            build.finish(build.node("Concat", "columns", [scores, rest], axis=-1), output, len(wanted) + 1)
            return
        build.finish(scores, output, len(wanted))
        if card.output.kind == "probabilities":
            whole = build.logsumexp(bounded(logits, dtype_of(output), build, "bounded_all"), "all")
            rest = build.node("Sub", "share", [rest, whole])
        build.publish(rest, REST, output)


class HeadBuilder(Builder):
    """Adds the nodes of a head."""

    def __init__(self, model: Model, card: Card) -> None:
        super().__init__(model.graph, model.opset, f"graft/{card.output.name}")
        self.kind = card.output.kind
        self.graph.outputs = []

    def finish(self, scores: gs.Tensor, output: gs.Variable, columns: int) -> None:
        """Make ``scores`` the output, as logits or probabilities, under the parent's name.

        Args:
            scores: logits.
            output: name, type and shape of the parent's output.
            columns: number of classes.
        """
        if self.kind == "probabilities":
            scores = finite(scores, dtype_of(output), self)  # of nothing else the softmax would be NaN
            scores = self.node("Softmax", "softmax", [scores], axis=-1)
        self.publish(scores, output.name, output, columns)

    def publish(self, tensor: gs.Tensor, name: str, like: gs.Variable, columns: int = 1) -> None:
        """Make ``tensor`` an output.

        Args:
            tensor: (samples, columns), or one more axis of time steps.
            name: of the output.
            like: an output of the type and the leading axes that it gets.
            columns: size of the last axis.

        Raises:
            GraftError: an input or weight has this name.
        """
        shape = [*(like.shape or [None, None])[:-1], columns]
        same = self.graph.tensors().get(name)
        if same is not None and same is not tensor:
            if not same.inputs:
                raise GraftError(
                    "output-name", f"the model has an input or weight called {name}", "use --no-rest"
                )
            same.name = f"{self.prefix}/parent/{name}"
        tensor.name, tensor.dtype, tensor.shape = name, like.dtype, shape
        self.graph.outputs.append(tensor)


def open_output(model: Model, card: Card) -> tuple[gs.Variable, gs.Variable]:
    """Return the logits behind the output, and a description (name, type, shape) of the output itself.

    The output itself gets another name; the model keeps no other output.
    """
    output = keep_output(model, card.output.name)
    name, shape = output.name, list(output.shape or ())
    single = not card.output.steps and len(shape) > 2
    axis = class_axis(shape, len(card.labels)) if single else len(shape) - 1
    described = gs.Variable(name, output.dtype, [shape[0], shape[axis]] if single else shape)
    output.name = _unused(model, f"graft/{name}/parent")
    build = Builder(model.graph, model.opset, f"graft/{name}")
    logits: gs.Variable = output
    if card.output.kind == "probabilities":
        note_shapes(model, output)
        logits = logits_behind(output, axis, build)
    if single:  # (N, K, 1, 1) or (N, 1, K)
        logits = build.node("Flatten", "flat", [logits], axis=1)
    return logits, described


def _unused(model: Model, name: str) -> str:
    """Return ``name``, with a number where the graph has a tensor of that name: outputs change repeatedly."""
    taken, found, number = model.graph.tensors(), name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _only_columns(groups: ChannelGroups, channels: Channels) -> bool:
    """Return True if these channels are columns of the output and no more: free, distinct, never read."""
    read = any(np.isin(place.channels, channels).any() for place in groups.reads())
    free = bool((groups.cuttable() & groups.atoms)[channels].all())
    return free and not read and len(set(channels.tolist())) == len(channels)


def _makers(model: Model, name: str) -> set[str]:
    """Return the nodes behind tensor ``name`` up to the one with the weights that make the classes."""
    tensor = model.graph.tensors()[name]
    found: set[str] = set()
    while tensor.inputs:
        node = tensor.inputs[0]
        found.add(node.name)
        if node.op in ("Gemm", "MatMul", "Conv"):
            break
        tensor = next((t for t in node.inputs if isinstance(t, gs.Variable)), None)
        if tensor is None:
            break
    return found
