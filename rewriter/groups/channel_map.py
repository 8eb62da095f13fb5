"""The channels on every axis of every tensor of a graph: the first step of the analysis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Axes, Channels, Mask, Scores
from graft.rewriter.channels.coupling import distinct
from graft.rewriter.channels.flow import ChannelOrigin, Flow, TooManyChannelsError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.sample_axes import fixed_batch
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.graph.sizes import Sizes, sizes_to_json
from graft.rewriter.groups.sample_layout import SampleLayout, sample_layouts
from graft.rewriter.operators import Operator, operator_of, same_shape
from graft.rewriter.operators.unfit import naming

TOO_LONG = "its output is too long to follow channels along it"
Number = TypeVar("Number", np.bool_, np.float64)


class Products:
    """Which channel numbers are products of which.

    Args:
        roots: for every channel number the one that all channels tied to it share.
        factors: for roots that are products the atoms that they are the product of.

    Attributes:
        numbers: for every channel number the one that all that are equal to it share.
        atoms: the mask of numbers that are no products.
        owners: product numbers, as often as they have factors.
        factors: beside each of ``owners`` one of its factors.
    """

    def __init__(self, roots: Channels, factors: Mapping[int, tuple[int, ...]]) -> None:
        distinct, places = np.unique(roots, return_index=True)
        number_of = np.arange(len(roots), dtype=np.int64)
        first: dict[frozenset[int], int] = {}
        for place, root in sorted(zip(places.tolist(), distinct.tolist(), strict=True)):
            atoms = factors.get(root, ())
            if len(atoms) == 1:
                number_of[root] = atoms[0]
            elif atoms:
                number_of[root] = first.setdefault(frozenset(atoms), place)
        pairs = [(number, atom) for found, number in first.items() for atom in sorted(found)]
        self.numbers: Channels = number_of[roots]
        self.owners, self.factors = np.array(pairs, np.int64).reshape(-1, 2).T
        self.atoms: Mask = np.ones(len(roots), bool)
        self.atoms[self.owners] = False

    def factors_of(self, channels: Channels) -> Channels:
        """Return the factors of those of ``channels`` that are products, as often as they are."""
        return self.factors[np.isin(self.owners, channels)]


class ChannelMap:
    """Channel numbers on every axis of every tensor, with every tie resolved.

    Args:
        model: an unchanged model; its graph is only read.
        input_shapes: full shapes of inputs whose dimensions (beside the batch) are free.
        outputs_open: do not pin channels that reach a graph output.

    Attributes:
        nodes: the nodes of the graph.
        path: of the model's file, for messages.
        shapes: tensor name to shape.
        samples: the batch size that the shapes are for.
        sizes: of free axes, at which costs are counted.
        origins: the channels that each node made, in the order of the file, before ties.
        roots: for every channel number the one that all channels tied to it share.
        factors: for roots that are products the atoms that they are the product of, in the order of the axes.
        pinned: atoms that always stay to the reason.
    """

    def __init__(
        self,
        model: Model,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        outputs_open: bool = False,
    ) -> None:
        given = {name: tuple(shape) for name, shape in (input_shapes or {}).items()}
        self._infer = model.shapes_by_batch(same_shape())
        inferred: Callable[[int], dict[str, Shape]] = cache(lambda batch: self._infer(batch, given))
        self.shapes = inferred(2)
        self.sizes: Sizes = {n: size for n, size in model.fitting_sizes().items() if n not in given}
        self._sized: dict[str, dict[str, Shape]] = {}
        self._layouts: dict[str, SampleLayout] | None = None
        self.nodes: list[gs.Node] = list(model.graph.nodes)
        self.path = model.path
        self._inputs = [tensor.name for tensor in model.graph.inputs]
        self._shapes_of = inferred
        axes = model.sample_axes()
        self.samples = fixed_batch({name: self.shapes[name] for name in self._inputs}, axes) or 1
        flow = Flow(self.shapes, model.opset, lambda: inferred(3))
        for node in self.nodes:
            with naming(node, self.path):
                _visit(node, flow)
        for tensor in () if outputs_open else model.graph.outputs:
            for channels in flow.of(tensor):
                flow.pin_because(channels, f"output {tensor.name}")
        self.origins: Sequence[ChannelOrigin] = flow.origins
        self.roots, self.factors = flow.resolved()
        self.products = Products(self.roots, self.factors)
        self.pinned = flow.pinned(self.roots, self.factors)
        self._axes = {
            name: [None if channels is None else self.products.numbers[channels] for channels in axes]
            for name, axes in flow.axes.items()
        }

    # ------------------------------------------------------------ handing on

    def on(self, model: Model) -> ChannelMap:
        """Return the same map for ``model``, a copy of the one that was analysed."""
        found = copy.copy(self)
        found.nodes = list(model.graph.nodes)
        found.shapes, found._axes = dict(self.shapes), dict(self._axes)
        return found

    def at(self, sizes: Sizes) -> ChannelMap:
        """Return the same map, with costs counted at ``sizes``."""
        found = copy.copy(self)
        found.sizes = sizes
        return found

    def sized(self) -> ChannelMap:
        """Return the same map with the shapes that tensors have at :attr:`sizes`."""
        if not self.sizes:
            return self
        found = copy.copy(self)
        found.shapes = {**self.shapes, **self._at_sizes(2)}
        found._shapes_of, found._layouts = self._at_sizes, None
        return found

    def _at_sizes(self, batch: int) -> dict[str, Shape]:
        """Return the shapes of tensors at :attr:`sizes`, inferred once for all copies of the map."""
        key = f"{batch} {sizes_to_json(self.sizes)}"
        if key not in self._sized:
            self._sized[key] = self._infer(batch, self.sizes)
        return self._sized[key]

    def alias(self, new: gs.Tensor, like: gs.Tensor) -> None:
        """Let ``new``, which a pass put in front of ``like``, have its shape and carry its channels."""
        if like.name in self.shapes:
            self.shapes[new.name] = self.shapes[like.name]
        if like.name in self._axes:
            self._axes[new.name] = self._axes[like.name]

    def grow(self, model: Model) -> None:
        """Take up the nodes and constants that a pass added to ``model``, whose tensors have an alias."""
        self.nodes = list(model.graph.nodes)
        for node in self.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant):
                    self.shapes.setdefault(tensor.name, tuple(tensor.shape))

    # ------------------------------------------------------------ tensors

    def of(self, tensor: gs.Tensor) -> Axes:
        """Return the channels on each axis of ``tensor``."""
        return self._axes.get(tensor.name) or [None] * len(self.shapes.get(tensor.name, ()))

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """Return the shape of ``tensor`` in the model, for a batch of 2 where the batch is free."""
        return self.shapes.get(tensor.name)

    def sample_axis(self, tensor: gs.Tensor) -> int | None:
        """Return the axis of ``tensor`` along which samples lie, each at one place, or ``None``."""
        return self.sample_axis_of(tensor.name)

    def sample_axis_of(self, tensor: str) -> int | None:
        """Return the same as :meth:`sample_axis`, of a tensor by its name."""
        shape, larger = self.shapes.get(tensor) or (), self._shapes_of(3)
        if all(larger.get(name) == self.shapes[name] for name in self._inputs):  # a fixed batch
            return 0 if shape and shape[0] == self.samples else None
        pairs = zip(shape, larger.get(tensor) or shape, strict=True)
        grown = [axis for axis, (size, other) in enumerate(pairs) if size != other]
        return grown[0] if len(grown) == 1 and shape[grown[0]] == self.samples else None

    def sample_layout(self, tensor: str) -> SampleLayout | None:
        """Return how samples lie in a tensor, perhaps merged with other positions; ``None``: not known."""
        axis = self.sample_axis_of(tensor)
        if axis is not None:
            return SampleLayout(axis)
        if self._layouts is None:
            self._layouts = sample_layouts(self.nodes, self.shapes, self._shapes_of(3))
        found = self._layouts.get(tensor)
        known = found is not None and None not in self.shapes[tensor][found.axis + 1 :]
        return found if known and found is not None and found.merged else None

    def key(self, tensor: str, axis: int) -> str:
        """Return the name of statistics along an axis: the tensor's, with the axis unless it is the first."""
        axes = self._axes.get(tensor, [])
        first = next((place for place, found in enumerate(axes) if found is not None), axis)
        return tensor if axis == first else f"{tensor}@{axis}"

    @cached_property
    def lists(self) -> tuple[Channels, ...]:
        """Every list of channels on an axis, once."""
        found = {
            channels.tobytes(): channels
            for axes in self._axes.values()
            for channels in axes
            if channels is not None
        }
        return tuple(found.values())

    # ------------------------------------------------------------ channel numbers

    @property
    def count(self) -> int:
        """The number of channel numbers: the length of arrays indexed by channel."""
        return len(self.products.numbers)

    @property
    def atoms(self) -> Mask:
        """The mask of channel numbers that are no products: what plans are made of."""
        return self.products.atoms

    def everything(self) -> Mask:
        """Return the mask, one flag a channel number, that keeps all."""
        return np.ones(self.count, bool)

    def behind(self, channels: Channels) -> Channels:
        """Return the atoms that ``channels`` are, or are products of."""
        return distinct(np.concatenate([channels[self.atoms[channels]], self.products.factors_of(channels)]))

    def close(self, values: NDArray[Number]) -> NDArray[Number]:
        """Return ``values``, at every product the least of its factors': of a mask, whether all stay."""
        closed, products = values.copy(), self.products
        closed[products.owners] = values[products.factors]
        np.minimum.at(closed, products.owners, values[products.factors])
        return closed

    def to_atoms(self, values: Scores) -> Scores:
        """Return figures that add up, one a channel number: a product's goes to each of its factors."""
        products = self.products
        result = np.where(products.atoms, values, 0.0)
        np.add.at(result, products.factors, values[products.owners])
        return result


# ------------------------------------------------------------------------------- the nodes, one by one


def _visit(node: gs.Node, flow: Flow) -> None:
    """Let channels pass through a node, all of whose inputs were visited before."""
    _pin_captured(node, flow)
    operator = operator_of(node)
    if flow.batched:
        _pin_batched(node, operator, flow)
    made = len(flow.origins)
    try:
        operator.flow(node, flow)
    except TooManyChannelsError:
        flow.pin_inputs(node, TOO_LONG)
        for origin in flow.origins[made:]:
            flow.pin(origin.channels, node, TOO_LONG)
        return
    silent = any(output.name not in flow.axes for output in node.outputs[:1])
    if silent and not operator.outputs_no_channels:
        flow.pin_inputs(node, "its output is of unknown shape")


def _pin_batched(node: gs.Node, operator: Operator, flow: Flow) -> None:
    """Pin channels on axes that grow with the batch, where the node depends on their number."""
    for tensor in node.inputs:
        axes = flow.of(tensor)
        for axis, channels in enumerate(axes):
            counted = channels is not None and operator.counts(node, axis, len(axes))
            if counted and flow.grows(tensor, axis):
                flow.pin(channels, node, "reads channels that are merged with the batch")


def _pin_captured(node: gs.Node, flow: Flow) -> None:
    """Pin what the bodies of control-flow nodes read from outside."""
    for body in (value for value in node.attrs.values() if isinstance(value, gs.Graph)):
        for inner in body.nodes:
            for tensor in inner.inputs:
                for channels in flow.axes.get(tensor.name, []):
                    flow.pin(channels, node, "read inside its body")
            _pin_captured(inner, flow)
        for tensor in body.outputs:
            for channels in flow.axes.get(tensor.name, []):
                flow.pin(channels, node, "read inside its body")
