"""Cut a module for a set of classes out of a parent: plan, head, compensate, slice, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from graft.passes.compensate.fold import Compensate, CompensateReport
from graft.passes.compensate.refit import SAMPLES, Refit
from graft.passes.cut.head import Head
from graft.passes.cut.slice import Slice
from graft.passes.cut.verify import Verify
from graft.passes.identify import DEFAULT, ImportanceInputs, method_called
from graft.passes.parent import Parent
from graft.passes.select.budget import Budget, dead_channels
from graft.passes.select.latency_budget import Stopwatch, within
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.groups.plan import Plan
from graft.rewriter.measure.cost import Cost, CostModel, cost_of
from graft.rewriter.measure.latency import LatencyTable, Timed
from graft.rewriter.record.mahalanobis import Mahalanobis
from graft.rewriter.record.profile import Profile
from graft.rewriter.record.provenance import Origin, stamp, versions
from graft.rewriter.run.session import Device


@dataclass(frozen=True)
class DecomposeReport:
    """What came of one set of classes.

    Attributes:
        model: the module, with its card.
        plan: the channels of the parent that it kept.
        cost: what it costs.
        dead: channels of the parent that are zero for every sample: the first to fall.
        compensated: what was changed to make up for removed channels.
        difference: how far the cut was from the masked parent, or ``None`` where it was not verified.
        timed: milliseconds of the module and of its parent, where the budget was one of latency.
    """

    model: Model
    plan: Plan
    cost: Cost
    dead: int
    compensated: CompensateReport
    difference: float | None = None
    timed: Timed | None = None


@dataclass(frozen=True)
class Decompose:
    """Cut modules out of a parent.

    >>> decompose = Decompose(keep=0.5)                                       # doctest: +SKIP
    >>> module = decompose(parent, profile, ["cat"]).model                    # doctest: +SKIP

    Attributes:
        keep: share of the parent's cost that a module may have; ``None``: nothing falls.
        unit: what is counted, see :class:`graft.passes.select.budget.Budget`.
        method: name of the method of concern identification.
        compensate: step of :data:`graft.passes.compensate.fold.LADDER`.
        together: one module for the set of classes, even for a set of one.
        other: a column ``(other)`` beside the classes.
        rest: the output ``rest`` beside the classes of a set.
        seed: for methods that draw.
        round_to: see :class:`graft.passes.select.budget.Budget`.
        samples: at most so many are used to refit.
        mirror: images of the data count as in a mirror, too.
        stopwatch: where latency is measured, for that unit.
    """

    keep: float | None = None
    unit: str = "macs"
    method: str = DEFAULT
    compensate: str = "fold"
    together: bool = False
    other: bool = False
    rest: bool = True
    seed: int = 0
    round_to: int | None = None
    samples: int = SAMPLES
    mirror: bool = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch, compare=False, repr=False)

    def options(self) -> dict[str, object]:
        """The options, as modules record them."""
        names = (
            "keep",
            "unit",
            "method",
            "compensate",
            "together",
            "other",
            "rest",
            "seed",
            "round_to",
            "mirror",
        )
        return {name: getattr(self, name) for name in names}

    def plan(
        self,
        parent: Parent,
        profile: Profile,
        classes: Sequence[str],
        data: Samples | None = None,
        device: Device | None = None,
    ) -> Plan:
        """Which channels a module for ``classes`` keeps.

        Args:
            parent: the parent.
            profile: its profile.
            classes: names.
            data: labelled samples, for methods that run the parent.
            device: where they run it; ``None``: the best there is.
        """
        headed = parent.model.copy()
        head = self.head(classes)(headed)
        table = self._table(parent)
        groups = table.analyse(headed) if table else ChannelGroups(headed)
        budget = Budget(self.keep if self.keep is not None else 1.0, self.unit, self.round_to)
        uncounted = head.nodes if self.unit == "parameters" else frozenset()
        cost = CostModel(groups, uncounted, table)
        whole = table.milliseconds if table else CostModel(parent.groups, uncounted).total(self.unit)
        method = method_called(self.method)
        asked = tuple(name for name in profile.classes if name in set(classes))
        labels = parent.record.labels
        question = ImportanceInputs(headed, groups, profile, labels, asked, self.seed, data, device)
        scores = method.scores(question)
        choose = partial(budget.choose, groups, scores, cost, dead=dead_channels(groups, profile))
        kept = within(budget.keep, choose, headed, groups, table) if table else choose(whole)
        plan = Plan.of(groups, kept, parent.sha256)
        return Plan(parent.sha256, {name: mask for name, mask in plan.kept.items() if name in parent.groups})

    def head(self, classes: Sequence[str]) -> Head:
        """The pass that gives a module for ``classes`` its output."""
        return Head(classes, self.together, self.other, self.rest)

    def __call__(
        self,
        parent: Parent,
        profile: Profile,
        classes: Sequence[str],
        plan: Plan | None = None,
        verify: tuple[Mapping[str, NDArray[Any]], Device] | None = None,
        data: Samples | None = None,
        device: Device | None = None,
    ) -> DecomposeReport:
        """Cut the module for ``classes``.

        Args:
            parent: the parent.
            profile: its profile.
            classes: names, in the order of the module's columns.
            plan: channels to keep; ``None``: as planned by :meth:`plan`.
            verify: samples and device to check the law on; ``None``: no check.
            data: as in :meth:`plan`; a compensation by refit takes it, too.
            device: as in :meth:`plan`.
        """
        if self.mirror and data is not None and data.mirrored is None:
            data = data.with_mirrored()
        plan = plan or self.plan(parent, profile, classes, data, device)
        model = parent.model.copy()
        self.head(classes)(model)
        kept, channels = plan.counts()
        headed = model.copy() if self.compensate == "refit" and kept < channels else None
        typicality = self._typicality(model, profile, classes, plan)
        compensated = Compensate(self.compensate, profile, classes, self.together)(model, plan)
        whole = model.copy()
        Slice(plan)(model)
        difference = Verify(*verify)(whole, plan, model).difference if verify else None
        if headed:
            alone = self.together and not self.other
            refit = Refit(_required(data), classes, device or Device(), alone, self.seed, self.samples)
            refit(model, headed, plan)
        if typicality and typicality.tensor in model.graph.tensors():
            typicality.attach(model)
        dead = int(dead_channels(parent.groups, profile).sum())
        table = self._table(parent)
        timed = table.compare(model) if table else None
        cost = cost_of(model)
        stamp(
            model,
            "module",
            Origin(
                parents=(parent.record,),
                classes=tuple(classes),
                options=self.options(),
                plan=plan.ranges(),
                sizes=plan.sizes(),
                profile_sha256=profile.sha256,
                versions=versions(),
            ),
            {
                "macs": cost.macs,
                "macs_ratio": cost.macs / max(1, parent.cost.macs),
                "parameters": cost.parameters,
            },
        )
        return DecomposeReport(model, plan, cost, dead, compensated, difference, timed)

    def _table(self, parent: Parent) -> LatencyTable | None:
        """What the nodes of ``parent`` take, for a budget of latency."""
        return self.stopwatch.table(parent.sha256, parent.model) if self.unit == "latency" else None

    @staticmethod
    def _typicality(model: Model, profile: Profile, classes: Sequence[str], plan: Plan) -> Mahalanobis | None:
        """Statistics of the last features that ``plan`` leaves of ``model``, which is not cut yet."""
        groups = ChannelGroups(model)
        place = last_features(model, groups, model.require_card().output.name)
        if place is None:
            return None
        stays = plan.mask(groups)[place.channels]
        found = Mahalanobis.fit(profile, groups.key(place.tensor, place.axis), stays, classes)
        return replace(found, tensor=place.tensor) if found else None


def _required(data: Samples | None) -> Samples:
    if data is None:
        raise GraftError("refit-data", "to refit takes labelled samples", "give them, or compensate by fold")
    return data
