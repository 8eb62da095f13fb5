"""Layers to leave alone, and shares of one's own: what stays of a channel group is said, not chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from graft.passes.base import Declined
from graft.passes.parent import Parent
from graft.passes.select.blocks import Fixed, Ranked, blocks_of
from graft.passes.select.node_groups import Named, groups_by_node
from graft.rewriter.arrays import Channels
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups, Group

FREEZE, KEEP_LAYER = "--freeze", "--keep-layer"
NEAREST = 3


@dataclass(frozen=True)
class LayerShares:
    """Channel groups of a parent that do not compete for the budget.

    Attributes:
        frozen: names of groups of which all channels stay.
        shares: name of a group to the share of its channels that stays.
        asked: the options that say so, as on the command line.
    """

    frozen: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    def fixed(self, ranked: Ranked, round_to: int) -> tuple[Fixed, tuple[Declined, ...]]:
        """Return the channels that stay and go whatever the budget, and shares that cannot be met.

        Of a group with a share the most important channels stay, dead ones last; at least one.

        Args:
            ranked: the channels.
            round_to: the kept number is the nearest to the share among numbers that leave out multiples
                of this.
        """
        groups, fixed = ranked.groups, Fixed.nothing(ranked.groups)
        for name in self.frozen:
            if name in groups:
                fixed.stays[groups[name].channels] = True
        blocks = blocks_of(ranked, round_to, fixed) if self.shares else []
        declined = []
        for name, share in self.shares.items():
            if name not in groups:
                continue
            group = groups[name]
            wanted = max(1.0, share * group.size)
            left = _prune(group, wanted, blocks, fixed)
            fixed.stays[group.channels] = ~fixed.goes[group.channels]
            if left > wanted + round_to / 2 and left > round_to:
                why = group.reason or "axes with several of them need one each"
                declined.append(Declined(name, f"{left} of {group.size} channels stay, not {share:g}: {why}"))
        return fixed, tuple(declined)


def _prune(group: Group, wanted: float, blocks: list[Channels], fixed: Fixed) -> int:
    """Prune blocks of a group until about ``wanted`` channels are left; return how many are."""
    left = group.size
    for block in blocks:
        own = block[np.isin(block, group.channels)]
        after = left - len(own)
        if len(own) and abs(after - wanted) < abs(left - wanted):
            fixed.goes[own] = True
            left = after
    return left


class _Rule(NamedTuple):
    """One use of an option."""

    flag: str
    pattern: str
    share: float

    def __str__(self) -> str:
        return f"{self.flag} {self.pattern}" + ("" if self.flag == FREEZE else f"={self.share:g}")


@dataclass(frozen=True)
class LayerRules:
    """What is asked for: layers to leave alone, and layers with a share of their own.

    A pattern is a glob, with capital and small letters told apart, over the names of the nodes of the
    parent's file and of its channel groups; a whole name beats the glob. A node means the groups of the
    channels that it gives out; where a pattern matches nodes that make channels, those that only hand some
    on, as Relu, Add and Concat do, do not count. Of several shares of one group the last one holds.

    Attributes:
        freeze: patterns of layers of which all channels stay.
        keep_layers: patterns with the share of each group's channels that stays.
    """

    freeze: tuple[str, ...] = ()
    keep_layers: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for pattern, share in self.keep_layers:
            if not 0 < share <= 1:
                raise GraftError(
                    "keep-layer-range",
                    f"{KEEP_LAYER} {pattern}={share:g}: the share has to lie above 0 and at most at 1 (100%)",
                    "use a share such as 0.7",
                )

    @classmethod
    def read(
        cls, freeze: Sequence[str], keep_layers: Sequence[tuple[str, float]] | Mapping[str, float]
    ) -> LayerRules:
        """Return the rules of what a caller gave: one pattern or several, pairs or a mapping.

        Raises:
            GraftError: a share is out of range.
        """
        shares = keep_layers.items() if isinstance(keep_layers, Mapping) else keep_layers
        patterns = (freeze,) if isinstance(freeze, str) else freeze
        return cls(tuple(patterns), tuple((str(pattern), float(share)) for pattern, share in shares))

    def __bool__(self) -> bool:
        return bool(self.freeze or self.keep_layers)

    def __iter__(self) -> Iterator[_Rule]:
        yield from (_Rule(FREEZE, pattern, 1.0) for pattern in self.freeze)
        yield from (_Rule(KEEP_LAYER, pattern, share) for pattern, share in self.keep_layers)

    def known_to(self, parent: Parent) -> LayerRules:
        """Return the rules whose patterns match something of ``parent``."""
        if not self:
            return self
        names = groups_by_node(parent)
        return LayerRules(
            tuple(pattern for pattern in self.freeze if _matches(pattern, names)),
            tuple(each for each in self.keep_layers if _matches(each[0], names)),
        )

    def of(self, parent: Parent) -> LayerShares:
        """Return the groups of ``parent`` that the patterns name.

        Raises:
            GraftError: a pattern matches nothing, or a share is for what cannot be pruned or is frozen.
        """
        if not self:
            return LayerShares()
        groups, names = parent.groups, groups_by_node(parent)
        frozen: dict[str, str] = {}
        shares: dict[str, float] = {}
        for rule in self:
            found = _groups_of(rule, names)
            if rule.flag == FREEZE:
                frozen.update((name, rule.pattern) for name in found)
                continue
            twice = next((name for name in found if name in frozen), None)
            if twice is not None:
                raise GraftError(
                    "keep-layer-frozen",
                    f"{rule} is for group {twice}, which {FREEZE} {frozen[twice]} leaves alone",
                    f"give one of them; the last {KEEP_LAYER} holds, so a later {KEEP_LAYER} "
                    f"{frozen[twice]}=1 is an exception",
                )
            able = found if rule.share == 1 else _prunable(rule, found, groups)
            shares.update(dict.fromkeys(able, rule.share))
        frozen.update((name, name) for name, share in shares.items() if share == 1)
        shares = {name: share for name, share in shares.items() if share < 1}
        return LayerShares(
            tuple(group.name for group in groups if group.name in frozen), shares, (*map(str, self),)
        )


def joined(rules: Sequence[LayerRules]) -> LayerRules:
    """Return rules that say what all of ``rules`` do; where they differ about a layer, the last one holds."""
    distinct = list(dict.fromkeys(each for each in rules if each))
    if len(distinct) < 2:
        return distinct[0] if distinct else LayerRules()
    if not any(each.keep_layers for each in distinct):
        return LayerRules(tuple(dict.fromkeys(pattern for each in distinct for pattern in each.freeze)))
    shares = [(*each.keep_layers, *((pattern, 1.0) for pattern in each.freeze)) for each in distinct]
    return LayerRules((), tuple(pair for pairs in shares for pair in pairs))


def _matches(pattern: str, names: Mapping[str, Named]) -> list[str]:
    """Return the names that a pattern means."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def _groups_of(rule: _Rule, names: Mapping[str, Named]) -> list[str]:
    """Return the groups that a rule names.

    Raises:
        GraftError: ``layer-unknown``.
    """
    matched = _matches(rule.pattern, names)
    if not matched:
        near = " or ".join(f"'{name}'" for name in _nearest(rule.pattern, list(names)))
        raise GraftError(
            "layer-unknown",
            f"{rule}: no node and no channel group is called so"
            + (f"; did you mean {near}?" if near else ""),
            "'graft inspect MODEL' lists the groups",
        )
    found = [names[name] for name in matched]
    found = [each for each in found if each.makes] or found
    return list(dict.fromkeys(group for each in found for group in each.groups))


def _nearest(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that are most like a pattern: that hold much of it, in capital or small letters."""
    words = [word for word in re.split(r"[*?\[\]]+", pattern.lower()) if word] or [pattern]
    matcher = SequenceMatcher(autojunk=False)

    def likeness(name: str) -> float:
        matcher.set_seq2(name.lower())
        found = 0
        for word in words:
            matcher.set_seq1(word)
            found += sum(match.size for match in matcher.get_matching_blocks() if match.size * 3 >= len(word))
        return found / max(1, sum(map(len, words))) - len(name) / 1000

    return sorted(names, key=likeness, reverse=True)[:NEAREST]


def _prunable(rule: _Rule, found: list[str], groups: ChannelGroups) -> list[str]:
    """Return those of ``found`` of which something can be pruned.

    Raises:
        GraftError: ``keep-layer-pinned`` where there is none.
    """
    able = [name for name in found if groups[name].cuttable.any()]
    if not able:
        reasons = dict.fromkeys(f"{name}: {groups[name].reason}" for name in found)
        why = "; ".join(list(reasons)[:NEAREST]) or "its nodes give out no channels"
        raise GraftError(
            "keep-layer-pinned",
            f"{rule}: nothing of it can be pruned: {why}",
            "leave it out, or name other layers; 'graft inspect MODEL' lists what can be pruned",
        )
    return able
