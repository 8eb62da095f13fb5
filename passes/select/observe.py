"""Profile a model: sums per class computed inside the graph, so that only they leave the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Report
from graft.passes.parent import Parent
from graft.passes.select.unseen import check_observed
from graft.rewriter.arrays import Array, Integers, Table
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import IGNORED, Samples
from graft.rewriter.data.sizes import sizes_of
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.graph.order import sort_nodes
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.groups.sample_layout import SampleLayout
from graft.rewriter.measure.evaluation import check_finite, columns
from graft.rewriter.measure.plausible import OutputCheck
from graft.rewriter.record.profile import ACTIVE, PRODUCTS, SQUARES, SUM, Profile, Statistic
from graft.rewriter.run.session import Device

BATCH = 32
"""Larger batches push the activations out of the processor's caches and are slower."""

MEMBERSHIP = "graft/membership"

PRODUCT_NUMBERS = 2**22
"""Products of all pairs of positions are recorded where their table has at most so many numbers."""

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ObserveReport(Report):
    """The profile of a parent; ``changed`` counts the samples.

    Attributes:
        profile: what every channel does for every class.
    """

    profile: Profile


@dataclass(frozen=True)
class Observe:
    """Record, for every class, what every channel does where it is switched on and where it is read.

    For a tensor X of shape (samples, channels, *space) and one-hot classes M (samples, classes) the
    graph gets ``MatMul(M', mean over space of f(X))``, with f(x) = x, x squared, and x > 0. With one label
    a time step, each step of a tensor that has as many is a sample of its own; a sample of any other
    tensor counts once for every step.

    Attributes:
        classes: classes with a row of their own; the others share the row ``(other)``. ``None``: all of them.
        data: fingerprint of the data, kept in the profile.
        batch: samples a run.
        progress: called with the number of samples done after each batch.
    """

    classes: tuple[str, ...] | None = None
    data: str = ""
    batch: int = BATCH
    progress: Progress | None = field(default=None, compare=False)

    def __call__(self, parent: Parent, context: Context) -> ObserveReport:
        """Run samples through ``parent``.

        Args:
            parent: left as it is; the outputs are added to a copy.
            context: labelled samples, and the device that runs them.

        Returns:
            The profile.

        Raises:
            GraftError: there are no samples, or the model puts out numbers that are not finite.
        """
        if context.samples is None:
            raise GraftError("data-missing", "a profile takes labelled samples", "give them")
        parent.count_at(sizes_of(parent.source, context.samples))
        check_observed(parent.groups.sized())
        profile = self.profile(parent.analysed, parent.sha256, context.samples, context.device)
        return ObserveReport(changed=len(context.samples), profile=profile)

    def profile(self, analysed: Analysed, parent: str, samples: Samples, device: Device) -> Profile:
        """Profile a normalized model, which is no parent yet.

        Args:
            analysed: the model with its analysis, left as it is.
            parent: graph hash of the parent, kept in the profile.
            samples: labelled samples.
            device: what runs them.

        Raises:
            GraftError: the model puts out numbers that are not finite.
        """
        labels = samples.card.labels
        names, row_of = _rows(labels, self.classes)
        steps = samples.labels.shape[1] if samples.labels.ndim == 2 else None
        sizes = sizes_of(analysed.model, samples)
        if (
            steps or analysed.groups.unseen()
        ):  # a free length is that of the samples: positions can be counted
            analysed = replace(analysed, groups=analysed.groups.at(sizes).sized())
        probe = _probe(analysed, samples.card.output.name, len(names), steps)
        session, check = device.open(probe.model), OutputCheck(samples.card.output)
        counts, correct = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        sums: dict[tuple[str, str], Table] = {}
        name = samples.card.output.name

        def members(truth: Integers, fed: int) -> dict[str, Array]:
            membership = np.zeros((fed, *truth.shape[1:], len(names)), np.float32)
            counted = truth != IGNORED
            membership[: len(truth)][counted, row_of[truth[counted]]] = 1  # what fills up belongs to no class
            return {MEMBERSHIP: membership}

        for feed, truth in session.batches(samples, self.batch, members):
            counted = truth != IGNORED
            rows = row_of[truth[counted]]
            outputs = session.run(feed)
            counts += np.bincount(rows, minlength=len(names))
            scores = check_finite(session.rows(outputs[name], name, truth), name)
            scores = columns(scores, samples.card.output.kind, len(labels), truth)
            check.see(scores)
            hits = scores.argmax(axis=-1) == truth
            correct += np.bincount(rows, hits[counted], len(names)).astype(np.int64)
            for (statistic, tensor), output in probe.outputs.items():
                table = outputs.pop(output).reshape(len(names), -1)
                if (statistic, tensor) in sums:
                    sums[statistic, tensor] += table
                else:
                    sums[statistic, tensor] = table.astype(np.float64)
            if self.progress:
                self.progress(len(truth))
            del outputs
        del session  # takes as much memory as the weights
        check.warn()
        tables: dict[str, dict[str, Table]] = {}
        for (statistic, tensor), table in sums.items():
            tables.setdefault(statistic, {})[tensor] = table
            if statistic == PRODUCTS.name:
                size = round(table.shape[1] ** 0.5)
                tables.setdefault(SQUARES.name, {})[tensor] = table[:, :: size + 1].copy()
        return Profile(
            *(parent, self.data, names, counts, correct, tables),
            label_source=samples.split.describe()["label_source"],
            sizes=sizes_of(analysed.model, samples),
            label_classes=samples.split.label_classes,
        ).checked()


@dataclass(frozen=True)
class _Probe:
    """A copy of the model with statistics as outputs: (statistic, tensor) to output name."""

    model: Model
    outputs: dict[tuple[str, str], str]


def _rows(labels: Sequence[str], classes: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the rows, and the row of every label."""
    if classes is None or set(classes) >= set(labels):
        return tuple(labels), np.arange(len(labels))
    names = (*[name for name in labels if name in set(classes)], OTHER)
    return names, np.array([names.index(n) if n in names else len(names) - 1 for n in labels])


def _probe(analysed: Analysed, output: str, classes: int, steps: int | None) -> _Probe:
    copy = analysed.copy()
    probe, groups = copy.model, copy.groups
    graph = probe.graph
    members = _Members(probe, classes, steps)
    graph.outputs = [tensor for tensor in graph.outputs if tensor.name == output]
    tensors = graph.tensors()
    outputs: dict[tuple[str, str], str] = {}
    for place, statistics in _wanted(groups, classes):
        key = groups.key(place.tensor, place.axis)
        tap = _Tap(probe, tensors[place.tensor], place, groups, members)
        for statistic in statistics:
            outputs[statistic.name, key] = tap.add(statistic)
    sort_nodes(graph)
    return _Probe(probe, outputs)


class _Members:
    """The classes of samples, or of their time steps, as an input of the graph.

    Attributes:
        steps: labels a sample; ``None``: one, of the sample itself.
        samples: (classes, samples): how many labels of each class a sample has.
        rows: (classes, samples * steps), the class of every step.
    """

    def __init__(self, probe: Model, classes: int, steps: int | None) -> None:
        self.steps = steps
        shape = ["graft_batch", *([steps] if steps else []), classes]
        given = gs.Variable(MEMBERSHIP, np.dtype(np.float32), shape)
        probe.graph.inputs.append(given)
        build = Builder(probe.graph, probe.opset, MEMBERSHIP)
        counts, flat = given, given
        if steps:
            counts = build.total(given, 1, "counts")
            rows = build.constant("flat", np.array([-1, classes], np.int64))
            flat = build.node("Reshape", "by_step", [given, rows])
        self.samples = build.node("Transpose", "samples", [counts], perm=[1, 0])
        self.rows = build.node("Transpose", "rows", [flat], perm=[1, 0])


def _wanted(groups: ChannelGroups, classes: int) -> list[tuple[Place, list[Statistic]]]:
    """Tensors and the statistics to record; squares are the diagonal of the products, where there are any."""
    found: dict[str, tuple[Place, dict[str, Statistic]]] = {}
    for place, statistics in [
        *((place, (ACTIVE, SUM, SQUARES)) for place in groups.activations()),
        *((place, (SUM, SQUARES, PRODUCTS)) for place in groups.reads()),
    ]:
        if not groups.seen(place):
            continue  # not laid out by samples: nothing to add up by class
        known = found.setdefault(groups.key(place.tensor, place.axis), (place, {}))[1]
        known.update({statistic.name: statistic for statistic in statistics})
    for place, known in found.values():
        if classes * len(place.channels) ** 2 > PRODUCT_NUMBERS:
            known.pop(PRODUCTS.name, None)
        if PRODUCTS.name in known:
            known.pop(SQUARES.name)
    return [(place, list(known.values())) for place, known in found.values()]


def _value(build: Builder, statistic: Statistic, tensor: gs.Tensor) -> gs.Tensor:
    """The values of ``tensor`` that ``statistic`` averages."""
    if statistic is SUM:
        return tensor
    if statistic is SQUARES:
        return build.node("Mul", "square", [tensor, tensor])
    # x > 0 as a product and a clip: onnxruntime's casts from bool cost three times as much.
    huge, zero, one = (
        build.constant(name, np.array(value, np.float32))
        for name, value in (("huge", 1e38), ("zero", 0), ("one", 1))
    )
    return build.node("Clip", "above_zero", [build.node("Mul", "steep", [tensor, huge]), zero, one])


class _Tap:
    """Nodes that reduce one tensor to sums by class.

    Attributes:
        tensor: (samples or steps, channels, *others).
        axes: the others.
    """

    def __init__(
        self, probe: Model, tensor: gs.Tensor, place: Place, groups: ChannelGroups, members: _Members
    ) -> None:
        self.probe, self.tensor = probe, tensor
        self.key = groups.key(place.tensor, place.axis)
        self.channels = len(place.channels)
        shape, axis = groups.shapes[place.tensor], place.axis
        layout = groups.sample_layout(place.tensor) or SampleLayout(0)
        first = layout.axis
        build = Builder(probe.graph, probe.opset, f"graft/rows/{self.key}")
        if layout.merged:  # the positions beside the samples are averaged like those of any other axis
            parts = (layout.before, -1, layout.after)
            self.tensor = build.split_axis(self.tensor, shape, first, parts, "split")
            self.tensor.dtype = tensor.dtype
            shape = (*shape[:first], layout.before, None, layout.after, *shape[first + 1 :])
            axis, first = axis + 2 if axis > first else axis, first + 1
        long = [each for each, size in enumerate(shape) if members.steps and size == members.steps]
        time = [each for each in long if each not in (first, axis)]
        others = [each for each in range(len(shape)) if each not in (first, axis, *time)]
        sizes = [shape[each] or -1 for each in others]
        if len(time) != 1 or -1 in sizes:
            time, others = [], sorted([*time, *others])
        self.members = members.rows if time else members.samples
        self.axes = list(range(2, 2 + len(others)))
        if tensor.dtype != np.float32:  # sums in half precision would overflow
            self.tensor = build.node("Cast", "float", [self.tensor], to=int(onnx.TensorProto.FLOAT))
        order = [first, *time, axis, *others]
        if order != sorted(order):
            self.tensor = build.node("Transpose", "turned", [self.tensor], perm=order)
        if time:
            rows = build.constant("shape", np.array([-1, self.channels, *sizes]))
            self.tensor = build.node("Reshape", "steps", [self.tensor, rows])

    def add(self, statistic: Statistic) -> str:
        """Add the nodes for ``statistic``; the name of the output."""
        build = Builder(self.probe.graph, self.probe.opset, f"graft/{statistic.name}/{self.key}")
        if statistic is PRODUCTS:
            value = self._products(build)
        else:
            value = _value(build, statistic, self.tensor)
            value = build.reduce("ReduceMean", value, self.axes, "mean", keep=False) if self.axes else value
        result = build.node("MatMul", "by_class", [self.members, value])
        result.dtype = np.dtype(np.float32)
        self.probe.graph.outputs.append(result)
        return str(result.name)

    def _products(self, build: Builder) -> gs.Tensor:
        """``X X' / positions`` of every row, as a row of channels x channels."""
        flat = build.constant("flat", np.array([0, self.channels, -1], np.int64))
        rows = build.node("Reshape", "rows", [self.tensor, flat])
        size = build.node("Shape", "shape", [rows])
        positions = build.node("Gather", "positions", [size, build.constant("last", np.array(2))], axis=0)
        count = build.node("Cast", "count", [positions], to=int(onnx.TensorProto.FLOAT))
        columns = build.node("Transpose", "columns", [rows], perm=[0, 2, 1])
        table = build.node("Div", "table", [build.node("MatMul", "sums", [rows, columns]), count])
        row = build.constant("row", np.array([0, self.channels**2], np.int64))
        return build.node("Reshape", "flat_table", [table, row])
