"""One network for several modules of one parent: planned anew as one set of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from graft.passes.base import Context, Declined, Report
from graft.passes.compare import Comparison
from graft.passes.compensate.fold import FOLD, REFIT
from graft.passes.decompose import Decompose
from graft.passes.identify import DEFAULT, method_of
from graft.passes.join.compatibility import display_name
from graft.passes.join.naming import TRAIN
from graft.passes.parent import Parent
from graft.passes.select.layers import LayerRules, joined
from graft.rewriter.data.prefixed import PrefixedData
from graft.rewriter.data.samples import Samples
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.groups.outputs import last_features
from graft.rewriter.record.folder import PARENT, PROFILE, parents_beside
from graft.rewriter.record.profile import PRODUCTS, Profile
from graft.rewriter.record.provenance import Asked, Origin, origin_of


@dataclass(frozen=True)
class Source:
    """A parent at hand, with all that a trunk is planned from.

    Attributes:
        parent: ready to be cut.
        profile: of the parent.
        samples: matched to its card, to refit a trunk; ``None``: a trunk is not refitted.
    """

    parent: Parent
    profile: Profile
    samples: Samples | None = None


def refit_samples(
    parent: Parent, data: Sequence[PrefixedData], prefixes: Set[str], ignore: str | None, alone: bool
) -> Samples | None:
    """Return samples to refit a trunk with: the training split of the first data set that is its parent's.

    Its prefix is one of the parent's modules, and it has classes of the parent.

    Args:
        parent: of the trunk.
        data: labelled samples with their prefixes.
        prefixes: of the modules of the parent.
        ignore: a class whose labels do not count, with or without its prefix.
        alone: there is no other parent, so that class numbers without names are those of this one.

    Raises:
        GraftError: the data cannot be read, or has no samples of the parent.
    """
    for each in data:
        if TRAIN not in each.dataset.splits or each.prefix not in prefixes:
            continue
        part = each.dataset.split(TRAIN)
        if part.class_names is None and not alone:
            continue
        if part.class_names is not None and not set(part.class_names) & set(parent.card.labels):
            continue
        bare = ignore.removeprefix(f"{each.prefix}:") if ignore and each.prefix else ignore
        return Samples.match(replace(part, ignore=bare), parent.card)
    return None


def with_refit_samples(
    sources: Mapping[str, Source],
    modules: Sequence[Model],
    prefixes: Sequence[str],
    data: Sequence[PrefixedData],
    ignore: str | None,
) -> dict[str, Source]:
    """Return ``sources`` with samples to refit trunks with, where the data holds some of their parent.

    Args:
        sources: parents at hand, by graph hash.
        modules: that are to be joined.
        prefixes: of each module.
        data: labelled samples with their prefixes.
        ignore: a class whose labels do not count, with or without its prefix.

    Raises:
        GraftError: the data cannot be read, or has no samples of a parent.
    """
    owners = [origin_of(module).parents[0].graph_sha256 for module in modules]
    found = {}
    for sha256, source in sources.items():
        own = {prefix for prefix, owner in zip(prefixes, owners, strict=True) if owner == sha256}
        samples = refit_samples(source.parent, data, own, ignore, len(set(owners)) == 1)
        found[sha256] = replace(source, samples=samples)
    return found


def load_sources(
    modules: Sequence[Model], files: Sequence[Path], parents: Sequence[Path], profiles: Sequence[Path]
) -> dict[str, Source]:
    """Load the parents and profiles that are named, or lie beside the modules, if they are theirs.

    Args:
        modules: that ``decompose`` wrote.
        files: where the modules lie.
        parents: files of parents, which have to be theirs.
        profiles: files of profiles, which have to be of their parents.

    Returns:
        Graph hash of a parent to the parent and its profile.

    Raises:
        GraftError: ``parent-of-another``, ``profile-of-another``, or a file cannot be read.
    """
    wanted = {record.graph_sha256 for module in modules for record in origin_of(module).parents}
    beside = parents_beside(files)
    loaded = [Profile.load(path) for path in (*profiles, *(folder / PROFILE for folder in beside))]
    found: dict[str, Source] = {}
    for path in (*parents, *(folder / PARENT for folder in beside)):
        model = Model.load(path)
        model.card = model.require_card(path)
        sha256 = model.graph_sha256()
        if sha256 not in wanted:
            if path in parents:
                raise GraftError(
                    "parent-of-another", f"{path} is not the parent of these modules", "name their parent"
                )
            continue
        mine = next((each for each in loaded if each.parent == sha256), None)
        if sha256 in found or mine is None:
            continue
        found[sha256] = Source(Parent(model), mine)
    for path, each in zip(profiles, loaded, strict=False):
        if each.parent not in wanted:
            raise GraftError(
                "profile-of-another",
                f"the profile {path} was made from another model",
                "name the profile of their parent",
            )
    return found


@dataclass(frozen=True)
class Siblings:
    """Modules of one parent that is at hand.

    Attributes:
        origins: of each module.
        source: their parent.
        beside: other networks stand beside the trunk.
        spared: multiply-accumulates that run once for this parent and another one.
    """

    origins: Sequence[Origin]
    source: Source
    beside: bool
    spared: int = 0

    @property
    def classes(self) -> list[str]:
        """The classes of all modules, as the parent calls them."""
        return [origin.renamed.get(name, name) for origin in self.origins for name in origin.classes]

    @property
    def name(self) -> str:
        """The name of the parent."""
        return display_name(self.origins[0].parents[0], self.source.parent.sha256)


@dataclass(frozen=True, kw_only=True)
class TrunkReport(Report):
    """One network for several modules.

    Attributes:
        model: the trunk, with its card; classes are called as the parent calls them.
    """

    model: Model


@dataclass(frozen=True)
class Trunk:
    """Plan one network for modules of one parent, which never costs more than the parent.

    It gets the method and the compensation of the first module and the largest budget among them, as far
    as these need no samples that are not there.

    Attributes:
        comparison: how networks beside it will be compared, which takes a part of the budget.
        keep: budget; ``None``: the largest among the modules.
        other: a column ``(other)`` for the parent's other classes, where nothing stands beside the trunk.
        round_to: see :class:`graft.passes.select.budget.Budget`; ``None``: as the first module.
        verify: compare the trunk with its masked parent.
        layers: to leave alone, and shares of one's own, beside those that the modules were planned with.
    """

    comparison: Comparison
    keep: float | None = None
    other: bool = False
    round_to: int | None = None
    verify: bool = False
    layers: LayerRules = field(default_factory=LayerRules)

    def __call__(self, siblings: Siblings, context: Context) -> TrunkReport:
        """Plan and cut the trunk of ``siblings``.

        Args:
            siblings: the modules and their parent.
            context: the device where the trunk is refitted, measured and verified.

        Raises:
            GraftError: the modules say nothing readable of their options, or the trunk cannot be cut.
        """
        source, beside = siblings.source, siblings.beside
        asked = [Asked.of(origin) for origin in siblings.origins]
        first, declined = _without_samples(asked[0], siblings)
        most = 1.0 - (self._room(siblings) if beside else 0.0)
        keep = self._budget(asked)
        layers = joined([*(LayerRules.read(each.freeze, each.keep_layers) for each in asked), self.layers])
        decompose = Decompose(
            siblings.classes,
            keep=min(keep or 1.0, most) if beside and first.unit == "macs" else keep,
            unit=first.unit,
            method=first.method,
            compensate=first.compensate,
            together=beside or len(siblings.classes) > 1,
            other=self.other and not beside and len(siblings.classes) < len(source.parent.record.labels),
            rest=beside,
            round_to=first.round_to if self.round_to is None else self.round_to,
            mirror=first.mirror,
            verify=self.verify,
            freeze=layers.freeze,
            keep_layers=layers.keep_layers,
            vocabulary=first.vocabulary,
        )
        own = replace(context, samples=source.samples, profile=source.profile, seed=first.seed)
        report = decompose(source.parent, own)
        if report.cost.macs > most * source.parent.cost.macs:  # planned by another unit
            report = replace(decompose, keep=most, unit="macs")(source.parent, own)
        return TrunkReport(changed=1, declined=(*declined, *report.declined), model=report.model)

    def _budget(self, asked: Sequence[Asked]) -> float | None:
        """Return the budget of the trunk; ``None``: a module was cut without any."""
        budgets = [each.keep for each in asked if each.keep is not None]
        if self.keep is not None or len(budgets) < len(asked):
            return self.keep
        return max(budgets)

    def _room(self, siblings: Siblings) -> float:
        """Return the share of the parent's work that comparing scores adds to the trunk.

        0 where nothing is added, where what other parents have, too, spares as much, and where so small a
        parent could not give it up.
        """
        source, parent = siblings.source, siblings.source.parent
        place = last_features(parent.model, parent.groups, parent.model.require_card().output.name)
        if place is None or not source.profile.has(PRODUCTS, place.tensor, len(place.channels)):
            return 0.0
        added = self.comparison.added_macs(len(place.channels)) - siblings.spared
        share = max(0, added) / max(1, parent.cost.macs)
        return share if share < 1 else 0.0


def _without_samples(asked: Asked, siblings: Siblings) -> tuple[Asked, list[Declined]]:
    """Return options that need no samples where there are none, and what was declined for that."""
    if siblings.source.samples is not None:
        return asked, []
    where, declined = f"the trunk of {siblings.name}", []
    method = method_of(asked.method)
    if method.samples:
        asked = asked.model_copy(update={"method": DEFAULT})
        declined.append(Declined(where, f"planned by {DEFAULT}: {method.name} takes --data"))
    if asked.compensate == REFIT:
        asked = asked.model_copy(update={"compensate": FOLD})
        declined.append(Declined(where, "compensated by fold: refit takes --data"))
    return asked, declined
