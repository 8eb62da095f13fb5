"""A joint head: one closed-form classifier over what all branches of a composite know of a sample."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from graft.rewriter.arrays import Table
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.measure import metrics
from graft.rewriter.measure.evaluation import check_finite
from graft.rewriter.run.session import Device, fit

READ = "graft/joint/read"
"""The output of a composite that holds what the head reads, (samples, values)."""
BATCH = 64
FOLDS = 5
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of the squared weights, of values that vary by 1."""
HIDDEN = 512
FEWEST_HIDDEN = 32
TEMPERATURES = np.geomspace(0.02, 10, 61)


@dataclass(frozen=True)
class JointReport:
    """What was fitted.

    Attributes:
        samples: how many it was fitted to.
        top1: accuracy on folds that were left out.
        before: accuracy of the scores without data, on the same samples.
        penalty: what was chosen.
        hidden: random features beside the values themselves; 0: the head is linear in them.
        used: whether it took the place of the scores: where it is at least as good.
    """

    samples: int
    top1: float
    before: float
    penalty: float
    hidden: int
    used: bool


@dataclass(frozen=True)
class RidgeHead:
    """``scores(x) = (x, relu(x A + a)) W + b``.

    Attributes:
        inner: float32 (values, hidden) and (hidden,); ``None``: nothing hidden.
        weights: float64 (values + hidden, classes).
        constant: float64 (classes,).
    """

    inner: tuple[Table, Table] | None
    weights: Table
    constant: Table

    def write(self, build: Builder, read: gs.Tensor) -> gs.Variable:
        """The scores (samples, classes) of what is ``read`` (samples, values), float32."""
        if self.inner is None:
            return build.affine("scores", read, self.weights, self.constant)
        hidden = build.node("Relu", "hidden", [build.affine("random", read, *self.inner)])
        both = build.node("Concat", "all", [read, hidden], axis=1)
        return build.affine("scores", both, self.weights, self.constant)


def known(model: Model) -> list[Place]:
    """What a joint head reads of a module: its first activations, and its last features.

    The last features tell the classes of the module apart; the first ones tell how a sample looks that
    it never learned.
    """
    groups = ChannelGroups(model)
    tensors = model.graph.tensors()
    last = last_features(model, groups, model.require_card().output.name)
    seen = (
        place
        for place in groups.activations()
        if groups.sample_axis(tensors[place.tensor]) == 0 and place.axis != 0
    )
    found = {place.tensor: place for place in (next(seen, None), last) if place}
    return list(found.values())


class JointHead:
    """Fit a head to samples and let it decide.

    Least squares of one-hot labels with a penalty on the weights, every class weighing the same; the
    penalty is the best of :data:`PENALTIES` by the squared error on five folds. Where there is room, a
    layer of random features stands beside the values (random weights, rectified: Rahimi and Recht,
    NeurIPS 2008) if it is better on the folds by more than one standard error. Scores are divided by the
    temperature that makes them the most likely logits on the folds.

    Args:
        device: where the composite runs.
        room: multiply-accumulates that a head with random features may take.
        seed: draws folds and random features.
    """

    def __init__(self, device: Device, room: int = 0, seed: int = 0) -> None:
        self.device = device
        self.room = room
        self.seed = seed

    def __call__(self, model: Model, samples: Samples) -> JointReport:
        """Fit the head of ``model``, which has the output :data:`READ` and loses it.

        Raises:
            GraftError: fewer than two samples of a class.
        """
        values, before = observe(model, samples, self.device)
        best = choose(values, samples.labels, self.seed, self.room)
        used = bool(best.correct.mean() >= before.mean())
        decide(model, (lambda build, read: best.head.write(build, read)) if used else None)
        top1, without = float(best.correct.mean()), float(before.mean())
        return JointReport(len(values), top1, without, best.penalty, best.hidden, used)


def observe(model: Model, samples: Samples, device: Device) -> tuple[Table, NDArray[np.bool_]]:
    """What the output :data:`READ` of a composite holds, and where its scores as they are are right.

    Raises:
        GraftError: fewer than two samples of a class.
    """
    counts = np.bincount(samples.labels, minlength=len(samples.card.labels))
    if counts.min() < 2:
        name = samples.card.labels[int(counts.argmin())]
        raise GraftError(
            "joint-samples",
            f"to compare networks takes two samples of each class, and there are {counts.min()} of {name}",
            "give more data, or choose scores that take none",
        )
    values, scores = run(model, samples, device)
    return values, scores.argmax(axis=-1) == samples.labels


def run(model: Model, samples: Samples, device: Device, read: str = READ) -> tuple[Table, Table]:
    """What the outputs ``read`` and scores of ``model`` hold, float64."""
    session, name = device.open(model), samples.card.output.name
    values, scores = [], []
    for inputs, labels in samples.batches(session.batch or BATCH):
        found = session.run(fit(inputs, session.batch), [name, read])
        values.append(check_finite(found[read], read)[: len(labels)])
        scores.append(check_finite(found[name], name)[: len(labels)])
    return np.concatenate(values).astype(np.float64), np.concatenate(scores).astype(np.float64)


def decide(model: Model, scores: Callable[[Builder, gs.Tensor], gs.Tensor] | None) -> None:
    """Let what ``scores`` makes of :data:`READ` be the scores of a composite; ``None``: it stays as it is.

    The output :data:`READ` goes.
    """
    graph, name = model.graph, model.require_card().output.name
    output = next(tensor for tensor in graph.outputs if tensor.name == name)
    read = next(tensor for tensor in graph.outputs if tensor.name == READ)
    others = [tensor for tensor in graph.outputs if tensor.name not in (READ, name)]
    if scores is not None:
        build = Builder(graph, model.opset, "graft/joint")
        found = scores(build, read)
        if model.require_card().output.kind == "probabilities":
            found = build.node("Softmax", "shares", [found], axis=-1)
        found.name, output.name = output.name, f"{build.prefix}/before"
        found.dtype, found.shape = np.dtype(np.float32), output.shape
        output = found
    graph.outputs = [output, *others]
    model.tidy()


@dataclass(frozen=True)
class Choice:
    """A kind of head, as it does on samples left out.

    Attributes:
        rows: float64 (samples, values), standardised.
        moved: what was taken off the values, and what they were divided by.
        labels: int64 (samples,).
        inner: of random features.
        penalty: the best.
        temperature: what scores are divided by.
        scores: float64 (samples, classes), each as predicted by the fit without its fold.
    """

    rows: Table
    moved: tuple[Table, Table]
    labels: NDArray[np.int64]
    inner: tuple[Table, Table] | None
    penalty: float
    temperature: float
    scores: Table

    @classmethod
    def find(
        cls,
        rows: Table,
        moved: tuple[Table, Table],
        labels: NDArray[np.int64],
        folds: NDArray[np.int64],
        inner: tuple[Table, Table] | None,
    ) -> Choice:
        """With the penalty that has the smallest squared error on the folds."""
        values = _extended(rows, inner)
        weights, targets = balance(labels), np.eye(labels.max() + 1)[labels]
        scores = np.zeros((len(PENALTIES), *targets.shape))
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            fits = _ridge(values[inside], targets[inside], weights[inside], PENALTIES)
            for found, (coefficients, constant) in zip(scores, fits, strict=True):
                found[outside] = values[outside] @ coefficients + constant
        errors = [float(weights @ ((found - targets) ** 2).sum(axis=1)) for found in scores]
        best = int(np.argmin(errors))
        temperature = _temperature(scores[best], labels, weights)
        return cls(rows, moved, labels, inner, PENALTIES[best], temperature, scores[best] / temperature)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the highest score is that of the label."""
        return np.asarray(self.scores.argmax(axis=1) == self.labels)

    @property
    def hidden(self) -> int:
        """The number of random features."""
        return 0 if self.inner is None else len(self.inner[1])

    @functools.cached_property
    def head(self) -> RidgeHead:
        """Fitted to all samples, for values as they come; its scores are the likeliest logits."""
        targets = np.eye(self.labels.max() + 1)[self.labels]
        values = _extended(self.rows, self.inner)
        ((weights, constant),) = _ridge(values, targets, balance(self.labels), [self.penalty])
        weights, constant = weights / self.temperature, constant / self.temperature
        center, scale = self.moved
        direct = weights[: len(center)] / scale[:, None]
        weights = np.concatenate([direct, weights[len(center) :]])
        constant = constant - center @ direct
        if self.inner is None:
            return RidgeHead(None, weights, constant)
        inner = self.inner[0] / scale[:, None]
        return RidgeHead((inner, self.inner[1] - center @ inner), weights, constant)


def choose(values: Table, labels: NDArray[np.int64], seed: int, room: int) -> Choice:
    """The head that is best on folds: over ``values``, and random features if they fit into ``room``."""
    draw = np.random.default_rng(seed)
    folds = spread(labels, draw)
    scale = values.std(axis=0)
    center, scale = values.mean(axis=0), np.where(scale > 1e-6 * scale.max(initial=1e-30), scale, np.inf)
    rows = (values - center) / scale
    best = Choice.find(rows, (center, scale), labels, folds, None)
    size, classes = values.shape[1], int(labels.max()) + 1
    hidden = min(HIDDEN, (room - size * classes) // (size + classes))
    if hidden >= FEWEST_HIDDEN:
        inner = (draw.normal(size=(size, hidden)) / size**0.5, draw.normal(size=hidden) / 2)
        other = Choice.find(rows, (center, scale), labels, folds, inner)
        gain, error = metrics.paired_difference(other.correct, best.correct)
        best = other if gain > error else best
    return best


def _extended(rows: Table, inner: tuple[Table, Table] | None) -> Table:
    return (
        rows if inner is None else np.concatenate([rows, np.maximum(rows @ inner[0] + inner[1], 0)], axis=1)
    )


def spread(labels: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """A fold for each sample, every class spread evenly."""
    folds = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        places = draw.permutation(np.flatnonzero(labels == label))
        folds[places] = np.arange(len(places)) % FOLDS
    return folds


def balance(labels: NDArray[np.int64]) -> Table:
    """Weights of samples: every class has the same, all together 1."""
    counts = np.bincount(labels)
    share: Table = 1 / (counts[labels] * (counts > 0).sum())
    return share


def _ridge(
    rows: Table, targets: Table, weights: Table, penalties: Sequence[float]
) -> list[tuple[Table, Table]]:
    """Weighted least squares for each penalty: coefficients (columns, classes), and constants.

    Over the columns, or over the rows where there are fewer of them.
    """
    weights = weights / weights.sum()
    mean: Table = weights @ rows
    level: Table = weights @ targets
    root = np.sqrt(weights)[:, None]
    x, y = (rows - mean) * root, (targets - level) * root
    found: list[tuple[Table, Table]] = []
    primal = x.shape[1] <= len(x)
    gram = x.T @ x if primal else x @ x.T
    right = x.T @ y if primal else y
    for penalty in penalties:
        solved = np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), right), np.float64)
        coefficients: Table = solved if primal else x.T @ solved
        found.append((coefficients, level - mean @ coefficients))
    return found


def _temperature(scores: Table, labels: NDArray[np.int64], weights: Table) -> float:
    """The divisor of ``scores`` that makes the labels most likely."""
    likely = []
    for temperature in TEMPERATURES:
        logits = scores / temperature
        logits = logits - logits.max(axis=1, keepdims=True)
        own = logits[np.arange(len(labels)), labels] - np.log(np.exp(logits).sum(axis=1))
        likely.append(float(weights @ own))
    return float(TEMPERATURES[int(np.argmax(likely))])
