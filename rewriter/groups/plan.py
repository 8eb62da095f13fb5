"""A plan: which channels of which groups stay. A readable, editable, replayable JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graft.rewriter.arrays import Mask
from graft.rewriter.errors import GraftError
from graft.rewriter.groups.groups import ChannelGroups
from graft.rewriter.regular_files import read_regular

FORMAT = "graft/plan/1"
MOST_CHANNELS = 2**24
MOST_REPEATS = 10


@dataclass(frozen=True)
class Plan:
    """The kept channels of each group of a parent.

    Attributes:
        parent: graph hash of the parent (:meth:`graft.rewriter.graph.model.Model.graph_sha256`).
        kept: group name to one flag a channel. A group that is not named is kept whole.
        frozen: names of groups that were left alone.
        keep_layers: name of a group to the share of its channels that was asked for.
        label_source: of the statistics that it was made from: ``data``, or ``predictions`` of the parent.
        label_classes: the only classes that predictions were among; ``None``: all of the parent.
    """

    parent: str
    kept: dict[str, Mask]
    frozen: tuple[str, ...] = ()
    keep_layers: Mapping[str, float] = field(default_factory=dict)
    label_source: str = "data"
    label_classes: tuple[str, ...] | None = None

    @classmethod
    def of(cls, groups: ChannelGroups, mask: Mask, parent: str) -> Plan:
        """Make the plan of a mask.

        Args:
            groups: the analysis of the parent.
            mask: one flag a channel number: what stays.
            parent: graph hash of the parent.
        """
        return cls(parent, {group.name: mask[group.channels] for group in groups if group.cuttable.any()})

    def mask(self, groups: ChannelGroups) -> Mask:
        """Return the mask: one flag a channel number of ``groups``.

        Raises:
            GraftError: a group is unknown or of another size, or the plan cuts what is pinned.
        """
        mask = groups.everything()
        for name, kept in self.kept.items():
            if name not in groups:
                raise GraftError(
                    "plan-group",
                    f"the plan names a group {name} that the model does not have",
                    "use the plan with the model it was made for",
                )
            group = groups[name]
            if len(kept) != group.size:
                raise GraftError(
                    "plan-group",
                    f"the plan is for {len(kept)} channels of group {name}, the model has {group.size}",
                    "use the plan with the model it was made for",
                )
            mask[group.channels] = kept
        mask = groups.close(mask)
        groups.check(mask)
        return mask

    def counts(self) -> tuple[int, int]:
        """Return the numbers of channels kept and of all channels, over all groups."""
        return (
            sum(int(kept.sum()) for kept in self.kept.values()),
            sum(len(kept) for kept in self.kept.values()),
        )

    def ranges(self) -> dict[str, str]:
        """Return group name to the kept channels, as ``0-15,18``."""
        return {name: _ranges(kept) for name, kept in self.kept.items()}

    def sizes(self) -> dict[str, int]:
        """Return group name to its number of channels in the parent."""
        return {name: len(kept) for name, kept in self.kept.items()}

    # --------------------------------------------------------------- files

    def to_json(self) -> str:
        """Return ``{"format", "parent", "groups": {NAME: "0-15,18"}, "sizes": {NAME: 32}}``.

        Where layers were left alone or have shares of their own, also
        ``{"frozen": [NAME], "keep_layers": {NAME: 0.7}}``.
        """
        content: dict[str, object] = {
            "format": FORMAT,
            "parent": self.parent,
            "groups": self.ranges(),
            "sizes": self.sizes(),
            **({} if self.label_source == "data" else {"label_source": self.label_source}),
            **({} if self.label_classes is None else {"label_classes": list(self.label_classes)}),
        }
        if self.frozen or self.keep_layers:
            content |= {"frozen": list(self.frozen), "keep_layers": dict(self.keep_layers)}
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote, or a person edited.

        Raises:
            GraftError: no JSON, another format, or a range that is none.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise GraftError(
                    "plan-format",
                    f"expected a plan of format {FORMAT}, found {data['format']}",
                    "make the plan anew with 'graft plan', or update Graft",
                )
            sizes = {name: int(data["sizes"][name]) for name in data["groups"]}
            if sum(map(abs, sizes.values())) > MOST_CHANNELS:
                raise ValueError(f"groups of {sum(sizes.values())} channels together")
            kept = {name: _mask(ranges, sizes[name]) for name, ranges in data["groups"].items()}
            frozen = tuple(map(str, data.get("frozen", ())))
            shares = {str(name): float(share) for name, share in data.get("keep_layers", {}).items()}
            if not all(0 <= share <= 1 for share in shares.values()):
                raise ValueError("a share of channels that is not from 0 to 1")
            source = str(data.get("label_source", "data"))
            among = tuple(map(str, data["label_classes"])) if data.get("label_classes") is not None else None
            return cls(str(data["parent"]), kept, frozen, shares, source, among)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__} {error}"
            raise GraftError(
                "plan-unreadable",
                f"not a plan: {reason}",
                "make the plan anew with 'graft plan'",
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file.

        Raises:
            GraftError: the file cannot be read, or holds no plan.
        """
        try:
            text = read_regular(path).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise GraftError(
                "plan-unreadable", f"cannot read the plan {path}: {reason}", "check the path"
            ) from error
        return cls.from_json(text)


def _ranges(kept: Mask) -> str:
    """Return ``0-15,18`` for a mask.

    >>> _ranges(np.array([True, True, False, True]))
    '0-1,3'
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(np.int8), [0]])))
    pairs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return ",".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in pairs)


def _mask(ranges: str, size: int) -> Mask:
    """Read the mask that :func:`_ranges` wrote.

    >>> _mask("0-1,3", 4).tolist()
    [True, True, False, True]
    """
    if size <= 0:
        raise ValueError(f"a group of {size} channels")
    mask, painted = np.zeros(size, bool), 0
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < size:
            raise ValueError(f"range {part} outside 0-{size - 1}")
        painted += high - low + 1
        if painted > MOST_REPEATS * size:
            raise ValueError("ranges that name the same channels again and again")
        mask[low : high + 1] = True
    return mask
