"""Cut a module for a set of classes out of a parent: plan, head, compensate, slice, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compensate.fold import FOLD, REFIT, Fold
from graft.passes.compensate.refit import SAMPLES, Refit
from graft.passes.cut.head import Head, HeadReport
from graft.passes.cut.language import Language
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Pruned, Verify
from graft.passes.cut.vocabulary import USED, Vocabulary, Words
from graft.passes.identify import DEFAULT, ImportanceInputs, Method, default_method, method_of
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget, BudgetReport, Candidates, dead_channels
from graft.passes.select.latency_budget import LatencyBudget, Timeable
from graft.passes.select.layers import LayerRules
from graft.rewriter.arrays import Scores
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.analysed import Analysed
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, CostModel, cost_of
from graft.rewriter.measure.latency import Timed
from graft.rewriter.record.mahalanobis import Mahalanobis
from graft.rewriter.record.profile import Profile
from graft.rewriter.record.provenance import Origin, stamp, versions


@dataclass(frozen=True, kw_only=True)
class DecomposeReport(Report):
    """A module; ``changed`` counts the channels of the parent that it lacks.

    ``declined`` holds what every pass on the way left as it was.

    Attributes:
        model: the module, with its card.
        plan: the channels of the parent that it kept.
        cost: what it costs.
        difference: how far the cut was from the masked parent, or ``None`` where it was not verified.
        timed: milliseconds of the module and of its parent, where the budget was one of latency.
        words: of each input, where words were removed that no sample uses.
    """

    model: Model
    plan: Plan
    cost: Cost
    difference: float | None = None
    timed: Timed | None = None
    words: tuple[Words, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PlanReport(Report):
    """A plan; ``changed`` counts the channels that it removes.

    ``declined`` holds what normalization, the head and the budget left as it was.

    Attributes:
        plan: the channels of the parent that stay.
    """

    plan: Plan


@dataclass(frozen=True, eq=False)
class Headed:
    """A parent with the output of a module: the model whose channels are chosen and removed.

    Attributes:
        parent: the parent.
        analysed: its model with the output of the module, and the analysis of that.
        head: its columns and the nodes that make them.
    """

    parent: Parent
    analysed: Analysed
    head: HeadReport

    @property
    def model(self) -> Model:
        """The parent, restricted to the classes."""
        return self.analysed.model

    @property
    def declined(self) -> tuple[Declined, ...]:
        """What normalization and the head left as it was."""
        return _declined(self.parent, [self.head])


@dataclass(frozen=True)
class Decompose:
    """Cut the module for a set of classes out of a parent.

    >>> decompose = Decompose(["cat"], keep=0.5)                              # doctest: +SKIP
    >>> module = decompose(parent, Context(profile=profile)).model            # doctest: +SKIP

    Attributes:
        classes: names, in the order of the module's columns.
        keep: share of the parent's cost that a module may have; ``None``: nothing is pruned.
        unit: what is counted, see :class:`graft.passes.select.budget.Budget`.
        method: importance method, or its name; ``None``: the best, see
            :func:`graft.passes.identify.default_method`.
        compensate: step of :data:`graft.passes.compensate.fold.STEPS`; ``None``: ``refit`` where there are
            samples, else ``fold``.
        together: one module for the set of classes, even for a set of one.
        other: a column ``(other)`` beside the classes.
        rest: the output ``rest`` beside the classes of a set.
        round_to: see :class:`graft.passes.select.budget.Budget`.
        refit_samples: at most so many are used to refit.
        mirror: images of the data count as in a mirror, too.
        fixed_plan: the channels to keep; ``None``: as :meth:`plan` chooses them.
        verify: compare the cut with its masked parent, see :class:`graft.passes.cut.verify.Verify`.
        freeze: patterns of layers that are left alone, see :class:`graft.passes.select.layers.LayerRules`.
        keep_layers: patterns with the share of each group's channels that stays; a mapping will do.
        vocabulary: ``used`` removes words that no sample uses, see
            :class:`graft.passes.cut.vocabulary.Vocabulary`; ``all`` keeps them.
        languages: of an encoder-decoder, whose words are ``classes``, those that the module speaks, see
            :class:`graft.passes.languages.Languages`.
    """

    classes: Sequence[str]
    keep: float | None = None
    unit: str = "macs"
    method: str | Method | None = None
    compensate: str | None = None
    together: bool = False
    other: bool = False
    rest: bool = True
    round_to: int | None = None
    refit_samples: int = SAMPLES
    mirror: bool = False
    fixed_plan: Plan | None = field(default=None, compare=False)
    verify: bool = False
    freeze: Sequence[str] = ()
    keep_layers: Sequence[tuple[str, float]] | Mapping[str, float] = ()
    vocabulary: str = "all"
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        rules = LayerRules.read(self.freeze, self.keep_layers)
        object.__setattr__(self, "freeze", rules.freeze)
        object.__setattr__(self, "keep_layers", rules.keep_layers)

    @property
    def layers(self) -> LayerRules:
        """What does not compete for the budget; where the plan is given, what that says."""
        if self.fixed_plan is not None:
            return LayerRules.read(self.fixed_plan.frozen, self.fixed_plan.keep_layers)
        return LayerRules.read(self.freeze, self.keep_layers)

    def options(self, seed: int = 0) -> dict[str, object]:
        """Return the options, as modules record them."""
        before = ("keep", "unit", "method", "compensate", "together", "other", "rest")
        found = {name: getattr(self, name) for name in before}
        found["method"] = None if self.method is None else method_of(self.method).name
        found |= {"seed": seed, "round_to": self.round_to, "mirror": self.mirror}
        layers = self.layers
        if layers:
            found |= {"freeze": list(layers.freeze), "keep_layers": list(map(list, layers.keep_layers))}
        found |= {"languages": list(self.languages)} if self.languages else {}
        return found if self.vocabulary == "all" else {**found, "vocabulary": self.vocabulary}

    @property
    def head(self) -> Head:
        """The pass that gives the module its output."""
        return Head(tuple(self.classes), self.together, self.other, self.rest)

    def resolved(self, parent: Parent, context: Context) -> Decompose:
        """Return the same with a method and a compensation, which are as good as the samples allow."""
        samples = context.samples is not None
        method, compensate = self.method, self.compensate
        return replace(
            self,
            method=default_method(parent.groups, samples) if method is None else method,
            compensate=(REFIT if samples else FOLD) if compensate is None else compensate,
        )

    def headed(self, parent: Parent, context: Context) -> Headed:
        """Return ``parent`` with the output of the module: the parent, restricted to the classes."""
        if context.profile is not None:
            parent.count_at(context.profile.sizes)
        model = parent.model.copy()
        report = self.head(model, context)
        return Headed(parent, Analysed.of(model), report)

    def plan(self, parent: Parent, context: Context) -> Plan:
        """Return the plan of :meth:`planned`.

        Raises:
            GraftError: as :meth:`planned` does.
        """
        return self.planned(parent, context).plan

    def planned(self, parent: Parent, context: Context) -> PlanReport:
        """Choose the channels that a module for the classes keeps.

        Args:
            parent: the parent.
            context: its profile; samples and device for methods that run the parent; the seed for those
                that draw.

        Returns:
            The plan, and what was declined on the way to it.

        Raises:
            GraftError: there is no profile, the budget cannot be reached, a class, layer or method is
                unknown, or the method lacks samples.
        """
        context = self._with_mirrored(parent, context)
        headed = self.headed(parent, context)
        report = self.resolved(parent, context)._planned(headed, context)
        return replace(report, declined=_declined(parent, [headed.head, report]))

    def __call__(self, parent: Parent, context: Context) -> DecomposeReport:
        """Cut the module for the classes.

        Args:
            parent: the parent.
            context: as in :meth:`planned`; a compensation by refit takes samples, too.

        Returns:
            The module, with its plan.

        Raises:
            GraftError: as :meth:`planned` does; the plan does not fit; the law does not hold for the cut.
        """
        return self.resolved(parent, context)._cut(parent, context)

    def _cut(self, parent: Parent, context: Context) -> DecomposeReport:
        mirrored = self._with_mirrored(parent, context)
        headed = self.headed(parent, mirrored)
        plan = self.fixed_plan
        if plan is not None and plan.parent != parent.sha256:
            raise GraftError(
                "plan-of-another", "the plan was made for another model", "plan this one with 'graft plan'"
            )
        reports: list[Report] = [headed.head]
        if plan is None:
            chosen = self._planned(headed, mirrored)
            plan = chosen.plan
            reports.append(chosen)
        typicality = _typicality(headed.analysed, _profile(context), self.classes, plan)
        whole = headed.analysed.copy()
        step = self.compensate or FOLD
        reports.append(Fold(plan, tuple(self.classes), step, self.together)(whole, mirrored))
        cut = whole.copy()
        sliced = Slice(plan)(cut, mirrored)
        reports.append(sliced)
        model, difference = cut.model, None
        if self.verify:
            verified = Verify()(Pruned(whole, plan, model), context)
            difference = verified.difference
            reports.append(verified)
        del whole, cut  # weights that were folded are as many as the parent's
        if self.compensate == REFIT and sliced.changed:
            refit = Refit(tuple(self.classes), self.together and not self.other, self.refit_samples)
            reports.append(refit(Pruned(headed.analysed, plan, model), mirrored))
        words: tuple[Words, ...] = ()
        if self.languages:
            reports.append(language := Language(self.languages)(model, context))
            words = language.words
        if self.vocabulary == USED:
            reports.append(vocabulary := Vocabulary()(model, context))
            words += vocabulary.words
        if typicality and typicality.tensor in model.graph.tensors():
            typicality.attach(model)
        parent.declare(model)
        timed = parent.latency_table(context.device).compare(model) if self.unit == "latency" else None
        cost = self._stamp(parent, model, plan, context)
        return DecomposeReport(
            changed=sliced.changed,
            declined=_declined(parent, reports),
            model=model,
            plan=plan,
            cost=cost,
            difference=difference,
            timed=timed,
            words=words,
        )

    def _with_mirrored(self, parent: Parent, context: Context) -> Context:
        samples: Samples | None = context.samples
        if not self.mirror or samples is None or samples.mirrored is not None:
            return context
        return replace(context, samples=parent.once(samples, "mirrored", samples.with_mirrored))

    def _planned(self, headed: Headed, context: Context) -> PlanReport:
        """Return the plan, and what the budget declined."""
        parent, profile = headed.parent, _profile(context)
        table = parent.latency_table(context.device) if self.unit == "latency" else None
        analysed = headed.analysed
        if table:
            analysed = replace(analysed, groups=table.analyse(analysed.model.copy()))
        groups, scores = analysed.groups, self._scores(parent, analysed, context)
        uncounted = headed.head.nodes if self.unit == "parameters" else frozenset()
        whole = table.milliseconds if table else CostModel(parent.groups, uncounted).total(self.unit)
        cost, dead = CostModel(groups, uncounted, table), dead_channels(groups, profile)
        layers = self.layers.of(parent)
        candidates = Candidates(groups, scores, cost, whole, dead, layers)
        keep = self.keep if self.keep is not None else 1.0
        report: BudgetReport
        if table:
            timeable = Timeable(candidates, headed.analysed, table)
            report = LatencyBudget(keep, self.round_to)(timeable, context)
        else:
            report = Budget(keep, self.unit, self.round_to)(candidates, context)
        kept = Plan.of(groups, report.kept, parent.sha256).kept
        own = {name: mask for name, mask in kept.items() if name in parent.groups}
        labels = profile.label_source, profile.label_classes
        plan = Plan(parent.sha256, own, layers.frozen, layers.shares, *labels)
        stay, channels = plan.counts()
        return PlanReport(changed=channels - stay, declined=report.declined, plan=plan)

    def _scores(self, parent: Parent, analysed: Analysed, context: Context) -> Scores:
        """Return the importance of the channels, once for all budgets with the same samples."""
        method, profile = method_of(self.method or DEFAULT), _profile(context)
        asked = tuple(name for name in profile.classes if name in self.classes)
        labels, samples = parent.record.labels, context.samples
        inputs = ImportanceInputs(analysed, profile, labels, asked, context.seed, samples, context.device)
        if samples is None:
            return _checked_scores(method, inputs)
        key = (method, profile.sha256, asked, self.head, self.unit == "latency", context.seed)
        return parent.once(samples, key, lambda: _checked_scores(method, inputs)).copy()

    def _stamp(self, parent: Parent, model: Model, plan: Plan, context: Context) -> Cost:
        """Write into the module what it was made from; return what it costs."""
        cost, profile, samples = cost_of(model), _profile(context), context.samples
        origin = Origin(
            parents=(parent.record,),
            classes=tuple(self.classes),
            options=self.options(context.seed) | _labels(profile, samples),
            plan=plan.ranges(),
            sizes=plan.sizes(),
            profile_sha256=profile.sha256,
            versions=versions(),
        )
        figures = {
            "macs": cost.macs,
            "macs_ratio": cost.macs / max(1, parent.cost.macs),
            "parameters": cost.parameters,
        }
        stamp(model, "module", origin, figures)
        return cost


def _checked_scores(method: Method, inputs: ImportanceInputs) -> Scores:
    """Return the scores of a method, which may be another distribution's: one finite number per channel.

    Raises:
        GraftError: they are not.
    """
    scores = np.asarray(method.scores(inputs))
    shape, numbers = (inputs.groups.count,), scores.dtype.kind in "fiu"
    if scores.shape != shape or not numbers or not np.isfinite(scores).all():
        found = "some that are not finite" if numbers else f"type {scores.dtype}"
        found = found if scores.shape == shape else f"shape {scores.shape}"
        raise GraftError(
            "method-scores",
            f"the method {method.name} returned scores that cannot be used: expected finite numbers of shape "
            f"{shape}, found {found}",
            "choose another method, or correct this one",
        )
    return scores


def _declined(parent: Parent, reports: Sequence[Report]) -> tuple[Declined, ...]:
    """Return what normalization and the passes of one module declined."""
    return (*parent.declined, *(declined for report in reports for declined in report.declined))


def _labels(profile: Profile, samples: Samples | None) -> dict[str, object]:
    """Return what the record of a module says of labels that are predictions."""
    predicted = samples is not None and samples.split.predicted
    if not predicted and profile.label_source == "data":
        return {}
    among = samples.split.label_classes if samples is not None and predicted else profile.label_classes
    return {"label_source": "predictions"} | ({} if among is None else {"label_classes": list(among)})


def _typicality(headed: Analysed, profile: Profile, classes: Sequence[str], plan: Plan) -> Mahalanobis | None:
    """Return statistics of the last features that ``plan`` leaves of a model that is not cut yet."""
    model, groups = headed.model, headed.groups
    place = last_features(model, groups, model.require_card().output.name)
    if place is None:
        return None
    stays = plan.mask(groups)[place.channels]
    found = Mahalanobis.fit(profile, groups.key(place.tensor, place.axis), stays, classes)
    return replace(found, tensor=place.tensor) if found else None


def _profile(context: Context) -> Profile:
    if context.profile is None:
        raise GraftError(
            "profile-missing", "a module takes a profile of its parent", "make one with 'graft profile'"
        )
    return context.profile
