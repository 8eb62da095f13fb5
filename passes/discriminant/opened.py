"""A classifier with its logits and its last features laid open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.compare.fitting import read_outputs
from graft.passes.cut.head import HeadBuilder, open_output
from graft.passes.discriminant.head import Head
from graft.passes.normalize.large_constants import fold_forms
from graft.rewriter.arrays import Table
from graft.rewriter.card.card import Card
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.order import sort_nodes
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.operators import operator_of
from graft.rewriter.run.session import Device

LOGITS = "graft/open/logits"
FEATURES = "graft/open/features"
SIDE = 4
"""Of maps whose sides are free."""
CHANNEL_AXES = {"MatMul": -1, "MatMulInteger": -1, "Gemm": 1, "Conv": 1, "ConvInteger": 1}
"""Layers with weights, and the axis of the channels that they read."""


def check_output(card: Card) -> None:
    """Check that classes can be added to an output.

    Raises:
        GraftError: the output is of another kind, or has labels of time steps.
    """
    if card.output.kind not in ("logits", "probabilities"):
        raise GraftError(
            "output-kind",
            f"classes cannot be added to, or replaced in, an output of kind {card.output.kind}",
            "supported are logits and probabilities",
        )
    if card.output.steps:
        raise GraftError(
            "output-kind", "the output has one label a time step", "name a classifier of whole samples"
        )


@dataclass(frozen=True)
class Opened:
    """A copy of a classifier whose logits and last features can be read and built upon.

    Attributes:
        model: the copy; it has no outputs until some are published.
        output: name, type and shape of the output of the classifier.
        logits: (samples, columns), in the graph of the copy.
        features: (samples, values), what the layers with the weights of the classes read, side by side; the
            input where there is no such layer.
        widths: values of each of these layers.
        build: adds nodes to the copy.
        source: the single tensor that all features are, as it comes; ``None``: there are several.
        axis: of the channels in it.
    """

    model: Model
    output: gs.Variable
    logits: gs.Tensor
    features: gs.Tensor
    widths: tuple[int, ...]
    build: HeadBuilder
    source: gs.Tensor | None
    axis: int

    @classmethod
    def of(cls, model: Model, name: str) -> Opened:
        """Lay open a classifier.

        Args:
            model: with a card; left as it is.
            name: of the class that comes, for the names of nodes.

        Raises:
            GraftError: the output is of another kind, or no layer with weights makes it.
        """
        card, copy = model.require_card(), model.copy()
        check_output(card)
        fold_forms(
            copy, {name for name, each in copy.graph.tensors().items() if isinstance(each, gs.Constant)}
        )
        logits, output = open_output(copy, card)
        build = HeadBuilder(copy, card)
        build.prefix = _free_prefix(copy, name)
        copy.graph.outputs = [logits]
        copy.tidy()
        logits.dtype = logits.dtype or output.dtype
        if logits.shape is None or len(logits.shape) != 2:
            logits.shape = [(output.shape or [None])[0], len(card.labels)]
        copy.refresh_shapes()
        groups = ChannelGroups(copy)
        places = _last_reads(copy, groups, logits) or _plain_input(copy)
        if not places:
            raise GraftError(
                "no-features",
                "no layer with weights makes the classes: there are no features for a new one",
                "name a neural network, or a module that decides the class: --with MODULE",
            )
        parts = [_flat(copy, groups, place, build) for place in places]
        features = parts[0] if len(parts) == 1 else build.node("Concat", "features", parts, axis=1)
        features.dtype = features.dtype or np.dtype(np.float32)
        tensors = copy.graph.tensors()
        source = tensors[places[0].tensor] if len(places) == 1 else None
        copy.graph.outputs = []
        widths = tuple(len(place.channels) for place in places)
        return cls(copy, output, logits, features, widths, build, source, places[0].axis)

    def read(self, samples: Samples, device: Device) -> tuple[Table, Table]:
        """Return features and logits of samples, float64 (samples, values) and (samples, columns).

        Args:
            samples: matched to a card with the same inputs.
            device: where the model runs.

        Raises:
            GraftError: the samples do not fit, or an output is not finite.
        """
        model = self.published()
        features, logits = read_outputs(model, samples, device, [FEATURES, LOGITS])
        return features, logits

    def published(self, logits: gs.Tensor | None = None) -> Model:
        """Return a copy with the outputs :data:`FEATURES` and :data:`LOGITS`.

        Args:
            logits: a tensor of :attr:`model`; ``None``: :attr:`logits`.
        """
        self.model.graph.outputs = [self.features, self.logits if logits is None else logits]
        result = self.model.copy()
        self.model.graph.outputs = []
        build = HeadBuilder(result, result.require_card())
        tensors = result.graph.tensors()
        for wanted, name in ((self.features, FEATURES), (logits or self.logits, LOGITS)):
            copied = build.node("Identity", name, [tensors[wanted.name]])
            copied.name = name
            copied.dtype, copied.shape = wanted.dtype or np.dtype(np.float32), [None, None]
            result.graph.outputs.append(copied)
        result.tidy()
        return result

    def head(self, device: Device) -> Head | None:
        """Return what makes logits of the features alone; ``None`` where they depend on more."""
        if self.source is None:
            return None
        nodes: list[gs.Node] = []
        wanted: list[gs.Tensor] = [self.logits]
        while wanted:
            tensor = wanted.pop()
            if tensor is self.source or isinstance(tensor, gs.Constant) or not tensor.name:
                continue
            if not tensor.inputs:
                return None
            node = tensor.inputs[0]
            if all(node is not each for each in nodes):
                nodes.append(node)
                wanted += node.inputs
        sort_nodes(self.model.graph)
        order = [node for node in self.model.graph.nodes if any(node is each for each in nodes)]
        found = self._alone(self.source, order, SIDE, device) or self._alone(self.source, order, 1, device)
        return found if found is not None and found.reads_means() else None

    def _alone(self, source: gs.Tensor, order: Sequence[gs.Node], side: int, device: Device) -> Head | None:
        """Return the head on features whose free sides are ``side``; ``None``: it takes none of this size.

        Args:
            source: the features.
            order: its nodes.
            side: of maps whose size is not known.
            device: where it runs.

        Raises:
            GraftError: it does not run at all.
        """
        shape = [side if not isinstance(size, int) else size for size in source.shape or ()]
        example = np.zeros([1, *shape[1:]], source.dtype)
        piece = self.model.piece(order, {source.name: example}, [self.logits.name])
        found = Head(device.open(piece).run, source.name, example, self.axis)
        try:
            found.logits(np.zeros((1, example.shape[self.axis])))
        except GraftError as error:
            if error.code != "run-failed" or side == 1:
                raise
            return None
        return found


def _free_prefix(model: Model, name: str) -> str:
    """Return a prefix for the names of nodes that no node and no tensor has yet."""
    slug = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    taken = {*model.graph.tensors(), *(node.name for node in model.graph.nodes)}
    prefix, number = f"graft/class/{slug}", 1
    while any(each.startswith(f"{prefix}/") for each in taken):
        number += 1
        prefix = f"graft/class/{slug}_{number}"
    return prefix


def _last_reads(model: Model, groups: ChannelGroups, logits: gs.Tensor) -> list[Place]:
    """Return what the last layers with weights read, on all paths to the logits."""
    found: dict[str, Place] = {}
    seen: set[str] = set()
    wanted = [logits]
    while wanted:
        tensor = wanted.pop()
        if tensor.name in seen or not tensor.inputs:
            continue
        seen.add(tensor.name)
        node = tensor.inputs[0]
        if node.op == "DynamicQuantizeLinear":  # the scale of what a layer reads
            continue
        reads = [read for read in operator_of(node).reads(node, groups) if read.recurrent_weight is None]
        places = [Place(node.inputs[read.index].name, read.axis, read.channels) for read in reads[:1]]
        if not reads:
            places = _read_by_computed_weights(node, groups)
        for place in places:
            if groups.sample_axis(model.graph.tensors()[place.tensor]) == 0 and place.axis != 0:
                found.setdefault(place.tensor, place)
        if not places:
            wanted += [each for each in node.inputs if isinstance(each, gs.Variable) and each.name]
    names = list(model.graph.tensors())
    return sorted(found.values(), key=lambda place: names.index(place.tensor))


def _read_by_computed_weights(node: gs.Node, groups: ChannelGroups) -> list[Place]:
    """Return what a layer reads whose weights come from constants by nodes: dequantized ones."""
    if node.op not in CHANNEL_AXES or len(node.inputs) < 2 or not _is_computed(node.inputs[1]):
        return []
    features = node.inputs[0]
    if features.inputs and features.inputs[0].op == "DynamicQuantizeLinear":
        features = features.inputs[0].inputs[0]
    shape = groups.shape(features) or ()
    axis = CHANNEL_AXES[node.op] % max(1, len(shape))
    size = shape[axis] if len(shape) > 1 else None
    return [Place(features.name, axis, np.arange(size))] if isinstance(size, int) else []


def _is_computed(tensor: gs.Tensor) -> bool:
    """Return ``True`` for what is made of constants alone."""
    if isinstance(tensor, gs.Constant):
        return True
    return bool(tensor.inputs) and all(_is_computed(each) for each in tensor.inputs[0].inputs if each.name)


def _plain_input(model: Model) -> list[Place]:
    """Return the only input as features, if it is (samples, values): of linear models, and of trees."""
    inputs = model.graph.inputs
    if len(inputs) != 1 or len(inputs[0].shape or ()) != 2 or not isinstance(inputs[0].shape[1], int):
        return []
    if np.dtype(inputs[0].dtype).kind != "f":
        return []
    return [Place(inputs[0].name, 1, np.arange(inputs[0].shape[1]))]


def _flat(model: Model, groups: ChannelGroups, place: Place, build: HeadBuilder) -> gs.Tensor:
    """Return features (samples, channels), averaged over all other axes, in float32."""
    tensor = model.graph.tensors()[place.tensor]
    rank = len(groups.shape(tensor) or ())
    others = [axis for axis in range(1, rank) if axis != place.axis]
    flat = build.reduce("ReduceMean", tensor, others, f"{place.tensor}/mean", False) if others else tensor
    if tensor.dtype is not None:
        flat = build.cast(flat, np.float32, f"{place.tensor}/single", tensor.dtype)
        flat.dtype = np.dtype(np.float32)
    return flat
