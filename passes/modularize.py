"""Decompose a parent into a module for each of several sets of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from graft.passes.base import Context, Report, all_declined
from graft.passes.budget_search import BudgetSearch, BudgetSearchReport
from graft.passes.compose import Compose
from graft.passes.decompose import Decompose, DecomposeReport
from graft.passes.join.convert import Convert
from graft.passes.mask import Mask, MaskedReport
from graft.passes.networks import Modules
from graft.passes.parent import Parent
from graft.passes.select.budget import dead_channels
from graft.passes.select.profiling import warn_if_far_below
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.measure.cost import CostModel
from graft.rewriter.measure.evaluation import Scored, score
from graft.rewriter.measure.one_class import AgainstRest, is_one_class, with_few_of_the_rest
from graft.rewriter.measure.pseudo_labels import describe_labels
from graft.rewriter.record.folder import PARENT, PROFILE, ModuleFolder
from graft.rewriter.record.profile import Profile
from graft.rewriter.record.slugs import slugs
from graft.rewriter.run.equivalence import check
from graft.rewriter.run.session import Device

LONGEST_NAME = 4
"""Files of modules are called after so many classes at most."""


@dataclass(frozen=True)
class Measured:
    """Accuracy on held-out samples of the classes.

    Attributes:
        parent: top-1 of the parent, restricted to the classes; of one class against the rest.
        composed: top-1 of all modules joined as branches; of one module of one class its own.
        samples: number of samples.
        left_out: classes that have none of them.
    """

    parent: float
    composed: float
    samples: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassFigures:
    """A module of one class, beside its parent, on the same held-out samples.

    Attributes:
        module: figures of the module.
        parent: of the parent, which decides between the class and all others together.
    """

    module: AgainstRest
    parent: AgainstRest


@dataclass(frozen=True, kw_only=True)
class ModularizeReport(Report):
    """The modules; ``changed`` counts them.

    ``declined`` holds what the searches, the modules and joining them left as it was.

    Attributes:
        parent: the classifier that they were cut out of.
        profile: of the parent.
        classes: the classes of each module.
        modules: the modules, in the order of the sets.
        searches: the budget that was found for each, where budgets were searched.
        against_rest: for each module of one class what it and the parent say of that class on held-out
            samples.
        measured: accuracy of all of them together, where there were held-out samples.
        providers: what ran the modules, or the parent where they are not run.
        sources: where labels and splits are from, as ``--json`` says it.
    """

    parent: Parent
    profile: Profile
    classes: tuple[tuple[str, ...], ...]
    modules: tuple[DecomposeReport, ...]
    searches: tuple[BudgetSearchReport, ...] = ()
    against_rest: tuple[ClassFigures | None, ...] = ()
    measured: Measured | None = None
    providers: tuple[str, ...] = ()
    sources: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Return costs and accuracy, as ``graft.json`` of the folder of modules holds them."""
        names = [
            "+".join(part) if len(part) <= LONGEST_NAME else f"{len(part)}-classes" for part in self.classes
        ]
        entries = [
            {
                "file": f"{slug}.onnx",
                "plan": f"plans/{slug}.json",
                "classes": list(part),
                "one_class": is_one_class(module.model.require_card().labels),
                **self._costs(module),
            }
            for slug, part, module in zip(slugs(names), self.classes, self.modules, strict=True)
        ]
        for entry, search in zip(entries, self.searches, strict=False):
            entry.update(difference=search.difference, difference_standard_error=search.standard_error)
        for entry, figures in zip(entries, self.against_rest, strict=False):
            if figures:
                entry.update(**figures.module.plain(), parent=figures.parent.plain())
        for entry, module in zip(entries, self.modules, strict=True):
            if module.words:
                entry.update(vocabulary=[asdict(words) for words in module.words])
            if module.timed:
                entry.update(latency_ms=module.timed.milliseconds, latency_ratio=module.timed.ratio)
            if isinstance(module, MaskedReport):
                entry.update(zero_weights_ratio=module.zero_weights)
        found: dict[str, Any] = {"parent": self._parent(), "modules": entries, **self._layers()}
        if self.measured:
            found["parent"]["top1"] = self.measured.parent
            found.update(composed_top1=self.measured.composed, test_samples=self.measured.samples)
            found["classes_without_test_samples"] = list(self.measured.left_out)
        for table in self.parent.latency_tables[:1]:
            found["latency_table"] = {
                "milliseconds": table.milliseconds,
                "batch": table.batch,
                "providers": list(table.providers),
                "nodes": table.rows(),
            }
        found["declined"] = list(map(str, self.declined))
        return {**found, **self.sources, "providers": list(self.providers)}

    def save(self, folder: ModuleFolder) -> dict[str, Any]:
        """Write modules, plans, the parent with its profile, and ``graft.json``, whole or not at all.

        Args:
            folder: where to.

        Returns:
            The content of ``graft.json``.

        Raises:
            GraftError: the folder cannot be written.
        """
        found = self.describe()
        with folder:
            for entry, module in zip(found["modules"], self.modules, strict=True):
                module.model.save(folder.file(entry["file"]), force=True)
                folder.file(entry["plan"]).write_text(module.plan.to_json(), encoding="utf-8")
                entry["bytes"] = folder.size(entry["file"])
            self.parent.source.save(folder.file(PARENT), force=True)
            self.profile.save(folder.file(PROFILE), force=True)
            return folder.index({"schema": "graft/decompose/1", **found})

    def _costs(self, module: DecomposeReport) -> dict[str, Any]:
        """Return the cost of a module, and its share of the parent's."""
        kept, channels = module.plan.counts()
        cost, whole = module.cost, self.parent.cost
        return {
            "macs": cost.known_macs,
            "parameters": cost.parameters,
            "macs_ratio": None if cost.unknown else cost.macs / max(1, whole.macs),
            "parameters_ratio": cost.parameters / max(1, whole.parameters),
            "channels_kept": kept,
            "channels": channels,
            "law_difference": module.difference,
            "declined": [str(declined) for declined in module.declined],
        }

    def _layers(self) -> dict[str, Any]:
        """Return the layers that did not compete for the budget: the same in all modules."""
        plan = self.modules[0].plan
        return {"frozen": list(plan.frozen), "keep_layers": dict(plan.keep_layers)}

    def _parent(self) -> dict[str, Any]:
        """Return the cost of the parent, and its dead channels."""
        parent = self.parent
        dead = dead_channels(parent.groups, self.profile)
        alive = CostModel(parent.groups).cost(~dead)
        return {
            "file": PARENT.as_posix(),
            "macs": parent.cost.known_macs,
            "parameters": parent.cost.parameters,
            "dead_channels": int(dead.sum()),
            "parameters_without_dead_ratio": alive.parameters / max(1, parent.cost.parameters),
            "train_top1": self.profile.top1,
        }


@dataclass(frozen=True)
class Modularize:
    """Cut a module for each set of classes, and measure all of them together.

    Attributes:
        sets: the classes of each module.
        decompose: the options of every cut; its classes are not used.
        max_drop: the budget of each is the smallest that costs at most so many percentage points, see
            :class:`graft.passes.budget_search.BudgetSearch`; ``None``: as ``decompose`` says.
        convert: the versions of the modules.
        mask: makes each module instead, a mask of the parent; its class is not used.
        progress: called with 1 after each module.
    """

    sets: tuple[tuple[str, ...], ...]
    decompose: Decompose
    max_drop: float | None = None
    convert: Convert = field(default_factory=Convert)
    mask: Mask | None = None
    progress: Callable[[int], None] | None = field(default=None, compare=False)

    def __call__(self, parent: Parent, context: Context) -> ModularizeReport:
        """Cut and measure.

        Args:
            parent: the parent.
            context: its profile; samples and device for methods that run it; held-out samples of the classes,
                all modules joined are measured on.

        Returns:
            The modules.

        Raises:
            GraftError: a module cannot be cut, converted or verified.
        """
        if context.profile is None:
            raise GraftError(
                "profile-missing", "a module takes a profile of its parent", "make one with 'graft profile'"
            )
        modules, searches = [], []
        for classes in self.sets:
            decompose = replace(self.decompose, classes=classes)
            if self.max_drop is not None:
                searches.append(BudgetSearch(self.max_drop, decompose)(parent, context))
                decompose = replace(decompose, keep=searches[-1].keep)
            modules.append(self._cut(decompose, parent, context))
            if self.progress:
                self.progress(1)
        ran = modules[0].model if self.decompose.verify else parent.model  # the parent takes more memory
        against_rest = self._against_rest(parent, modules, context)
        measured, joined = self._measured(parent, modules, context)
        if measured and len(self.sets) == 1 and against_rest and (only := against_rest[0]):
            measured = replace(  # among one class everything is right
                measured, parent=only.parent.top1, composed=only.module.top1, samples=only.module.samples
            )
        return ModularizeReport(
            changed=len(modules),
            declined=all_declined([*searches, *modules, joined]),
            parent=parent,
            profile=context.profile,
            classes=self.sets,
            modules=tuple(modules),
            searches=tuple(searches),
            against_rest=against_rest,
            measured=measured,
            providers=context.device.open(ran).providers,
            sources=_sources(context, [name for classes in self.sets for name in classes]),
        )

    def _cut(self, decompose: Decompose, parent: Parent, context: Context) -> DecomposeReport:
        """Cut a module and bring it to the versions that are wanted."""
        report = self._module(decompose, parent, context)
        converted = self.convert(report.model, context)
        if decompose.verify:
            check(report.model)
            context.device.open(report.model)
        return replace(report, declined=(*report.declined, *converted.declined))

    def _module(self, decompose: Decompose, parent: Parent, context: Context) -> DecomposeReport:
        if self.mask is None:
            return decompose(parent, context)
        (name,) = decompose.classes
        return replace(self.mask, name=name)(parent, context)

    def _measured(
        self, parent: Parent, modules: list[DecomposeReport], context: Context
    ) -> tuple[Measured | None, Report]:
        """Measure the parent, restricted to the classes, and all modules joined; also report the joining."""
        samples = context.held_out
        if samples is None:
            return None, Report()
        names = tuple(name for classes in self.sets for name in classes)
        whole = score(parent.model, samples, context.device, names).summary()["top1"]
        warn_if_far_below(whole, parent.source)
        scores = self.mask.method.scores if self.mask else None
        report = Compose("branches", scores=scores)(Modules([module.model for module in modules]), context)
        joined = report.model
        present = [name for name in names if name in samples.counts()]
        own = Samples.match(samples.split, joined.require_card(), present, names=parent.card.labels)
        composed = score(joined, own, context.device, names).summary()["top1"]
        left_out = tuple(name for name in names if name not in present)
        return Measured(whole, composed, len(samples), left_out), report

    def _against_rest(
        self, parent: Parent, modules: list[DecomposeReport], context: Context
    ) -> tuple[ClassFigures | None, ...]:
        """Measure each module of one class on held-out samples of that class and of all others."""
        cards = [module.model.require_card() for module in modules]
        if context.held_out is None or not any(is_one_class(card.labels) for card in cards):
            return ()
        every = Samples.match(context.held_out.split, parent.card)
        tested = {
            place: with_few_of_the_rest(every, card.labels[0], context.seed)
            for place, card in enumerate(cards)
            if is_one_class(card.labels)
        }
        whole = dict(zip(tested, _scored(parent, every, list(tested.values()), context.device), strict=True))
        found: list[ClassFigures | None] = [None] * len(modules)
        for place, samples in tested.items():
            card = cards[place]
            own = Samples.match(samples.split, card, names=parent.card.labels)
            own = own.take(np.isin(own.indices, samples.indices))
            ours = AgainstRest.of(score(modules[place].model, own, context.device))
            theirs = AgainstRest.of(whole[place].restricted(card.labels, parent.card.output.kind))
            found[place] = ClassFigures(ours, theirs) if ours and theirs else None
        return tuple(found)


def _scored(parent: Parent, every: Samples, sets: list[Samples], device: Device) -> list[Scored]:
    """Return the parent's scores of each set of samples of ``every``; a sample of several sets runs once."""
    union = every.take(np.isin(every.indices, np.concatenate([each.indices for each in sets])))
    scored = score(parent.model, union, device)
    found = []
    for each in sets:
        if len(each) == len(union):
            found.append(scored)
        elif each.labels.ndim == 1:
            rows = np.searchsorted(union.indices, each.indices)
            part = replace(scored, scores=scored.scores[rows], labels=scored.labels[rows], samples=len(rows))
            found.append(part)
        else:  # the rows are time steps that count, not samples
            found.append(score(parent.model, each, device))
    return found


def _sources(context: Context, classes: Sequence[str]) -> dict[str, Any]:
    """Return where the labels of training and held-out samples are from, and how splits were drawn.

    Args:
        context: samples and profile.
        classes: of the modules.
    """
    samples, held_out, profile = context.samples, context.held_out, context.profile
    found: dict[str, Any] = {"label_source": "data"}
    if samples is not None:
        found = describe_labels(samples, classes)
    if profile is not None and profile.label_source != "data":
        found["label_source"] = profile.label_source
        found.setdefault("label_classes", profile.label_classes and list(profile.label_classes))
    if held_out is not None:
        found |= held_out.split.describe_held_out()
    return found
