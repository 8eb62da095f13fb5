"""Join modules into one classifier: a trunk for each parent that is at hand, branches side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compare import Comparison, Situation, comparison_called, default_comparison
from graft.passes.compare.fitting import FitReport
from graft.passes.compare.reject import FALSE_POSITIVE_RATE, Reject, RejectReport
from graft.passes.compare.score import Logits, Softmax
from graft.passes.join.adopt import is_whole
from graft.passes.join.compatibility import parents_macs
from graft.passes.join.merge import INPUTS, Meet, input_of
from graft.passes.join.network import Network
from graft.passes.join.other_cost import first_output_costs, head_costs
from graft.passes.join.side_by_side import SideBySide
from graft.passes.networks import Modules, Networks
from graft.passes.select.layers import LayerRules
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import KEY
from graft.rewriter.record.provenance import Origin, origin_of, stamp, terms, versions

STRATEGIES = ("auto", "trunk", "branches")


@dataclass(frozen=True, kw_only=True)
class ComposeReport(Report):
    """A composite, and how it was joined.

    Attributes:
        model: the composite, with its card.
        strategy: ``trunk`` where every parent has one network, ``branches`` where every module runs as
            it is, ``mixed``.
        reason: why this strategy.
        scores: name of the comparison of different networks; ``""`` where there is one network.
        adapted: for each network the steps from the raw input to its own.
        shared: nodes that run once in place of several equal ones, and weights that are stored so.
        other: multiply-accumulates and parameters that the column ``(other)`` takes; (0, 0) without it.
        joint: the fit of the scores to samples, where there was one.
        reject: the limit of rejection, where the column ``(other)`` is for out-of-distribution samples.
    """

    model: Model
    strategy: str
    reason: str
    scores: str = ""
    adapted: tuple[tuple[str, ...], ...] = ()
    shared: tuple[int, int] = (0, 0)
    other: tuple[int, int] = (0, 0)
    joint: FitReport | None = None
    reject: RejectReport | None = None


@dataclass(frozen=True, kw_only=True)
class _Joined(Report):
    """Networks in one graph, with fitted scores."""

    model: Model
    scores: str = ""
    shared: tuple[int, int] = (0, 0)
    other: tuple[int, int] = (0, 0)
    joint: FitReport | None = None
    reject: RejectReport | None = None


@dataclass(frozen=True)
class Compose:
    """Join modules of one or several parents.

    * trunk: modules of one parent are planned anew as one set of classes: one network, one head
      (:class:`graft.passes.trunk.Trunk`);
    * branches: every module runs beside the others.

    Networks that stand side by side get comparable scores (:mod:`graft.passes.compare`), one
    input (:class:`graft.passes.join.adapt.Adapt`), one opset, and share what is equal among them.

    Attributes:
        strategy: ``auto`` takes a trunk for each parent that is at hand, branches for the rest.
        keep: budget of the trunks; ``None``: the largest among the modules of the parent.
        other: a column ``(other)``: in a single trunk for the other classes of its parent; where it has no
            others, and for several networks, for out-of-distribution samples
            (:class:`graft.passes.compare.reject.Reject`).
        false_positive_rate: share of in-distribution samples that may be rejected.
        scores: name of a comparison, or an object; ``None``: by ``odds`` where all are of one parent, else
            by ``joint`` with data and by ``typicality`` without.
        continuous: trunks are planned anew with samples of the other networks' classes as unconcerned
            examples (:class:`graft.passes.select.continuous.Continuous`).
        input: ``parent``: the input of the parents, which has to be the same; ``raw``: images as they
            are, adapted inside the graph; ``None``: ``parent`` for modules of one parent, ``raw`` for
            images of several.
        dtype: type of raw images: uint8 or float32.
        opset: operator set to write; ``None``: the highest among the parts.
        ir_version: as ``opset``.
        round_to: see :class:`graft.passes.select.budget.Budget`.
        verify: compare trunks with their masked parents, on random inputs.
        samples_per_class: scores are fitted to at most so many.
        freeze: layers that a trunk leaves alone, beside those of its modules, see
            :class:`graft.passes.select.layers.LayerRules`.
        keep_layers: shares of layers of a trunk; they hold where its modules say another one.
    """

    strategy: str = "auto"
    keep: float | None = None
    other: bool = False
    false_positive_rate: float = FALSE_POSITIVE_RATE
    scores: str | Comparison | None = None
    continuous: bool = False
    input: str | None = None
    dtype: type[np.generic] = np.uint8
    opset: int | None = None
    ir_version: int | None = None
    round_to: int | None = None
    verify: bool = False
    samples_per_class: int | None = None
    freeze: Sequence[str] = ()
    keep_layers: Sequence[tuple[str, float]] | Mapping[str, float] = ()

    def __post_init__(self) -> None:
        if not 0 < self.false_positive_rate < 1:
            raise GraftError(
                "false-alarms",
                f"the false positive rate {self.false_positive_rate:g} is not between 0 and 1",
                "name a share above 0 and below 1",
            )
        for name, value, choices in (
            ("strategy", self.strategy, STRATEGIES),
            ("input", self.input, (*INPUTS, None)),
        ):
            if value not in choices:
                known = ", ".join(choice for choice in choices if choice)
                raise GraftError(f"{name}-unknown", f"no {name} {value}", f"choose from {known}")
        if self.scores is not None:
            comparison_called(self.scores)

    def __call__(self, modules: Modules, context: Context) -> ComposeReport:
        """Join ``modules``.

        Args:
            modules: models, parents at hand, and new names.
            context: ``data`` holds samples of all classes, as they are renamed, that scores are fitted to;
                device and seed.

        Raises:
            GraftError: nothing to join, a class twice, modules that do not fit together, a trunk is
                wanted and its parent is not at hand, or fitted scores and there is no data.
        """
        modules.check()
        raw = input_of(modules.models, self.input, len(modules.parents) > 1)
        chooser = Networks(
            *(self.strategy, self.keep, self.other, self.scores, self.continuous),
            *(self.round_to, self.verify, LayerRules.read(self.freeze, self.keep_layers)),
        )
        networks, reason = chooser.choose(modules, context)
        for network in networks:
            names = [modules.names[number] for number in network.members]
            network.rename({old: new for each in names for old, new in each.items()})
        models = [network.model for network in networks]
        raw = input_of(models, "raw", True) if raw else None
        met = Meet(raw, self.dtype, self.opset, self.ir_version)(models, context)
        joined = self._join(networks, modules, context)
        strategy = "mixed"
        if len({network.trunk for network in networks}) == 1:
            strategy = "trunk" if networks[0].trunk else "branches"
        alone = origin_of(networks[0].model) if len(networks) == 1 else None
        self._stamp(joined.model, modules, {"strategy": strategy, "scores": joined.scores}, alone)
        return ComposeReport(
            changed=len(networks),
            declined=(
                *(each for network in networks for each in network.declined),
                *met.declined,
                *joined.declined,
            ),
            model=joined.model,
            strategy=strategy,
            reason=reason,
            scores=joined.scores,
            adapted=met.adapted,
            shared=joined.shared,
            other=joined.other,
            joint=joined.joint,
            reject=joined.reject,
        )

    # ------------------------------------------------------------ one graph

    def _join(self, networks: Sequence[Network], modules: Modules, context: Context) -> _Joined:
        """Put networks into one graph, with comparable scores and perhaps a column ``(other)``."""
        single = len(networks) == 1
        declined: list[Declined] = []
        if single and self.scores:
            name = comparison_called(self.scores).name
            declined.append(Declined("scores", f"there is one network: nothing is compared by {name}"))
        rejects = self.other and not (single and OTHER in networks[0].card.labels)
        if single and not rejects:
            model = networks[0].model
            model.metadata.pop(KEY, None)
            return _Joined(
                declined=tuple(declined), model=model, other=head_costs(model) if self.other else (0, 0)
            )
        comparison = Logits() if single else self._comparison(networks, len(modules.parents), context)
        if rejects and networks[0].card.output.steps:
            raise GraftError(
                "other-steps",
                "--other of several networks is for one label a sample, and these give one a time step",
                "leave it out",
            )
        if comparison.uses_distances and (context.data or not rejects):
            dropped = (network.drop_costly_distances() for network in networks)
            declined += [each for each in dropped if each]
        merged = SideBySide(modules.classes, comparison, rejects)(networks, context)
        model, joint, reject = merged.model, None, None
        fitting = self._fitting(model, context) if comparison.needs_data or rejects else context
        if comparison.needs_data:
            owners = {name: number for number, each in enumerate(networks) for name in each.classes}
            room = parents_macs(modules.models) - cost_of(model).macs
            joint = comparison.fit(model, [owners[name] for name in modules.classes], room, fitting)
        other = (0, 0)
        if rejects:
            room = parents_macs(modules.models) - cost_of(model).macs
            before = first_output_costs(model)
            reject = Reject(self.false_positive_rate, room)(model, fitting)
            after = first_output_costs(model)
            other = (after[0] - before[0], after[1] - before[1])
        reports = [each for each in (merged, joint, reject) if each]
        declined += [each for report in reports for each in report.declined]
        scores = "" if single else comparison.name
        shared = (merged.shared.nodes, merged.shared.weights) if merged.shared and not single else (0, 0)
        return _Joined(
            declined=tuple(declined),
            model=model,
            scores=scores,
            shared=shared,
            other=other,
            joint=joint,
            reject=reject,
        )

    def _fitting(self, model: Model, context: Context) -> Context:
        """Return the context of fits: samples of all classes, matched to the card of the composite."""
        if context.data is None:
            return context
        card = model.require_card()
        samples = Samples.match(context.data, card, per_class=self.samples_per_class, seed=context.seed)
        return replace(context, samples=samples)

    def _comparison(self, networks: Sequence[Network], parents: int, context: Context) -> Comparison:
        """Return how networks side by side are compared.

        Raises:
            GraftError: it does not work with these networks, or there is no data.
        """
        steps = networks[0].card.output.steps
        if self.scores is None:
            if context.data is None and all(is_whole(network.model) for network in networks):
                return Softmax()  # whole classifiers carry no statistics to measure distances by
            return default_comparison(Situation(parents, context.data is not None, steps))
        found = comparison_called(self.scores)
        impossible = steps and not found.per_step
        if impossible or (found.needs_data and context.data is None):
            raise GraftError(
                "scores-data",
                f"the scores {found.name} are fitted to samples with one label each"
                + (", and the modules give one a time step" if steps else ""),
                "choose other scores" if steps else "name data with a training split, or choose other scores",
            )
        return found

    # ------------------------------------------------------------ the record

    def _stamp(
        self, model: Model, modules: Modules, options: dict[str, object], alone: Origin | None
    ) -> None:
        """Write card and origin of the composite; a single network was planned as ``alone`` says."""
        card, parents = model.require_card(), tuple(modules.parents.values())
        model.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
        asked: dict[str, object] = {name: getattr(self, name) for name in ("keep", "other", "round_to")}
        record = Origin(
            parents=parents,
            classes=tuple(name for name in model.card.labels if name != OTHER),
            options={**(alone.options if alone else asked), **options},
            plan=alone.plan if alone else {},
            sizes=alone.sizes if alone else {},
            renamed=modules.renamed,
            profile_sha256=modules.origins[0].profile_sha256,
            versions=versions(),
        )
        stamp(model, "composite", record)
