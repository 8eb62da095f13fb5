"""Make what different modules say of their classes comparable, without data."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graft.passes.cut.head import REST
from graft.rewriter.card.card import OTHER, Card
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.builder import Builder
from graft.rewriter.groups.outputs import TINY, logits_behind
from graft.rewriter.record.mahalanobis import Typicality

WITH_DATA = JOINT, CALIBRATED = "joint", "calibrated"
WITHOUT_DATA = TYPICALITY, SOFTMAX, ODDS, LOGITS, VOTE = "typicality", "softmax", "odds", "logits", "vote"
SCORES = (*WITH_DATA, *WITHOUT_DATA)
"""How classes of different modules are compared; see :class:`Score`."""

DECIDES = 1000.0
"""What a vote adds to a logarithm of a share."""
LOWEST = -30.0
"""Logarithms of shares are taken to be at least this where a joint head reads them."""
ATYPICAL = 0.25
"""Weight of the standardised distance, chosen on training images (docs/results.md)."""


class Score:
    """The score of a class, as a column that may stand beside columns of other parents.

    * ``logits``: what the module puts out, its logarithm for probabilities;
    * ``odds``: logit minus the logsumexp of all else that the module knows: what one-class modules of
      one parent are compared by;
    * ``softmax``: logarithm of the probability within the parent, classes left out included;
    * ``typicality``: as softmax, minus a quarter of how much farther the input's features are from the
      class than its own samples', in standard deviations (see
      :class:`graft.rewriter.record.mahalanobis.Typicality`). A network is as sure of images that none of its
      classes owns as of its own: the distance tells them apart;
    * ``vote``: as softmax; a module votes for its class where that is the likeliest of all it knows, and
      where there is exactly one vote it decides (Pan and Rajan, ICSE 2022; :func:`elect`);
    * ``joint``: as typicality, until :class:`graft.passes.compare.joint_head.JointHead` fits a head to
      samples;
    * ``calibrated``: as typicality, until :class:`graft.passes.compare.calibrate.Calibrate` fits
      temperatures and
      offsets to samples.

    Args:
        kind: one of :data:`SCORES`.
    """

    def __init__(self, kind: str) -> None:
        if kind not in SCORES:
            raise GraftError("scores-unknown", f"no scores {kind}", f"choose from {', '.join(SCORES)}")
        self.kind = kind

    def __call__(self, branch: Branch, classes: Sequence[str]) -> tuple[gs.Tensor, str]:
        """The columns of ``classes`` (..., classes), and why typicality was left out, if it was."""
        columns = [branch.card.class_index(name) for name in classes]
        if self.kind == LOGITS:
            return branch.build.pick(branch.scores, columns, "columns"), ""
        if self.kind == ODDS:
            odds = [branch.log_odds(column) for column in columns]
            return branch.build.node("Concat", "log_odds", odds, axis=-1), ""
        likely = branch.build.pick(branch.log_shares, columns, "log_shares_picked")
        if self.kind in (SOFTMAX, VOTE):
            return likely, ""
        declined = branch.atypical_reason(classes)
        if declined:
            return likely, declined
        distance = branch.distances(classes)
        return branch.build.node("Sub", "comparable", [likely, distance]), ""


def elect(build: Builder, scores: gs.Tensor, votes: gs.Tensor, dtype: np.dtype[Any]) -> gs.Variable:
    """Scores (..., classes) of which the only one with a vote is far above all others."""
    to = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
    count = build.expand(build.total(votes, -1, "vote/sum"), -1, "vote/count")
    one = build.constant("vote/one", np.array(1, dtype))
    only = build.node("Cast", "vote/decides", [build.node("Equal", "vote/only", [count, one])], to=to)
    chosen = build.node("Mul", "vote/chosen", [votes, only])
    above = build.node("Mul", "vote/above", [chosen, build.constant("vote/far", np.array(DECIDES, dtype))])
    return build.node("Add", "vote/elected", [scores, above])


class Branch:
    """A module inside a composite, as scores see it.

    Args:
        card: of the module.
        build: adds nodes under the prefix of the module.
        outputs: name in the module to tensor in the composite.
        typicality: what the module remembers, or ``None``.
        features: the tensor that it is about, or ``None``.
        knows: tensors with their channel axis, for a joint head.
    """

    def __init__(
        self,
        card: Card,
        build: Builder,
        outputs: dict[str, gs.Tensor],
        typicality: Typicality | None = None,
        features: gs.Tensor | None = None,
        knows: Sequence[tuple[gs.Tensor, int]] = (),
    ) -> None:
        self.card = card
        self.build = build
        self.typicality = typicality
        self.features = features
        self.knows = knows
        self._distances: dict[tuple[str, ...], gs.Tensor] = {}
        output = outputs[card.output.name]
        self.dtype, self.rank = output.dtype, len(output.shape or ())
        if self.rank > 2 and not card.output.steps:  # all other axes have size 1
            output, self.rank = build.node("Flatten", "row", [output], axis=1), 2
        self.scores = self._logits(output, outputs.get(REST))
        self._count = len(card.labels) + (REST in outputs)

    def _logits(self, scores: gs.Tensor, rest: gs.Tensor | None) -> gs.Tensor:
        """Logits of all columns, the rest as the last.

        The rest of probabilities is the logarithm of a share of all classes, their columns are shares
        among the module's own.
        """
        build = self.build
        if self.card.output.kind == "probabilities":
            logits = logits_behind(scores, self.rank - 1, build)
            scores = build.node("LogSoftmax", "log_shares", [logits], axis=-1)
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
        """The logit of a column minus the logsumexp of all others (..., 1)."""
        name = self.card.labels[column]
        own = self.build.pick(self.scores, [column], f"{name}/own")
        others = [each for each in range(self._count) if each != column]
        if not others:
            return own
        rest = self.build.pick(self.scores, others, f"{name}/others")
        if len(others) > 1:
            rest = self.build.logsumexp(rest, f"{name}/rest")
        return self.build.node("Sub", f"{name}/log_odds", [own, rest])

    @functools.cached_property
    def log_shares(self) -> gs.Tensor:
        """Logarithm of the probabilities of all columns within the parent."""
        return self.build.node("LogSoftmax", "within_parent", [self.scores], axis=-1)

    def votes(self, classes: Sequence[str]) -> gs.Tensor:
        """1 where a class is the likeliest of all that the module knows, else 0 (..., classes)."""
        build, columns = self.build, [self.card.class_index(name) for name in classes]
        best = build.reduce("ReduceMax", self.log_shares, [-1], "vote/best", keep=True)
        own = build.pick(self.log_shares, columns, "vote/own")
        to = int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
        return build.node("Cast", "vote/votes", [build.node("Equal", "vote/is_best", [own, best])], to=to)

    def reads(self) -> gs.Tensor:
        """What a joint head reads of this module (samples, values): :attr:`known` and :attr:`log_shares`."""
        build, single = self.build, int(onnx.TensorProto.FLOAT)
        low = build.constant("joint/lowest", np.array(LOWEST, self.dtype))
        shares = build.node("Max", "joint/shares", [self.log_shares, low])
        found = [build.node("Cast", "joint/float_shares", [shares], to=single), *self.known]
        return build.node("Concat", "joint/read", found, axis=-1)

    @functools.cached_property
    def known(self) -> list[gs.Tensor]:
        """:attr:`knows`, float32 (samples, values) each: means over positions."""
        build, single = self.build, int(onnx.TensorProto.FLOAT)
        found = []
        for number, (tensor, axis) in enumerate(self.knows):
            value = build.node("Cast", f"joint/float_{number}", [tensor], to=single)
            others = [each for each in range(1, len(tensor.shape or ())) if each != axis]
            if others:
                value = build.reduce("ReduceMean", value, others, f"joint/mean_{number}", keep=False)
            found.append(value)
        return found

    def atypical_reason(self, classes: Sequence[str]) -> str:
        """Why there are no distances for ``classes``; ``""`` if there are."""
        name = self.card.name or ", ".join(label for label in self.card.labels[:2] if label != OTHER)
        if self.typicality is None or self.features is None:
            return f"{name}: the module carries no statistics of its last features"
        missing = [label for label in classes if label not in self.typicality.classes]
        return f"{name}: no statistics of class {missing[0]}" if missing else ""

    def distances(self, classes: Sequence[str]) -> gs.Tensor:
        """Weighted distances (samples, classes) in standard deviations, 0 for a usual sample of the class.

        Made once for the same classes.
        """
        names = tuple(classes)
        if names not in self._distances:
            self._distances[names] = self._distances_to(names)
        return self._distances[names]

    def _distances_to(self, classes: Sequence[str]) -> gs.Tensor:
        known, build = self.typicality, self.build
        if known is None or self.features is None:
            raise RuntimeError("no statistics")
        rows = [known.classes.index(name) for name in classes]
        centers = known.centers[rows]

        def constant(name: str, values: np.ndarray) -> gs.Constant:
            return build.constant(f"typical/{name}", np.asarray(values, np.float32))

        features = self.features
        if features.dtype != np.float32:
            features = build.node("Cast", "typical/float", [features], to=int(onnx.TensorProto.FLOAT))
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
        if self.dtype != np.float32:
            to = int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
            found = build.node("Cast", "typical/cast", [found], to=to)
        return found
