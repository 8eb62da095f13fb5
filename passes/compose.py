"""Join modules into one classifier: a trunk for each parent that is at hand, branches side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from graft.passes.base import Context, Declined, Report
from graft.passes.compare import Comparison, Situation, comparison_called, default_comparison
from graft.passes.compare.fitting import FitReport
from graft.passes.compare.reject import FALSE_POSITIVE_RATE, Reject, RejectReport
from graft.passes.compare.score import Logits
from graft.passes.join.compatibility import check_classes, check_kinds, display_name, parents_macs
from graft.passes.join.merge import INPUTS, Meet, input_of
from graft.passes.join.network import Network, macs_with_distances
from graft.passes.join.side_by_side import SideBySide
from graft.passes.select.continuous import Continuous
from graft.passes.trunk import Siblings, Source, Trunk
from graft.rewriter.card.card import OTHER
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.measure.cost import cost_of
from graft.rewriter.record.mahalanobis import KEY
from graft.rewriter.record.provenance import Origin, ParentRecord, origin_of, stamp, terms, versions

STRATEGIES = ("auto", "trunk", "branches")


@dataclass(frozen=True)
class Modules:
    """Modules to be joined.

    Attributes:
        models: that ``decompose`` or ``compose`` wrote; the classes of the result come in their order.
        sources: graph hash of a parent at hand to what a trunk needs of it.
        rename: for each module, old name to new name of its classes; empty: nothing is renamed.
    """

    models: Sequence[Model]
    sources: Mapping[str, Source] = field(default_factory=dict)
    rename: Sequence[Mapping[str, str]] = ()

    @cached_property
    def origins(self) -> tuple[Origin, ...]:
        """The record of each module."""
        return tuple(origin_of(model) for model in self.models)

    @cached_property
    def names(self) -> tuple[Mapping[str, str], ...]:
        """For each module, old name to new name of classes that are renamed."""
        return tuple(self.rename) or ({},) * len(self.models)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The columns of the result."""
        return tuple(
            names.get(name, name)
            for origin, names in zip(self.origins, self.names, strict=True)
            for name in origin.classes
        )

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Name in the result to name in the parent, where these differ."""
        pairs = {
            names.get(name, name): origin.renamed.get(name, name)
            for origin, names in zip(self.origins, self.names, strict=True)
            for name in origin.classes
        }
        return {new: old for new, old in pairs.items() if new != old}

    @cached_property
    def parents(self) -> dict[str, ParentRecord]:
        """Graph hash to record of each parent, in the order of the modules."""
        return {origin.parents[0].graph_sha256: origin.parents[0] for origin in self.origins}

    def check(self) -> None:
        """Raise unless the modules can be joined.

        Raises:
            GraftError: nothing to join, a class twice, samples for one cannot be samples for another.
        """
        origins = self.origins
        check_classes(self.models, origins, self.names)
        first = self.models[0].require_card()
        for module, origin in zip(self.models[1:], origins[1:], strict=True):
            check_kinds(first, module.require_card(), same_parent=origin.parents == origins[0].parents)


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
        joint: the fit of the scores to samples, where there was one.
        reject: the limit of rejection, where the column ``(other)`` is for out-of-distribution samples.
    """

    model: Model
    strategy: str
    reason: str
    scores: str = ""
    adapted: tuple[tuple[str, ...], ...] = ()
    joint: FitReport | None = None
    reject: RejectReport | None = None


@dataclass(frozen=True, kw_only=True)
class _Joined(Report):
    """Networks in one graph, with fitted scores."""

    model: Model
    scores: str = ""
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
        if self.continuous:
            modules = replace(modules, sources=self._continued(modules, context))
        networks, reason = self._networks(modules, context)
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
            return _Joined(declined=tuple(declined), model=model)
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
        if rejects:
            room = parents_macs(modules.models) - cost_of(model).macs
            reject = Reject(self.false_positive_rate, room)(model, fitting)
        reports = [each for each in (merged, joint, reject) if each]
        declined += [each for report in reports for each in report.declined]
        scores = "" if single else comparison.name
        return _Joined(declined=tuple(declined), model=model, scores=scores, joint=joint, reject=reject)

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

    # ------------------------------------------------------------ which networks

    def _networks(self, modules: Modules, context: Context) -> tuple[list[Network], str]:
        """Return the networks of the composite, in the order of the parents, and why these."""
        members: dict[str, list[int]] = {}
        for number, origin in enumerate(modules.origins):
            patched = f" (patched, {number})" if origin.options.get("patches") else ""
            members.setdefault(f"{origin.parents[0].graph_sha256}{patched}", []).append(number)
        networks: list[Network] = []
        without: list[str] = []
        for parent, numbers in members.items():
            origin = modules.origins[numbers[0]]
            source = None if self.strategy == "branches" else modules.sources.get(parent)
            if source is None:
                name = display_name(origin.parents[0], parent)
                without.append(f"{name} as it was patched" if origin.options.get("patches") else name)
                networks += [Network(modules.models[each].copy(), False, [each]) for each in numbers]
            else:
                beside = len(members) > 1
                networks.append(self._trunk(modules, numbers, source, beside, context))
        self._check_possible(without, networks)
        if self.strategy != "auto":
            return networks, "asked for"
        if len(members) == 1:
            return networks, "the parent is not at hand" if without else "all modules are of one parent"
        if without:
            return networks, f"not at hand: {', '.join(without)}"
        return networks, f"one network for each of {len(members)} parents"

    def _trunk(
        self, modules: Modules, numbers: Sequence[int], source: Source, beside: bool, context: Context
    ) -> Network:
        """Return the one network of a parent: a single module as it is, or a new trunk."""
        most, first = source.parent.cost.macs, modules.models[numbers[0]]
        as_it_is = len(numbers) == 1 and beside and self.strategy == "auto" and self.keep is None
        if as_it_is and not self.continuous and macs_with_distances(first) <= most:
            return Network(first.copy(), True, numbers, most)
        comparison = default_comparison(Situation(parents=2, data=False, steps=False))
        if self.scores is not None:
            comparison = comparison_called(self.scores)
        trunk = Trunk(comparison, self.keep, self.other, self.round_to, self.verify)
        origins = [modules.origins[number] for number in numbers]
        report = trunk(Siblings(origins, source, beside), context)
        network = Network(report.model, True, numbers, most, report.declined)
        network.rename({old: new for origin in origins for new, old in origin.renamed.items()})
        return network

    def _check_possible(self, without: Sequence[str], networks: Sequence[Network]) -> None:
        """Raise unless the networks are of the strategy that was named."""
        if without and self.strategy == "trunk":
            raise GraftError(
                "parent-missing",
                f"a trunk needs the parent and its profile, and those of {', '.join(without)} are not "
                "beside the modules",
                "name them with --parent and --profile, or use --strategy branches",
            )
        if self.keep is not None and all(not network.trunk for network in networks):
            raise GraftError(
                "trunk-only",
                "--keep is for a trunk, and the modules are joined as branches",
                "make the parent available with --parent and --profile, or leave it out",
            )

    def _continued(self, modules: Modules, context: Context) -> dict[str, Source]:
        """Return the parents at hand, with profiles that know of the other networks' classes."""
        parents, data = modules.parents.keys(), context.data
        at_hand = parents <= modules.sources.keys()
        if not at_hand or data is None or len(parents) < 2 or self.strategy == "branches":
            raise GraftError(
                "continuous-data",
                "continuous learning takes several parents, all at hand, and data of all classes",
                "name --parent, --profile and --data, and no --strategy branches; or leave it out",
            )
        found = {}
        for sha256, source in modules.sources.items():
            others = {
                names.get(name, name)
                for origin, names in zip(modules.origins, modules.names, strict=True)
                if origin.parents[0].graph_sha256 != sha256
                for name in origin.classes
            }
            learned = Continuous(frozenset(others))(source.parent, replace(context, profile=source.profile))
            found[sha256] = replace(source, profile=learned.profile)
        return found

    # ------------------------------------------------------------ the record

    def _stamp(
        self, model: Model, modules: Modules, options: dict[str, object], alone: Origin | None
    ) -> None:
        """Write card and origin of the composite; a single network was planned as ``alone`` says."""
        card, parents = model.require_card(), tuple(modules.parents.values())
        model.card = card.replace(name=None if len(parents) > 1 else card.name, **terms(parents))
        asked = {name: getattr(self, name) for name in ("keep", "other", "round_to")}
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
