"""Importance by ablation: what changes between the wanted classes when a channel is turned down?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.special import logsumexp

from graft.passes.identify.method import ImportanceInputs, Method
from graft.rewriter.arrays import Array, Channels, Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.order import sort_nodes
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.groups.sample_layout import SampleLayout
from graft.rewriter.measure.cost import macs_by_node
from graft.rewriter.measure.evaluation import check_finite
from graft.rewriter.measure.speed import Workload
from graft.rewriter.operators import Read, operator_of
from graft.rewriter.run.bounds import of_piece
from graft.rewriter.run.session import Session
from graft.rewriter.run.staged import Batches, StagedRun

SHARES = "graft/shares"
SWITCH = "graft/switch/"
REST = "rest"
BATCH = 64
IMAGES = 32
"""Samples a channel."""
RUNS = 20_000
"""A plan takes at most so many runs of one sample."""
LEAST = 4
"""Samples a channel that a plan takes even so."""

POWER = 0.8
"""Power of the mean squared change. Budgets divide scores by prices, and 0.8 ranks as the square over the
price to 1.25 does: an expensive channel has to bring more than its share. Chosen on held-out training
images of ResNet-20 (two classes, refitted): -2.1 and -5.4 points at 50 and 30 % of the MACs, -2.9 and
-7.1 with 1."""

STEP = 0.05
"""Small enough to add up like a gradient, large enough for float32."""

SWITCHED = 1.3
"""Time of a network with switches over that of the network itself."""
SWITCHES = 3
"""Nodes of a network with switches over those of the network itself."""

TINY = 1e-7
"""Probabilities are taken to be at least this before their logarithm."""


@dataclass(frozen=True)
class Ablation(Method):
    """Measure how far the scores of the wanted classes move against each other when a channel is turned down.

    A channel is turned down at once on every tensor where some node reads it, for all that use the
    tensor, shortcuts too: a stream of many blocks counts for each of them. The score is the squared
    change of the wanted logits around their mean (one class: of its logit against the logsumexp of all
    others), averaged over samples and divided by ``step`` squared. What changes alike for every sample
    is left out: a bias makes up for it. Small steps measure what gradients would: the contribution
    summed over all positions before it is squared.

    All channels share one graph: an extra input says for each sample of a batch what is turned down.

    Attributes:
        images: samples a channel, spread evenly over the classes; fewer, but at least ``LEAST``, where
            all channels together would take more than ``RUNS``.
        step: by how much of itself a channel is turned down; 1 is off.
    """

    images: int = IMAGES
    step: float = STEP

    name: ClassVar[str] = "ablation"
    samples: ClassVar[bool] = True

    def scores(self, inputs: ImportanceInputs) -> Scores:
        """Return powers of mean squared changes; what is pinned or cannot be turned down has the highest.

        Raises:
            GraftError: there are no samples, or none of the classes.
        """
        samples, groups = self.required_samples(inputs), inputs.groups
        atoms = _atoms(groups)
        switched = _Switched(inputs, _draw(inputs, samples, self._images(atoms)))
        result = np.zeros(groups.count)
        result[atoms] = switched.changes(atoms, self.step) ** POWER
        result[np.setdiff1d(np.flatnonzero(groups.atoms), atoms)] = result.max(initial=0.0)
        return result

    def runs(self, groups: ChannelGroups) -> int:
        """Return how often :meth:`scores` runs a part of the model on one sample."""
        atoms = _atoms(groups)
        return len(atoms) * self._images(atoms)

    def workload(self, groups: ChannelGroups) -> Workload:
        """Return the runs, each of the model from the first node on that turns the channel down."""
        atoms, first = _atoms(groups), np.full(groups.count, len(groups.nodes))
        for place, node in reversed(list(enumerate(groups.nodes))):
            for read in _reads_of(node, groups):
                first[groups.behind(read.channels)] = place
        behind = np.append(np.cumsum(macs_by_node(groups)[::-1])[::-1], 0.0)
        recurrent = any(read.recurrent_weight is not None for _, read in _reads(groups))
        starts = np.zeros(len(atoms), np.int64) if recurrent else first[atoms]
        macs = SWITCHED * self._images(atoms) * float(behind[starts].sum())
        return Workload(macs=macs, nodes=SWITCHES * len(groups.nodes) * len(np.unique(starts)))

    def _images(self, atoms: Channels) -> int:
        """Return the number of samples a channel."""
        return int(np.clip(RUNS // max(1, len(atoms)), LEAST, self.images))


@dataclass(frozen=True)
class _Rest:
    """The model from some node on.

    Attributes:
        session: what runs it.
        values: what it reads, of all samples, apart from the switches.
    """

    session: Session
    values: Mapping[str, Array]


class _Switched:
    """The model with switches for channels, on a few samples.

    What comes before the first switch of a channel is the same whether it is on or not: computed once.
    """

    def __init__(self, inputs: ImportanceInputs, samples: Samples) -> None:
        self.inputs = inputs
        (prepared, _) = next(iter(samples.batches(len(samples))))
        self.count = len(samples)
        self.recurrent = any(read.recurrent_weight is not None for _, read in _reads(inputs.groups))
        self.model, self.device = _with_switches(inputs), inputs.device
        self.tensors = inputs.model.graph.tensors()
        session = self.device.open(self.model)
        count = inputs.groups.count
        session.probe(samples, lambda _, fed: {SHARES: np.ones((fed, count), np.float32)})
        self.whole = _Rest(session, prepared)

    def changes(self, atoms: Channels, step: float) -> Scores:
        """Return for each of ``atoms`` the mean squared change of the wanted classes' scores."""
        result, starts = np.zeros(len(atoms)), self._starts(atoms)
        ones = {**self.whole.values, SHARES: np.ones((self.count, self.inputs.groups.count), np.float32)}
        fed = self.whole.session.feed(ones)
        staged = StagedRun(self.model, Batches.of(fed, self.count), self.device)
        for start in np.unique(starts):
            own = starts == start
            result[own] = self._changes(self._from(start, staged) if start else self.whole, atoms[own], step)
        return result

    def _starts(self, atoms: Channels) -> NDArray[np.int64]:
        """Return for each of ``atoms`` the place of the first node that turns it down; 0 if unknown."""
        groups = self.inputs.groups
        found = np.full(groups.count, len(self.model.graph.nodes))
        if self.recurrent or self.whole.session.batch:
            return np.zeros(len(atoms), np.int64)
        for place, node in reversed(list(enumerate(self.model.graph.nodes))):
            if node.inputs and node.inputs[0].name == SHARES:
                found[groups.behind(node.inputs[1].values)] = place
        starts = found[atoms]
        return np.where(starts < len(self.model.graph.nodes), starts, 0)

    def _from(self, start: int, staged: StagedRun) -> _Rest:
        """Return the model from node ``start`` on; the whole unless all it reads is laid out by samples."""
        nodes = self.model.graph.nodes
        names = [name for name in staged.living(nodes[start]) if name != SHARES]
        if not all(self._by_sample(name) for name in names):
            return self.whole
        (values,) = staged.at(nodes[start], names)
        examples = {**values, SHARES: np.ones((1, 1), np.float32)}
        outputs = [tensor.name for tensor in self.model.graph.outputs]
        if any(name in values for name in outputs):
            return self.whole
        piece = self.model.piece(nodes[start:], examples, outputs)
        return _Rest(self.device.open(piece, of_piece()), values)

    def _by_sample(self, name: str) -> bool:
        """Return whether samples lie along the first axis of a tensor."""
        while name.startswith(SWITCH):
            name = name[len(SWITCH) :].rsplit("/", 2)[0]
        tensor = self.tensors.get(name)
        return tensor is not None and self.inputs.groups.sample_axis(tensor) == 0

    def _changes(self, rest: _Rest, atoms: Channels, step: float) -> Scores:
        groups, result = self.inputs.groups, np.zeros(len(atoms))
        on = self._run(rest, np.ones((1, groups.count)))
        at_once = 1 if self.recurrent else max(1, BATCH // self.count)
        for start in range(0, len(atoms), at_once):
            part = atoms[start : start + at_once]
            shares = np.ones((len(part), groups.count))
            for row, atom in enumerate(part):
                shares[row, atom] = 1 - step
                shares[row] = groups.close(shares[row])
            change = (self._run(rest, shares) - on) / step
            change -= change.mean(axis=1, keepdims=True)
            result[start : start + at_once] = (change**2).sum(axis=-1).reshape(len(part), -1).mean(axis=1)
        return result

    def _run(self, rest: _Rest, shares: Scores) -> Array:
        """Return centred scores of the wanted classes: (rows of ``shares``, samples, ..., classes)."""
        rows = np.repeat(np.arange(len(shares)), self.count)
        images = np.tile(np.arange(self.count), len(shares))
        fixed = self.whole.session.batch
        batch, found = fixed or BATCH, []
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            feed = {name: array[images[part]] for name, array in rest.values.items()}
            feed[SHARES] = shares[rows[part]].astype(np.float32)
            outputs = rest.session.run(rest.session.feed(feed))
            found.append(_contrast(self.inputs, outputs)[: len(rows[part])])
        values = np.concatenate(found)
        return values.reshape(len(shares), self.count, *values.shape[1:])


def _atoms(groups: ChannelGroups) -> Channels:
    """Return the channels that can be pruned and turned down."""
    read = np.zeros(groups.count, bool)
    for _, each in _reads(groups):
        read[groups.behind(each.channels)] = True
    return np.flatnonzero(groups.cuttable() & groups.atoms & read)


def _reads(groups: ChannelGroups) -> list[tuple[gs.Node, Read]]:
    """Return where nodes read channels, on tensors that are laid out by samples."""
    return [(node, read) for node in groups.nodes for read in _reads_of(node, groups)]


def _reads_of(node: gs.Node, groups: ChannelGroups) -> list[Read]:
    """Return where one node does."""
    operator = operator_of(node)
    reads = [*operator.reads(node, groups), *operator.masks(node, groups)] or _weighted(node, groups)
    return [read for read in reads if groups.seen(Place(read.tensor(node).name, read.axis, read.channels))]


def _weighted(node: gs.Node, groups: ChannelGroups) -> list[Read]:
    """Return what a node weighs that does not say what it reads: the inputs of recurrent layers."""
    wanted = {
        parameter.axes[parameter.reads].tobytes()
        for parameter in operator_of(node).parameters(node, groups)
        if parameter.reads is not None
    }
    return [
        Read(index, axis, channels)
        for index, tensor in enumerate(node.inputs)
        if isinstance(tensor, gs.Variable)
        for axis, channels in enumerate(groups.of(tensor))
        if channels is not None and channels.tobytes() in wanted
    ]


def _draw(inputs: ImportanceInputs, samples: Samples, count: int) -> Samples:
    """Draw about ``count`` samples, as many of each class; of one class, as many of it as of all others."""
    labels = samples.labels.reshape(len(samples), -1)
    kinds = [(labels == samples.card.class_index(name)).any(axis=1) for name in inputs.classes]
    if len(kinds) == 1:
        kinds.append(~kinds[0])
    kinds = [kind for kind in kinds if kind.any()]
    if not kinds:
        raise GraftError(
            "class-empty",
            f"there is no sample of {', '.join(inputs.classes[:3])} to turn channels down on",
            "give samples of the classes, or choose a method that needs none, such as relevance",
        )
    random = np.random.default_rng(inputs.seed)
    each = max(1, count // len(kinds))
    drawn = np.unique(np.concatenate([random.permutation(np.flatnonzero(kind))[:each] for kind in kinds]))
    return samples.take(np.sort(random.permutation(drawn)[:count]))


def _with_switches(inputs: ImportanceInputs) -> Model:
    """Return the model with ``x * shares`` in place of every x that is read.

    What a node reads of its own is turned down in the weights, for all samples as for the first.
    """
    copy = inputs.analysed.copy()
    model, groups = copy.model, copy.groups
    switches = _Switches(model, groups.count)
    tensors = model.graph.tensors()
    places = {}
    for node, read in _reads(groups):
        if read.recurrent_weight is None:
            places[read.tensor(node).name, read.axis] = read.channels
        else:
            node.inputs[read.recurrent_weight] = switches.on_weight(
                node.inputs[read.recurrent_weight], read.channels
            )
    for (name, axis), channels in places.items():
        whole = tensors[name]
        users = list(dict.fromkeys(node.name for node in whole.outputs))
        layout = groups.sample_layout(name) or SampleLayout(0)
        tensors[name] = switches.on_tensor(whole, groups.shapes[name], layout, axis, channels)
        for node in model.graph.nodes:
            if node.name in users:
                node.inputs = [tensors[name] if tensor is whole else tensor for tensor in node.inputs]
    sort_nodes(model.graph)
    _gather(model)
    return model


def _gather(model: Model) -> None:
    """Put the nodes of each switch together, in front of where it acts."""
    acts = {
        node.name.rsplit("/", 1)[0]: place
        for place, node in enumerate(model.graph.nodes)
        if node.name.startswith(SWITCH)
    }
    order = [acts.get(node.name.rsplit("/", 1)[0], place) for place, node in enumerate(model.graph.nodes)]
    model.graph.nodes = [model.graph.nodes[place] for place in np.argsort(order, kind="stable")]


class _Switches:
    """Shares of channels, an input of the graph, and the nodes that apply them."""

    def __init__(self, model: Model, count: int) -> None:
        self._model = model
        self._shares = gs.Variable(SHARES, np.dtype(np.float32), ["graft_batch", count])
        model.graph.inputs.append(self._shares)

    def on_tensor(
        self, whole: gs.Tensor, sizes: Shape, layout: SampleLayout, axis: int, channels: Channels
    ) -> gs.Variable:
        """Return ``whole`` times the shares of ``channels`` along ``axis``, of each sample its own.

        Args:
            whole: a tensor.
            sizes: of its axes.
            layout: where the samples lie.
            axis: the one of the channels.
            channels: along it.
        """
        build = Builder(self._model.graph, self._model.opset, f"{SWITCH}{whole.name}/{axis}")
        share = build.node("Gather", "shares", [self._shares, build.constant("channels", channels)], axis=1)
        tensor, rank, samples, place = whole, len(sizes), layout.axis, axis
        if layout.merged:
            tensor = build.split_axis(whole, sizes, samples, (layout.before, -1, layout.after), "split")
            tensor.dtype = whole.dtype
            rank, samples, place = rank + 2, samples + 1, axis + 2 if axis > samples else axis
        if place < samples:
            share = build.node("Transpose", "turned", [share], perm=[1, 0])
        shape = np.ones(rank, np.int64)
        shape[samples], shape[place] = -1, len(channels)
        result = self._times(build, tensor, share, shape)
        if layout.merged:
            result = build.split_axis(result, sizes, layout.axis, (-1,), "merged")
            result.dtype = whole.dtype
        return result

    def on_weight(self, whole: gs.Tensor, channels: Channels) -> gs.Variable:
        """Return ``whole`` times the first sample's shares of ``channels`` along its last axis."""
        build = Builder(self._model.graph, self._model.opset, f"{SWITCH}{whole.name}")
        first = build.node("Gather", "first", [self._shares, build.constant("zero", np.array([0]))], axis=0)
        share = build.node("Gather", "shares", [first, build.constant("channels", channels)], axis=1)
        return self._times(build, whole, share, np.array([1] * (len(whole.shape) - 1) + [len(channels)]))

    @staticmethod
    def _times(build: Builder, whole: gs.Tensor, share: gs.Tensor, shape: NDArray[np.int64]) -> gs.Variable:
        share = build.node("Reshape", "shaped", [share, build.constant("shape", shape)])
        if whole.dtype not in (None, np.float32):
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(whole.dtype))
            share = build.node("Cast", "typed", [share], to=int(kind))
        result = build.node("Mul", "times", [whole, share])
        result.dtype = whole.dtype
        return result


def _contrast(inputs: ImportanceInputs, outputs: Mapping[str, Array]) -> Array:
    """Return wanted logits around their mean; of one class, against the logsumexp of the rest."""
    card = inputs.model.require_card()
    name = card.output.name
    scores = check_finite(outputs[name], name).astype(np.float64)
    if card.output.kind == "probabilities":
        scores = np.log(np.maximum(scores, TINY))
    lowest = scores.max(axis=-1, keepdims=True) + np.log(TINY)
    scores = np.where(np.isneginf(scores), lowest, scores)
    wanted = [column for column, label in enumerate(card.labels) if label in inputs.classes]
    others = [column for column in range(len(card.labels)) if column not in wanted]
    logits = scores[..., wanted]
    if len(wanted) == 1 and others:
        logits = np.concatenate([logits, logsumexp(scores[..., others], axis=-1, keepdims=True)], axis=-1)
    elif len(wanted) == 1 and REST in outputs:
        rest = np.where(np.isneginf(outputs[REST]), lowest, outputs[REST])
        logits = np.concatenate([logits, rest], axis=-1)
    if logits.shape[-1] == 1:
        return np.asarray(logits)
    return np.asarray(logits - logits.mean(axis=-1, keepdims=True))
