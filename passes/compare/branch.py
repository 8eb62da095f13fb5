"""A network inside a composite: its scores, its distances to classes, and what it knows of a sample."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Declined
from graft.passes.cut.head import REST
from graft.rewriter.arrays import Array
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups, Place
from graft.rewriter.groups.logits import finite, logits_behind
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.record.mahalanobis import Mahalanobis

LOWEST = -30.0
"""Logarithms of shares are taken to be at least this where a joint head reads them."""
SCALE = 1 / 16
"""Of logarithms of shares in the input of a joint head."""
TINY = 1e-7
"""What is left of 1 is taken to be at least this before its logarithm: float32 resolves no less."""
ATYPICAL = 0.25
"""Weight of the standardised distance, chosen on training images (docs/results.md)."""


def joint_places(model: Model) -> list[Place]:
    """Return the activations of a module that a joint head reads: its first ones, and its last features.

    The last features separate the classes of the module; the first ones show how a sample looks that the
    module never learned.
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


class Branch:
    """A network inside a composite, as comparisons see it.

    Args:
        card: of the network.
        build: adds nodes under the prefix of the network.
        outputs: name in the network to tensor in the composite.
        statistics: those of its last features that the network carries, or ``None``.
        features: its last features (samples, values), or ``None``.
        activations: tensors with their channel axis that a joint head reads.

    Attributes:
        scores: logits of all columns (..., columns), what the network left out as the last.
        width: number of columns of the scores.
        dtype: of the scores.
        rank: of the scores.
    """

    def __init__(
        self,
        card: Card,
        build: Builder,
        outputs: dict[str, gs.Tensor],
        statistics: Mahalanobis | None = None,
        features: gs.Tensor | None = None,
        activations: Sequence[tuple[gs.Tensor, int]] = (),
    ) -> None:
        self.card = card
        self.build = build
        self.statistics = statistics
        self.features = features
        self.activations = activations
        self._distances: dict[tuple[str, ...], gs.Tensor] = {}
        self._nearness: dict[str, gs.Tensor] = {}
        self._log_odds: dict[int, gs.Tensor] = {}
        output = outputs[card.output.name]
        self.dtype, self.rank = output.dtype, len(output.shape or ())
        if self.rank > 2 and not card.output.steps:  # all other axes have size 1
            output, self.rank = build.node("Flatten", "row", [output], axis=1), 2
        self.scores = self._logits(output, outputs.get(REST))
        self.width = len(card.labels) + (REST in outputs)

    def _logits(self, scores: gs.Tensor, rest: gs.Tensor | None) -> gs.Tensor:
        """Return the logits of all columns, the rest as the last.

        The rest of probabilities is the logarithm of a share of all classes, their columns are shares
        among the module's own.
        """
        build = self.build
        if self.card.output.kind == "logits":
            scores = finite(scores, np.dtype(self.dtype), build)
            rest = None if rest is None else finite(rest, np.dtype(self.dtype), build, "finite_rest")
        if self.card.output.kind == "probabilities":
            logits = logits_behind(scores, self.rank - 1, build)
            logits = finite(logits, np.dtype(self.dtype), build)
            scores = build.log_shares(logits, "log_shares")
            if rest is not None:
                ones, tiny = (
                    build.constant(name, np.array(value, self.dtype))
                    for name, value in (("one", 1), ("tiny", TINY))
                )
                share = build.node("Sub", "share", [ones, build.node("Exp", "rest_share", [rest])])
                mass = build.node("Log", "mass", [build.node("Max", "mass_above_zero", [share, tiny])])
                scores = build.node("Add", "absolute", [scores, mass])
        return scores if rest is None else build.node("Concat", "with_rest", [scores, rest], axis=-1)

    def log_odds(self, column: int) -> gs.Tensor:
        """Return the logit of a column minus the logsumexp of all others (..., 1), made once."""
        if column not in self._log_odds:
            self._log_odds[column] = self._log_odds_of(column)
        return self._log_odds[column]

    def _log_odds_of(self, column: int) -> gs.Tensor:
        name = self.card.labels[column]
        own = self.build.pick(self.scores, [column], f"{name}/own")
        others = [each for each in range(self.width) if each != column]
        if not others:
            return own
        rest = self.build.pick(self.scores, others, f"{name}/others")
        if len(others) > 1:
            rest = self.build.logsumexp(rest, f"{name}/rest")
        return self.build.node("Sub", f"{name}/log_odds", [own, rest])

    @functools.cached_property
    def log_shares(self) -> gs.Tensor:
        """Logarithms of the probabilities of all columns within the parent (..., columns)."""
        return self.build.log_shares(self.scores, "within_parent")

    def votes(self, classes: Sequence[str]) -> gs.Tensor:
        """Return 1 where a class is the likeliest of all that the network knows, else 0 (..., classes).

        Columns are compared, not scores: these may be rounded on one way and not on another.
        """
        build, columns = self.build, [self.card.class_index(name) for name in classes]
        one, none, own = (
            build.constant(f"vote/{name}", np.array(value, dtype))
            for name, value, dtype in (
                ("yes", 1, self.dtype),
                ("no", 0, self.dtype),
                ("own", columns, np.int64),
            )
        )
        best = build.place_of_largest(self.log_shares, "vote/best")
        return build.node(
            "Where", "vote/votes", [build.node("Equal", "vote/is_best", [best, own]), one, none]
        )

    @functools.cached_property
    def joint_features(self) -> gs.Tensor:
        """Input of a joint head, float32 (samples, values): scaled :attr:`log_shares`, and :attr:`pooled`.

        Both vary about as much then: one tensor of 8 bits holds them. A power of two rounds nothing.
        """
        build = self.build
        low, scale = (
            build.constant(f"joint/{name}", np.array(value, self.dtype))
            for name, value in (("lowest", LOWEST), ("scale", SCALE))
        )
        shares = build.node("Max", "joint/shares", [self.log_shares, low])
        shares = build.node("Mul", "joint/scaled", [shares, scale])
        found = [build.cast(shares, np.float32, "joint/float_shares", self.dtype), *self.pooled]
        read = build.node("Concat", "joint/read", found, axis=-1)
        read.dtype = np.dtype(np.float32)
        return read

    @functools.cached_property
    def pooled(self) -> list[gs.Tensor]:
        """Means over positions of :attr:`activations`, float32 (samples, values) each."""
        build, found = self.build, []
        for number, (tensor, axis) in enumerate(self.activations):
            value = build.cast(tensor, np.float32, f"joint/float_{number}")
            others = [each for each in range(1, len(tensor.shape or ())) if each != axis]
            if others:
                value = build.reduce("ReduceMean", value, others, f"joint/mean_{number}", keep=False)
                value.dtype = np.dtype(np.float32)
            found.append(value)
        return found

    def without_distances(self, classes: Sequence[str]) -> Declined | None:
        """Say why there are no distances to ``classes``; ``None`` if there are."""
        name = self.card.name or ", ".join(label for label in self.card.labels[:2] if label != OTHER)
        if self.statistics is None or self.features is None:
            return Declined(name, "the module carries no statistics of its last features")
        missing = [label for label in classes if label not in self.statistics.classes]
        return Declined(name, f"no statistics of class {missing[0]}") if missing else None

    def distances(self, classes: Sequence[str]) -> gs.Tensor:
        """Return weighted distances (samples, classes) in standard deviations, made once.

        They are 0 for a usual sample of the class.

        Raises:
            RuntimeError: the network carries no statistics: see :meth:`without_distances`.
        """
        names = tuple(classes)
        if names not in self._distances:
            self._distances[names] = self._distances_to(names)
        return self._distances[names]

    def nearness(self, name: str) -> gs.Tensor:
        """Return the distance to one class with the other sign (samples, 1): large for usual samples."""
        if name not in self._nearness:
            self._nearness[name] = self.build.node("Neg", "typical/near", [self.distances([name])])
        return self._nearness[name]

    def _distances_to(self, classes: Sequence[str]) -> gs.Tensor:
        known, build = self.statistics, self.build
        if known is None or self.features is None:
            raise RuntimeError("no statistics")
        rows = [known.classes.index(name) for name in classes]
        centers = known.centers[rows]

        def constant(name: str, values: Array) -> gs.Constant:
            return build.constant(f"typical/{name}", np.asarray(values, np.float32))

        features = self.features
        features = build.cast(features, np.float32, "typical/float")
        along = build.node("MatMul", "typical/along", [features, constant("directions", known.directions)])
        places = constant("places", (centers @ known.directions)[None])
        apart = build.node("Sub", "typical/apart", [build.expand(along, 1, "typical/row"), places])
        squares = build.node("Mul", "typical/squares", [apart, apart])
        if known.across[0]:
            squares = build.node("Mul", "typical/weighted", [squares, constant("weights", known.weights)])
        distance = build.total(squares, -1, "typical/distance")
        if known.across[0]:
            whole = build.node(
                "Sub",
                "typical/from_center",
                [build.expand(features, 1, "typical/features"), constant("centers", centers[None])],
            )
            whole = build.total(build.node("Mul", "typical/whole", [whole, whole]), -1, "typical/length")
            whole = build.node("Mul", "typical/across", [whole, constant("across_weight", known.across)])
            distance = build.node("Add", "typical/both", [distance, whole])
        beyond = build.node("Sub", "typical/beyond", [distance, constant("expected", known.expected[rows])])
        weights = constant("weight", ATYPICAL / known.spread[rows])
        found = build.node("Mul", "typical/scaled", [beyond, weights])
        return build.cast(found, self.dtype, "typical/cast", np.float32)
