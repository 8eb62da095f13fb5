"""What classes of modules, and of data, are called in a composite: prefixes and new names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graft.rewriter.data.split import Split
from graft.rewriter.errors import GraftError
from graft.rewriter.graph.model import Model
from graft.rewriter.record.provenance import numbering, origin_of
from graft.tools.options import Prefixed, split_of


@dataclass(frozen=True)
class Naming:
    """Names of the classes of a composite.

    Attributes:
        modules: for each module, what its classes are called.
        data: what classes of data are called that follow ``--rename``; their prefixes come before.
        numbers: prefix to what class numbers of data without names mean, where one parent is behind it.
    """

    modules: list[dict[str, str]]
    data: Mapping[str, str]
    numbers: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, modules: Sequence[Model], named: Sequence[Prefixed], rename: Sequence[str]) -> Naming:
        """Prefixes first, then all of ``rename`` (``A=B``) at once.

        Raises:
            GraftError: no module is for A, or A is renamed twice.
        """
        called = [
            {name: each.name(name) for name in origin_of(module).classes}
            for module, each in zip(modules, named, strict=True)
        ]
        known = [name for names in called for name in names.values()]
        asked: dict[str, str] = {}
        for text in rename:
            old, new = parsed(text, known)
            if old in asked:
                raise GraftError("rename", f"--rename {text}: class '{old}' is renamed twice", "say it once")
            asked[old] = new
        found = [dict(names) for names in called]
        for old, new in asked.items():
            owner = max(number for number, names in enumerate(called) if old in names.values())
            found[owner].update({name: new for name, now in called[owner].items() if now == old})
        data = {old: new for old, new in asked.items() if known.count(old) == 1}
        numbers: dict[str, Sequence[str]] = {}
        for prefix in {each.prefix for each in named}:
            own = [module for module, each in zip(modules, named, strict=True) if each.prefix == prefix]
            meanings = {numbering(module) for module in own}
            hashes = {record.graph_sha256 for module in own for record in origin_of(module).parents}
            (meaning, *others) = meanings
            if len(hashes) == 1 and meaning and not others:
                numbers[prefix] = meaning
        return cls(found, data, numbers)

    def split(self, data: Sequence[Prefixed], split: str, ignore: str | None) -> Split:
        """A split of all data sets, whose classes follow those of the modules.

        A class of the data whose name now belongs to another one is no class of the composite.
        """
        part = split_of(data, split, None, self.numbers)
        names = part.class_names
        if names is None:
            return replace(part, ignore=ignore)
        taken = {self.data[name] for name in names if name in self.data}
        now = tuple(self.data.get(name, f"({name})" if name in taken else name) for name in names)
        if ignore is not None and ignore not in names:
            prefixed = [each.name(ignore) for each in data if each.name(ignore) in names]
            ignore = prefixed[0] if len(prefixed) == 1 else ignore
        return replace(part, class_names=now, ignore=self.data.get(ignore, ignore) if ignore else None)


def parsed(text: str, known: Sequence[str]) -> tuple[str, str]:
    """A and B of ``A=B``, where A is a class; names may hold the sign."""
    places = [place for place, letter in enumerate(text) if letter == "="]
    for place in places:
        if text[:place] in known and text[place + 1 :]:
            return text[:place], text[place + 1 :]
    hint = "classes are " + ", ".join(known)
    if not places or text.endswith("=") or text.startswith("="):
        raise GraftError("rename", f"--rename {text} is not A=B", hint)
    raise GraftError("rename", f"--rename {text}: no module is for class '{text[: places[0]]}'", hint)
