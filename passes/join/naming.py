"""Names of classes in a composite or a patched model: prefixes, new names, and those of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from graft.rewriter.data.prefixed import PrefixedData, joined_split, prefixed
from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import numbering, origin_of

TRAIN = "train"


@dataclass(frozen=True)
class Naming:
    """Names of the classes of a composite, and of data for it.

    Attributes:
        modules: for each module, name in the module to name in the composite.
        data: prefixed name to new name of classes of data.
        numbers: by prefix, what class numbers of data without names mean, where one parent is behind it.
    """

    modules: tuple[dict[str, str], ...]
    data: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, modules: Sequence[Model], prefixes: Sequence[str], rename: Mapping[str, str]) -> Naming:
        """Return the names: prefixes first, then all of ``rename`` at once.

        Args:
            modules: that ``decompose`` or ``compose`` wrote.
            prefixes: of each module; ``""``: none.
            rename: prefixed name to new name. A name that several modules have is that of the last one.
        """
        called = prefixed_names(modules, prefixes)
        known = [name for names in called for name in names.values()]
        found = [dict(names) for names in called]
        for old, new in rename.items():
            owner = max(number for number, names in enumerate(called) if old in names.values())
            found[owner].update({name: new for name, now in called[owner].items() if now == old})
        data = {old: new for old, new in rename.items() if known.count(old) == 1}
        return cls(tuple(found), data, _numbers(modules, prefixes))

    def split(self, data: Sequence[PrefixedData], split: str, ignore: str | None) -> Split:
        """Return a split of all data sets, whose classes follow those of the modules.

        A class of the data whose name now belongs to another one is no class of the composite.

        Args:
            data: at least one.
            split: its name.
            ignore: a class whose labels do not count, with or without its prefix.

        Raises:
            GraftError: there is no such split, or names are needed and are not known.
        """
        part = joined_split(data, split, None, self.numbers)
        names = part.class_names
        if names is None:
            return replace(part, ignore=ignore)
        taken = {self.data[name] for name in names if name in self.data}
        now = tuple(self.data.get(name, f"({name})" if name in taken else name) for name in names)
        if ignore is not None and ignore not in names:
            known = [each.name(ignore) for each in data if each.name(ignore) in names]
            ignore = known[0] if len(known) == 1 else ignore
        return replace(part, class_names=now, ignore=self.data.get(ignore, ignore) if ignore else None)

    def training(self, data: Sequence[PrefixedData], ignore: str | None) -> tuple[Split | None, str]:
        """Return the training samples of all data sets; or why scores cannot be fitted to them.

        Args:
            data: may be empty.
            ignore: see :meth:`split`.

        Raises:
            GraftError: data cannot be read, or cannot be joined.
        """
        missing = [each for each in data if TRAIN not in each.dataset.splits]
        if missing:
            source = missing[0].dataset.name
            return None, f"scores are not fitted to data: {source} has no training split"
        if not data:
            return None, ""
        try:
            part = self.split(data, TRAIN, ignore)
        except GraftError as error:
            if error.code != "data-names":
                raise
            return None, f"scores are not fitted to data: {error}"
        if not part.class_names:
            return None, "scores are not fitted to data without class names"
        return part, ""


@dataclass(frozen=True)
class PatchData:
    """Labelled samples for a classifier and a newcomer, with classes as the result calls them.

    Attributes:
        data: labelled samples with their prefixes.
        ignore: a class whose labels do not count.
        rename: prefixed name to new name.
        numbers: by prefix, what class numbers mean where the data has no names.
    """

    data: Sequence[PrefixedData]
    ignore: str | None
    rename: Mapping[str, str]
    numbers: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls,
        model: Model,
        data: Sequence[PrefixedData],
        ignore: str | None = None,
        rename: Mapping[str, str] | None = None,
        newcomer: tuple[str, Model] | None = None,
    ) -> PatchData:
        """Return data for a patch of ``model``.

        Args:
            model: the classifier.
            data: may be empty.
            ignore: a class whose labels do not count.
            rename: prefixed name to new name.
            newcomer: its prefix and its model: what numbers of data with that prefix mean.
        """
        numbers: dict[str, Sequence[str]] = {"": numbering(model) or model.require_card().labels}
        if newcomer and newcomer[0] and (meaning := numbering(newcomer[1])):
            numbers[newcomer[0]] = meaning
        return cls(data, ignore, rename or {}, numbers)

    def split(self, name: str) -> Split:
        """Return one split of all data sets; classes of one name in the end are one class.

        Raises:
            GraftError: there is no such split, or names are needed and are not known.
        """
        part = joined_split(self.data, name, self.ignore, self.numbers)
        if part.class_names is None or not set(self.rename) & set(part.class_names):
            return part
        called = [self.rename.get(each, each) for each in part.class_names]
        unique = tuple(dict.fromkeys(called))
        numbers = np.array([unique.index(each) for each in called], np.int64)
        known = (part.labels >= 0) & (part.labels < len(called))
        labels = np.where(known, numbers[np.where(known, part.labels, 0)], part.labels)
        return replace(part, labels=labels, class_names=unique)

    def training(self) -> tuple[Split | None, str]:
        """Return the training samples; or why scores cannot be fitted to them.

        Raises:
            GraftError: data cannot be read, or cannot be joined.
        """
        missing = [each for each in self.data if TRAIN not in each.dataset.splits]
        if missing:
            source = missing[0].dataset.name
            return None, f"scores are not fitted to data: {source} has no training split"
        if not self.data:
            return None, ""
        part = self.split(TRAIN)
        if part.class_names is None:
            part = replace(part, class_names=tuple(self.numbers[""]))
        return part, ""


def prefixed_names(modules: Sequence[Model], prefixes: Sequence[str]) -> list[dict[str, str]]:
    """Return for each module the name of each class, and that name with the prefix of the module."""
    return [
        {name: prefixed(prefix, name) for name in origin_of(module).classes}
        for module, prefix in zip(modules, prefixes, strict=True)
    ]


def _numbers(modules: Sequence[Model], prefixes: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return by prefix what class numbers mean, where all modules of the prefix agree in that."""
    numbers: dict[str, Sequence[str]] = {}
    for prefix in set(prefixes):
        own = [module for module, each in zip(modules, prefixes, strict=True) if each == prefix]
        meanings = {numbering(module) for module in own}
        hashes = {record.graph_sha256 for module in own for record in origin_of(module).parents}
        (meaning, *others) = meanings
        if len(hashes) == 1 and meaning and not others:
            numbers[prefix] = meaning
    return numbers
