"""Latency of a model: measured whole, or predicted under a mask from a table of nodes."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Channels, Mask, Table
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.shapes import Shape
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.operators import Work, operator_of
from graft.rewriter.operators.base import is_constant
from graft.rewriter.run.bounds import TIMED
from graft.rewriter.run.equivalence import draw_inputs
from graft.rewriter.run.session import Device, Session

log = logging.getLogger("graft")

BATCH = 32
"""As ``graft evaluate`` measures."""
STEP = 16
"""Kernels work on so many channels at once: 8 of 16 channels take 0.92 of the time."""
LEVELS = (0.25, 1.0)
"""Shares of its channels that a node is measured with."""
NODE_SECONDS, MODEL_SECONDS = 0.05, 0.3
"""Least time for the runs of a node, and of a model."""
RUNS, TURNS = 2, 3
"""Least number of timed runs, and number of turns that compared models take."""

FINE = 1e-6
"""Seconds: clocks that tick slower cannot time a node."""


@dataclass(frozen=True)
class Timed:
    """Milliseconds a batch of a model and of its parent, measured in turn."""

    milliseconds: float
    parent: float

    @property
    def ratio(self) -> float:
        """The model's share of the parent's latency."""
        return self.milliseconds / self.parent


@dataclass(frozen=True, eq=False)
class Entry:
    """Latency of nodes of one kind, as a function of their numbers of channels.

    Attributes:
        operator: their type.
        counts: float64 (measurements, lists), the number of channels of each list of the node.
        milliseconds: float64 (measurements,).
        coefficients: float64 (2 ** lists,), one for each set of lists whose numbers are multiplied.
    """

    operator: str
    counts: Table
    milliseconds: Table
    coefficients: Table

    @classmethod
    def of(cls, operator: str, counts: Table, milliseconds: Table) -> Entry:
        """Fit the coefficients, none of them negative, to measurements by relative least squares.

        Args:
            operator: type of the nodes.
            counts: (measurements, lists), numbers of channels.
            milliseconds: (measurements,).
        """
        weight = 1 / milliseconds
        rows = _products(_blocked(counts)) * weight[:, None]
        return cls(operator, counts, milliseconds, _not_negative(rows, milliseconds * weight))

    def predict(self, counts: Table) -> float:
        """Return milliseconds with these numbers of channels (lists,); 0 without channels."""
        if not counts.all():
            return 0.0
        return float(_products(_blocked(counts)[None])[0] @ self.coefficients)

    def slopes(self, counts: Table) -> list[float]:
        """Return milliseconds that one channel of each list adds, beside all of the others."""
        whole = _products(_blocked(counts)[None])[0]
        found = []
        for place, count in enumerate(counts):
            fewer = _blocked(counts)
            fewer[place] = 0
            found.append(float((whole - _products(fewer[None])[0]) @ self.coefficients) / count)
        return found


@dataclass
class LatencyTable:
    """Latencies of the nodes of a parent on a device, measured once, kind by kind.

    A node that costs multiply-accumulates is run alone, with a few numbers of channels. Time of the whole
    parent beyond the sum of its nodes is attributed to the sizes of its tensors; where it takes less
    (nodes pass tensors on in the layout of the next one) the nodes are scaled.

    On the CPU the time is that of one thread on its processor: shares of it are those of two threads
    within a tenth, and programs that run beside it, which can double what a clock shows, do not count.

    Args:
        model: the parent.
        device: where to run.
        batch: samples a run, unless the model fixes them.

    Attributes:
        milliseconds: latency of the parent.
        scale: of the times of nodes.
        rate: milliseconds a number in a tensor.
    """

    model: Model
    device: Device
    batch: int = BATCH
    milliseconds: float = 0.0
    scale: float = 1.0
    rate: float = 0.0
    _entries: dict[object, Entry | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.model.copy()
        self.device = replace(self.device, threads=1, patient=False)
        self.inputs = _inputs(self.model, self.batch)
        session = self.device.open(self.model, TIMED)
        self.batch = session.count(self.inputs)
        self.providers = session.providers
        self.milliseconds = _best(session, self.inputs, MODEL_SECONDS)
        self._calibrate()

    def _calibrate(self) -> None:
        whole = LatencyModel(self.analyse(self.model), self)
        alone = whole.milliseconds()
        numbers = sum(work.times * np.prod([len(c) for c in work.channels]) for work in whole.tensors)
        self.scale = min(1.0, self.milliseconds / max(alone, 1e-9))
        self.rate = max(0.0, self.milliseconds - alone) / max(1.0, float(numbers))

    def analyse(self, model: Model) -> ChannelGroups:
        """Return the analysis of ``model``, which takes the parent's input, for the measured batch."""
        model.refresh_shapes()  # infers the types of tensors, too
        return ChannelGroups(model, {name: array.shape for name, array in self.inputs.items()})

    def compare(self, model: Model) -> Timed:
        """Measure ``model`` and the parent in turn, so that a machine that changes its speed is fair."""
        sessions = [self.device.open(each, TIMED) for each in (model, self.model)]
        best = [np.inf, np.inf]
        for _ in range(TURNS):
            for place, session in enumerate(sessions):
                best[place] = min(best[place], _best(session, self.inputs, MODEL_SECONDS / TURNS))
        return Timed(*best)

    def entry(self, node: gs.Node, lists: Sequence[Channels], groups: ChannelGroups) -> Entry | None:
        """Return the latency of nodes of one kind; ``None`` where they cannot be run alone.

        Args:
            node: one of them.
            lists: channels on its tensors that are counted separately.
            groups: the analysis of its model.
        """
        kind = _kind(node, lists, groups)
        if kind not in self._entries:
            self._entries[kind] = self._measure(node, lists, groups)
        return self._entries[kind]

    def _measure(self, node: gs.Node, lists: Sequence[Channels], groups: ChannelGroups) -> Entry | None:
        levels = [sorted({_level(len(each), share) for share in LEVELS}) for each in lists]
        counts = np.array(list(itertools.product(*levels)), float)
        times = []
        for row in counts:
            kept = groups.everything()
            for channels, count in zip(lists, row, strict=True):
                kept[channels[int(count) :]] = False
            try:
                model = _alone(node, groups, kept, self.model)
                times.append(_best(self.device.open(model, TIMED), _inputs(model, self.batch), NODE_SECONDS))
            except GraftError as error:
                log.info("%s counts by the sizes of its tensors: %s", node.name, error.message)
                return None
        return Entry.of(node.op, counts, np.array(times))

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, as results record it."""
        return [
            {
                "operator": entry.operator,
                "channels": entry.counts.astype(int).tolist(),
                "milliseconds": entry.milliseconds.round(4).tolist(),
            }
            for entry in self._entries.values()
            if entry
        ]


class LatencyModel:
    """The latency of a model under any mask of channels, as a table predicts it.

    Args:
        groups: the analysis of the model, by :meth:`LatencyTable.analyse`.
        table: measured on the model's parent.
    """

    def __init__(self, groups: ChannelGroups, table: LatencyTable) -> None:
        self._groups = groups
        self._table = table
        self._nodes: list[tuple[Entry, list[Channels]]] = []
        self.tensors = [_numbers(tensor, groups) for node in groups.nodes for tensor in node.outputs[:1]]
        for node in groups.nodes:
            lists = _lists(node, groups)
            entry = table.entry(node, lists, groups) if operator_of(node).work(node, groups) else None
            if entry:
                self._nodes.append((entry, lists))

    def milliseconds(self, kept: Mask | None = None) -> float:
        """Return the predicted milliseconds for a batch."""
        kept = self._groups.close(self._groups.everything() if kept is None else kept)
        nodes = sum(
            entry.predict(np.array([kept[channels].sum() for channels in lists], float))
            for entry, lists in self._nodes
        )
        numbers = sum(
            work.times * float(np.prod([float(kept[channels].sum()) for channels in work.channels]))
            for work in self.tensors
        )
        return float(self._table.scale * nodes + self._table.rate * numbers)

    def by_channel(self) -> Table:
        """Return milliseconds that each channel number adds beside all the others."""
        saved = np.zeros(self._groups.count)
        for entry, lists in self._nodes:
            slopes = entry.slopes(np.array([len(channels) for channels in lists], float))
            for channels, slope in zip(lists, slopes, strict=True):
                saved[channels] += self._table.scale * slope
        for work in self.tensors:
            whole = work.times * float(np.prod([len(channels) for channels in work.channels]))
            for channels in work.channels:
                np.add.at(saved, channels, self._table.rate * whole / len(channels))
        return saved


# ------------------------------------------------------------------------------- helpers


def _best(session: Session, inputs: Mapping[str, NDArray[Any]], seconds: float) -> float:
    """Milliseconds of the fastest run."""
    session.run(inputs)
    fine = time.get_clock_info("thread_time").resolution < FINE
    if fine and session.providers == ("cpu",):
        fastest = min(_runs(session, inputs, seconds, time.thread_time))
        if fastest > 0:  # on some virtual machines it ticks coarser than it says
            return fastest * 1e3
    return min(_runs(session, inputs, seconds, time.perf_counter)) * 1e3


def _runs(
    session: Session, inputs: Mapping[str, NDArray[Any]], seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Seconds of each run by ``clock``, for at least so many seconds by the wall."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < RUNS or time.perf_counter() < end:
        start = clock()
        session.run(inputs)
        times.append(clock() - start)
    return times


def _inputs(model: Model, batch: int) -> dict[str, NDArray[Any]]:
    """Seeded inputs for a run; a free batch counts as ``batch``, other free axes as the model's sizes say."""
    signature, axes = {}, model.sample_axes()
    for name, (dtype, shape) in model.inputs().items():
        known = model.sizes.get(name, [None] * len(shape))
        asked = [batch if axis == axes[name] else known[axis] for axis in range(len(shape))]
        found = [size if isinstance(size, int) else other for size, other in zip(shape, asked, strict=True)]
        sizes = [size for size in found if size is not None]
        if dtype is None or len(sizes) < len(shape):
            raise GraftError(
                "latency-shape",
                f"latency cannot be measured: input {name} of shape {list(shape)} has free dimensions",
                f"give its shape: --input-shape {name}:1,3,224,224; or use --keep-by macs",
            )
        signature[name] = (dtype, sizes)
    return draw_inputs(signature)


def _level(size: int, share: float) -> int:
    """``share`` of ``size`` channels, in full blocks of the kernels."""
    return min(size, max(1, round(size * share / STEP)) * STEP)


def _blocked(counts: Table) -> Table:
    """Table of channels as kernels see them: a block that is not full takes as long."""
    blocked: Table = np.ceil(counts / STEP) * STEP
    return blocked


def _products(counts: Table) -> Table:
    """For each row of ``counts`` the products of every subset of them, the empty one first."""
    columns = [np.ones(len(counts))]
    for each in counts.T:
        columns += [column * each for column in columns]
    return np.stack(columns, axis=1)


def _not_negative(rows: Table, values: Table) -> Table:
    """Least-squares solution without negative coefficients."""
    scale = np.linalg.norm(rows, axis=0)  # products of channel numbers differ by orders of magnitude
    from scipy.optimize import nnls  # takes as long to import as all of numpy

    return np.asarray(nnls(rows / scale, values)[0] / scale)


def _lists(node: gs.Node, groups: ChannelGroups) -> list[Channels]:
    """The lists of channels on the node's tensors; lists with channels in common are joined."""
    found: list[set[int]] = []
    for tensor in (*node.inputs, *node.outputs):
        for channels in groups.of(tensor):
            if channels is not None:
                numbers = set(channels.tolist())
                found, before = [], found
                for each in before:
                    if each & numbers:
                        numbers |= each
                    else:
                        found.append(each)
                found.append(numbers)
    return [np.array(sorted(each), np.int64) for each in found]


def _kind(node: gs.Node, lists: Sequence[Channels], groups: ChannelGroups) -> object:
    """Key of nodes that take equally long."""
    attributes = sorted((name, str(value)) for name, value in node.attrs.items())
    shapes = [(groups.shape(tensor), str(tensor.dtype), is_constant(tensor)) for tensor in node.inputs]
    return (node.domain, node.op, *attributes, *shapes, *(len(channels) for channels in lists))


def _numbers(tensor: gs.Tensor, groups: ChannelGroups) -> Work:
    """Number of values in a tensor, by its channels."""
    axes, times = groups.of(tensor), 1.0
    for axis, size in enumerate(groups.shape(tensor) or ()):
        times *= 1 if axis < len(axes) and axes[axis] is not None else size or 1
    return Work(times, tuple(channels for channels in axes if channels is not None))


@dataclass
class _Cut:
    """A mask applied to one node; what operator classes see as a cut."""

    graph: gs.Graph
    groups: ChannelGroups
    kept: Mask

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        return self.groups.shape(tensor)

    def keeps(self, tensor: gs.Tensor, axis: int) -> Mask | None:
        channels = self.groups.of(tensor)[axis]
        return None if channels is None else self.kept[channels]


def _alone(node: gs.Node, groups: ChannelGroups, kept: Mask, parent: Model) -> Model:
    """A model of ``node`` alone with the channels that are ``kept``."""
    inputs: dict[str, gs.Tensor] = {}
    for tensor in node.inputs:
        if is_constant(tensor):
            inputs[tensor.name] = gs.Constant(tensor.name, tensor.values)
            continue
        shape = list(groups.shape(tensor) or ())
        for axis, channels in enumerate(groups.of(tensor)):
            shape[axis] = shape[axis] if channels is None else int(kept[channels].sum())
        inputs[tensor.name] = gs.Variable(tensor.name, tensor.dtype, shape)
    ends = [gs.Variable(tensor.name, tensor.dtype) for tensor in node.outputs]
    given = [inputs[tensor.name] for tensor in node.inputs]
    new = gs.Node(node.op, node.name, dict(node.attrs), given, ends, domain=node.domain)
    graph = gs.Graph([new], opset=parent.graph.opset, import_domains=parent.graph.import_domains)
    for parameter in operator_of(node).parameters(node, groups):
        values = node.inputs[parameter.index].values
        for axis, channels in parameter.axes.items():
            values = np.compress(kept[channels], values, axis=axis)
        new.inputs[parameter.index] = gs.Constant(f"{node.name}/{parameter.index}", values)
    operator_of(node).rewrite(new, _Cut(graph, groups, kept))
    graph.inputs = [t for t in new.inputs if not is_constant(t) and t.name]
    graph.inputs = list({tensor.name: tensor for tensor in graph.inputs}.values())
    graph.outputs = [tensor for tensor in new.outputs if tensor.name]
    return Model(graph, None, {}, parent.header, {})
