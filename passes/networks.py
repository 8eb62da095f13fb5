"""The networks of a composite: a trunk for each parent that is at hand, else each module as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from graft.passes.base import Context
from graft.passes.compare import Comparison, Situation, comparison_called, default_comparison
from graft.passes.join.adopt import adopted, is_whole
from graft.passes.join.compatibility import check_classes, check_kinds, display_name
from graft.passes.join.equal_parts import spared_macs
from graft.passes.join.network import Network, macs_with_distances
from graft.passes.select.continuous import Continuous
from graft.passes.select.layers import LayerRules
from graft.passes.trunk import Siblings, Source, Trunk
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import MASKED, Origin, ParentRecord, origin_of

LOST = "not at hand"


@dataclass(frozen=True)
class Modules:
    """Modules to be joined.

    Attributes:
        models: that ``decompose`` or ``compose`` wrote, or any classifiers with a card, which are modules for
            all of their classes; the classes of the result come in their order.
        sources: graph hash of a parent at hand to what a trunk needs of it.
        rename: for each module, old name to new name of its classes; empty: nothing is renamed.
    """

    models: Sequence[Model]
    sources: Mapping[str, Source] = field(default_factory=dict)
    rename: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(map(adopted, self.models)))

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
            same = origin.parents[0].graph_sha256 == origins[0].parents[0].graph_sha256
            check_kinds(first, module.require_card(), same_parent=same)


@dataclass(frozen=True)
class Networks:
    """Choose the networks of a composite, with the options of :class:`graft.passes.compose.Compose`.

    Attributes:
        strategy: ``auto``, ``trunk`` or ``branches``.
        keep: budget of the trunks; ``None``: the largest among the modules of the parent.
        other: a single trunk has a column ``(other)``.
        scores: name of a comparison, or an object; ``None``: the default.
        continuous: trunks are planned with samples of the other networks' classes.
        round_to: see :class:`graft.passes.select.budget.Budget`.
        verify: compare trunks with their masked parents.
        layers: of trunks, beside those that their modules were planned with.
    """

    strategy: str = "auto"
    keep: float | None = None
    other: bool = False
    scores: str | Comparison | None = None
    continuous: bool = False
    round_to: int | None = None
    verify: bool = False
    layers: LayerRules = field(default_factory=LayerRules)

    def choose(self, modules: Modules, context: Context) -> tuple[list[Network], str]:
        """Return the networks of the composite, in the order of the parents, and why these.

        Args:
            modules: models, and parents at hand.
            context: data of all classes for continuous learning; device.

        Raises:
            GraftError: a trunk is wanted and its parent is not at hand, a trunk cannot be cut, or continuous
                learning lacks data.
        """
        if self.continuous:
            modules = replace(modules, sources=self._continued(modules, context))
        members, apart = _members(modules)
        at_hand = {} if self.strategy == "branches" else dict(modules.sources)
        sources = [at_hand[each] for each in members if each in at_hand and each not in apart]
        spared = dict(zip(map(id, sources), spared_macs([each.parent for each in sources]), strict=True))
        networks: list[Network] = []
        without: list[str] = []
        for parent, numbers in members.items():
            why = apart.get(parent)
            source = at_hand.get(parent) if why is None else None
            if source is None:
                without.append(why or f"{LOST}: {_parent_name(modules, numbers[0])}")
                networks += [_alone(modules, number) for number in numbers]
            else:
                siblings = Siblings(
                    [modules.origins[each] for each in numbers],
                    source,
                    *(len(members) > 1, spared[id(source)]),
                )
                networks.append(self._trunk(modules, numbers, siblings, context))
        self._check_possible(without, networks)
        self._check_layers(sources)
        if self.strategy != "auto":
            return networks, "asked for"
        if len(members) == 1 and not apart:
            return networks, "the parent is not at hand" if without else "all modules are of one parent"
        if without:
            return networks, _reason(without)
        return networks, f"one network for each of {len(members)} parents"

    def _trunk(
        self, modules: Modules, numbers: Sequence[int], siblings: Siblings, context: Context
    ) -> Network:
        """Return the one network of a parent: a single module as it is, or a new trunk."""
        parent, beside, first = siblings.source.parent, siblings.beside, modules.models[numbers[0]]
        most = parent.cost.macs + siblings.spared
        planned = self.keep is not None or self.continuous or bool(self.layers)
        as_it_is = len(numbers) == 1 and beside and self.strategy == "auto" and not planned
        if as_it_is and macs_with_distances(first) <= most:
            return Network(first.copy(), True, numbers, most)
        comparison = default_comparison(Situation(parents=2, data=False, steps=False))
        if self.scores is not None:
            comparison = comparison_called(self.scores)
        layers = self.layers.known_to(parent)
        trunk = Trunk(comparison, self.keep, self.other, self.round_to, self.verify, layers)
        report = trunk(siblings, context)
        network = Network(report.model, True, numbers, most, report.declined)
        network.rename({old: new for origin in siblings.origins for new, old in origin.renamed.items()})
        return network

    def _check_possible(self, without: Sequence[str], networks: Sequence[Network]) -> None:
        """Raise unless the networks are of the strategy that was named."""
        lost = any(each.startswith(LOST) for each in without)
        if without and self.strategy == "trunk":
            raise GraftError(
                "parent-missing",
                f"a trunk needs the parent and its profile: {_reason(without)}"
                if lost
                else f"the modules cannot share a trunk: {_reason(without)}",
                "name them with --parent and --profile, or use --strategy branches"
                if lost
                else "use --strategy branches",
            )
        asked = "--keep" if self.keep is not None else next((rule.flag for rule in self.layers), None)
        if asked and all(not network.trunk for network in networks):
            raise GraftError(
                "trunk-only",
                f"{asked} is for a trunk, and the modules are joined as branches",
                "make the parent available with --parent and --profile, or leave it out",
            )

    def _check_layers(self, sources: Sequence[Source]) -> None:
        """Raise where a pattern matches no layer of any parent."""
        known = [self.layers.known_to(source.parent) for source in sources] if self.layers else []
        lost = LayerRules(
            tuple(each for each in self.layers.freeze if all(each not in own.freeze for own in known)),
            tuple(
                each for each in self.layers.keep_layers if all(each not in own.keep_layers for own in known)
            ),
        )
        if lost and sources:
            lost.of(sources[0].parent)  # says which names are near

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


def _alone(modules: Modules, number: int) -> Network:
    """Return a module as a network of its own; one that was masked keeps columns of classes it is not for."""
    model, origin = modules.models[number], modules.origins[number]
    labels = model.require_card().labels
    masked = origin.options.get(MASKED)
    columns = tuple(labels.index(name) for name in origin.classes) if masked else None
    return Network(model.copy(), False, [number], columns=columns)


def _members(modules: Modules) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the numbers of the modules that one network may serve, and why some have none in common.

    The keys are graph hashes of parents, with more behind them for what stays apart.
    """
    members: dict[str, list[int]] = {}
    apart: dict[str, str] = {}
    for number, origin in enumerate(modules.origins):
        parent, name = origin.parents[0].graph_sha256, _parent_name(modules, number)
        if origin.options.get("patches"):
            parent += f" (patched, {number})"
            apart[parent] = f"{LOST}: {name} as it was patched"
        elif origin.options.get(MASKED):
            parent += f" (masked, {number})"
            apart[parent] = f"masks of the parent, made by {origin.options.get('method')}: {name}"
        elif is_whole(modules.models[number]):
            parent += f" (whole, {number})"
            apart[parent] = f"whole classifiers: {name}"
        members.setdefault(parent, []).append(number)
    for parent, numbers in members.items():
        origins = [modules.origins[number] for number in numbers]
        classes = [origin.renamed.get(name, name) for origin in origins for name in origin.classes]
        twice = next((name for name in classes if classes.count(name) > 1), None)
        if twice is not None:
            apart[parent] = f"several cuts of class '{twice}': {_parent_name(modules, numbers[0])}"
    return members, apart


def _parent_name(modules: Modules, number: int) -> str:
    """Return the name of the parent of a module."""
    return display_name(modules.origins[number].parents[0])


def _reason(without: Sequence[str]) -> str:
    """Join reasons, each named once with all that it holds for."""
    found: dict[str, list[str]] = {}
    for each in without:
        why, _, name = each.partition(": ")
        found.setdefault(why, []).append(name)
    return "; ".join(f"{why}: {', '.join(dict.fromkeys(names))}" for why, names in found.items())
