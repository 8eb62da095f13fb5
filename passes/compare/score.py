"""Comparisons: how scores of classes of different networks become comparable.

A comparison is one object that knows all about itself: its name, what it needs, how it makes columns, how it
is fitted. Those that need no data are here; :mod:`graft.passes.compare.joint_head` and
:mod:`graft.passes.compare.calibrate` hold the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs

from graft.passes.base import Context, Declined
from graft.passes.compare.branch import Branch
from graft.passes.compare.fitting import FitReport
from graft.passes.compare.one_vs_rest import OneVsRest, Weighed
from graft.rewriter.arrays import Table
from graft.rewriter.graph.builder import Builder
from graft.rewriter.graph.model import Model
from graft.rewriter.record.mahalanobis import DIRECTIONS

DECIDES = 1000.0
"""What a vote adds to a logarithm of a share."""


@dataclass(frozen=True)
class Situation:
    """Circumstances that the default comparison depends on.

    Attributes:
        parents: number of different parents behind them.
        data: there are samples of all classes.
        steps: the networks give one label a time step.
    """

    parents: int
    data: bool
    steps: bool


@dataclass(frozen=True)
class Columns:
    """Scores of one network.

    Attributes:
        scores: (..., classes), in the given order.
        votes: further columns of the same shape, for :meth:`Comparison.combine`; ``None``: there are none.
        declined: what was left out, if anything was.
    """

    scores: gs.Tensor
    votes: gs.Tensor | None = None
    declined: Declined | None = None


@dataclass(frozen=True)
class Pair:
    """A classifier and a newcomer that decides one of its classes, in one graph.

    Attributes:
        base: the classifier.
        newcomer: the network that decides.
        column: name of the class in the newcomer.
        build: adds nodes that belong to neither.
    """

    base: Branch
    newcomer: Branch
    column: str
    build: Builder


class Comparison:
    """A way to compare scores of classes of different networks.

    Subclasses set the attributes and say how columns are made; one that needs data says how it is fitted,
    and one that can patch what the log-odds of a newcomer are made of. A comparison holds configuration
    only.

    Attributes:
        name: what ``--scores`` calls it.
        needs_data: it is fitted to samples with one label each.
        per_step: it works with one label a time step.
        uses_distances: it uses the statistics that modules carry, which cost multiply-accumulates.
        reads: what the output that it is fitted to holds: :attr:`Branch.joint_features` of all networks,
            or the columns themselves.
        patches: it can be used to replace or add a class.
    """

    name: str = ""
    needs_data: bool = False
    per_step: bool = True
    uses_distances: bool = False
    reads: Literal["features", "columns"] | None = None
    patches: bool = False

    def default_for(self, situation: Situation) -> bool:
        """Return ``True`` where this comparison is to be used unless another one is named."""
        del situation
        return False

    def added_macs(self, features: int) -> int:
        """Return the multiply-accumulates that columns of a network take, given its number of features."""
        return features * min(features, DIRECTIONS) if self.uses_distances and not self.needs_data else 0

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Make the columns of ``classes`` that may stand beside columns of other networks."""
        raise NotImplementedError

    def combine(self, build: Builder, scores: gs.Tensor, votes: gs.Tensor | None, dtype: Any) -> gs.Tensor:
        """Make the scores of the composite of the columns of all networks.

        Args:
            build: adds the nodes.
            scores: the columns of all networks (..., classes).
            votes: :attr:`Columns.votes` of all networks, where they have any.
            dtype: of both.
        """
        del build, votes, dtype
        return scores

    def fit(self, model: Model, networks: Sequence[int], room: int, context: Context) -> FitReport:
        """Fit the scores of a composite, which has the output ``READ`` and loses it.

        Args:
            model: the composite, changed in place.
            networks: number of the network of each column.
            room: multiply-accumulates that the fit may add.
            context: samples, device and seed.

        Raises:
            GraftError: there are too few samples.
        """
        raise NotImplementedError

    def evidence(self, pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
        """Return tensors that the log-odds of a newcomer are made of, and what was left out.

        Without data the log-odds are their sum.
        """
        raise NotImplementedError

    def head_input(self, pair: Pair) -> tuple[gs.Tensor, Declined | None]:
        """Return what fitted log-odds read, float32 (samples, values): :meth:`evidence`, side by side."""
        evidence, declined = self.evidence(pair)
        build = pair.newcomer.build
        read = build.node("Concat", "evidence", evidence, axis=-1)
        return build.cast(read, np.float32, "evidence_float", pair.newcomer.dtype), declined

    def fit_log_odds(self, task: OneVsRest, values: Table, room: int) -> Weighed:
        """Fit the log-odds of a newcomer to samples.

        Args:
            task: labels, and the other columns.
            values: float64 (samples, values), what :meth:`head_input` holds.
            room: multiply-accumulates that the fit may add.
        """
        raise NotImplementedError


class Logits(Comparison):
    """Logits as they are, or logarithms of probabilities."""

    name = "logits"

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Pick the columns."""
        return Columns(branch.build.pick(branch.scores, _positions(branch, classes), "columns"))


class Odds(Comparison):
    """Logit minus the logsumexp of all other classes that the network knows.

    One-class modules of one parent are compared so.
    """

    name = "odds"
    patches = True

    def default_for(self, situation: Situation) -> bool:
        """Prefer it where all networks are of one parent."""
        return situation.parents == 1

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Put log-odds side by side."""
        odds = [branch.log_odds(column) for column in _positions(branch, classes)]
        return Columns(branch.build.node("Concat", "log_odds", odds, axis=-1))

    def evidence(self, pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
        """Take the newcomer's log-odds alone."""
        return [pair.newcomer.log_odds(pair.newcomer.card.class_index(pair.column))], None


class Softmax(Comparison):
    """Logarithm of the probability within the parent, classes left out included."""

    name = "softmax"

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Pick the columns."""
        return Columns(_log_shares(branch, classes))


class Typicality(Comparison):
    """The score of ``softmax``, minus a weighted distance of the sample to the class.

    The distance says how much farther the input's features are from the class than its own samples', in
    standard deviations (:class:`graft.rewriter.record.mahalanobis.Mahalanobis`). A network is as sure of
    images that none of its classes owns as of its own: only the distance separates them.
    """

    name = "typicality"
    uses_distances = True
    patches = True

    def default_for(self, situation: Situation) -> bool:
        """Prefer it for several parents; fitted comparisons come before it."""
        return situation.parents != 1

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Subtract distances, where the network carries statistics."""
        return typical(branch, classes)

    def evidence(self, pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
        """Take the newcomer's log-odds, and how near the sample is to its class."""
        return typical_evidence(pair)


class Vote(Comparison):
    """The score of ``softmax``; a network votes for its class where that is the likeliest of all it knows.

    Where there is exactly one vote it decides (Pan and Rajan, ICSE 2022).
    """

    name = "vote"

    def columns(self, branch: Branch, classes: Sequence[str]) -> Columns:
        """Pick the columns, and count votes."""
        return Columns(_log_shares(branch, classes), branch.votes(classes))

    def combine(self, build: Builder, scores: gs.Tensor, votes: gs.Tensor | None, dtype: Any) -> gs.Tensor:
        """Let votes decide, as :meth:`elect` does.

        Args:
            build: adds the nodes.
            scores: logarithms of shares (..., classes).
            votes: 0 or 1 (..., classes).
            dtype: of both.
        """
        if votes is None:
            raise RuntimeError("votes are columns of this comparison")
        return self.elect(build, scores, votes, dtype)

    def elect(self, build: Builder, scores: gs.Tensor, votes: gs.Tensor, dtype: Any) -> gs.Tensor:
        """Raise the only class with a vote far above all others; arguments as in :meth:`combine`."""
        none, one, far = (
            build.constant(f"vote/{name}", np.array(value, dtype))
            for name, value in (("none", 0), ("one", 1), ("far", DECIDES))
        )
        count = build.total(votes, -1, "vote/count", keep=True)
        only = build.node("Equal", "vote/only", [count, one])
        raised = build.node("Mul", "vote/raised", [votes, far])
        above = build.node("Where", "vote/above", [only, raised, none])
        return build.node("Add", "vote/elected", [scores, above])


class VoteAmong(Vote):
    """The score of ``softmax``; votes as in ``vote``, and several votes leave it to those that voted.

    The composition of Pan and Rajan, ESEC/FSE 2020: without a vote the largest probability of an own class
    decides, with several votes the largest among the voters.
    """

    name = "fse20:vote"

    def elect(self, build: Builder, scores: gs.Tensor, votes: gs.Tensor, dtype: Any) -> gs.Tensor:
        """Put classes without a vote far below those with one."""
        any_vote = build.largest(votes, "vote/any")
        far = build.constant("vote/far", np.array(DECIDES, dtype))
        silent = build.node("Sub", "vote/silent", [any_vote, votes])  # of voters nothing is rounded
        return build.node("Sub", "vote/elected", [scores, build.node("Mul", "vote/below", [silent, far])])


def typical(branch: Branch, classes: Sequence[str]) -> Columns:
    """Return logarithms of shares minus distances; without distances where there are no statistics."""
    likely = _log_shares(branch, classes)
    declined = branch.without_distances(classes)
    if declined:
        return Columns(likely, declined=declined)
    return Columns(branch.build.node("Sub", "comparable", [likely, branch.distances(classes)]))


def typical_evidence(pair: Pair) -> tuple[list[gs.Tensor], Declined | None]:
    """Return a newcomer's log-odds and nearness; log-odds alone where there are no statistics."""
    newcomer = pair.newcomer
    odds = newcomer.log_odds(newcomer.card.class_index(pair.column))
    declined = newcomer.without_distances([pair.column])
    return ([odds], declined) if declined else ([odds, newcomer.nearness(pair.column)], None)


def _positions(branch: Branch, classes: Sequence[str]) -> list[int]:
    return [branch.card.class_index(name) for name in classes]


def _log_shares(branch: Branch, classes: Sequence[str]) -> gs.Tensor:
    return branch.build.pick(branch.log_shares, _positions(branch, classes), "log_shares_picked")
